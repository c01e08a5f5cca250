"""Distance of each image to the Gaussians of all other images, for the cost of about one fit.

With centred features X [d, N] of all N images, r the regularisation and w = max(N - 2, 1), let a = N / (N - 1). An image x_k
lies a times as far from the mean of the others as from that of all, and taking it out makes X X^T smaller by a x_k x_k^T
(both as in Chan, Golub and LeVeque, 1983). By the identity of Sherman and Morrison its squared distance is then

    a^2 m / (1 - a m / w)    with    m = x_k^T (X X^T / w + r I)^-1 x_k,

so one factorisation, d x d, serves all images. Where there are fewer images than channels, one of N x N is cheaper: with H
the inverse of X^T X + w r I without its part along (1, ..., 1), the squared distance is (1 / H_kk - a w r) / r, by the
Woodbury identity.

Both give the same distances, as long as 1 - a m / w keeps enough digits. It is tiny where an image differs from all others by
far more than the square root of r in a direction in which these do not differ, as with large features of fewer images than
channels. The second form loses no digits there, and takes the place of the first.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tabzoo.detectors.gaussians import PyramidGaussians
from tabzoo.detectors.pyramid import as_grid, levels_of, nest, over_levels

__all__ = ["leave_one_out"]

_Form = Callable[[Sequence[Tensor], float], Tensor]
_AT_A_TIME = 2**24  # numbers at a time, of 8 bytes each
_SLOWER = 4
"""So many times as long takes a multiplication in the form by images, on a CPU with 40 to 150 images (measured)."""
_TOO_FEW_DIGITS = 1e-8
"""1 - a m / w below which it has fewer digits than features in single precision."""


def leave_one_out(maps: Sequence[Tensor], regularisation: float) -> Tensor:
    """Distance of each image at each position to the Gaussian of all other images; the same as if each were fitted apart.

    Args:
        maps: Of all images, [N, d, h, w], N at least 2, coarse to fine.
        regularisation: Added to the diagonal of the covariances.

    Returns:
        [N, H, W], of the size of the finest map.
    """
    maps = nest(maps)
    levels = levels_of(maps)
    found = _in_parts(*_cheaper(levels), levels, regularisation)
    return as_grid(found.clamp(min=0).sqrt().to(maps[-1].dtype), maps)


def _in_parts(form: _Form, numbers: int, levels: Sequence[Tensor], regularisation: float) -> Tensor:
    """Squared distances [P, N] by a form that keeps so many numbers for all positions, of some positions at a time."""
    coarse = len(levels[0])
    at_a_time = max(1, _AT_A_TIME * coarse // numbers)
    found = []
    for start in range(0, coarse, at_a_time):  # all positions below some pixels of the coarsest map
        parts = [level.unflatten(0, (coarse, -1))[start : start + at_a_time].flatten(0, 1).double() for level in levels]
        found.append(form(parts, regularisation))
    return torch.cat(found)


def _cheaper(levels: Sequence[Tensor]) -> tuple[_Form, int]:
    """The form that takes less time for levels [P, d, N], and how many numbers it keeps for all positions."""
    count, channels = levels[0].shape[-1], 0
    features = covariances = factors = 0
    for level in levels:
        positions, width, _ = level.shape
        channels += width
        features += positions * width
        covariances += positions * width * channels
        factors += positions * width * channels * channels // 2
    by_images = len(levels[-1]) * count**3 // 2 + features * count**2
    by_channels = 2 * covariances * count + factors
    if _SLOWER * by_images < by_channels:
        return _by_images, _numbers_by_images(levels)
    return _by_channels, covariances + 2 * features * count


def _by_channels(levels: Sequence[Tensor], regularisation: float) -> Tensor:
    """Squared distances [P, N] by a factorisation of covariances; by the other form where that loses digits."""
    gaussians = PyramidGaussians(regularisation)
    gaussians.update_levels(levels)
    try:
        gaussians.factorise(left_out=1)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        return _in_parts(_by_images, _numbers_by_images(levels), levels, regularisation)
    count = gaussians.count
    farther, weight = count / (count - 1), max(count - 2, 1)
    squares = gaussians.squares(levels)
    rest = 1 - farther / weight * squares
    found = farther**2 * squares / rest
    imprecise = rest < _TOO_FEW_DIGITS
    if imprecise.any():
        found = torch.where(imprecise, _in_parts(_by_images, _numbers_by_images(levels), levels, regularisation), found)
    return found


def _numbers_by_images(levels: Sequence[Tensor]) -> int:
    return len(levels[-1]) * levels[0].shape[-1] ** 2


def _by_images(levels: Sequence[Tensor], regularisation: float) -> Tensor:
    """The same by a factorisation of products of images."""
    count = levels[0].shape[-1]
    ridge = max(count - 2, 1) * regularisation
    centred = [level - level.mean(-1, keepdim=True) for level in levels]
    products = over_levels([level.mT @ level for level in centred])  # [P, N, N]
    # The rows of the products sum to 0. A common constant gives them a sum that can be inverted and taken off again.
    constant = products.diagonal(dim1=-2, dim2=-1).mean(-1) + ridge
    products += (constant / count)[:, None, None]
    products.diagonal(dim1=-2, dim2=-1).add_(ridge)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(products)).diagonal(dim1=-2, dim2=-1)
    inverse = inverse - 1 / (count * (constant + ridge))[:, None]
    return (1 / inverse - count / (count - 1) * ridge) / regularisation
