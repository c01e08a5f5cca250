"""Pyramids of feature maps in an order in which what a coarse map gives is computed once for all positions below it.

The positions of each map are ordered so that those below one coarser pixel follow each other. Then the d channels at P
fine positions, grouped by the Q positions of a coarser map, are a view, [P, d, ...] as [Q, P / Q * d, ...], and not a copy.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor

__all__ = ["as_grid", "grouped_by", "levels_of", "nest", "nested_levels", "over_levels", "to_grid"]


def nested_levels(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps [B, d, h, w], coarse to fine, as Gaussians take them, [P, d, B] each; see the top of this file."""
    return levels_of(nest(maps))


def to_grid(values: Tensor, maps: Sequence[Tensor]) -> Tensor:
    """The reverse for one value a position of the finest of these maps: [P, B] as [B, H, W]."""
    return as_grid(values, nest(maps))


def nest(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps whose sides divide the next finer one's; where one does not, it is first repeated to that size (nearest)."""
    nested = [maps[-1]]
    for coarse in reversed(maps[:-1]):
        (height, width), (h, w) = nested[0].shape[-2:], coarse.shape[-2:]
        fits = height % h == 0 and width % w == 0 and height // h == width // w
        nested.insert(0, coarse if fits else F.interpolate(coarse, size=(height, width), mode="nearest"))
    return nested


def levels_of(maps: Sequence[Tensor]) -> list[Tensor]:
    """Nested maps [B, d, h, w] as [P, d, B], positions below one coarser pixel next to each other."""
    levels = []
    for depth, level in enumerate(maps):
        rows, columns = _splits(maps[: depth + 1])
        split = level.unflatten(3, columns).unflatten(2, rows)  # [B, d, *rows, *columns]
        # Rows and columns in turn, from the coarsest on.
        order = [axis for pair in enumerate(range(3 + depth, 4 + 2 * depth), start=2) for axis in pair]
        levels.append(split.permute(*order, 1, 0).flatten(0, -3).contiguous())
    return levels


def over_levels(levels: Sequence[Tensor]) -> Tensor:
    """Sum of values [Q, ...] of each level, coarse to fine, at the positions of the finest, [P, ...]; overwrites them."""
    total, *finer = levels
    for level in finer:
        level.unflatten(0, (len(total), -1)).add_(total[:, None])
        total = level
    return total


def as_grid(values: Tensor, maps: Sequence[Tensor]) -> Tensor:
    """The reverse for one value a position of the finest map: [P, B] as [B, H, W]."""
    rows, columns = _splits(maps)
    split: Tensor = values.unflatten(0, [side for pair in zip(rows, columns, strict=True) for side in pair])
    axes = range(2 * len(maps))
    return split.permute(-1, *axes[::2], *axes[1::2]).reshape(-1, *maps[-1].shape[-2:])


def _splits(maps: Sequence[Tensor]) -> tuple[list[int], list[int]]:
    """Rows and columns of the coarsest map, then how many of each next map are below one of the previous map."""
    heights, widths = ([level.shape[axis] for level in maps] for axis in (-2, -1))
    rows, columns = ([sides[0], *(fine // coarse for coarse, fine in pairwise(sides))] for sides in (heights, widths))
    return rows, columns


def grouped_by(coarse: Tensor, fine: Tensor) -> Tensor:
    """A fine level [P, d, n] grouped by the positions of a coarser one (or of itself), [Q, P / Q * d, n]."""
    return fine.view(len(coarse), len(fine) // len(coarse) * fine.shape[1], fine.shape[2])
