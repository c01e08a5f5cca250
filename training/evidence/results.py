"""From rows to numbers: every arm against the start, on classes that it was trained on and on classes that it was not."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal, NamedTuple

from arms import START, Budget
from experiment import ALL, Cell, Experiment

from tabzoo.detectors import DETECTORS
from tabzoo.detectors.extractor import build_extractor
from tabzoo.hub.record import WEIGHTS
from tabzoo.scores.compare import Comparison, compare, holm
from tabzoo.scores.rows import Row, read_rows
from tabzoo.training.output import is_finished

__all__ = ["METRICS", "SCOPES", "Estimate", "Measured", "Results", "Scope", "corrected"]

Scope = Literal["trained", "unseen"]
SCOPES: tuple[Scope, Scope] = ("trained", "unseen")
"""Fold `all` on all classes, and every other fold on the classes that it leaves out."""
METRICS = ("image_auroc", "pixel_auroc", "aupro")


class Estimate(NamedTuple):
    """One metric of an arm; all are means over training runs, classes and detector seeds.

    Attributes:
        value: Of the arm, in [0, 1]; None where no class has the metric.
        start: Of the start, on the same classes.
        classes: How many have the metric.
    """

    value: float | None
    start: float | None
    classes: int

    @property
    def difference(self) -> float | None:
        """Arm minus start."""
        return None if self.value is None or self.start is None else self.value - self.start


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured of an arm with one method in one scope.

    Attributes:
        arm: Its name.
        method: The detector.
        scope: Which classes.
        runs: Training seeds that are complete; without any, all below is empty.
        missing: What is not there, in words; empty if nothing was run.
        metrics: By name.
        images: The difference of image AUROC, with the interval over images and training runs.
        classes: The same with the interval over classes; None with a single class.
        families: Name to the difference on its classes.
        by_class: Class to its metrics.
    """

    arm: str
    method: str
    scope: Scope
    runs: tuple[int, ...]
    missing: str
    metrics: dict[str, Estimate]
    images: Comparison | None
    classes: Comparison | None
    families: dict[str, Comparison]
    by_class: dict[str, dict[str, Estimate]]


