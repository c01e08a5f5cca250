"""PatchCore against a brute-force reference, and its coreset and neighbours against anomalib's where that is installed."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, uniform_filter
from torch import Tensor

from tabzoo.detectors import DETECTORS, ImageBatches
from tabzoo.detectors.extractor import FeatureExtractor, build_extractor
from tabzoo.detectors.neighbours import k_center_greedy
from tabzoo.detectors.patchcore import Patchcore, PatchcoreSettings
from tabzoo.errors import InputError

Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return build_extractor("random", layers=DETECTORS["patchcore"].layers, seed=3)


def pictures(count: int, seed: int) -> Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def embeddings(extractor: FeatureExtractor, images: Tensor) -> Array:
    """3 x 3 means (zeros beyond the border), the coarse map bilinearly upsampled, [B, 8, 8, C]."""
    fine, coarse = (
        torch.from_numpy(uniform_filter(layer.double().numpy(), size=(1, 1, 3, 3), mode="constant"))
        for layer in extractor(images).values()
    )
    up = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([fine, up], dim=1).permute(0, 2, 3, 1).numpy()


def reference(bank: Array, patches: Array, neighbour_count: int) -> tuple[Array, Array]:
    """Image scores and maps; every distance, one image and one patch at a time."""
    scores, maps = [], []
    for image in patches:
        flat = image.reshape(-1, image.shape[-1])
        distances = np.array([np.linalg.norm(bank - patch, axis=1) for patch in flat])
        nearest = distances.min(axis=1)
        worst = int(nearest.argmax())
        own = int(distances[worst].argmin())
        around = np.argsort(np.linalg.norm(bank - bank[own], axis=1))[:neighbour_count]
        weight = 1 - np.exp(nearest[worst]) / np.exp(distances[worst][around]).sum()  # Equation 7
        scores.append(weight * nearest[worst])
        grid = torch.from_numpy(nearest.reshape(1, 1, *image.shape[:2]))
        up = F.interpolate(grid, size=64, mode="bilinear", align_corners=False)[0, 0]
        maps.append(gaussian_filter(up.numpy(), sigma=4))
    return np.array(scores), np.stack(maps)


def test_scores_and_maps_are_the_references(extractor: FeatureExtractor, batches: Callable[..., ImageBatches]) -> None:
    train, test = pictures(9, 0), pictures(4, 1)
    patchcore = Patchcore(extractor, 5)
    patchcore.fit(batches([train[:4], train[4:]]))
    patches = embeddings(extractor, train).reshape(-1, 384)
    generator = torch.Generator().manual_seed(5)
    start = int(torch.randint(len(patches), (), generator=generator))
    projected = patches @ torch.randn(384, 128, generator=generator).double().numpy()
    bank = patches[k_center_greedy(torch.from_numpy(projected), len(patches) // 10, start=start)]
    scores, maps = reference(bank, embeddings(extractor, test), 9)
    found = patchcore.score(test)
    np.testing.assert_allclose(found.image_scores.numpy(), scores, rtol=1e-5)
    np.testing.assert_allclose(found.anomaly_maps.numpy(), maps, rtol=1e-5)


@pytest.mark.parametrize("neighbour_count", [1, 3, 10_000])
def test_numbers_of_neighbours(
    extractor: FeatureExtractor, neighbour_count: int, batches: Callable[..., ImageBatches]
) -> None:
    patchcore = Patchcore(extractor, 0, PatchcoreSettings(share=0.05, neighbours=neighbour_count))
    patchcore.fit(batches([pictures(3, 0)]))
    test = pictures(2, 1)
    patches = embeddings(extractor, test)
    scores, _ = reference(patchcore.bank.double().numpy(), patches, neighbour_count)
    if neighbour_count == 1:  # the weight would be nought: no neighbourhood, no weight
        bank, flat = patchcore.bank.double(), torch.from_numpy(patches).flatten(1, 2)
        scores = torch.cdist(flat, bank.expand(2, -1, -1)).amin(2).amax(1).numpy()
    np.testing.assert_allclose(patchcore.score(test).image_scores.numpy(), scores, rtol=1e-5)


def pooled(extractor: FeatureExtractor, image: Tensor, width: int) -> Tensor:
    """Patches as in the public code, one after the other, [h w, width]."""
    fine, coarse = extractor(image[None]).values()
    size = fine.shape[-2:]
    whole = []
    for layer in (fine, coarse):
        channels, grid = layer.shape[1] * 9, layer.shape[-2:]
        patches = torch.nn.Unfold(3, padding=1)(layer).view(1, channels, *grid)
        whole.append(F.interpolate(patches, size=size, mode="bilinear", align_corners=False)[0].flatten(1).T)
    pool = F.adaptive_avg_pool1d
    each = [[pool(layer[i][None, None], width)[0, 0] for layer in whole] for i in range(size.numel())]
    return torch.stack([pool(torch.cat(layers)[None, None], width)[0, 0] for layers in each])


@pytest.mark.parametrize("width", [100, 1024, 1300])  # layer2 has 128 * 9 = 1152 numbers
def test_pooled_patches_are_the_public_codes(
    extractor: FeatureExtractor, width: int, batches: Callable[..., ImageBatches], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pictures(3, 0)
    plain = torch.cat([pooled(extractor, image, width) for image in images])
    for at_a_time in (1, 2 * 1152 * 64, 2**25):  # numbers: of an image, of two, of all
        monkeypatch.setattr("tabzoo.detectors.patches._AT_A_TIME", at_a_time)
        patchcore = Patchcore(extractor, 0, PatchcoreSettings(share=1.0, width=width))
        patchcore.fit(batches([images[:2], images[2:]]))
        assert patchcore.bank.shape == (3 * 64, width)
        order = [torch.cdist(row[None], patchcore.bank).argmin() for row in plain]  # a coreset has an order of its own
        torch.testing.assert_close(patchcore.bank[torch.stack(order)], plain, rtol=1e-4, atol=1e-5)
        assert len(set(map(int, order))) == len(plain)
        assert float(patchcore.score(images).anomaly_maps.max()) < 1e-3


def test_rows_without_a_width_keep_their_keys(extractor: FeatureExtractor) -> None:
    assert set(Patchcore(extractor, 0).settings) == {"layers", "share", "neighbours", "projected", "sigma"}
    assert Patchcore(extractor, 0, PatchcoreSettings(width=1024)).settings["width"] == 1024


def test_few_images(extractor: FeatureExtractor, batches: Callable[..., ImageBatches]) -> None:
    patchcore = Patchcore(extractor, 0, PatchcoreSettings(share=1e-6))
    patchcore.fit(batches([pictures(1, 0)]))
    assert patchcore.bank.shape == (1, 384)
    assert bool(torch.isfinite(patchcore.score(pictures(2, 1)).image_scores).all())
    whole = Patchcore(extractor, 0, PatchcoreSettings(share=1.0))
    whole.fit(batches([pictures(1, 0)]))
    assert float(whole.score(pictures(1, 0)).anomaly_maps.max()) < 1e-4  # seen before
    with pytest.raises(InputError, match="no images"):
        whole.fit(batches())


def test_the_draws_follow_the_seed_alone(extractor: FeatureExtractor, batches: Callable[..., ImageBatches]) -> None:
    images = pictures(4, 0)
    banks = []
    for seed, size in ((1, 4), (1, 3), (2, 4)):
        patchcore = Patchcore(extractor, seed)
        patchcore.fit(batches(images.split(size)))
        banks.append(patchcore.bank)
    torch.testing.assert_close(banks[0], banks[1])
    assert not torch.equal(banks[0], banks[2])


@pytest.mark.slow
def test_anomalib_gives_the_same_scores_for_the_same_coreset(
    extractor: FeatureExtractor, batches: Callable[..., ImageBatches]
) -> None:
    torch_model = pytest.importorskip("anomalib.models.image.patchcore.torch_model")
    theirs = torch_model.PatchcoreModel(layers=["layer2", "layer3"], backbone="resnet18", pre_trained=False)
    theirs.feature_extractor.feature_extractor.load_state_dict(extractor.body.state_dict())
    ours = Patchcore(extractor, 0)
    ours.fit(batches([pictures(20, 0)]))
    theirs.memory_bank = ours.bank
    theirs.eval()
    test = pictures(6, 1)
    torch.testing.assert_close(ours.score(test).image_scores, theirs(test).pred_score, rtol=1e-4, atol=0)


@pytest.mark.gpu
def test_on_a_gpu(extractor: FeatureExtractor, batches: Callable[..., ImageBatches]) -> None:
    images, test = pictures(6, 0), pictures(2, 1)
    ours = Patchcore(extractor.to("cuda"), 0)
    ours.fit(batches([images.cuda()]))
    found = ours.score(test.cuda())
    extractor.to("cpu")
    scores, maps = reference(ours.bank.double().cpu().numpy(), embeddings(extractor, test), 9)
    np.testing.assert_allclose(found.image_scores.cpu().numpy(), scores, rtol=1e-3)
    np.testing.assert_allclose(found.anomaly_maps.cpu().numpy(), maps, rtol=1e-3)
