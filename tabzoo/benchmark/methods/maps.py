"""From a grid of distances to an anomaly map: bilinear upsampling and Gaussian smoothing, as two matrix products.

Both are linear and act on rows and columns apart, so together they are A D A^T with one fixed matrix A for each side.
Equal to `F.interpolate(mode="bilinear", align_corners=False)` followed by SciPy's
`gaussian_filter(sigma, mode="reflect", truncate=4)`, what PaDiM's and PatchCore's public codes do.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["smooth_upsample"]

_TRUNCATE = 4.0


def smooth_upsample(grid: Tensor, size: tuple[int, int], *, sigma: float = 4.0) -> Tensor:
    """Distances [B, h, w] to smooth maps [B, H, W].

    Args:
        grid: What to upsample.
        size: H and W.
        sigma: Of the Gaussian, in pixels of the map.
    """
    rows, columns = (_matrix(small, large, sigma).to(grid) for small, large in zip(grid.shape[-2:], size, strict=True))
    return rows @ grid @ columns.T


@cache
def _matrix(small: int, large: int, sigma: float) -> Tensor:
    """[large, small] in float64: smoothing times upsampling."""
    upsampling = F.interpolate(torch.eye(small, dtype=torch.float64)[None], size=large, mode="linear")[0].T
    return _smoothing(large, sigma) @ upsampling


def _smoothing(size: int, sigma: float) -> Tensor:
    """[size, size]: row i holds the weights that pixel i's value is made of."""
    radius = int(_TRUNCATE * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    weights /= weights.sum()
    # Beyond the border the image is mirrored, edge pixel included: ... b a | a b c ...
    index = (torch.arange(size)[:, None] + offsets) % (2 * size)
    index = torch.where(index < size, index, 2 * size - 1 - index)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(1, index, weights.expand(size, -1))
