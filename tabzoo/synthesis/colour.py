"""Colour changes as one affine map per sample: brightness, contrast, saturation and hue at once.

Facts: the four factors and their grey weights are those of torchvision's ColorJitter (PIL's "L": ITU-R 601).

It differs from it in: the four are always applied in this order and without rounding in between; and hue is turned by
rotating around the grey axis rather than in HSV, which keeps it a matrix.
"""

import math

import torch
from torch import Tensor

__all__ = ["GREY", "colour_matrix", "spread"]

GREY = (0.299, 0.587, 0.114)


def spread(u: Tensor, strength: float) -> Tensor:
    """Turns uniform numbers into factors, uniform in 1 - strength ... 1 + strength."""
    return 1.0 + strength * (2.0 * u - 1.0)


def colour_matrix(saturation: Tensor, turn: Tensor) -> Tensor:
    """Returns the matrix that changes saturation and then hue, [B, 3, 3]; greys are fixed points.

    Args:
        saturation: Factor, [B].
        turn: Hue shift in turns, [B]; 1 is a full circle.
    """
    angle = 2 * math.pi * turn[:, None, None]
    third = torch.full((3, 3), 1 / 3, dtype=turn.dtype, device=turn.device)
    cross = turn.new_tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    unit = torch.eye(3, dtype=turn.dtype, device=turn.device)
    rotation = torch.cos(angle) * (unit - third) + third + torch.sin(angle) * cross
    grey = turn.new_tensor(GREY).expand(3, 3)
    return rotation @ torch.lerp(grey, unit, saturation[:, None, None])
