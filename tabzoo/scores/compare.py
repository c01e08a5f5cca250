"""Is one backbone better than another? The difference of image AUROC, its 95 % interval and its p-value.

The difference is a mean over training runs, classes, methods and seeds of the detector. Three things make it uncertain:

- The test images. A class has an array [A, G] of how often the candidate, minus how often the baseline, scores an anomalous
  image above a good one, averaged over all else. The variance of its mean is DeLong's (DeLong et al., 1988): that of the
  means of the rows plus that of the means of the columns. Both get one more image without any difference; without it, a
  few images that all happen to agree would look certain.
- The training run, where there are several. Two or three runs hardly tell how much runs differ: two may agree by chance, and
  their variance alone has one degree of freedom, with intervals of up to 30 points. So it is moderated (Smyth, 2004): the
  variance of the runs is averaged with that of `RUN_SD`, which counts as much as `RUN_FREEDOM` more runs. With one
  run, the interval is about these weights, not about what another run would give.
- The classes, if asked for: the variance between classes instead of that over images, but not less than it. Few classes may
  agree by chance.

The degrees of freedom of the sum are Satterthwaite's; interval and p-value are those of Student's t. How often this finds a
difference that there is, and one that there is not: training/evidence/STATISTICS.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from tabzoo.errors import InputError
from tabzoo.scores.bootstrap import Array, wins
from tabzoo.scores.rows import METRICS, Row

__all__ = ["LEVEL", "RUN_FREEDOM", "RUN_SD", "Comparison", "compare", "compare_metric", "holm"]

LEVEL = 0.05
"""Of the verdict; the interval holds the rest."""
RUN_SD = 0.0075
"""What to expect of the standard deviation between training runs, mean over classes: three quarters of a point."""
RUN_FREEDOM = 2
"""How many runs' worth this expectation counts."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A candidate against a baseline."""

    difference: float
    """Of image AUROC (or of another metric), candidate minus baseline, in [-1, 1]."""
    low: float
    """The 95 % interval."""
    high: float
    p_value: float
    """Two-sided."""
    good: int
    """Test images, of all classes together."""
    defective: int
    classes: int
    training_runs: int

    @property
    def verdict(self) -> Literal["better", "worse", "no difference"]:
        """At the 5 % level: "no difference" where the interval holds 0."""
        if self.p_value >= LEVEL:
            return "no difference"
        return "better" if self.difference > 0 else "worse"


class _Class(NamedTuple):
    """What a class is known by. Its test images are the same for all methods, seeds and shots."""

    dataset: str
    name: str
    test: str


class _Part(NamedTuple):
    """A part of the variance of the difference, and its degrees of freedom."""

    variance: float
    freedom: float


Pairs = dict[_Class, list[list[tuple[Row, Row]]]]
"""Class to, for each training run, rows of baseline and candidate."""


def compare(baseline: Sequence[Row], runs: Sequence[Sequence[Row]], *, over_classes: bool = False) -> Comparison:
    """The difference of image AUROC.

    Rows are compared where class, method, seed and shots are the same; those that are not on both sides and in all training
    runs, or without an image AUROC, do not count.

    Args:
        baseline: Rows of one backbone.
        runs: For each training run of the candidate its rows.
        over_classes: Whether the verdict should hold for other classes of the same kind, too; needs two classes or more.

    Raises:
        InputError: No rows can be compared, two rows on one side are for the same case, or rows to compare were not tested on
            the same images.
    """
    pairs = _pairs(baseline, runs, "image_auroc")
    gains = [_gains(name, of_runs) for name, of_runs in pairs.items()]
    images = [_Part(part.variance / len(gains) ** 2, part.freedom) for gain in gains for part in _of_images(gain)]
    return _comparison(pairs, np.array([gain.mean(axis=(1, 2)) for gain in gains]), images, over_classes=over_classes)


