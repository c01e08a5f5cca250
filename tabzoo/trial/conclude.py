"""The end of a trial: start and results compared, the verdict and the page written."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from tabzoo.errors import InputError, count, counted
from tabzoo.hub.files import Digest, read_json
from tabzoo.hub.record import RECORD, WEIGHTS
from tabzoo.scores.compare import Comparison, compare
from tabzoo.scores.rows import Row
from tabzoo.training.metrics import read_rows as read_steps
from tabzoo.training.output import METRICS, TEXT
from tabzoo.training.recipe import Recipe
from tabzoo.trial.options import Options
from tabzoo.trial.page import Page, Score, write_page
from tabzoo.trial.settings import Settings
from tabzoo.trial.split import Split
from tabzoo.trial.verdict import Verdict, judge

__all__ = ["Finished", "change_of_weights", "conclude"]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a trial has done.

    Attributes:
        options: Of the trial.
        settings: What it trained with.
        recipe: With fitted epochs.
        split: Its photos.
        kind: Kind of synthetic anomalies; None where defects are real.
        methods: Detectors and their seeds.
        notes: What was decided or left out, for people.
        start: Rows of the start.
        runs: Folder of each training run to its rows.
        minutes: That it took.
    """

    options: Options
    settings: Settings
    recipe: Recipe
    split: Split
    kind: str | None
    methods: Mapping[str, Sequence[int]]
    notes: Sequence[str]
    start: Sequence[Row]
    runs: Mapping[Path, Sequence[Row]]
    minutes: float

    @property
    def measured(self) -> list[str]:
        """Tested classes of which at least one good and one defective photo can be read."""
        defined = {row.class_name for row in self.start if row.image_auroc is not None}
        return [name for name in self.split.tested if name in defined]

    def compared(self, name: str | None = None) -> Comparison:
        """Results against start, on one class or on all."""
        start, *runs = [
            [row for row in rows if name in (None, row.class_name)] for rows in (self.start, *self.runs.values())
        ]
        return compare(start, runs)


def conclude(finished: Finished, folder: Path, *, say: Callable[[str], None]) -> Verdict:
    """Compares, writes page and verdict, and says what else a user should know.

    Raises:
        InputError: No class could be tested.
    """
    if not finished.measured:
        raise InputError(
            f"--data {finished.options.data}: no class has good and defective test photos that can be read. "
            f"Repair or replace the photos that are named above, and type --overwrite."
        )
    by_class = {name: finished.compared(name) for name in finished.measured}
    steps = sum(row["step"] for row in read_steps(next(iter(finished.runs)) / METRICS)[-1:])
    changes = [change_of_weights(finished.settings.weights, run / WEIGHTS) for run in finished.runs]
    runs = [
        {"folder": str(run.relative_to(folder)), "weights_sha256": Digest.of(run / WEIGHTS).sha256, "change": change}
        for run, change in zip(finished.runs, changes, strict=True)
    ]
    numbers = {
        "test": f"synthetic:{finished.kind}" if finished.kind else "real",
        "methods": {name: list(seeds) for name, seeds in finished.methods.items()},
        "by_class": {name: _numbers(one) for name, one in by_class.items()},
        "train": read_json(next(iter(finished.runs)) / RECORD)["training"]["images"],
        "epochs": finished.recipe.epochs,
        "steps": steps,
        "runs": runs,
    }
    verdict = judge(
        finished.compared(),
        start=finished.settings.start,
        result=str(next(iter(finished.runs))),
        kind=finished.kind,
        untrained_texts=finished.settings.untrained_texts,
        change=max(changes),
        numbers=numbers,
    )
    size = finished.recipe.batch_size
    remark = (
        f"Training took {count(steps, 'step')} of {size} photos and changed the weights by {100 * max(changes):.2g} %."
    )
    say(remark)
    page = Page(
        verdict=verdict,
        by_class=by_class,
        scores=_scores(finished),
        notes=(*finished.notes, *_unreadable(finished, numbers["train"]), remark),
        data=finished.options.data,
        split=finished.split,
        recipe=finished.recipe,
        device=finished.settings.device,
        texts_sha256=Digest.of(folder / TEXT).sha256 if finished.recipe.needs_texts else None,
        start_sha256=finished.start[0].weights_sha256,
        minutes=finished.minutes,
    )
    write_page(page, folder)
    verdict.write(folder)
    return verdict


def _unreadable(finished: Finished, trained: int) -> list[str]:
    """What is missing since files can't be read, which shows only when they are decoded."""
    lost = [name for name in finished.split.tested if name not in finished.measured]
    photos = len(finished.split.train) - trained
    return [
        *([f"Left out of training: {count(photos, 'photo')} that can't be read."] if photos else []),
        *(
            [f"Not tested, too few of its test photos can be read: {counted(lost, 'class', 'classes')}."]
            if lost
            else []
        ),
    ]


def change_of_weights(before: Mapping[str, Tensor], path: Path) -> float:
    """How far training moved the weights, relative to their length: 0.01 is one per cent."""
    after = load_file(path)
    moved = sum(float((after[name] - value).double().square().sum()) for name, value in before.items())
    length = sum(float(value.double().square().sum()) for value in before.values())
    return float((moved / length) ** 0.5) if length else 0.0


def _numbers(comparison: Comparison) -> dict[str, Any]:
    return {"verdict": comparison.verdict, **asdict(comparison)}


def _scores(finished: Finished) -> list[Score]:
    """Means over seeds and training runs, for each class and method."""
    runs = [row for rows in finished.runs.values() for row in rows]

    def score(name: str, method: str) -> Score:
        start, result, start_pixel, result_pixel = (
            _mean(rows, name, method, metric)
            for metric in ("image_auroc", "pixel_auroc")
            for rows in (finished.start, runs)
        )
        return Score(name, method, start, result, start_pixel, result_pixel)

    return [score(name, method) for name in finished.measured for method in finished.methods]


def _mean(rows: Sequence[Row], name: str, method: str, metric: str) -> float | None:
    values = [getattr(row, metric) for row in rows if (row.class_name, row.method) == (name, method)]
    return None if not values or None in values else fmean(values)
