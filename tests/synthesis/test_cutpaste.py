"""CutPaste: the pieces, their places and their colours, pasted one by one and all at once."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from tabzoo.synthesis import CutPaste, CutPasteSettings
from tabzoo.synthesis.colour import GREY, colour_matrix
from tabzoo.synthesis.cutpaste import _paste_all, _paste_each

COUNT = 20_000


def test_without_jitter_the_piece_is_a_copy(images: Tensor, class_ids: Tensor) -> None:
    method = CutPaste(class_ids, 224, 224, CutPasteSettings(jitter=0.0))
    params = method.draw(0, 0, torch.arange(32))
    abnormal, mask = method.apply(images, images, params)
    for i, ((y, x, h, w), (top, left, height, width)) in enumerate(
        zip(params.cut[:, 0].tolist(), params.paste[:, 0].tolist(), strict=True)
    ):
        assert (h, w) == (height, width)
        expected = images[i].clone()
        expected[:, top : top + h, left : left + w] = images[i, :, y : y + h, x : x + w]
        assert torch.equal(abnormal[i], expected)
        outside = mask[i, 0].clone()
        outside[top : top + h, left : left + w] = False
        assert not outside.any()


@pytest.mark.parametrize("variant", ["patch", "scar", "union"])
def test_one_by_one_equals_all_at_once(images: Tensor, class_ids: Tensor, variant: str) -> None:
    """The code for CPUs and the code for GPUs, both on the CPU."""
    method = CutPaste(class_ids, 224, 224, CutPasteSettings(variant=variant))  # type: ignore[arg-type]
    for epoch in range(4):
        params = method.draw(1, epoch, torch.arange(32))
        cut, paste = params.cut[:, 0], params.paste[:, 0]
        made = [(images.clone(), torch.zeros(32, 1, 224, 224, dtype=torch.bool)) for _ in range(2)]
        _paste_each(*made[0], images, cut, paste, params)
        _paste_all(*made[1], images, cut, paste, params, method._largest)
        difference = (made[0][0].int() - made[1][0].int()).abs()
        assert difference.max() <= 1
        assert (difference > 0).float().mean() < 1e-5
        assert (made[0][1] != made[1][1]).float().mean() < 1e-5


@pytest.mark.parametrize(("level", "visible"), [(101, False), (102, True)])
def test_a_mean_change_of_one_level_is_not_in_the_mask(class_ids: Tensor, level: int, visible: bool) -> None:
    params = CutPaste(class_ids, 64, 64, CutPasteSettings(jitter=0.0)).draw(0, 0, torch.arange(4))
    for paste in (_paste_each, lambda *arguments: _paste_all(*arguments, 64 * 64)):
        images, mask = torch.full((4, 3, 64, 64), 100, dtype=torch.uint8), torch.zeros(4, 1, 64, 64, dtype=torch.bool)
        paste(images, mask, torch.full_like(images, level), params.cut[:, 0], params.paste[:, 0], params)
        assert torch.equal(mask, (images > 100).all(1, keepdim=True) & visible)


def test_a_scar_is_a_rotated_piece(class_ids: Tensor) -> None:
    """A black piece in a white image: it covers as many pixels as the piece has, at the drawn angle."""
    settings = CutPasteSettings(variant="scar", jitter=0.0, scar_width=(8, 8), scar_height=(30, 30))
    method = CutPaste(class_ids, 224, 224, settings)
    params = method.draw(0, 0, torch.arange(300))
    white = torch.full((300, 3, 224, 224), 255, dtype=torch.uint8)
    mask = method.apply(white, torch.zeros_like(white), params).mask[:, 0]
    assert mask.flatten(1).sum(1).float().sub(240).abs().max() <= 16
    for i in range(0, 300, 10):
        y, x = (c - c.double().mean() for c in torch.nonzero(mask[i]).unbind(1))
        slope = 0.5 * math.atan2(2 * float((x * y).mean()), float((y * y).mean() - (x * x).mean()))
        drawn = math.atan2(float(params.rotation[i, 1]), float(params.rotation[i, 0]))
        assert abs(slope) == pytest.approx(abs(drawn), abs=0.1)


def test_sizes_and_places_are_distributed_as_documented(class_ids: Tensor) -> None:
    params = CutPaste(class_ids, 224, 224).draw(0, 0, torch.arange(COUNT))
    height, width = params.cut[:, 0, 2].double().numpy(), params.cut[:, 0, 3].double().numpy()
    generator = np.random.default_rng(0)
    area, aspect = generator.uniform(0.02, 0.09, COUNT) * 224**2, np.exp(generator.uniform(-1, 1, COUNT) * np.log(5))
    expected = np.sqrt([area / aspect, area * aspect]).round()
    for ours, plain in ((height, expected[0]), (width, expected[1]), (height * width, expected[0] * expected[1])):
        assert scipy.stats.ks_2samp(ours, plain).pvalue > 1e-3
    jitter = generator.random((2, COUNT))
    for k, boxes in enumerate((params.cut, params.paste)):
        assert int((boxes[:, 0, :2] + boxes[:, 0, 2:]).max()) == 224
        fraction = (boxes[:, 0, 0].numpy() + jitter[k]) / (225 - height)
        assert scipy.stats.kstest(fraction, "uniform").pvalue > 1e-3


def test_scars_and_patches_are_equally_often(class_ids: Tensor) -> None:
    params = CutPaste(class_ids, 224, 224, CutPasteSettings(variant="union")).draw(0, 0, torch.arange(COUNT))
    scars = params.rotation[:, 1] != 0
    assert scipy.stats.binomtest(int(scars.sum()), COUNT, 0.5).pvalue > 1e-3
    sizes = params.cut[scars, 0, 2:]
    assert (sizes.amin(0).tolist(), sizes.amax(0).tolist()) == ([10, 2], [25, 16])
    angle = torch.rad2deg(torch.atan2(params.rotation[scars, 1], params.rotation[scars, 0]))
    assert scipy.stats.kstest(angle.numpy() / 90 + 0.5, "uniform").pvalue > 1e-3


def test_colours_and_all_else_are_drawn_as_documented(class_ids: Tensor) -> None:
    """The four factors, recovered from matrix and lift, have their distribution and are independent of all other draws."""
    params = CutPaste(class_ids, 224, 224, CutPasteSettings(variant="scar")).draw(0, 0, torch.arange(COUNT))
    colours, lift = params.colours.double(), params.lift.double()
    gain = colours.sum(2)[:, 0]  # brightness times contrast
    colours /= gain[:, None, None]
    brightness = gain + lift
    saturation = torch.linalg.det(colours).sqrt()  # hue is a rotation, and saturation scales two of three axes
    grey = torch.tensor(GREY, dtype=torch.float64).expand(3, 3)
    rotation = colours @ torch.linalg.inv(torch.lerp(grey, torch.eye(3).double(), saturation[:, None, None]))
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3).double(), atol=1e-4)  # so saturation comes first
    sine, cosine = 3**0.5 / 2 * (rotation[:, 2, 1] - rotation[:, 1, 2]), (rotation.diagonal(0, 1, 2).sum(1) - 1) / 2
    factors = torch.stack([brightness, gain / brightness, saturation, 1 + torch.atan2(sine, cosine) / (2 * math.pi)])
    for factor in factors:
        assert scipy.stats.kstest((factor.numpy() - 0.9) / 0.2, "uniform").pvalue > 1e-3
    places = [box[:, 0, :2] / (224 - box[:, 0, 2:]) for box in (params.cut, params.paste)]
    others = [torch.atan2(*params.rotation.t().flip(0))[:, None], params.cut[:, 0, 2:], *places]
    series = torch.cat([factors, *(other.t().double() for other in others)])
    assert (torch.corrcoef(series) - torch.eye(11)).abs().max() < 5 / COUNT**0.5


def test_colours_are_torchvisions(images: Tensor) -> None:
    """Brightness, contrast and saturation, in this order; torchvision's hue is not a matrix."""
    images = (images[:8] * 0.6 + 50).to(torch.uint8)  # away from the ends, where torchvision clips in between
    method = CutPaste(torch.zeros(8, dtype=torch.int64), 224, 224)
    factors = np.random.default_rng(0).uniform(0.9, 1.1, (8, 3))
    brightness, contrast, saturation = torch.from_numpy(factors).float().unbind(1)
    params = dataclasses.replace(
        method.draw(0, 0, torch.arange(8)),
        colours=colour_matrix(saturation, torch.zeros(8)) * (brightness * contrast)[:, None, None],
        lift=brightness * (1 - contrast),
    )
    made = method.apply(images, images, params).abnormal
    for i in range(8):
        (y, x, h, w), (top, left, _, _) = params.cut[i, 0].tolist(), params.paste[i, 0].tolist()
        piece = TF.adjust_brightness(images[i, :, y : y + h, x : x + w] / 255, factors[i, 0])
        expected = TF.adjust_saturation(TF.adjust_contrast(piece, factors[i, 1]), factors[i, 2])
        assert (made[i, :, top : top + h, left : left + w] - 255 * expected).abs().max() < 1


def test_hue_rotates_around_the_grey_axis() -> None:
    third = colour_matrix(torch.ones(1), torch.full((1,), 1 / 3))[0]
    assert torch.allclose(third @ torch.eye(3), torch.eye(3).roll(1, 0), atol=1e-6)  # red -> green -> blue -> red
    any_ = colour_matrix(torch.tensor([0.7]), torch.tensor([0.08]))[0]
    assert torch.allclose(any_ @ torch.ones(3), torch.ones(3), atol=1e-6)
