"""Gaussians of pyramids of maps against one Gaussian at each position of the maps repeated to one size."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tabzoo.detectors.gaussians import FewImageGaussians, PyramidGaussians

Array = NDArray[np.float64]


@pytest.mark.parametrize("kind", [PyramidGaussians, FewImageGaussians])
@pytest.mark.parametrize(
    "shapes",
    [
        [(3, 2, 2), (2, 4, 4), (4, 8, 8)],
        [(2, 2, 3), (3, 4, 6), (2, 8, 12)],  # not square
        [(3, 4, 4), (2, 4, 4)],  # equal grids
        [(3, 2, 2), (2, 4, 8)],  # rows and columns by different factors
        [(3, 3, 3), (2, 5, 5), (2, 10, 10)],  # 5 is no multiple of 3
        [(5, 4, 4)],
        [(0, 2, 2), (2, 4, 4)],  # no channel of a layer chosen
    ],
)
def test_pyramids_of_any_shape(
    shapes: list[tuple[int, int, int]], kind: type[PyramidGaussians | FewImageGaussians]
) -> None:
    generator = torch.Generator().manual_seed(0)
    train, test = ([torch.randn(count, *shape, generator=generator) * 3 + 50 for shape in shapes] for count in (20, 6))
    gaussians = kind(0.01)
    for rows in torch.arange(20).split(6):
        gaussians.update([level[rows] for level in train])
    gaussians.factorise()
    size = shapes[-1][1:]

    def repeated(maps: list[Tensor]) -> Array:
        at_finest = maps[-1]
        for level in reversed([level for level in maps[:-1] if level.shape[1]]):
            near = (
                F.interpolate(level, size=(5, 5), mode="nearest") if level.shape[-1] == 3 and size[1] == 10 else level
            )
            at_finest = torch.cat([F.interpolate(near, size=size, mode="nearest"), at_finest], dim=1)
        return at_finest.double().numpy()

    found, (inputs, others) = gaussians.mahalanobis(test), (repeated(train), repeated(test))
    for row, column in np.ndindex(*size):
        here, difference = inputs[:, :, row, column], others[:, :, row, column] - inputs[:, :, row, column].mean(axis=0)
        inverse = np.linalg.inv(np.cov(here, rowvar=False) + 0.01 * np.eye(here.shape[1]))
        expected = np.sqrt((difference @ inverse * difference).sum(axis=1))
        np.testing.assert_allclose(found[:, row, column].numpy(), expected, rtol=2e-5)


@pytest.mark.parametrize("count", [1, 2, 12])
def test_few_images_and_many_channels(count: int) -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = [(40, 2, 2), (20, 4, 4), (10, 8, 8)]
    train = [torch.rand(count, *shape, generator=generator) for shape in shapes]
    near = [level[-1:] + 1e-3 * torch.rand(1, *level.shape[1:], generator=generator) for level in train]
    test = [torch.cat([level, torch.rand(4, *level.shape[1:], generator=generator)]) for level in near]
    found = []
    for kind in (PyramidGaussians, FewImageGaussians):
        gaussians = kind(0.01)
        for rows in torch.arange(count).split(5):
            gaussians.update([level[rows] for level in train])
        gaussians.factorise()
        found.append(gaussians.mahalanobis(test))
    assert found[0].shape == (5, 8, 8)
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-5)
    assert gaussians.num_bytes == 4 * (count + 1) * (4 * 40 + 16 * 20 + 64 * 10) + 8 * 64 * count**2
