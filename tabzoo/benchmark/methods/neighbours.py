"""Distances between many points, a piece at a time, and the subset of points from which no point is far."""

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["k_center_greedy", "squared_distances"]

# So many distances are made at a time, on a CPU as many as stay in its cache; for no fewer points, lest products are slow.
_AT_A_TIME = {"cpu": 2**18}
_AT_A_TIME_ELSEWHERE = 2**26
_POINTS = 512
# So many of the farthest points are at hand while centres are chosen.
_FARTHEST = 512


def squared_distances(points: Tensor, others: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Squared Euclidean distances of points [N, D] to others [M, D], as slices of the points with [n, M] each."""
    squares = others.square().sum(1)
    step = max(_POINTS, _AT_A_TIME.get(points.device.type, _AT_A_TIME_ELSEWHERE) // len(others))
    for start in range(0, len(points), step):
        part = points[start : start + step]
        distances = torch.addmm(squares, part, others.T, alpha=-2).add_(part.square().sum(1, keepdim=True))
        yield slice(start, start + step), distances.clamp_(min=0)


def k_center_greedy(points: Tensor, count: int, *, start: int) -> Tensor:
    """Indices [count] of points [N, D]: `start`, then each time the point that is farthest from all chosen before.

    The plain loop measures all points against every choice. Here choices are made among the farthest points alone for as
    long as one of them is farther than all others were before; then all catch up at once, in a matrix product. Distances
    to the nearest choice only shrink, so the choices are the plain loop's.

    Args:
        points: What to choose from.
        count: At least 1 and at most N.
        start: The first choice.
    """
    chosen = torch.full((1,), start, device=points.device)
    new, nearest = chosen, points.new_full((len(points),), torch.inf)
    while len(chosen) < count:
        for part, distances in squared_distances(points, points[new]):
            nearest[part] = torch.minimum(nearest[part], distances.amin(1))
        nearest[new] = -torch.inf  # Never again, also where several points are equal.
        far, rows = nearest.topk(min(_FARTHEST, len(points)))
        new = rows[_farthest_first(points[rows], far, count - len(chosen))]
        chosen = torch.cat([chosen, new])
    return chosen


def _farthest_first(points: Tensor, nearest: Tensor, most: int) -> Tensor:
    """Indices of the next choices among points whose distances, sorted, are above those of all points not among them."""
    squares, others = points.square().sum(1), nearest[-1].clone()
    chosen: list[Tensor] = []
    while len(chosen) < most:
        farthest, index = nearest.max(0)
        if chosen and farthest <= others:
            break
        chosen.append(index)
        distances = torch.addmv(squares, points, points[index], alpha=-2) + squares[index]
        nearest = torch.minimum(nearest, distances)
        nearest[index] = -torch.inf
    return torch.stack(chosen)
