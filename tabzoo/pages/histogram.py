"""A histogram of scores: good photos above, the photos that were scored below, and a line at the threshold."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tabzoo.errors import count

__all__ = ["Histogram", "histogram"]

_WIDTH, _PANEL, _GAP = 690, 90, 40  # of a panel and between panels, in pixels
_BINS = 46
_BEYOND = 3.0
"""How far the plot goes beyond the threshold, in distances of the threshold from the lowest score."""
_TINY = 1e-30
_GOOD, _DEFECTIVE = "#1f4e8c", "#b3261e"


class _Bar(NamedTuple):
    x: float
    y: float
    width: float
    height: float
    colour: str
    label: str


class _Panel(NamedTuple):
    title: str
    top: float
    bottom: float
    most: int
    """Photos in the highest bar."""
    bars: list[_Bar]


class _Tick(NamedTuple):
    x: float
    label: str


class Histogram(NamedTuple):
    """What the macro `histogram` in figures.html draws; sizes in pixels.

    Attributes:
        panels: Two, from top to bottom.
        threshold: Place of the line.
        threshold_label: Its value.
        anchor: Side of the line on which its value has room.
        ticks: Below the lower panel.
        width: Of a panel.
        height: Of all.
        beyond: Photos with scores beyond the right end; the last bar holds them.
    """

    panels: list[_Panel]
    threshold: float
    threshold_label: str
    anchor: str
    ticks: list[_Tick]
    width: int
    height: int
    beyond: int


def histogram(good: Sequence[float], scored: Sequence[float], threshold: float) -> Histogram:
    """Counts scores in bins of equal width, the same ones in both panels; the threshold is between two bins.

    Args:
        good: Scores of good photos that the threshold comes from.
        scored: Scores of the photos of this page; may be empty.
        threshold: In the scores' unit.
    """
    both = [np.asarray(values, dtype=np.float64) for values in (good, scored)]
    edges = _edges(*_range(np.concatenate([*both, [threshold]]), threshold), threshold)
    low, high = float(edges[0]), float(edges[-1])
    titles = [
        f"{count(len(good), 'good photo')}, scored by detectors that were not fitted to them",
        f"{count(len(scored), 'photo')} scored now",
    ]
    tops = [_GAP + index * (_PANEL + _GAP) for index in range(2)]
    panels = [_panel(*one, edges, threshold) for one in zip(titles, tops, both, strict=True)]
    place = _place(threshold, low, high)
    return Histogram(
        panels=panels,
        threshold=place,
        threshold_label=f"{threshold:.4g}",
        anchor="start" if place < _WIDTH / 2 else "end",
        ticks=[_Tick(_place(value, low, high), f"{value:.6g}") for value in _round_values(low, high)],
        width=_WIDTH,
        height=int(panels[-1].bottom) + 26,
        beyond=int(sum((values > high).sum() for values in both)),
    )


def _range(values: NDArray[np.float64], threshold: float) -> tuple[float, float]:
    """Both ends of the plot. A few huge scores must not press all others into one bar."""
    low, high = float(values.min()), float(values.max())
    size = max(abs(low), abs(high))
    if high - low <= 1e-6 * size or size < _TINY:  # all equal
        margin = size / 2 if size >= _TINY else 0.5
        return low - margin, high + margin
    reach = threshold + _BEYOND * (threshold - low)
    return low, min(high, reach) if reach > low else high


def _edges(low: float, high: float, threshold: float) -> NDArray[np.float64]:
    step = (high - low) / (_BINS - 1)  # one bin less, since the shift takes up to one
    below = max(1, math.ceil(round((threshold - low) / step, 6)))
    return threshold + step * (np.arange(_BINS + 1) - below)


def _place(value: float, low: float, high: float) -> float:
    return round(_WIDTH * min(1.0, max(0.0, (value - low) / (high - low))), 1)


def _round_values(low: float, high: float) -> list[float]:
    """Up to seven values with few digits from one end to the other."""
    power = 10.0 ** math.floor(math.log10((high - low) / 6))
    step = next(factor * power for factor in (1, 2, 5, 10) if (high - low) / (factor * power) <= 6)
    return [step * index for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _panel(title: str, top: float, values: NDArray[np.float64], edges: NDArray[np.float64], threshold: float) -> _Panel:
    good = values[values <= threshold].clip(edges[0], np.nextafter(threshold, -np.inf))  # the threshold itself is good
    parts = [(good, _GOOD), (values[values > threshold].clip(max=edges[-1]), _DEFECTIVE)]
    counts = [np.histogram(part, edges)[0] for part, _ in parts]
    most = int(np.sum(counts, axis=0).max())
    bottom, step = top + _PANEL, _WIDTH / _BINS
    bars, below = [], np.zeros(_BINS)
    for numbers, (_, colour) in zip(counts, parts, strict=True):
        for index in np.flatnonzero(numbers).tolist():
            height = _PANEL * int(numbers[index]) / most
            y = bottom - below[index] - height
            bars.append(
                _Bar(
                    x=round(index * step + 0.5, 1),
                    y=round(float(y), 1),
                    width=round(step - 1, 1),
                    height=round(max(height, 1.0), 1),
                    colour=colour,
                    label=_label(int(numbers[index]), edges[index], edges[index + 1], last=index == _BINS - 1),
                )
            )
            below[index] += height
    return _Panel(title, top, bottom, most, bars)


def _label(number: int, low: float, high: float, *, last: bool) -> str:
    return f"{count(number, 'photo')} from {low:.4g}" + ("" if last else f" to {high:.4g}")
