"""Leaving one image out at a time against fitting to the others, in both forms of Gaussians."""

import pytest
import torch
from torch import Tensor

from tabzoo.detectors.gaussians import FewImageGaussians, PyramidGaussians, leave_one_out


def maps(count: int, seed: int) -> list[Tensor]:
    """Three levels, with large means as features have them."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(count, 7, 2, 2), (count, 5, 4, 4), (count, 3, 8, 8)]
    return [
        3 * torch.randn(shape, generator=generator) + 20 * torch.rand(shape[1:], generator=generator)
        for shape in shapes
    ]


@pytest.mark.parametrize("count", [2, 3, 9, 40])
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


def test_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    images = maps(6, seed=0)
    whole = leave_one_out(images, 0.01)
    monkeypatch.setattr("tabzoo.detectors.gaussians._AT_A_TIME", 1)
    assert torch.allclose(leave_one_out(images, 0.01), whole, rtol=1e-6)
