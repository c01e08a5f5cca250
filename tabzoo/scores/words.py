"""Differences of scores in words: points, intervals, and what they rest on."""

from tabzoo.errors import count
from tabzoo.scores.compare import Comparison

__all__ = ["interval_in_words", "points", "signed", "tested_on"]


def points(fraction: float) -> str:
    """A fraction in points; -0.0 is 0.0."""
    return f"{100 * fraction + 0.0:.1f}".replace("-0.0", "0.0")


def signed(fraction: float) -> str:
    """A difference in points with its sign; none where it rounds to 0."""
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def interval_in_words(comparison: Comparison) -> str:
    """The interval, as a rise of what is better, as a fall of what is worse, and else with signs."""
    c = comparison
    low, high = {"better": (c.low, c.high), "worse": (-c.high, -c.low)}.get(c.verdict, (c.low, c.high))
    write = signed if c.verdict == "no difference" else points
    return f"95 % interval {write(low)} to {write(high)}"


def tested_on(comparison: Comparison, kind: str | None) -> str:
    """The photos and classes that a comparison rests on.

    Args:
        comparison: Of image scores.
        kind: Kind of synthetic anomalies; None where the defects are real.
    """
    c = comparison
    classes = count(c.classes, "class", "classes")
    if kind is None:
        return f"{c.good:,} good and {count(c.defective, 'defective photo')} of {classes}"
    made = "synthetic anomaly" if c.defective == 1 else "synthetic anomalies"
    proxy = f"{c.defective:,} {made} ({kind}), which are a proxy for real defects"
    return f"{count(c.good, 'good photo')} and {proxy}, of {classes}"
