"""RegAD's spatial transformers, Siamese heads and views, each against grids and numbers made by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tabzoo.detectors.extractor import FeatureExtractor, build_extractor
from tabzoo.detectors.regad_network import (
    Registration,
    SiameseHeads,
    SpatialTransformer,
    inverse,
    registration_loss,
    sample,
    warp,
)
from tabzoo.detectors.regad_views import VIEWS, support_views
from tabzoo.errors import InputError

ANGLE, SCALE_X, SCALE_Y = 0.3, 1.2, 0.8
MATRIX = [[math.cos(ANGLE) * SCALE_X, -math.sin(ANGLE)], [math.sin(ANGLE), math.cos(ANGLE) * SCALE_Y]]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def looked_up(images: Tensor, matrix: list[list[float]], shift: tuple[float, float] = (0, 0)) -> Tensor:
    """Every target pixel asks for a point of the source; the grid is written out pixel by pixel."""
    height, width = images.shape[2:]
    grid = torch.empty(height, width, 2)
    for row in range(height):
        for column in range(width):
            x, y = (2 * column + 1) / width - 1, (2 * row + 1) / height - 1
            for axis in range(2):
                grid[row, column, axis] = matrix[axis][0] * x + matrix[axis][1] * y + shift[axis]
    grid = grid.expand(len(images), -1, -1, -1)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def turning(transformer: SpatialTransformer, *parameters: float) -> None:
    with torch.no_grad():
        transformer.regress[-1].bias.copy_(torch.tensor(parameters))  # type: ignore[operator]


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return build_extractor("random", layers=("/4", "/8", "/16"), seed=3)


def test_transformer_warps_by_its_matrix() -> None:
    maps, transformer = noise(2, 5, 9, 13), SpatialTransformer(5, (9, 13)).eval()
    warped, theta = transformer(maps)
    assert torch.allclose(warped, maps, atol=1e-5)  # a new one
    assert torch.equal(theta, torch.eye(2, 3).expand(2, 2, 3))
    turning(transformer, ANGLE, SCALE_X, SCALE_Y)
    warped, theta = transformer(maps)
    assert torch.allclose(theta[0], F.pad(torch.tensor(MATRIX), (0, 1)), atol=1e-6)
    assert torch.allclose(warped, looked_up(maps, MATRIX), atol=1e-4)
    assert not torch.allclose(warped, maps, atol=0.1)


@pytest.mark.parametrize(("side", "flat"), [(56, 14), (28, 7), (14, 4)])
def test_heads_have_the_reference_s_sizes(side: int, flat: int) -> None:
    assert SpatialTransformer(8, (side, side)).regress[0].in_features == 16 * flat**2


@pytest.mark.parametrize("shape", [(3, 5, 9, 13), (2, 4, 3, 3)])
@pytest.mark.parametrize("scale", [1e-3, 0.4, 3.0])
def test_samples_for_a_gpu_are_torchs(shape: tuple[int, int, int, int], scale: float) -> None:
    """Values and gradients, also far beyond the border, where images are mirrored several times."""
    theta = torch.eye(2, 3) + scale * noise(shape[0], 2, 3, seed=1)
    found = []
    for function in (sample, lambda *args: F.grid_sample(*args, padding_mode="reflection", align_corners=False)):
        maps, grid = noise(*shape), F.affine_grid(theta, list(shape), align_corners=False)
        inputs = maps.requires_grad_(), grid.requires_grad_()
        warped = function(*inputs)
        found.append((warped, *torch.autograd.grad((warped * noise(*shape, seed=2)).sum(), inputs)))
    for ours, torchs in zip(*found, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-3, atol=1e-3)


def test_no_gradient_at_the_border() -> None:
    """The corners of the outermost pixels are mirrored to their centres, where `F.grid_sample` has no slope either."""
    x = torch.tensor([-1.0, -0.9, -0.8, 0.0, 0.8, 0.9, 1.0], requires_grad=True)
    grid = torch.stack([x, torch.zeros_like(x)], dim=-1)[None, None]
    (slope,) = torch.autograd.grad(sample(noise(1, 1, 5, 5), grid).sum(), x)
    assert (slope != 0).tolist() == [False, False, False, True, False, False, False]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e38])
def test_samples_where_a_training_diverged(value: float) -> None:
    maps, grid = noise(1, 2, 4, 4).requires_grad_(), torch.zeros(1, 4, 4, 2)
    grid[0, 1, 2, 0] = value
    warped = sample(maps, grid)
    warped.sum().backward()
    assert warped[0, :, 1, 2].isnan().all() or value == 1e38
    assert int(warped.isnan().sum()) <= 2


def test_training_with_the_samples_for_a_gpu(extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same gradients of all weights, of new transformers and of others."""
    images = noise(2, 3, 64, 64)
    for turn in (0.0, 0.2):
        torch.manual_seed(0)
        network, gradients = Registration(extractor, [(16, 16), (8, 8), (4, 4)]).eval(), []
        for transformer in network.transformers:
            turning(transformer, turn, 1 + turn, 1 - turn)  # type: ignore[arg-type]
            torch.nn.init.normal_(transformer.regress[-1].weight, std=turn / 50)  # type: ignore[union-attr, index, arg-type]
        for ours in (False, True):
            if ours:
                monkeypatch.setattr(F, "grid_sample", lambda maps, grid, **_: sample(maps, grid))
            network.zero_grad()
            network(images).square().mean().backward()
            gradients.append([weight.grad for weight in network.parameters() if weight.grad is not None])
        monkeypatch.undo()
        assert len(gradients[0]) == len(gradients[1])
        for one, other in zip(*gradients, strict=True):
            assert float((one - other).norm()) <= 1e-3 * float(one.norm()) + 1e-6


