"""Have the scores of good-looking photos left those of the photos that the detector was fitted to?

Cameras get dirty, lamps age, lenses are moved: scores then drift, long before photos are called defective. After every 50
good-looking photos, the last 50, 100, 200, 400 and 800 of them are compared by the two-sample Kolmogorov-Smirnov test: with the
out-of-fold scores of the good photos, and with the first 200 good-looking photos, which tell more where the detector was
fitted to few. Good-looking photos are those up to the threshold, so the scores of the good photos are cut there, too.

Out-of-fold scores are of detectors with fewer photos, which tends to make them a little higher. So scores that are lower than
those of the good photos say nothing; lower than those of the first 200 do.

The test is exact (Hodges 1958, "The significance probability of the Smirnov two-sample test", by counting paths), and many
looks do not add up to a false warning: the k-th look has the level / (k (k + 1)), divided by its number of tests, and these
add up to the level (Bonferroni). So of 1,000 streams in which nothing changes, at most one is warned about (`LEVEL`), however
long they are. That is exact for scores that are independent.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["LEVEL", "Drift", "ks_distance", "ks_p_value"]

LEVEL = 0.001
"""Probability of any warning in a stream in which nothing changes."""
_STEP = 50
_WINDOWS = (50, 100, 200, 400, 800)
_FIRST = 200
_MOST_KNOWN = 1000
"""Scores compared with; of more, so many are drawn: the counts of paths of still longer samples leave the range of floats."""

Scores = NDArray[np.float64]


class Drift:
    """A running comparison of good-looking photos with the good photos of the fit.

    Args:
        known: Out-of-fold scores of the good photos, [N].
        threshold: Of the detector. The photo that gave it, and those above, are not compared.
        level: Probability of any warning in a stream in which nothing changes.

    Attributes:
        count: Number of good-looking photos so far.
    """

    def __init__(self, known: ArrayLike, threshold: float, *, level: float = LEVEL) -> None:
        scores = np.sort(np.asarray(known, dtype=np.float64))
        # Given the threshold, one of these scores, those below it are a sample of what is below: as the new ones are.
        scores = scores[scores < threshold]
        if len(scores) > _MOST_KNOWN:
            scores = np.sort(np.random.default_rng(0).choice(scores, _MOST_KNOWN, replace=False))
        self.count = 0
        self._known, self._threshold, self._level = scores, threshold, level
        self._first: list[float] = []
        self._last: list[float] = []
        self._silent_until = 0

    def update(self, scores: ArrayLike) -> str | None:
        """Takes the scores of the next photos, a number or [N]; those above the threshold are left out.

        Returns:
            A warning in one line, or None. After one, the next comes when the number of photos has doubled at the earliest.
        """
        warning = None
        for score in np.atleast_1d(np.asarray(scores, dtype=np.float64)).tolist():
            if score <= self._threshold:
                self.count += 1
                self._last = [*self._last[1 - _WINDOWS[-1] :], score]
                if self.count <= _FIRST:
                    self._first.append(score)
                if self.count % _STEP == 0:
                    warning = self._look() or warning
        return warning

    def _look(self) -> str | None:
        look, tests = self.count // _STEP, list(self._tests())
        if self.count < self._silent_until:
            return None
        level = self._level / (look * (look + 1)) / max(1, len(tests))
        for of, before, number in tests:
            new = np.array(self._last[-number:])
            p, higher = ks_p_value(before, new, unless_above=level), ks_distance(before, new) > 0
            if p <= level and (higher or before is not self._known):
                self._silent_until = 2 * self.count
                return (
                    f"the scores of the last {number} good photos are {'higher' if higher else 'lower'} than those of {of} "
                    f"(Kolmogorov-Smirnov test, p = {max(p, 1e-300):.0e}). Has the camera, the lamp or the lens changed?"
                )
        return None

    def _tests(self) -> Iterator[tuple[str, Scores, int]]:
        """What to compare with, in words and as scores, and how many of the last photos."""
        for number in _WINDOWS:
            if number <= self.count and len(self._known):
                yield "the good photos that the detector was fitted to", self._known, number
            if number <= self.count - _FIRST:
                yield f"the first {_FIRST} good photos", np.array(self._first), number


def ks_distance(known: Scores, new: Scores) -> float:
    """The largest difference of the two shares of scores up to a value; above 0 if the new ones are higher there."""
    values = np.concatenate([known, new])
    shares = [np.searchsorted(np.sort(scores), values, side="right") / len(scores) for scores in (known, new)]
    differences = shares[0] - shares[1]
    return float(differences[np.abs(differences).argmax()])


def ks_p_value(known: Scores, new: Scores, *, unless_above: float = 1.0) -> float:
    """Exact two-sided p-value of the Kolmogorov-Smirnov test of two samples; conservative where scores are equal.

    With d the largest difference, n and m the sizes, and all orders of the n + m scores equally probable, it is the share of
    paths from (0, 0) to (n, m) that come to a point (i, j) with |i / n - j / m| >= d. Paths are counted where they first do.

    Args:
        known: Some scores, [n].
        new: The others, [m], n and m at most 1,000.
        unless_above: Where the approximation for large samples is some hundred times this and more, it is returned instead.
    """
    few, many = sorted((len(known), len(new)))
    distance = abs(ks_distance(known, new))
    rough = min(1.0, 2 * math.exp(-2 * few * many / (few + many) * distance**2))
    if rough >= max(0.05, 300 * unless_above):
        return rough
    limit = round(distance * few * many)
    if limit == 0:
        return 1.0
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, few + many + 1)))])  # of factorials

    def log_paths(a: int, b: NDArray[np.int64]) -> Scores:
        return np.asarray(logs[a + b] - logs[a] - logs[b])

    whole, total = float(log_paths(few, np.array(many))), 0.0
    # Paths to (i, j) that kept within the limit, for all j of a row; divided by exp(scale), as they are large numbers.
    row, first, scale = np.ones(1), 0, 0.0
    for i in range(few + 1):
        low = max(0, (i * many - limit) // few + 1)
        high = min(many, -(-(i * many + limit) // few) - 1)
        left = np.arange(first, min(low, first + len(row)))  # from these j the step to row i leaves
        if len(left):
            ends = log_paths(few - i, many - left)
            total += float((row[: len(left)] * np.exp(ends + scale - whole)).sum())
        kept = np.zeros(high - low + 1)
        inside = row[len(left) :]
        kept[: len(inside)] = inside
        row, first = np.cumsum(kept), low
        largest = row[-1]
        row, scale = row / largest, scale + math.log(largest)
        if high < many:  # the step from the last j leaves
            total += math.exp(scale + float(log_paths(few - i, np.array(many - high - 1))) - whole)
    return min(1.0, total)
