"""Colour changes as one affine map per sample: brightness, contrast, saturation and hue together.

Factors and grey weights are those of torchvision's ColorJitter (PIL's "L": ITU-R 601).

It differs from ColorJitter in: the four changes always come in this order, without rounding in between; and hue is a
rotation around the grey axis rather than a shift in HSV, so that it stays a matrix.
"""

import functools
import math

import torch
from torch import Tensor

__all__ = ["GREY", "colour_matrix", "grey_weights", "jitter_factor"]

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey level."""


@functools.lru_cache(maxsize=8)
def grey_weights(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns `GREY` as a tensor [3], made once for each device: making one on a GPU waits for the GPU."""
    with torch.inference_mode(False):  # it outlives the caller's mode, and must be an ordinary tensor
        return torch.tensor(GREY, dtype=dtype, device=device)


def jitter_factor(u: Tensor, strength: float) -> Tensor:
    """Maps uniform numbers to factors, uniform in 1 - strength ... 1 + strength."""
    return 1.0 + strength * (2.0 * u - 1.0)


def colour_matrix(saturation: Tensor, hue: Tensor) -> Tensor:
    """Returns the matrix that changes saturation and then hue, [B, 3, 3]; it leaves greys as they are.

    Args:
        saturation: Factor, [B].
        hue: Shift as a fraction of the full circle, [B].
    """
    # Rodrigues' formula for a rotation around the unit vector (1, 1, 1) / sqrt(3): `third` projects onto that axis,
    # `cross` is the cross product with it.
    angle = 2 * math.pi * hue[:, None, None]
    third = torch.full((3, 3), 1 / 3, dtype=hue.dtype, device=hue.device)
    unit = torch.eye(3, dtype=hue.dtype, device=hue.device)
    cross = (unit.roll(1, 0) - unit.roll(1, 1)) / math.sqrt(3)  # [[0, -1, 1], [1, 0, -1], [-1, 1, 0]] / sqrt(3)
    rotation = torch.cos(angle) * (unit - third) + third + torch.sin(angle) * cross
    grey = grey_weights(hue.dtype, hue.device).expand(3, 3)  # saturation 0: every channel becomes the grey level
    return rotation @ torch.lerp(grey, unit, saturation[:, None, None])
