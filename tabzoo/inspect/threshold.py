"""From the scores of good photos to a threshold, and what it means for good parts to come, in words.

Each score is out of fold: its photo was not among those that its detector was fitted to. If new good parts are like these
photos, the share of them above the k-th smallest of n such scores has the distribution Beta(n - k + 1, k), whatever the
distribution of the scores (order statistics of a uniform sample: David and Nagaraja 2003, "Order Statistics", 3rd edition,
Section 2.1; for a threshold from held-out scores: Vovk 2012, "Conditional validity of inductive conformal predictors").
It is exact for scores that are independent and of one detector. Here the folds share photos, and the final detector has a few
more photos than each of theirs, so that it tends to give lower scores to good parts.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tabzoo.errors import InputError, count

__all__ = ["LEVEL", "Threshold", "assign_folds", "beta_quantile", "choose_threshold", "more_photos"]

logger = logging.getLogger(__name__)

LEVEL = 0.9
"""Of the interval of false alarms."""
_LEAVE_ONE_OUT = 20
"""Up to so many different photos, each is a fold of its own."""
_ALIKE = 1e-6  # scores that differ by less, relative to the highest or to 1, differ by rounding


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A threshold and what is known of it.

    Attributes:
        value: Photos with a higher score are defective.
        false_alarms_asked: Share of good parts above it that was asked for, in (0, 1).
        false_alarms_expected: Mean number of good parts above it, of 1,000.
        false_alarms_low: Lower end of the 90 % interval of that number.
        false_alarms_high: Its upper end.
        photos: Number of different good photos whose scores it is made of.
        folds: Number of folds.
        quantile: The threshold is the smallest score that so large a share of the scores does not exceed.
        words: All of that in a sentence or two.
    """

    value: float
    false_alarms_asked: float
    false_alarms_expected: float
    false_alarms_low: float
    false_alarms_high: float
    photos: int
    folds: int
    quantile: float
    words: str


def assign_folds(
    hashes: Sequence[object], order: Sequence[int], *, usual: int, leave_one_out: int = _LEAVE_ONE_OUT
) -> NDArray[np.int64]:
    """The fold of each photo; copies of a photo, which have equal hashes, are in the same one.

    Args:
        hashes: Of the photos' files, [N].
        order: A permutation of 0 to N - 1, by which folds are dealt out.
        usual: Number of folds where there are more photos than can each be a fold.
        leave_one_out: Up to so many different photos, each is a fold.

    Raises:
        InputError: All photos are copies of one.
    """
    different = list(dict.fromkeys(hashes[i] for i in order))
    if len(different) < 2:
        raise InputError(
            f"{count(len(hashes), 'good photo')}{', all of them copies of one' if len(hashes) > 1 else ''}: a threshold needs "
            f"at least 2 different ones. Add good photos."
        )
    folds = len(different) if len(different) <= leave_one_out else usual
    fold_of = {value: position % folds for position, value in enumerate(different)}
    return np.array([fold_of[value] for value in hashes])


def choose_threshold(scores: NDArray[np.float32], *, asked: float, folds: int) -> Threshold:
    """The smallest of the scores above which at most the share asked for of good parts is expected.

    Args:
        scores: Out-of-fold scores of different good photos, [N], N at least 2.
        asked: Share of false alarms, in (0, 1).
        folds: Number of folds.
    """
    ordered, n = np.sort(scores), len(scores)
    # Of two photos, each is scored by a detector of the other: PaDiM's distances are then equal, however different they are.
    if n > 2 and ordered[-1] - ordered[0] <= _ALIKE * max(1.0, abs(ordered[-1])):
        logger.warning(
            "all %d good photos have the same score, %.3g: every photo that differs from them will be called defective. Fit to "
            "photos of different parts.",
            n,
            ordered[0],
        )
    needed = math.ceil((n + 1) * (1 - asked) - 1e-9)  # expected above the k-th: (n + 1 - k) / (n + 1)
    k = min(max(needed, 1), n)
    low, high = (1000 * beta_quantile(p, n - k + 1, k) for p in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    expected = 1000 * (n + 1 - k) / (n + 1)
    words = (
        f"Of 1,000 good parts expect {math.floor(low)} to {math.ceil(high)} false alarms ({LEVEL * 100:.0f} % interval; "
        f"{expected:.0f} on average)."
    )
    if needed > n:
        enough = _photos_for(1, asked)
        words = (
            f"{count(n, 'different good photo')} are too few for --false-alarms {asked:g}, which needs {enough:,}. The "
            f"threshold is the largest score of a good photo: {words[0].lower()}{words[1:]}"
        )
    return Threshold(
        value=float(ordered[k - 1]),
        false_alarms_asked=asked,
        false_alarms_expected=round(expected, 3),
        false_alarms_low=round(low, 3),
        false_alarms_high=round(high, 3),
        photos=n,
        folds=folds,
        quantile=round(k / n, 6),
        words=words,
    )


def more_photos(threshold: Threshold) -> str:
    """What to do about a threshold that is the score of a single photo: the end of a sentence that begins with "If"."""
    asked, n = threshold.false_alarms_asked, threshold.photos
    if (needed := _photos_for(1, asked)) > n:
        add = f"add {count(needed - n, 'good photo')}, which --false-alarms {asked:g} needs"
    else:
        add = f"add {count(_photos_for(2, asked) - n, 'good photo')}, so that no single one decides"
    next_rate = math.ceil(2000 / (n + 1)) / 1000
    return f"{add}, or take the next highest score as the threshold: --false-alarms {next_rate:g}"


def _photos_for(rank: int, share: float) -> int:
    """How many photos it takes until at most this share of good parts is expected above their score of this rank."""
    return math.ceil(rank / share - 1 - 1e-9)


def beta_quantile(p: float, a: int, b: int) -> float:
    """The p-quantile of Beta(a, b) for whole a and b, by bisection.

    Its distribution function at x is the probability of a or more successes in a + b - 1 trials with probability x.
    """
    trials = a + b - 1
    logs = [math.lgamma(trials + 1) - math.lgamma(i + 1) - math.lgamma(trials - i + 1) for i in range(a)]

    def fewer_than_a(x: float) -> float:
        return math.fsum(math.exp(log + i * math.log(x) + (trials - i) * math.log1p(-x)) for i, log in enumerate(logs))

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if 1 - fewer_than_a(middle) >= p else (middle, high)
    return high
