"""SimpleNet: its embedding, its loss and its noise against plain references, and small runs."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from tabzoo.benchmark.options import Options
from tabzoo.detectors import DETECTORS, ImageBatches
from tabzoo.detectors.extractor import FeatureExtractor, build_extractor
from tabzoo.detectors.patches import embed
from tabzoo.detectors.simplenet import Simplenet, SimplenetSettings, margin_loss, with_noise
from tabzoo.errors import InputError

pytestmark = pytest.mark.usefixtures("sketches")
MakeBatches = Callable[..., ImageBatches]
MakeOptions = Callable[..., Options]


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return build_extractor("random:test_resnet", layers=DETECTORS["simplenet"].layers, seed=3)


def pictures(count: int, *, seed: int, side: int = 64) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def small(**changes: object) -> SimplenetSettings:
    return SimplenetSettings(**({"hidden": 32, "batch_size": 4, "meta_epochs": 3, "gan_epochs": 2} | changes))  # type: ignore[arg-type]


def plain_embedding(layers: list[Tensor], width: int) -> Tensor:
    """The public code's order of things: upsample patches with all their numbers, then pool each one, [N, width]."""
    size, patches = layers[0].shape[-2:], []
    for layer in layers:
        batch, channels, height, width_ = layer.shape
        unfolded = F.unfold(layer, 3, padding=1).view(batch, channels * 9, height, width_)
        if (height, width_) != size:
            unfolded = F.interpolate(unfolded, size=size, mode="bilinear", align_corners=False)
        patches.append(unfolded.permute(0, 2, 3, 1).reshape(-1, 1, channels * 9))
    each = torch.stack([F.adaptive_avg_pool1d(layer, width)[:, 0] for layer in patches], dim=1)
    return F.adaptive_avg_pool1d(each.flatten(1)[:, None], width)[:, 0]