def test_inverse_undoes_a_warp() -> None:
    theta = F.pad(torch.tensor([MATRIX, [[2.0, 0.0], [0.0, 0.5]]]), (0, 1))
    (a, b), (c, d) = MATRIX
    by_hand = torch.tensor([[d, -b, 0], [-c, a, 0]]) / (a * d - b * c)
    back = inverse(theta)
    assert torch.allclose(back[0], by_hand, atol=1e-6)
    assert torch.allclose(back[1], torch.tensor([[0.5, 0, 0], [0, 2, 0]]))
    x, y = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="xy")
    smooth = torch.stack([torch.sin(2 * x + y), torch.cos(x - 2 * y)])[None]
    there_and_back = warp(warp(smooth, theta[:1]), back[:1])
    centre = (..., slice(24, 40), slice(24, 40))
    assert torch.allclose(there_and_back[centre], smooth[centre], atol=0.01)
    assert not torch.allclose(warp(smooth, theta[:1])[centre], smooth[centre], atol=0.1)


def test_maps_go_through_stages_and_transformers_and_back(extractor: FeatureExtractor) -> None:
    images = noise(2, 3, 64, 64)
    plain = list(extractor(images).values())
    network = Registration(extractor, [(16, 16), (8, 8), (4, 4)]).eval()
    for ours, theirs in zip(network.unwarped(images), plain, strict=True):  # as long as transformers are new
        assert torch.allclose(ours, theirs, atol=1e-3)
    turns = ((0.3, 1.1, 0.9), (-0.2, 0.9, 1.0), (0.1, 1.0, 1.2))
    for transformer, parameters in zip(network.transformers, turns, strict=True):
        turning(transformer, *parameters)  # type: ignore[arg-type]
    maps, undo, body = images, [], network.body
    for name in ("conv1", "bn1", "act1", "maxpool"):
        maps = getattr(body, name)(maps)
    for name, (angle, x, y), ours in zip(("layer1", "layer2", "layer3"), turns, network.unwarped(images), strict=True):
        matrix = np.array([[math.cos(angle) * x, -math.sin(angle)], [math.sin(angle), math.cos(angle) * y]])
        maps = expected = looked_up(getattr(body, name)(maps), matrix.tolist())
        undo.append(np.linalg.inv(matrix))
        for back in reversed(undo):
            expected = looked_up(expected, back.tolist())
        assert torch.allclose(ours, expected, atol=1e-3)
    assert torch.allclose(network(images), maps, atol=1e-3)
    assert all(
        torch.equal(a, b) for a, b in zip(extractor(images).values(), plain, strict=True)
    )  # only a copy is changed


