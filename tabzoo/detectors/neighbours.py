"""Distances between many points, computed in parts, and the greedy choice of points that cover all others."""

from collections.abc import Iterator

import torch
from torch import Tensor

from tabzoo.progress import Progress

__all__ = ["k_center_greedy", "squared_distances"]

# Distances computed at a time: on a CPU as many as fit its cache. At least _POINTS rows, since small products are slow.
_AT_A_TIME = {"cpu": 2**18}
_AT_A_TIME_ELSEWHERE = 2**26
_POINTS = 512
# How many of the farthest points are candidates while centres are chosen.
_FARTHEST = 512
# Choices between two looks at whether the last ones are still valid: on a GPU each look waits for the device.
_LOOK_AFTER = {"cpu": 1}
_LOOK_AFTER_ELSEWHERE = 16


def squared_distances(points: Tensor, others: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Squared Euclidean distances of points [N, D] to others [M, D], as slices of the points with [n, M] each."""
    squares = others.square().sum(1)
    step = max(_POINTS, _AT_A_TIME.get(points.device.type, _AT_A_TIME_ELSEWHERE) // len(others))
    for start in range(0, len(points), step):
        part = points[start : start + step]
        distances = torch.addmm(squares, part, others.T, alpha=-2).add_(part.square().sum(1, keepdim=True))
        yield slice(start, start + step), distances.clamp_(min=0)


def k_center_greedy(points: Tensor, count: int, *, start: int) -> Tensor:
    """Greedy choice of centres: indices [count] of points [N, D], `start`, then always the point farthest from all chosen.

    The plain loop compares all points with every choice. Here only the farthest points are candidates, for as long as one of
    them is farther than all other points were at the last update; then all points are updated at once, in a matrix product.
    Distances to the nearest choice can only shrink, so the choices are those of the plain loop.

    Args:
        points: What to choose from.
        count: At least 1 and at most N.
        start: The first choice.
    """
    chosen = torch.full((1,), start, device=points.device)
    new, nearest = chosen, points.new_full((len(points),), torch.inf)
    with Progress(count, "coreset", unit="patch", done=1) as progress:
        while len(chosen) < count:
            for part, distances in squared_distances(points, points[new]):
                nearest[part] = torch.minimum(nearest[part], distances.amin(1))
            nearest.index_fill_(0, new, -torch.inf)  # Never again, also where several points are equal.
            far, rows = nearest.topk(min(_FARTHEST, len(points)))
            new = rows[_farthest_first(points[rows], far, count - len(chosen))]
            chosen = torch.cat([chosen, new])
            progress.update(len(new))
    return chosen


def _farthest_first(points: Tensor, nearest: Tensor, most: int) -> Tensor:
    """Indices of the next choices among points whose distances, sorted, are above those of all points not among them."""
    squares, others = points.square().sum(1), nearest[-1:].clone()
    every = _LOOK_AFTER.get(points.device.type, _LOOK_AFTER_ELSEWHERE)
    chosen: list[Tensor] = []
    valid: list[Tensor] = []
    while len(chosen) < most:
        farthest, index = nearest.max(0, keepdim=True)  # [1]: a single number as an index would be read
        valid.append(~(farthest <= others))
        if chosen and len(valid) % every == 0 and not torch.cat(valid[-every:]).all():
            break
        chosen.append(index)
        distances = torch.addmv(squares, points, points[index][0], alpha=-2) + squares[index]
        nearest = torch.minimum(nearest, distances).index_fill_(0, index, -torch.inf)
    # Up to the first one that is not valid. The first choice always is, also where all points are equally far.
    count = max(1, int(torch.cat(valid).cumprod(0).sum()))
    return torch.cat(chosen)[:count]
