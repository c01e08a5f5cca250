"""PaDiM against a plain NumPy and SciPy reference, and against anomalib where that is installed."""

import random
from collections.abc import Callable, Sequence
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from tabzoo.benchmark.metrics import image_auroc, pixel_auroc
from tabzoo.detectors import DETECTORS, ImageBatches, Scores
from tabzoo.detectors.extractor import FeatureExtractor, build_extractor
from tabzoo.detectors.padim import Padim, PadimSettings, choose_channels
from tabzoo.errors import InputError

Array = NDArray[np.float64]


def pictures(count: int, *, seed: int, side: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, side // 8, side // 8, generator=generator)
    return F.interpolate(coarse, size=side, mode="bilinear") + 0.1 * torch.randn(
        count, 3, side, side, generator=generator
    )


def defective(count: int, *, seed: int, side: int = 64) -> tuple[Tensor, Tensor]:
    """Images and masks; the second half has a square of another texture."""
    images, masks = pictures(count, seed=seed, side=side), torch.zeros(count, side, side)
    for i, (top, left) in enumerate(torch.randint(0, side - 20, (count, 2)).tolist()):
        if i >= count // 2:
            masks[i, top : top + 20, left : left + 20] = 1
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return images + masks[:, None] * noise, masks


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return build_extractor("random:test_resnet", layers=DETECTORS["padim"].layers, seed=3)


def embeddings(extractor: FeatureExtractor, images: Tensor, chosen: Sequence[int]) -> Array:
    """All channels repeated to the finest grid, then the choice, [B, D, h, w]: the reference's order of things."""
    maps = list(extractor(images).values())
    size = maps[0].shape[-1]
    repeated = [
        np.kron(layer.numpy(), np.ones((1, 1, size // layer.shape[-1], size // layer.shape[-1]))) for layer in maps
    ]
    return np.concatenate(repeated, axis=1)[:, chosen].astype(np.float64)


def reference(train: Array, test: Array, size: int) -> Array:
    """Anomaly maps, position by position."""
    distances = np.empty((len(test), *test.shape[2:]))
    for row, column in np.ndindex(*test.shape[2:]):
        here, there = train[:, :, row, column], test[:, :, row, column]
        covariance = np.cov(here, rowvar=False) + 0.01 * np.eye(here.shape[1])
        difference = there - here.mean(axis=0)
        distances[:, row, column] = np.sqrt((difference @ np.linalg.inv(covariance) * difference).sum(axis=1))
    up = F.interpolate(torch.from_numpy(distances)[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    return np.stack([gaussian_filter(plane, sigma=4) for plane in up.numpy()])


def test_the_references_choice_of_channels() -> None:
    resnet18 = {"layer1": 64, "layer2": 128, "layer3": 256}
    chosen = choose_channels(resnet18, 100, 1024)
    starts = dict(zip(chosen, accumulate(resnet18.values(), initial=0), strict=False))
    ids = {start + index for layer, start in starts.items() for index in chosen[layer]}
    assert {408, 9, 247, 435, 199, 165, 424, 405, 266, 51} <= ids  # the first ten, from its public code
    assert sorted(ids) == sorted(random.Random(1024).sample(range(448), 100))
    for widths, count in (((64, 128, 256), 100), ((256, 512, 1024), 550), ((500, 500), 550), ((40, 8), 48)):
        channels = {f"layer{i}": width for i, width in enumerate(widths)}
        extractor: Any = SimpleNamespace(channels=channels, layers=tuple(channels))
        assert Padim(extractor, 0).settings["channels"] == count


@pytest.mark.parametrize("count", [30, 130])
def test_maps_and_scores_are_the_references(
    extractor: FeatureExtractor, count: int, batches: Callable[..., ImageBatches]
) -> None:
    train, (test, masks) = pictures(count, seed=0, side=48), defective(12, seed=1, side=48)
    padim = Padim(extractor, 1024)
    padim.fit(batches([train[:7], train[7:20], train[20:]]))
    parts = [padim.score(part) for part in test.split(5)]
    ours = Scores(*(torch.cat(values) for values in zip(*parts, strict=True)))
    chosen = random.Random(1024).sample(range(272), 100)
    theirs = reference(*(embeddings(extractor, images, chosen) for images in (train, test)), size=48)
    np.testing.assert_allclose(ours.anomaly_maps.numpy(), theirs, rtol=1e-5)
    np.testing.assert_allclose(ours.image_scores.numpy(), theirs.max(axis=(1, 2)), rtol=1e-5)
    labels, planes = masks.amax(dim=(1, 2)), torch.from_numpy(theirs)
    assert image_auroc(ours.image_scores, labels) == pytest.approx(
        image_auroc(planes.amax(dim=(1, 2)), labels), abs=1e-6
    )
    assert pixel_auroc(ours.anomaly_maps, masks) == pytest.approx(pixel_auroc(planes, masks), abs=1e-6)


def test_a_fit_starts_afresh_and_batches_do_not_matter(
    extractor: FeatureExtractor, batches: Callable[..., ImageBatches]
) -> None:
    images, test = pictures(24, seed=2), pictures(3, seed=5)
    padim = Padim(extractor, 0)
    padim.fit(batches([pictures(5, seed=9)]))
    padim.fit(batches([images]))
    whole = padim.score(test)
    padim.fit(batches(images.split(1)))
    torch.testing.assert_close(padim.score(test).anomaly_maps, whole.anomaly_maps, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 8])
def test_few_images(extractor: FeatureExtractor, count: int, batches: Callable[..., ImageBatches]) -> None:
    images = pictures(count, seed=4)
    padim = Padim(extractor, 0)
    padim.fit(batches([images]))
    scores = padim.score(torch.cat([images, pictures(count, seed=5)])).image_scores
    assert bool(torch.isfinite(scores).all())
    assert scores[:count].max() < scores[count:].min()
    if count == 1:  # no spread is known: distances are Euclidean but for 0.01 on the diagonal
        assert float(scores[0]) < 1e-2
    with pytest.raises(InputError, match="no images"):
        padim.fit(batches())


def test_memory_is_that_of_the_shared_blocks(extractor: FeatureExtractor, batches: Callable[..., ImageBatches]) -> None:
    padim = Padim(extractor, 1024)
    padim.fit(batches([pictures(4, seed=0)]))
    fine, middle, coarse = (len(padim.chosen[layer]) for layer in ("layer1", "layer2", "layer3"))
    values = 16**2 * fine * (1 + 100) + 8**2 * middle * (1 + middle + coarse) + 4**2 * coarse * (1 + coarse)
    assert padim.gaussians.num_bytes == 4 * values
    assert padim.gaussians.num_bytes < 4 * 16**2 * 100 * 100 / 3  # of one covariance for each position


@pytest.mark.slow
def test_anomalib_gives_the_same(batches: Callable[..., ImageBatches]) -> None:
    extractor = build_extractor("random", layers=DETECTORS["padim"].layers, seed=3)
    torch_model = pytest.importorskip("anomalib.models.image.padim.torch_model")
    theirs = torch_model.PadimModel(backbone="resnet18", pre_trained=False, n_features=100)
    theirs.feature_extractor.feature_extractor.load_state_dict(extractor.body.state_dict())
    theirs.idx = torch.tensor(random.Random(1024).sample(range(448), 100))
    train, (test, masks) = pictures(120, seed=0, side=96), defective(16, seed=1, side=96)
    theirs.train()
    theirs.feature_extractor.eval()
    for batch in train.split(32):
        theirs(batch)
    theirs.fit()
    theirs.eval()
    expected = theirs(test)
    ours = Padim(extractor, 1024, PadimSettings(regularisation=0.01 + 1e-5))  # it adds twice
    ours.fit(batches(train.split(32)))
    found = ours.score(test)
    # It mirrors images at their border without the edge pixel, so maps are equal where the border is out of reach.
    inner = (slice(None), slice(16, -16), slice(16, -16))
    torch.testing.assert_close(found.anomaly_maps[inner], expected.anomaly_map[:, 0][inner], rtol=1e-5, atol=0)
    assert pixel_auroc(found.anomaly_maps[inner], masks[inner]) == pytest.approx(
        pixel_auroc(expected.anomaly_map[:, 0][inner], masks[inner]), abs=1e-6
    )


@pytest.mark.gpu
def test_on_a_gpu(extractor: FeatureExtractor, batches: Callable[..., ImageBatches]) -> None:
    train, test = pictures(30, seed=0), pictures(4, seed=1)
    found = []
    for device in ("cpu", "cuda"):
        padim = Padim(extractor.to(device), 1024)
        padim.fit(batches(train.to(device).split(8)))
        found.append(padim.score(test.to(device)).anomaly_maps.cpu())
    torch.testing.assert_close(found[1], found[0], rtol=1e-2, atol=1e-3)
    extractor.to("cpu")