def test_everything_is_trained(extractor: FeatureExtractor) -> None:
    network, heads = Registration(extractor, [(16, 16), (8, 8), (4, 4)]).train(), SiameseHeads(256)
    for last in (one.regress[-1] for one in network.transformers):  # type: ignore[index, union-attr]
        last.weight.data.normal_(std=1e-3)
    for norm in network.body.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.weight.data.fill_(1)  # random backbones start with residual branches that are switched off
    registration_loss(heads(network(noise(3, 3, 64, 64))), heads(network(noise(3, 3, 64, 64, seed=1)))).backward()
    parameters = [*network.named_parameters(), *heads.named_parameters()]
    assert [name for name, one in parameters if one.grad is None or not one.grad.any()] == []


def test_a_backbone_whose_stages_do_not_follow_one_another() -> None:
    other = build_extractor("random:test_efficientnet", layers=("/4",))
    with pytest.raises(InputError, match="--method regad.*Choose a ResNet"):
        Registration(other, [(8, 8)])


def test_maps_that_are_too_small(extractor: FeatureExtractor) -> None:
    with pytest.raises(InputError, match="maps of 2 x 2 are too small.*Raise --resize and --crop"):
        Registration(extractor, [(8, 8), (4, 4), (2, 2)])
    network = Registration(extractor, [(12, 12), (6, 6), (3, 3)]).train()
    assert network(noise(1, 3, 48, 48)).isfinite().all()


def cosine(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    values = []
    for i, row, column in np.ndindex(first.shape[0], *first.shape[2:]):
        a, b = first[i, :, row, column], second[i, :, row, column]
        values.append(a @ b / np.sqrt((a @ a) * (b @ b)))
    return float(np.mean(values))


def test_loss_and_what_is_held_fixed() -> None:
    z1, p1, z2, p2 = (noise(2, 6, 3, 4, seed=seed).double().requires_grad_() for seed in range(4))
    loss = registration_loss((z1, p1), (z2, p2))
    arrays = [one.detach().numpy() for one in (z1, p1, z2, p2)]
    assert loss.item() == pytest.approx(-(cosine(arrays[1], arrays[2]) + cosine(arrays[3], arrays[0])) / 2, abs=1e-6)
    loss.backward()
    assert z1.grad is None
    assert z2.grad is None
    assert p1.grad is not None
    step = np.zeros_like(arrays[1])
    step[1, 2, 0, 3] = 1e-5
    slope = (cosine(arrays[1] - step, arrays[2]) - cosine(arrays[1] + step, arrays[2])) / 2 / 2e-5
    assert p1.grad[1, 2, 0, 3].item() == pytest.approx(slope, abs=1e-6)


def test_22_views() -> None:
    images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    views = support_views(images).unflatten(0, (VIEWS, 2))
    assert len(views) == VIEWS == 22
    assert torch.equal(views[0], images)
    turns = [sign * degrees for sign in (-1, 1) for degrees in (45, 33.75, 22.5, 11.25)]
    for view, degrees in zip(views[1:9], turns, strict=True):
        cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        assert torch.allclose(view, looked_up(images, [[cosine, -sine], [sine, cosine]]), atol=1e-4)
    shifts = [(x * size, y * size) for size in (0.2, 0.1) for x in (-1, 1) for y in (-1, 1)]
    for view, shift in zip(views[9:17], shifts, strict=True):
        assert torch.allclose(view, looked_up(images, [[1, 0], [0, 1]], shift), atol=1e-4)
    flipped, grey, *quarters = (view.numpy() for view in views[17:])
    pixels = images.numpy()
    assert np.array_equal(flipped, pixels[..., ::-1])
    weighted = 0.299 * pixels[:, 0] + 0.587 * pixels[:, 1] + 0.114 * pixels[:, 2]
    assert all(np.allclose(grey[:, channel], weighted, atol=1e-6) for channel in range(3))
    for count, view in enumerate(quarters, start=1):
        assert np.array_equal(view, np.rot90(pixels, count, axes=(2, 3)))
