"""RegAD's episodes and scores against plain references."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from tabzoo.detectors import DETECTORS, FewShotDetector, ImageBatches
from tabzoo.detectors.extractor import FeatureExtractor, build_extractor
from tabzoo.detectors.regad import Regad, RegadSettings, episodes, learning_rate
from tabzoo.detectors.regad_views import support_views
from tabzoo.errors import InputError

MakeBatches = Callable[[Sequence[Tensor]], ImageBatches]


def pictures(count: int, seed: int, side: int = 48) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return build_extractor("random:test_resnet", layers=DETECTORS["regad"].layers, seed=3)


@pytest.fixture(scope="module")
def others(batches: MakeBatches) -> list[ImageBatches]:
    return [batches([pictures(5, 1)]), batches([pictures(4, 2)])]


@pytest.fixture(scope="module")
def learned(extractor: FeatureExtractor, others: list[ImageBatches]) -> Regad:
    regad = Regad(extractor, 0, RegadSettings(steps=2, batch_size=3, lr=0.01))
    regad.meta_train(others, 2)
    return regad


def test_episodes() -> None:
    counts, generator = (7, 5, 2), torch.Generator().manual_seed(0)
    orders = []
    for _ in range(30):
        epoch = list(episodes(counts, 3, 4, generator))
        orders.append([episode.class_id for episode in epoch])
        assert sorted(orders[-1]) == [0, 0, 1, 1, 2]
        for class_id, count in enumerate(counts):
            queries = torch.cat([episode.queries for episode in epoch if episode.class_id == class_id])
            assert sorted(queries.tolist()) == list(range(count))  # each once
        for class_id, queries, supports in epoch:
            assert supports.shape == (len(queries), 3)
            assert not (supports == queries[:, None]).any()
            assert 0 <= supports.min() <= supports.max() < counts[class_id]
    assert len({tuple(order) for order in orders}) > 5


def test_supports_are_as_likely_as_each_other() -> None:
    drawn = torch.cat([one.supports for one in episodes((4,), 3000, 4, torch.Generator().manual_seed(1))])
    queries = torch.cat([one.queries for one in episodes((4,), 3000, 4, torch.Generator().manual_seed(1))])
    for query, supports in zip(queries.tolist(), drawn, strict=True):
        shares = torch.bincount(supports, minlength=4) / 3000
        assert shares[query] == 0
        assert all(abs(share - 1 / 3) < 0.04 for i, share in enumerate(shares.tolist()) if i != query)


def test_learning_rate_is_half_a_cosine() -> None:
    settings = RegadSettings(epochs=4, lr=0.1)
    rates = [learning_rate(settings, step, 3) for step in range(12)]
    expected = [0.1 * 0.5 * (1 + math.cos(math.pi * epoch / 4)) for epoch in (1, 2, 3, 4) for _ in range(3)]
    assert rates == pytest.approx(expected)
    capped = RegadSettings(epochs=4, steps=5, lr=0.1)
    expected = [0.1 * 0.5 * (1 + math.cos(math.pi * step / 5)) for step in (1, 2, 3, 4, 5)]
    assert [learning_rate(capped, step, 3) for step in range(5)] == pytest.approx(expected)
    assert learning_rate(RegadSettings(epochs=4, steps=99, lr=0.1), 0, 3) == pytest.approx(rates[0])


def test_scores_against_a_loop_over_positions(learned: Regad, batches: MakeBatches) -> None:
    supports, tested = pictures(2, 4), pictures(3, 5)
    learned.fit(batches([supports]))
    scores = learned.score(tested)

    def embedding(images: Tensor) -> np.ndarray:
        maps = learned.embed(images)
        size = maps[-1].shape[-1]
        repeated = [np.kron(one.numpy(), np.ones((1, 1, size // one.shape[-1], size // one.shape[-1]))) for one in maps]
        return np.concatenate(repeated, axis=1).astype(np.float64)

    train, test = embedding(support_views(supports)), embedding(tested)
    assert train.shape == (44, 272, 12, 12)  # all channels, all views
    distances = np.empty((3, 12, 12))
    for row, column in np.ndindex(12, 12):
        samples = train[:, :, row, column]
        inverse = np.linalg.inv(np.cov(samples, rowvar=False) + 0.01 * np.eye(272))
        for i, sample in enumerate(test[:, :, row, column]):
            difference = sample - samples.mean(axis=0)
            distances[i, row, column] = np.sqrt(difference @ inverse @ difference)
    upsampled = F.interpolate(torch.from_numpy(distances)[:, None], size=48, mode="bilinear")[:, 0].numpy()
    expected = np.stack([gaussian_filter(one, sigma=4) for one in upsampled])
    assert np.allclose(scores.anomaly_maps.numpy(), expected, rtol=1e-3)
    assert np.allclose(scores.image_scores.numpy(), expected.max(axis=(1, 2)), rtol=1e-3)


def test_equal_seeds_equal_numbers(extractor: FeatureExtractor, others: list[ImageBatches]) -> None:
    images, settings, maps = pictures(2, 6), RegadSettings(steps=2, batch_size=3, lr=0.01), []
    for seed in (0, 0, 1):
        regad = Regad(extractor, seed, settings)
        for _ in range(2):  # each starts afresh
            torch.rand(7)  # the process's own generator does not matter
            regad.meta_train(others, 2)
            maps.append(regad.embed(images))
    for one in maps[1:4]:
        assert all(torch.equal(a, b) for a, b in zip(one, maps[0], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(maps[4], maps[0], strict=True))


def bytes_of(value: object) -> int:
    """All that the tensors in it take."""
    if isinstance(value, Tensor):
        return value.untyped_storage().nbytes()
    return sum(map(bytes_of, value)) if isinstance(value, list) else 0


def test_memory_does_not_grow_with_the_square_of_the_shots(batches: MakeBatches, learned: Regad) -> None:
    def taken(shots: int) -> int:
        learned.fit(batches([pictures(shots, 3)]))
        return sum(map(bytes_of, vars(learned.gaussians).values()))

    # Means and shared blocks of the covariances of 32, 48 and 192 channels on maps of 12, 6 and 3 pixels a side.
    blocks = 4 * (144 * 32 * (1 + 272) + 36 * 48 * (1 + 240) + 9 * 192 * (1 + 192))
    assert taken(1) < blocks / 4  # none at all
    assert taken(6) < 4 * blocks
    assert taken(7) == taken(9) == blocks


def test_bfloat16(others: list[ImageBatches], batches: MakeBatches, learned: Regad) -> None:
    half = build_extractor("random:test_resnet", layers=DETECTORS["regad"].layers, seed=3, amp=True, channels_last=True)
    regad = Regad(half, 0, learned.options)
    regad.meta_train(others, 2)
    for ours, theirs in zip(regad.embed(pictures(2, 6)), learned.embed(pictures(2, 6)), strict=True):
        assert ours.dtype == torch.float32
        assert F.cosine_similarity(ours.flatten(1), theirs.flatten(1)).min() > 0.98


def test_interface(extractor: FeatureExtractor, batches: MakeBatches, learned: Regad) -> None:
    assert isinstance(learned, FewShotDetector)
    assert DETECTORS["regad"].few_shot
    assert not isinstance(DETECTORS["padim"].build(extractor, 0, None), FewShotDetector)
    assert learned.settings["trained_on"] == "the other classes of --data"
    with pytest.raises(InputError, match="no images"):
        learned.fit(batches([]))
    with pytest.raises(RuntimeError, match="call meta_train first"):
        Regad(extractor, 0).score(pictures(1, 0))


@pytest.mark.gpu
def test_on_a_gpu(
    extractor: FeatureExtractor, others: list[ImageBatches], batches: MakeBatches, learned: Regad
) -> None:
    found = []
    for device in ("cpu", "cuda"):
        regad = Regad(extractor.to(device), 0, learned.options)
        regad.meta_train([batches([images.to(device) for images in other]) for other in others], 2)
        regad.fit(batches([pictures(2, 1).to(device)]))
        found.append(regad.score(pictures(2, 2).to(device)).anomaly_maps.cpu())
    torch.testing.assert_close(found[1], found[0], rtol=0.05, atol=1e-2)
    extractor.to("cpu")
