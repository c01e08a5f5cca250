"""The fitted state of a detector, kept and taken by another one: bit by bit the same scores."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from tabzoo.detectors import ImageBatches
from tabzoo.detectors.extractor import FeatureExtractor, build_extractor
from tabzoo.detectors.gaussians import FewImageGaussians, PyramidGaussians
from tabzoo.detectors.padim import Padim, PadimSettings
from tabzoo.detectors.patchcore import Patchcore, PatchcoreSettings
from tabzoo.errors import InputError

Batches = Callable[..., ImageBatches]


def pictures(count: int, seed: int) -> Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return build_extractor("random:test_resnet", layers=("/4", "/8", "/16"), seed=3)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Padim, PadimSettings(channels=30)),
        (Patchcore, PatchcoreSettings(share=0.3)),
        (Patchcore, PatchcoreSettings(width=12, share=0.1)),
    ],
)
@pytest.mark.parametrize("small", [0, 2**40])
def test_a_state_gives_the_same_scores(
    kind: Any, settings: Any, small: int, extractor: FeatureExtractor, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tabzoo.detectors.gaussians._SMALL", small)
    train, test = pictures(6, 0), pictures(3, 1)
    fitted, other = kind(extractor, 1, settings), kind(extractor, 2, settings)
    fitted.fit_maps(map(fitted.embed, train.split(4)), 6)
    if kind is Padim:
        assert isinstance(fitted.gaussians, PyramidGaussians if small else FewImageGaussians)
    expected = fitted.score(test)
    other.load_state(load(save(fitted.state())))
    found = other.score(test)
    assert torch.equal(found.image_scores, expected.image_scores)
    assert torch.equal(found.anomaly_maps, expected.anomaly_maps)
    by_fit = kind(extractor, 1, settings)
    by_fit.fit(batches(train.split(4)))
    assert torch.allclose(by_fit.score(test).anomaly_maps, expected.anomaly_maps, rtol=1e-3)


@pytest.mark.parametrize("form", [PyramidGaussians, FewImageGaussians])
def test_maps_of_another_size_are_refused(form: type[PyramidGaussians | FewImageGaussians]) -> None:
    """torch would repeat the mean of a single position for all."""
    gaussians = form(0.01)
    gaussians.update([torch.randn(5, 3, 1, 1)])
    gaussians.factorise()
    with pytest.raises(InputError, match="other sizes than"):
        gaussians.mahalanobis([torch.randn(2, 3, 4, 4)])


def test_states_of_others_are_refused(extractor: FeatureExtractor) -> None:
    padim, patchcore = Padim(extractor, 0), Patchcore(extractor, 0)
    train = pictures(4, 0)
    for detector in (padim, patchcore):
        detector.fit_maps([detector.embed(train)], 4)
    with pytest.raises(InputError, match="a state has no tensor 'bank'"):
        padim.load_state(patchcore.state())
    with pytest.raises(InputError, match="expected patches"):
        patchcore.load_state(padim.state())
    for name, change in (
        ("gaussians.factor.2.0", lambda value: value[..., :-1]),
        ("gaussians.mean.0", lambda value: value.double()),
        ("gaussians.mean.1", lambda value: value[:-1]),
    ):
        state = padim.state()
        state[name] = change(state[name])
        with pytest.raises(InputError, match="Gaussians"):
            Padim(extractor, 0).load_state(state)


def test_features_that_are_too_large(extractor: FeatureExtractor) -> None:
    padim = Padim(extractor, 0)
    maps = [1e5 * level for level in padim.embed(pictures(4, 0))]
    with pytest.raises(InputError, match="too large for --padim-regularisation 0.01, or not finite"):
        padim.fit_maps([maps], 4)


def test_nothing_to_fit_to(extractor: FeatureExtractor) -> None:
    for detector in (Padim(extractor, 0), Patchcore(extractor, 0)):
        with pytest.raises(InputError, match="no images to fit to"):
            detector.fit_maps([], 0)
