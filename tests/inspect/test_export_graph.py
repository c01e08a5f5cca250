"""The graphs that are exported compute what tabzoo computes: all forms of both methods, and backbones."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tabzoo.detectors import DETECTORS, ImageBatches, Scores
from tabzoo.detectors.batches import NormalisedBatches
from tabzoo.detectors.extractor import FeatureExtractor, build_extractor
from tabzoo.detectors.gaussians import FewImageGaussians, PyramidGaussians
from tabzoo.detectors.padim import Padim
from tabzoo.detectors.patchcore import Patchcore
from tabzoo.errors import WeightsError
from tabzoo.inspect.export import graph
from tabzoo.inspect.export.backbone_graph import Reference
from tabzoo.inspect.export.graph import DetectorGraph

Make = Callable[[Iterable[Tensor]], ImageBatches]


def pictures(count: int, *, seed: int, side: int) -> Tensor:
    """uint8 [N, S, S, 3], smooth with some noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = F.interpolate(200 * torch.rand(count, 3, 4, 4, generator=generator), size=side, mode="bicubic")
    noise = 20 * torch.randn(count, 3, side, side, generator=generator)
    return (coarse + noise + 20).clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()


def normalised(extractor: FeatureExtractor, photos: Tensor) -> Tensor:
    rows = torch.arange(len(photos))
    batches = NormalisedBatches(
        lambda index: photos[index], rows, batch_size=len(rows), mean=extractor.mean, std=extractor.std
    )
    return batches.take(rows)


def fitted(method: str, side: int, batches: Make, count: int = 6, **settings: Any) -> Padim | Patchcore:
    spec = DETECTORS[method]
    extractor = build_extractor("random:test_resnet", layers=spec.layers, seed=1)
    extractor.mean, extractor.std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    detector = spec.build(extractor, 0, spec.settings(**settings))
    assert isinstance(detector, Padim | Patchcore)
    images = batches([normalised(extractor, pictures(count, seed=0, side=side))])
    detector.fit_maps([detector.embed(batch) for batch in images], count)
    return detector


@torch.no_grad()
def assert_equal(detector: Padim | Patchcore, side: int) -> None:
    for count in (1, 3):
        photos = pictures(count, seed=9, side=side)
        found = detector.score(normalised(detector.extractor, photos))
        threshold = float(found.image_scores.median())
        score, verdict, maps = DetectorGraph(detector, size=side, threshold=threshold).eval()(photos)
        torch.testing.assert_close(Scores(score, maps), found, rtol=1e-4, atol=0)
        assert verdict.tolist() == (score > threshold).tolist()
        assert maps.shape == (count, side, side)


# With 72 pixels the maps have 18, 9 and 5 positions a side: the coarse one is repeated to 9 first.
@pytest.mark.parametrize("side", [64, 72])
@pytest.mark.parametrize("form", [PyramidGaussians, FewImageGaussians])
def test_padim(
    side: int,
    form: type[PyramidGaussians] | type[FewImageGaussians],
    batches: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tabzoo.detectors.padim.smaller_gaussians", lambda maps, count, epsilon: form(epsilon))
    detector = fitted("padim", side, batches, channels=40)
    assert isinstance(detector.gaussians, form)  # type: ignore[union-attr]
    assert_equal(detector, side)


def test_padim_of_a_photo_that_it_was_fitted_to(batches: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The residual is nearly nothing there: a difference of large squares would lose its digits."""
    monkeypatch.setattr("tabzoo.detectors.padim.smaller_gaussians", lambda *given: FewImageGaussians(given[-1]))
    detector = fitted("padim", 64, batches, channels=100)
    photos = pictures(6, seed=0, side=64)
    expected = detector.score(normalised(detector.extractor, photos)).image_scores
    score, *_ = DetectorGraph(detector, size=64, threshold=0).eval()(photos)
    torch.testing.assert_close(score, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "settings", [{}, {"neighbours": 1}, {"share": 0.9}, {"width": 24}, {"share": 1e-6}], ids=lambda given: str(given)
)
def test_patchcore(settings: dict[str, Any], batches: Make) -> None:
    assert_equal(fitted("patchcore", 64, batches, **settings), 64)


def test_patchcore_with_its_bank_in_parts(batches: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "_AT_A_TIME", 50)
    detector = fitted("patchcore", 72, batches, share=0.6)
    assert len(detector.bank) > 150  # type: ignore[union-attr]
    assert len(detector.bank) % 50  # type: ignore[union-attr]
    assert_equal(detector, 72)


def test_a_photo_far_from_the_bank_has_a_finite_score(batches: Make) -> None:
    """The exponentials of Equation 7 would be infinite if they were taken one by one."""
    detector = fitted("patchcore", 64, batches)
    detector.bank = 1e3 * detector.bank  # type: ignore[union-attr]
    assert_equal(detector, 64)


def test_weights_that_cannot_be_fetched_are_named_without_flags_of_other_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"does not answer.* tabzoo export DIR --output FILE.onnx") as caught:
        Reference("resnet18.tv_in1k", 64)
    assert "--init" not in str(caught.value)