def compare_metric(baseline: Sequence[Row], runs: Sequence[Sequence[Row]], metric: str) -> Comparison:
    """The difference of any metric, with the interval over classes and training runs.

    Args:
        baseline: As for `compare`.
        runs: As for `compare`.
        metric: A key of `METRICS`. Rows hold no pixel metrics of single images, so images can't be resampled.

    Raises:
        InputError: As for `compare`, or there are fewer than two classes.
        ValueError: `metric` is not a key of `METRICS`.
    """
    if metric not in METRICS:
        raise ValueError(f"metric: {metric!r} given; expected one of {', '.join(METRICS)}")
    pairs = _pairs(baseline, runs, metric)
    values = [[[getattr(b, metric) - getattr(a, metric) for a, b in run] for run in runs_] for runs_ in pairs.values()]
    differences = np.array([[np.mean(run) for run in of_runs] for of_runs in values])
    return _comparison(pairs, differences, [], over_classes=True)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values corrected for their number (Holm, 1979): a claim at 5 % of any of them is false in at most 5 % of studies.

    Args:
        p_values: Name of an arm to its p-value.

    Returns:
        The same names in the same order.
    """
    corrected: dict[str, float] = {}
    least = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[name]))
        corrected[name] = least
    return {name: corrected[name] for name in p_values}


def _pairs(baseline: Sequence[Row], runs: Sequence[Sequence[Row]], metric: str) -> Pairs:
    if not runs:
        raise InputError("nothing to compare: no training run of the candidate was given; expected one at least")
    start, *others = [_by_case(rows, metric) for rows in (baseline, *runs)]
    pairs: Pairs = {}
    for case in sorted((case for case in start if all(case in run for run in others)), key=repr):
        of_runs = pairs.setdefault(case[0], [[] for _ in others])
        for pair_list, run in zip(of_runs, others, strict=True):
            if start[case].test_images != run[case].test_images:
                raise InputError(
                    f"{_describe(start[case])}: baseline and candidate were not tested on the same images; run both with the "
                    f"same images, --resize and --crop"
                )
            pair_list.append((start[case], run[case]))
    if not pairs:
        sides = ("; ".join(map(_describe, list(side.values())[:3])) or "none" for side in (start, others[0]))
        raise InputError(
            "nothing to compare: no {} is there for the same class, method, seed and shots on both sides. Rows of the "
            "baseline: {}. Rows of the candidate: {}".format(METRICS[metric], *sides)
        )
    return pairs


def _by_case(rows: Sequence[Row], metric: str) -> dict[tuple[_Class, str, int | None, int], Row]:
    found: dict[tuple[_Class, str, int | None, int], Row] = {}
    for row in rows:
        case = _Class(row.dataset, row.class_name, row.test), row.method, row.shots, row.seed
        if getattr(row, metric) is None:
            continue
        if case in found:
            raise InputError(
                f"{_describe(row)}: two rows ({found[case].key}, {row.key}); expected the rows of one backbone and of one "
                f"setting of each method"
            )
        found[case] = row
    return found


def _describe(row: Row) -> str:
    shots = "" if row.shots is None else f", {row.shots} shots"
    return f"{row.class_name} with {row.method}, seed {row.seed}{shots}"


def _gains(name: _Class, of_runs: Sequence[Sequence[tuple[Row, Row]]]) -> Array:
    """Wins of the candidate minus those of the baseline, averaged over methods and seeds, [R, A, G]."""
    sums: list[Array] = []
    for pairs in of_runs:
        arrays = [wins(b) - wins(a) for a, b in pairs]
        if len({array.shape for array in arrays}) > 1:
            raise InputError(f"{name.name}: methods or seeds were not tested on the same number of images")
        sums.append(np.mean(arrays, axis=0))
    return np.stack(sums)


def _of_images(gains: Array) -> list[_Part]:
    """Of the mean over the images of a class: the part of the anomalous ones and that of the good ones."""
    parts = []
    for axis in (1, 0):
        of_images = gains.mean(axis=0).mean(axis=axis)
        count = len(of_images)
        parts.append(_Part(float(np.append(of_images, 0).var(ddof=1)) / count, max(count - 1, 1)))
    return parts


def _of_classes(differences: Array, images: list[_Part]) -> list[_Part]:
    if len(differences) < 2:
        raise InputError("1 class to compare; expected two at least, to say something about other classes")
    between = float(differences.mean(axis=1).var(ddof=1)) / len(differences)
    return [_Part(max(between, sum(part.variance for part in images)), len(differences) - 1)]


def _of_runs(differences: Array) -> list[_Part]:
    count = differences.shape[1]
    if count < 2:
        return []
    freedom = count - 1 + RUN_FREEDOM
    variance = ((count - 1) * float(differences.mean(axis=0).var(ddof=1)) + RUN_FREEDOM * RUN_SD**2) / freedom
    return [_Part(variance / count, freedom)]


def _comparison(pairs: Pairs, differences: Array, images: list[_Part], *, over_classes: bool) -> Comparison:
    """`differences` [C, R], of each class in each training run."""
    parts = (_of_classes(differences, images) if over_classes else images) + _of_runs(differences)
    difference = float(differences.mean())
    half, p_value = _student(difference, parts)
    rows = [of_runs[0][0][0] for of_runs in pairs.values()]
    return Comparison(
        difference=difference,
        low=max(difference - half, -1.0),
        high=min(difference + half, 1.0),
        p_value=p_value,
        good=sum(row.images["good"] for row in rows),
        defective=sum(row.images["anomalous"] for row in rows),
        classes=len(pairs),
        training_runs=differences.shape[1],
    )


def _student(difference: float, parts: Sequence[_Part]) -> tuple[float, float]:
    """Half the interval and the two-sided p-value of a difference whose variance is the sum of the parts."""
    from scipy.special import stdtr, stdtrit

    variance = sum(part.variance for part in parts)
    if variance == 0:  # the same difference everywhere, as a rule none
        return 0.0, float(difference == 0)
    freedom = variance**2 / sum(part.variance**2 / part.freedom for part in parts)
    deviation = variance**0.5
    return deviation * float(stdtrit(freedom, 1 - LEVEL / 2)), 2 * float(stdtr(freedom, -abs(difference) / deviation))