@pytest.mark.parametrize("width", [24, 36, 20])  # 20 does not divide the numbers of a patch: windows overlap
def test_embedding_against_the_plain_order(width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    layers = [torch.randn(2, c, *side, generator=generator) for c, side in ((8, (7, 6)), (16, (4, 3)))]
    found = embed(layers, width)
    assert found.shape == (2, 7, 6, width)
    torch.testing.assert_close(found.flatten(0, 2), plain_embedding(layers, width), rtol=1e-5, atol=1e-6)


def test_widths_and_shapes(extractor: FeatureExtractor) -> None:
    simplenet = Simplenet(extractor, 0)
    assert simplenet.settings["width"] == 48 + 192
    assert [tuple(layer.shape) for layer in extractor(pictures(1, seed=0, side=96)).values()] == [
        (1, 48, 12, 12),
        (1, 192, 6, 6),
    ]
    assert simplenet.adaptor.weight.shape == (240, 240)
    assert [tuple(p.shape) for p in simplenet.discriminator.parameters()] == [
        *((1024, 240), (1024,), (1024,), (1024,), (1, 1024)),
    ]
    scores = Simplenet(extractor, 0, small(width=50)).score(pictures(2, seed=0, side=96))
    assert (scores.image_scores.shape, scores.anomaly_maps.shape) == ((2,), (2, 96, 96))
    # Xavier: a variance of 2 / (in + out)
    assert simplenet.adaptor.weight.std().item() == pytest.approx((2 / 480) ** 0.5, rel=0.02)


def test_loss_against_numpy() -> None:
    rng = np.random.default_rng(0)
    true, fake = rng.normal(size=(2, 50)).astype(np.float32)
    expected = np.maximum(0.5 - true, 0).mean() + np.maximum(0.5 + fake, 0).mean()
    assert margin_loss(torch.from_numpy(true), torch.from_numpy(fake), 0.5).item() == pytest.approx(expected, rel=1e-6)
    assert margin_loss(torch.full((3,), 0.6), torch.full((3,), -0.6), 0.5).item() == 0


def test_noise() -> None:
    features = torch.full((2000, 300), 2.0)
    added = with_noise(features, 0.015, torch.Generator().manual_seed(1)) - features
    assert float(added.mean()) == pytest.approx(0, abs=1e-4)
    assert float(added.std()) == pytest.approx(0.015, rel=0.01)
    assert float(added.std(0).std()) < 1e-3  # each number has its own, each patch too
    assert float(torch.corrcoef(added[:, :2].T)[0, 1]) == pytest.approx(0, abs=0.1)


class InDouble(FeatureExtractor):
    """Gives double maps. The gradients of biases before a batch-norm are rounding only, which Adam makes whole steps of."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {name: maps.double() for name, maps in super().forward(images).items()}


@pytest.fixture
def in_double() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.double)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("in_double")
def test_three_steps_written_out(extractor: FeatureExtractor, batches: MakeBatches) -> None:
    """Two batches of the first epoch and one of the second, at the reference's rates."""
    extractor, images = InDouble(extractor.body, extractor.layers), pictures(6, seed=0).float()
    new, simplenet = (Simplenet(extractor, 5, small(width=16, hidden=8, steps=3)) for _ in range(2))
    simplenet.fit(batches([images]))

    weight, bias = (value.clone().requires_grad_() for value in new.adaptor.state_dict().values())
    state = {name: value.clone() for name, value in new.discriminator.state_dict().items()}
    mean, var = state["1.running_mean"], state["1.running_var"]
    trained = [state[name].requires_grad_() for name in ("0.weight", "0.bias", "1.weight", "1.bias", "3.weight")]
    optimizers = (
        torch.optim.AdamW([weight, bias], lr=1e-4, weight_decay=1e-2),
        torch.optim.Adam(trained, lr=2e-4, weight_decay=1e-5),
    )
    patches = embed(list(extractor(images).values()), 16)
    order, noise = (torch.Generator().manual_seed(5) for _ in range(2))
    first, second = (torch.randperm(6, generator=order) for _ in range(2))
    for rows in (first[:4], first[4:], second[:4]):
        true = F.linear(patches[rows].flatten(0, 2), weight, bias)
        fake = true + 0.015 * torch.randn(true.shape, generator=noise)
        hidden = F.linear(torch.cat([true, fake]), state["0.weight"], state["0.bias"])  # one batch for batch-norm
        hidden = F.batch_norm(hidden, mean, var, state["1.weight"], state["1.bias"], training=True)
        good, bad = F.linear(F.leaky_relu(hidden, 0.2), state["3.weight"]).chunk(2)
        loss = (0.5 - good).clamp(min=0).mean() + (0.5 + bad).clamp(min=0).mean()
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    state["1.num_batches_tracked"] += 3
    close = partial(torch.testing.assert_close, rtol=1e-8, atol=1e-10)
    close(dict(simplenet.adaptor.named_parameters()), {"weight": weight, "bias": bias})
    close(dict(simplenet.discriminator.state_dict()), state)


def test_equal_seeds_equal_numbers(extractor: FeatureExtractor, batches: MakeBatches) -> None:
    images, test = batches([pictures(6, seed=0)]), pictures(2, seed=1)

    def scores(seed: int, method: Simplenet | None = None) -> Tensor:
        method = method or Simplenet(extractor, seed, small())
        method.fit(images)
        return method.score(test).anomaly_maps

    torch.manual_seed(0)
    one = Simplenet(extractor, 0, small())
    first, state = scores(0, one), torch.random.get_rng_state()
    assert torch.equal(scores(0, one), first)  # a fit starts afresh
    assert torch.equal(scores(0), first)
    assert not torch.equal(scores(1), first)
    assert torch.equal(torch.random.get_rng_state(), state)  # the process's own generator is left alone
    with pytest.raises(InputError, match="no images"):
        one.fit(batches())


def test_scores_are_the_largest_before_smoothing(extractor: FeatureExtractor, batches: MakeBatches) -> None:
    simplenet, test = Simplenet(extractor, 0, small()), pictures(3, seed=1)
    simplenet.fit(batches([pictures(6, seed=0)]))
    found = simplenet.score(test)
    linear, norm, _, tail = simplenet.discriminator
    hidden = linear(simplenet.adaptor(plain_embedding(list(extractor(test).values()), 240)))
    hidden = (hidden - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    grid = -(torch.where(hidden > 0, hidden, 0.2 * hidden) @ tail.weight[0]).view(3, 8, 8).detach()
    torch.testing.assert_close(found.image_scores, grid.amax(dim=(1, 2)), rtol=1e-4, atol=1e-5)
    up = F.interpolate(grid[:, None].double(), size=64, mode="bilinear")[:, 0].numpy()
    smooth = np.stack([gaussian_filter(plane, sigma=4) for plane in up])
    np.testing.assert_allclose(found.anomaly_maps.numpy(), smooth, rtol=1e-4, atol=1e-5)
    assert bool((found.anomaly_maps.amax(dim=(1, 2)) < found.image_scores).all())


@pytest.mark.parametrize(("steps", "calls"), [(None, 3), (8, 2), (9, 3)])
def test_meta_epochs_are_told(extractor: FeatureExtractor, batches: MakeBatches, steps: int | None, calls: int) -> None:
    images, test = batches([pictures(6, seed=0)]), pictures(2, seed=1)  # 2 batches, 4 steps a meta-epoch
    alone, tested = (Simplenet(extractor, 0, small(steps=steps)) for _ in range(2))
    alone.fit(images)
    on_the_way: list[Tensor] = []
    tested.fit(images, after_meta_epoch=lambda: on_the_way.append(tested.score(test).image_scores))
    assert len(on_the_way) == calls
    assert torch.equal(alone.score(test).image_scores, tested.score(test).image_scores)
    assert torch.equal(on_the_way[-1], tested.score(test).image_scores)
    assert not torch.equal(on_the_way[0], on_the_way[-1])


@pytest.mark.gpu
def test_on_a_gpu(extractor: FeatureExtractor, batches: MakeBatches) -> None:
    images, test = batches([pictures(6, seed=0).cuda()]), pictures(2, seed=1)
    simplenet, found = Simplenet(extractor.to("cuda"), 0, small()), []
    for _ in range(2):
        simplenet.fit(images)
        found.append(simplenet.score(test.cuda()).anomaly_maps.cpu())
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-3)
    on_gpu = found[1]
    simplenet.adaptor, simplenet.discriminator = simplenet.adaptor.cpu(), simplenet.discriminator.cpu()
    extractor.to("cpu")
    torch.testing.assert_close(simplenet.score(test).anomaly_maps, on_gpu, rtol=1e-2, atol=1e-3)