class Results:
    """The rows of OUT.

    Args:
        out: OUT.
        experiment: What it holds.
        budget: Whose image sizes count.
    """

    def __init__(self, out: Path, experiment: Experiment, budget: Budget) -> None:
        self._out, self._experiment, self._budget = out, experiment, budget
        self._weights: dict[tuple[Path, str], tuple[int, str]] = {}
        self._read: tuple[tuple[int, int], list[Row]] | None = None

    @property
    def rows(self) -> list[Row]:
        """All rows with the budget's image sizes, read again when the file has changed."""
        path = self._out / "benchmark" / "results.jsonl"
        if not path.is_file():
            return []
        state = path.stat().st_mtime_ns, path.stat().st_size
        if self._read is None or self._read[0] != state:
            size = {name: self._budget.settings[name] for name in ("resize", "crop")}
            rows = [row for row in read_rows(path) if size.items() <= row.settings.items()]
            self._read = state, rows
        return self._read[1]

    def of(self, folder: Path, method: str) -> list[Row]:
        """The rows of a backbone, known by its weights: in the rows, all runs with the seed 0 are called `0`.

        Args:
            folder: Relative to OUT.
            method: The detector.
        """
        if not (self._out / folder / WEIGHTS).is_file() or not any(row.method == method for row in self.rows):
            return []
        weights = self._digest(folder, method)
        rows = [row for row in self.rows if row.method == method and row.weights_sha256 == weights]
        return list({(row.class_name, row.seed): row for row in rows}.values())

    def complete(self, folder: Path, method: str, seeds: Iterable[int], classes: Iterable[str]) -> bool:
        """Whether a backbone has rows of all these seeds and classes."""
        there = {(row.class_name, row.seed) for row in self.of(folder, method)}
        return {(name, seed) for name in classes for seed in seeds} <= there

    def measure(self, arm: str, method: str, scope: Scope) -> Measured:
        """Compares an arm with the start."""
        runs, missing, tested = {}, "", self._experiment.tested
        for seed in self._training_seeds(arm):
            rows, lacking = self._of_run(arm, seed, method, scope)
            if rows and not lacking:
                runs[seed] = rows
            elif rows:
                missing = f"{len(lacking)} of {len(tested)} classes are not there"
        start = [row for row in self.of(Path(START), method) if row.class_name in tested]
        several = list(runs.values())
        by_class = {name: _estimates(_only(start, [name]), _each(several, [name])) for name in tested}
        families = self._experiment.families
        return Measured(
            arm=arm,
            method=method,
            scope=scope,
            runs=tuple(runs),
            missing=missing,
            metrics=_estimates(start, several) if runs else {},
            images=compare(start, several) if runs else None,
            classes=compare(start, several, over_classes=True) if runs and len(by_class) > 1 else None,
            families={f: compare(_only(start, c), _each(several, c)) for f, c in families.items()} if runs else {},
            by_class=by_class if runs else {},
        )

    def best(self, arms: Sequence[str], number: int = 2) -> list[str]:
        """The arms that are best in the screen: by PaDiM's image AUROC on unseen classes, the best first."""
        measured = [self.measure(arm, "padim", "unseen") for arm in arms]
        found = {one.arm: one.images.difference for one in measured if one.images}
        return sorted(found, key=lambda arm: found[arm], reverse=True)[:number]

    def _training_seeds(self, arm: str) -> list[int]:
        folders = (self._out / "runs" / arm).glob("*/*")
        return sorted({int(folder.name) for folder in folders if folder.name.isdecimal()})

    def _of_run(self, arm: str, seed: int, method: str, scope: Scope) -> tuple[list[Row], set[str]]:
        """The rows of a training run, and the classes of which some are missing."""
        rows: list[Row] = []
        for fold in self._experiment.folds:
            cell = Cell(arm, fold, seed)
            if (fold == ALL) == (scope == "trained") and is_finished(self._out / cell.folder):
                rows += _only(self.of(cell.folder, method), self._experiment.tested_in(fold))
        there = {(row.class_name, row.seed) for row in rows}
        seeds = self._budget.methods.get(method, ())
        return rows, {name for name in self._experiment.tested if any((name, seed) not in there for seed in seeds)}

    def _digest(self, folder: Path, method: str) -> str:
        """The hash of weights in rows of a method; it covers what the method's layers need."""
        path = self._out / folder
        written = (path / WEIGHTS).stat().st_mtime_ns
        key = folder, method
        if self._weights.get(key, (0, ""))[0] != written:
            extractor = build_extractor(f"local-dir:{path}", layers=tuple(DETECTORS[method].layers))
            self._weights[key] = written, extractor.sha256()
        return self._weights[key][1]


def corrected(measured: Sequence[Measured]) -> dict[str, float]:
    """Arm to its p-value, corrected for the number of arms that were compared (of one method and scope)."""
    return holm({one.arm: one.images.p_value for one in measured if one.images})


def _only(rows: Sequence[Row], classes: Sequence[str]) -> list[Row]:
    return [row for row in rows if row.class_name in classes]


def _each(runs: Sequence[Sequence[Row]], classes: Sequence[str]) -> list[list[Row]]:
    return [_only(rows, classes) for rows in runs]


def _estimates(start: Sequence[Row], runs: Sequence[Sequence[Row]]) -> dict[str, Estimate]:
    found = {}
    for metric in METRICS:
        ours = [_by_class(rows, metric) for rows in runs]
        theirs = _by_class(start, metric)
        common = sorted(set(theirs).intersection(*ours)) if ours else []
        value = fmean(of_run[name] for of_run in ours for name in common) if common else None
        found[metric] = Estimate(value, fmean(theirs[name] for name in common) if common else None, len(common))
    return found


def _by_class(rows: Sequence[Row], metric: str) -> dict[str, float]:
    """Mean over the detector's seeds."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if (value := getattr(row, metric)) is not None:
            values.setdefault(row.class_name, []).append(value)
    return {name: fmean(of_class) for name, of_class in values.items()}
