"""Distances and the greedy choice of a coreset against plain loops."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tabzoo.detectors import neighbours
from tabzoo.detectors.neighbours import k_center_greedy, squared_distances

Array = NDArray[np.float64]


def greedy(points: Array, count: int, start: int) -> list[int]:
    """The plain loop: all distances to the last choice, every time."""
    chosen, nearest = [start], np.full(len(points), np.inf)
    while len(chosen) < count:
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
    return chosen


@pytest.mark.parametrize("look_after", [1, 5])
@pytest.mark.parametrize("farthest", [2, 16, 10_000])
@pytest.mark.parametrize("width", [2, 24])
def test_the_greedy_choice_is_the_plain_loops(
    farthest: int, width: int, look_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(neighbours._LOOK_AFTER, "cpu", look_after)
    monkeypatch.setattr(neighbours, "_FARTHEST", farthest)
    monkeypatch.setattr(neighbours, "_POINTS", 64)
    points = np.random.default_rng(width).normal(size=(500, width)) * np.linspace(0.1, 2, width)
    chosen = k_center_greedy(torch.from_numpy(points), 120, start=17)
    assert chosen.tolist() == greedy(points, 120, 17)


@pytest.mark.parametrize("look_after", [1, 5])
def test_equal_points_are_chosen_once(look_after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(neighbours._LOOK_AFTER, "cpu", look_after)
    points = torch.randn(6, 130, generator=torch.Generator().manual_seed(0)).repeat(4, 1)
    assert sorted(k_center_greedy(points, 24, start=3).tolist()) == list(range(24))
    far = k_center_greedy(points, 6, start=3) % 6
    assert sorted(far.tolist()) == list(range(6))


def test_distances_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    points, others = torch.randn(70, 9, generator=generator), torch.randn(13, 9, generator=generator)
    expected = ((points[:, None] - others) ** 2).sum(2)
    for size in (1, 32, 100):
        monkeypatch.setattr(neighbours, "_POINTS", size)
        monkeypatch.setitem(neighbours._AT_A_TIME, "cpu", 1)
        parts = list(squared_distances(points, others))
        torch.testing.assert_close(torch.cat([part for _, part in parts]), expected, rtol=1e-4, atol=1e-5)
        assert [len(points[rows]) for rows, _ in parts] == [len(part) for _, part in parts]
