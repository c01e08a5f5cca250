"""How often `tabzoo.scores.compare` finds a difference that there is, and one that there is not: simulated image scores.

`python training/evidence/simulate.py --trials 1000 > table.md` prints the table of STATISTICS.md (some minutes on one core).

Scores are binormal: good images from N(0, 1), defective ones from N(m, 1), with m from the AUROC. Baseline and candidate see
the same images: their scores of an image are correlated 0.95.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from tabzoo.scores.bootstrap import auroc_differences, interval
from tabzoo.scores.compare import Comparison, compare
from tabzoo.scores.rows import Row

CORRELATION = 0.95


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is simulated: two backbones, their test images, and how much training runs and classes differ."""

    baseline: float
    """AUROC of the baseline on many images."""
    candidate: float
    """AUROC of the candidate: mean over training runs and classes."""
    classes: int = 1
    good: int = 100
    defective: int = 100
    runs: int = 1
    run_sd: float = 0.0
    """Standard deviation of the candidate's AUROC between training runs, the same for all classes."""
    class_sd: float = 0.0
    over_classes: bool = False


class Outcome(NamedTuple):
    """Shares of the trials that claim better and worse, and the median of half the interval."""

    better: float
    worse: float
    half: float


def draw(case: Case, rng: np.random.Generator) -> tuple[list[Row], list[list[Row]]]:
    """Rows of the baseline, and of each training run of the candidate."""
    of_class = rng.normal(0, case.class_sd, case.classes)
    of_run = rng.normal(0, case.run_sd, case.runs)
    baseline, runs = [], [[] for _ in of_run]
    for number, class_shift in enumerate(of_class):
        images = rng.normal(size=case.good + case.defective)
        baseline.append(_row(case, number, images, case.baseline))
        for rows, run_shift in zip(runs, of_run, strict=True):
            own = CORRELATION * images + np.sqrt(1 - CORRELATION**2) * rng.normal(size=len(images))
            rows.append(_row(case, number, own, case.candidate + class_shift + run_shift))
    return baseline, runs


def _row(case: Case, number: int, scores: np.ndarray, auroc: float) -> Row:
    good, defective = np.split(scores, [case.good])
    defective = defective + np.sqrt(2) * ndtri(np.clip(auroc, 0.01, 0.9999))
    return Row(
        **{
            "key": "0" * 16,
            "backbone": "simulated",
            "method": "padim",
            "dataset": "simulated",
            "class_name": str(number),
        },
        **{"seed": 0, "shots": None, "transductive": False, "settings": {}, "versions": {}, "seconds": {}},
        image_auroc=float((defective[:, None] > good).mean()),
        images={"fitted": 1, "good": case.good, "anomalous": case.defective},
        scores={"good": good.tolist(), "anomalous": defective.tolist()},
        **{"weights_sha256": "", "data_sha256": str(number), "hardware": "", "peak_memory": None, "created": ""},
    )


def trials(case: Case, number: int, seed: int = 0) -> Iterator[tuple[Comparison, tuple[float, float]]]:
    """For each trial what `compare` says, and the interval of a percentile bootstrap over images, as tables have it."""
    rng = np.random.default_rng(seed)
    for _ in range(number):
        baseline, runs = draw(case, rng)
        pairs = zip(baseline, *runs, strict=True)
        draws = [auroc_differences([(start, row) for row in of_runs]) for start, *of_runs in pairs]
        yield compare(baseline, runs, over_classes=case.over_classes), interval(np.mean(draws, axis=0))


def claims(case: Case, number: int, seed: int = 0) -> Outcome:
    """What `compare` claims in a number of trials."""
    rng = np.random.default_rng(seed)
    found = [compare(*draw(case, rng), over_classes=case.over_classes) for _ in range(number)]
    return _outcome([(one.low, one.high) for one in found])


def _outcome(intervals: list[tuple[float, float]]) -> Outcome:
    low, high = np.array(intervals).T
    return Outcome(float(np.mean(low > 0)), float(np.mean(high < 0)), float(np.median(high - low) / 2))


def cases() -> list[Case]:
    """The lines of the table, in pairs: no difference, and a difference."""
    three = {"classes": 3, "good": 40, "defective": 50}
    many = {"classes": 5, "runs": 2, "baseline": 0.88}
    two = {"runs": 2, "baseline": 0.88}
    over = {"over_classes": True, "baseline": 0.88, "good": 40, "defective": 50}
    settings = [
        ({"baseline": 0.88}, 0.03),
        ({"baseline": 0.91}, 0.03),
        ({"baseline": 0.88, **three}, 0.03),
        ({"baseline": 0.88, "good": 20, "defective": 20}, 0.03),
        ({"baseline": 0.99}, 0.009),
        ({"baseline": 0.99, "good": 20, "defective": 20}, 0.009),
        *((two | {"run_sd": sd}, 0.03) for sd in (0.0, 0.003, 0.005, 0.01, 0.02)),
        ({"runs": 3, "baseline": 0.88, "run_sd": 0.01}, 0.03),
        (two | three | {"run_sd": 0.005}, 0.03),
        *((many | {"run_sd": sd}, 0.02) for sd in (0.003, 0.01)),
        (over | {"classes": 3, "class_sd": 0.02}, 0.03),
        (over | {"classes": 10, "class_sd": 0.02}, 0.03),
        (over | {"classes": 10, "class_sd": 0.0}, 0.03),
        (over | {"classes": 10, "class_sd": 0.02, "runs": 2, "run_sd": 0.005}, 0.03),
    ]
    return [Case(candidate=one["baseline"] + more, **one) for one, gain in settings for more in (0, gain)]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    number = parser.parse_args().trials
    head = (
        "classes | good + defective | runs | sd of runs | sd of classes | over classes | AUROC | better | worse | half"
    )
    print(f"| {head} | bootstrap: better | worse | half |\n|{'---|' * 13}")
    for case in cases():
        ours, theirs = zip(*trials(case, number), strict=True)
        outcomes = _outcome([(one.low, one.high) for one in ours]), _outcome(list(theirs))
        shares = " | ".join(
            f"{100 * one.better:.1f} | {100 * one.worse:.1f} | {100 * one.half:.1f}" for one in outcomes
        )
        print(
            f"| {case.classes} | {case.good} + {case.defective} | {case.runs} | {100 * case.run_sd:g} "
            f"| {100 * case.class_sd:g} | {'yes' if case.over_classes else 'no'} "
            f"| {100 * case.baseline:g}, {100 * case.candidate:g} | {shares} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
