"""The views of support images that RegAD fits its Gaussians to: 22 of each image."""

import math
from itertools import product

import torch
from torch import Tensor

from tabzoo.compute import to_device
from tabzoo.detectors.regad_network import warp

__all__ = ["VIEWS", "support_views"]

_ROTATIONS = tuple(sign * fraction * math.pi / 16 for sign, fraction in product((-1, 1), (4, 3, 2, 1)))
# In units of half an image.
_SHIFTS = tuple((x * size, y * size) for size in (0.2, 0.1) for x, y in product((-1, 1), repeat=2))
_QUARTER_TURNS = (1, 2, 3)
_MATRICES = torch.tensor(
    [[[math.cos(a), -math.sin(a), 0.0], [math.sin(a), math.cos(a), 0.0]] for a in _ROTATIONS]
    + [[[1.0, 0.0, x], [0.0, 1.0, y]] for x, y in _SHIFTS],
    dtype=torch.float64,
)
_GREY = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(3, 1, 1)
VIEWS = 1 + len(_MATRICES) + 2 + len(_QUARTER_TURNS)
"""Number of views of an image."""


def support_views(images: Tensor) -> Tensor:
    """Images [K, 3, H, W] as they are, rotated, shifted, flipped, grey, rotated by multiples of 90 degrees, [22 K, 3, H, W]."""
    matrices, weights = (to_device(constant.to(images.dtype), images.device) for constant in (_MATRICES, _GREY))
    moved = [warp(images, matrix.expand(len(images), 2, 3)) for matrix in matrices]
    grey = (images * weights).sum(dim=1, keepdim=True).expand_as(images)
    quarters = [torch.rot90(images, count, dims=(2, 3)) for count in _QUARTER_TURNS]
    return torch.cat([images, *moved, images.flip(3), grey, *quarters])
