"""From a grid of distances to an anomaly map: bilinear upsampling and Gaussian smoothing, as two matrix products.

Both are linear and act on rows and columns apart, so together they are A D A^T with one fixed matrix A for each side.
Equal to `F.interpolate(mode="bilinear")` followed by SciPy's `gaussian_filter(sigma, mode="reflect", truncate=4)`, what the
public codes of all methods do.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from tabzoo.compute import to_device

__all__ = ["side_matrix", "smooth_upsample"]

_TRUNCATE = 4.0


def smooth_upsample(grid: Tensor, size: tuple[int, int], *, sigma: float = 4.0, align_corners: bool = False) -> Tensor:
    """Distances [B, h, w] to smooth maps [B, H, W].

    Args:
        grid: What to upsample.
        size: H and W.
        sigma: Of the Gaussian, in pixels of the map.
        align_corners: As in `F.interpolate`.
    """
    sides = zip(grid.shape[-2:], size, strict=True)
    rows, columns = (_matrix_on(*side, sigma, align_corners, grid.dtype, grid.device) for side in sides)
    return rows @ grid @ columns.T


def side_matrix(small: int, large: int, *, sigma: float | None, align_corners: bool = False) -> Tensor:
    """The matrix A of a side of `small` positions and `large` pixels: smoothing times upsampling, float64 [large, small].

    Args:
        small: Positions.
        large: Pixels.
        sigma: As for `smooth_upsample`; None: no smoothing.
        align_corners: As for `smooth_upsample`.
    """
    unit = torch.eye(small, dtype=torch.float64)[None]
    upsampling = F.interpolate(unit, size=large, mode="linear", align_corners=align_corners)[0].T
    return upsampling if sigma is None else _smoothing(large, sigma) @ upsampling


@cache  # also of what is on a GPU: copying it for every batch would wait for the device
def _matrix_on(
    small: int, large: int, sigma: float, align_corners: bool, dtype: torch.dtype, device: torch.device
) -> Tensor:
    return to_device(side_matrix(small, large, sigma=sigma, align_corners=align_corners).to(dtype), device)


def _smoothing(size: int, sigma: float) -> Tensor:
    """[size, size]: row i holds the weights of the pixels that pixel i becomes the mean of."""
    radius = int(_TRUNCATE * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    weights /= weights.sum()
    # Beyond the border the image is mirrored, edge pixel included: ... b a | a b c ...
    index = (torch.arange(size)[:, None] + offsets) % (2 * size)
    index = torch.where(index < size, index, 2 * size - 1 - index)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(1, index, weights.expand(size, -1))
