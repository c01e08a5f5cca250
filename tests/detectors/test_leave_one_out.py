"""Leaving one image out at a time against fitting to the others, in both forms of Gaussians."""

import pytest
import torch
from torch import Tensor

import tabzoo.detectors.leave_one_out as module
from tabzoo.detectors.gaussians import FewImageGaussians, PyramidGaussians
from tabzoo.detectors.leave_one_out import leave_one_out
from tabzoo.detectors.pyramid import levels_of


def maps(count: int, seed: int) -> list[Tensor]:
    """Three levels, with large means as features have them."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(count, 7, 2, 2), (count, 5, 4, 4), (count, 3, 8, 8)]
    return [
        3 * torch.randn(shape, generator=generator) + 20 * torch.rand(shape[1:], generator=generator)
        for shape in shapes
    ]


@pytest.mark.parametrize("count", [2, 3, 9, 40])  # the last one by channels, the others by images
@pytest.mark.parametrize("form", [PyramidGaussians, FewImageGaussians])
def test_it_is_what_fitting_to_the_others_gives(count: int, form: type[PyramidGaussians | FewImageGaussians]) -> None:
    images = maps(count, seed=count)
    found = leave_one_out(images, 0.01)
    assert found.shape == (count, 8, 8)
    for k in range(count):
        gaussians = form(0.01)
        gaussians.update([level[torch.arange(count) != k] for level in images])
        gaussians.factorise()
        expected = gaussians.mahalanobis([level[k : k + 1] for level in images])[0]
        assert torch.allclose(found[k], expected, rtol=2e-4, atol=1e-3)


@pytest.mark.parametrize("count", [3, 16, 40])
def test_both_forms_are_equal(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images = maps(count, seed=count)
    images[1][0] += 50  # one that is unlike the others
    found = []
    for slower in (1e-9, 1e9):
        monkeypatch.setattr(module, "_SLOWER", slower)
        found.append(leave_one_out(images, 0.01))
    assert torch.allclose(found[0], found[1], rtol=1e-6)


@pytest.mark.parametrize(("scale", "regularisation"), [(1e4, 0.01), (1e5, 0.01), (1e5, 1e-6)])
@pytest.mark.parametrize("count", [3, 9])
def test_large_features_of_few_images(
    count: int, scale: float, regularisation: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the form by channels would lose digits, or fail, it leaves it to the form by images, which loses none."""
    images = [scale * level for level in maps(count, seed=count)]
    found = []
    for slower in (1e-9, 1e9):
        monkeypatch.setattr(module, "_SLOWER", slower)
        found.append(leave_one_out(images, regularisation))
    assert torch.allclose(found[0], found[1], rtol=1e-6)
    # With fewer images than channels, what no other image explains is divided by the regularisation alone.
    grown = leave_one_out([10 * level for level in images], regularisation)
    assert torch.allclose(grown, 10 * found[0], rtol=1e-4)


def test_the_cheaper_form_is_taken() -> None:
    taken = {count: module._cheaper(levels_of(maps(count, seed=0)))[0] for count in (3, 40)}
    assert taken == {3: module._by_images, 40: module._by_channels}


@pytest.mark.parametrize("count", [6, 40])
def test_in_parts(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images = maps(count, seed=0)
    whole = leave_one_out(images, 0.01)
    large = leave_one_out([1e5 * level for level in images], 0.01)
    monkeypatch.setattr(module, "_AT_A_TIME", 1)
    assert torch.allclose(leave_one_out(images, 0.01), whole, rtol=1e-6)
    assert torch.allclose(leave_one_out([1e5 * level for level in images], 0.01), large, rtol=1e-6)
