"""RegAD's spatial transformers, Siamese heads and training, each against the same written out from the weights."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabzoo.detectors import DETECTORS, ImageBatches
from tabzoo.detectors.extractor import build_extractor
from tabzoo.detectors.regad import Regad, RegadSettings, episodes
from tabzoo.detectors.regad_network import Registration, SiameseHeads, SpatialTransformer

State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def images(count: int, seed: int) -> Tensor:
    return torch.rand(count, 3, 48, 48, generator=torch.Generator().manual_seed(seed))


def state_of(module: nn.Module) -> State:
    """Copies of its weights, ready to be trained, and of its batch-norms' statistics."""
    state = {name: value.clone() for name, value in module.state_dict().items() if "num_batches" not in name}
    for name, _ in module.named_parameters():
        state[name].requires_grad_()
    return state


def plain_norm(maps: Tensor, state: State, name: str) -> Tensor:
    mean, var, weight, bias = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(maps, mean, var, weight, bias, training=True)


def plain_transformer(maps: Tensor, state: State) -> tuple[Tensor, Tensor]:
    """Warped maps and by what: twice conv 3 x 3, batch-norm, ReLU, pooling; two layers to a rotation and two scales."""
    small = maps
    for conv, norm in (("locate.0", "locate.1"), ("locate.4", "locate.5")):
        small = F.conv2d(small, state[f"{conv}.weight"], padding=1)
        small = F.max_pool2d(plain_norm(small, state, norm).relu(), kernel_size=3, stride=2, padding=1)
    hidden = F.linear(small.flatten(1), state["regress.0.weight"], state["regress.0.bias"]).relu()
    angle, scale_x, scale_y = F.linear(hidden, state["regress.2.weight"], state["regress.2.bias"]).T
    theta = torch.zeros(len(maps), 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = angle.cos() * scale_x, -angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = angle.sin(), angle.cos() * scale_y
    grid = F.affine_grid(theta, list(maps.shape), align_corners=False)
    return F.grid_sample(maps, grid, padding_mode="reflection", align_corners=False), theta


def plain_heads(maps: Tensor, state: State) -> tuple[Tensor, Tensor]:
    """Convolutions 1 x 1 without bias, a batch-norm and a ReLU after each but an encoder's and a predictor's last."""
    for name, norm in (("encode.0", "encode.1"), ("encode.3", "encode.4")):
        maps = plain_norm(F.conv2d(maps, state[f"{name}.weight"]), state, norm).relu()
    encoded = F.conv2d(maps, state["encode.6.weight"])
    hidden = plain_norm(F.conv2d(encoded, state["predict.0.weight"]), state, "predict.1").relu()
    return encoded, F.conv2d(hidden, state["predict.3.weight"])


def test_a_transformer_written_out() -> None:
    maps = torch.randn(4, 8, 12, 10, generator=torch.Generator().manual_seed(0))
    transformer = SpatialTransformer(8, (12, 10)).train()
    nn.init.normal_(transformer.regress[-1].weight, std=0.02)  # type: ignore[arg-type]
    state = state_of(transformer)
    for _ in range(2):
        warped, theta = transformer(maps)
        expected, matrices = plain_transformer(maps, state)
        assert float(theta.detach().std(dim=0)[:, :2].min()) > 0.01  # each its own
        torch.testing.assert_close(theta, matrices, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(warped, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(state_of(transformer), state, rtol=1e-5, atol=1e-6)


def test_transforms_have_more_digits_than_bfloat16() -> None:
    transformer = SpatialTransformer(8, (12, 10))
    with torch.no_grad():
        transformer.regress[-1].bias.copy_(torch.tensor([0.0, 1.0015, 0.9985]))  # type: ignore[union-attr, operator]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, theta = transformer(torch.rand(2, 8, 12, 10))
    torch.testing.assert_close(theta[:, 0, 0], torch.full((2,), 1.0015), rtol=1e-6, atol=0)
    torch.testing.assert_close(theta[:, 1, 1], torch.full((2,), 0.9985), rtol=1e-6, atol=0)


def test_heads_written_out() -> None:
    maps = torch.randn(3, 12, 5, 4, generator=torch.Generator().manual_seed(0))
    heads = SiameseHeads(12).train()
    state = state_of(heads)
    for found, expected in zip(heads(maps), plain_heads(maps, state), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state_of(heads), state, rtol=1e-5, atol=1e-6)


def test_training_written_out(batches: Callable[[Sequence[Tensor]], ImageBatches]) -> None:
    """Three epochs of two episodes, each epoch at its rate; the heads, which nobody keeps, show in what the others learn."""
    extractor = build_extractor("random:test_resnet", layers=DETECTORS["regad"].layers, seed=3)
    untouched, classes = extractor.sha256(), [images(3, 1), images(2, 2)]
    regad = Regad(extractor, 7, RegadSettings(epochs=3, batch_size=3, lr=0.01))
    regad.meta_train([batches([one]) for one in classes], 2)

    torch.manual_seed(7)
    network, new_heads = Registration(extractor, [(12, 12), (6, 6), (3, 3)]), SiameseHeads(192)
    body = copy.deepcopy(extractor.body).requires_grad_(True).train()
    transformers, heads = [state_of(one) for one in network.transformers], state_of(new_heads)
    weights = [one for state in (*transformers, heads) for one in state.values() if one.requires_grad]
    weights += body.parameters()
    velocities = [torch.zeros_like(one) for one in weights]

    def register(batch: Tensor) -> Tensor:
        maps = body.maxpool(body.act1(body.bn1(body.conv1(batch))))
        for stage, state in zip((body.layer1, body.layer2, body.layer3), transformers, strict=True):
            maps, _ = plain_transformer(stage(maps), state)
        return maps

    generator = torch.Generator().manual_seed(7)
    for rate in (0.01 * 0.5 * (1 + math.cos(math.pi * epoch / 3)) for epoch in (1, 2, 3)):
        for class_id, queries, supports in episodes((3, 2), 2, 3, generator):
            query, support = (register(classes[class_id][rows]) for rows in (queries, supports.flatten()))
            support = support.view(len(queries), 2, *query.shape[1:]).mean(dim=1)
            (z1, p1), (z2, p2) = plain_heads(query, heads), plain_heads(support, heads)
            loss = -(F.cosine_similarity(p1, z2.detach()).mean() + F.cosine_similarity(p2, z1.detach()).mean()) / 2
            gradients = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                for weight, velocity, gradient in zip(weights, velocities, gradients, strict=True):
                    velocity.mul_(0.9).add_(gradient)
                    weight.sub_(rate * velocity)

    assert regad.network is not None
    assert not regad.network.training
    check(regad.network.body, state_of(body), extractor.body)
    for ours, state, new in zip(regad.network.transformers, transformers, network.transformers, strict=True):
        check(ours, state, new)
    # The extractor's own weights stay.
    assert extractor.sha256() == untouched
    assert not any(weight.requires_grad for weight in extractor.body.parameters())


@torch.no_grad()
def check(ours: nn.Module, expected: State, new: nn.Module) -> None:
    """Weights and statistics are where they should be, but for little of their way from those of a new one."""
    start, found = state_of(new), state_of(ours)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        way = float((expected[name] - start[name]).norm())
        assert float((value - expected[name]).norm()) <= 0.05 * way + 1e-7, name
