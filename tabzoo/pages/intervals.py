"""A plot of differences with their intervals, one line each."""

from collections.abc import Sequence
from typing import NamedTuple

from tabzoo.plain import for_terminal
from tabzoo.scores.compare import Comparison
from tabzoo.scores.words import signed

__all__ = ["IntervalPlot", "interval_plot"]

_WIDTH, _LINE = 360, 26  # of the plot and of a line in it, in pixels
_LONGEST = 27  # characters of a name beside the plot
_SMALLEST = 0.01
"""Half the range of the plot at least, so that differences within chance look small."""


class _Line(NamedTuple):
    """`y` and the three places along the line are in pixels."""

    name: str
    short: str
    y: float
    low: float
    middle: float
    high: float
    label: str


class IntervalPlot(NamedTuple):
    """What the macro `intervals` in figures.html draws; sizes in pixels.

    Attributes:
        lines: From top to bottom.
        half: Half the range of the plot, as a fraction.
        width: Of the plot, without names and labels.
        height: With the axis.
        first_decides: Whether the first line stands out.
    """

    lines: Sequence[_Line]
    half: float
    width: int
    height: int
    first_decides: bool


def interval_plot(named: Sequence[tuple[str, Comparison]], *, first_decides: bool = True) -> IntervalPlot:
    """Places differences along a line around 0.

    Args:
        named: Name and comparison of each line, at least one.
        first_decides: Whether the first line stands out.
    """
    half = max(_SMALLEST, *(abs(end) for _, one in named for end in (one.low, one.high)))

    def place(value: float) -> float:
        return round(_WIDTH / 2 * (1 + max(-1.0, min(1.0, value / half))), 1)

    lines = [
        _Line(
            name=for_terminal(name),
            short=_shorten(for_terminal(name)),
            y=_LINE * (index + 0.5),
            low=place(one.low),
            middle=place(one.difference),
            high=place(one.high),
            label=f"{signed(one.difference)} ({signed(one.low)} to {signed(one.high)})",
        )
        for index, (name, one) in enumerate(named)
    ]
    return IntervalPlot(lines, half, _WIDTH, _LINE * (len(lines) + 1), first_decides)


def _shorten(name: str) -> str:
    """The ends of a long name tell more than its middle."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2]}…{name[-(_LONGEST // 2) :]}"
