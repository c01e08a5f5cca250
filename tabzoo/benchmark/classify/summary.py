"""Rows of classification as tables: means over seeds, differences to the first backbone, label efficiency."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np

from tabzoo.benchmark.classify.metrics import DRAWS, compare
from tabzoo.benchmark.classify.rows import ClassifyRow
from tabzoo.benchmark.table import grid, plain_cell
from tabzoo.errors import count
from tabzoo.plain import for_terminal

__all__ = ["METRICS", "Cell", "Group", "group_rows", "to_csv", "to_markdown"]

METRICS = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
"""Field of a row to how tables print it."""


class Cell(NamedTuple):
    """A metric of one backbone with one share of the labels, over seeds.

    Attributes:
        values: By seed.
        difference: Mean difference to the first backbone over the seeds of both; None for the first itself.
        low: Of the 95 % interval.
        high: Of the same.
    """

    values: list[float]
    difference: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def mean(self) -> float:
        """Over seeds."""
        return fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds, if there are several."""
        return stdev(self.values) if len(self.values) > 1 else None


@dataclass
class Group:
    """Rows that can be compared: of the same images, mode and settings.

    Attributes:
        backbones: In the order of the tables.
        rows: Backbone, percentage of the labels, seed -> row.
    """

    backbones: list[str]
    rows: dict[tuple[str, int, int], ClassifyRow] = field(default_factory=dict)
    _cells: dict[tuple[str, int, str], Cell | None] = field(default_factory=dict)

    @property
    def first(self) -> ClassifyRow:
        """Any row: mode, data set and settings are those of all."""
        return next(iter(self.rows.values()))

    @property
    def percents(self) -> list[int]:
        """Shares of the labels, ascending."""
        return sorted({percent for _, percent, _ in self.rows})

    @property
    def seeds(self) -> list[int]:
        """All seeds."""
        return sorted({seed for _, _, seed in self.rows})

    def of(self, backbone: str, percent: int) -> dict[int, ClassifyRow]:
        """Seed to row."""
        return {seed: row for (name, share, seed), row in self.rows.items() if (name, share) == (backbone, percent)}

    def cell(self, backbone: str, percent: int, metric: str) -> Cell | None:
        """None where nothing was measured."""
        asked = backbone, percent, metric
        if asked not in self._cells:  # tables and figures ask for the same ones, and an interval takes a while
            self._cells[asked] = self._cell(*asked)
        return self._cells[asked]

    def _cell(self, backbone: str, percent: int, metric: str) -> Cell | None:
        of_seed = self.of(backbone, percent)
        if not of_seed:
            return None
        values = [getattr(of_seed[seed], metric) for seed in sorted(of_seed)]
        baseline = self.of(self.backbones[0], percent)
        pairs = [(baseline[seed], of_seed[seed]) for seed in sorted(of_seed.keys() & baseline.keys())]
        if backbone == self.backbones[0] or not pairs:
            return Cell(values)
        difference = fmean(getattr(second, metric) - getattr(first, metric) for first, second in pairs)
        return Cell(values, difference, *_interval(pairs, metric))


def _interval(pairs: Sequence[tuple[ClassifyRow, ClassifyRow]], metric: str) -> tuple[float | None, float | None]:
    """95 % interval of the mean difference; each seed has test images of its own, which are resampled by themselves."""
    if any(first.split_sha256 != second.split_sha256 for first, second in pairs):
        return None, None
    draws = []
    for first, second in pairs:
        (truth, before), (_, after) = first.ids(), second.ids()
        both = compare(truth, before, after, len(first.classes), seed=first.seed)
        draws.append(both[list(METRICS).index(metric)])
    low, high = np.percentile(np.mean(draws, axis=0), (2.5, 97.5))
    return float(low), float(high)


def group_rows(rows: Iterable[ClassifyRow], *, order: Sequence[str]) -> list[Group]:
    """Groups of rows that can be compared. Of two rows that differ in the weights alone, the later one counts.

    Args:
        rows: Of a folder.
        order: Backbones to put first.
    """
    groups: dict[str, Group] = {}
    for row in rows:
        same = json.dumps([row.mode, row.dataset, row.data_sha256, row.budget, row.settings], sort_keys=True)
        group = groups.setdefault(same, Group([]))
        group.rows[row.backbone, row.labels, row.seed] = row
    for group in groups.values():
        held = dict.fromkeys(name for name, _, _ in group.rows)
        group.backbones = [
            *(name for name in dict.fromkeys(order) if name in held),
            *(n for n in held if n not in order),
        ]
    return list(groups.values())


def to_markdown(groups: Sequence[Group]) -> str:
    """Tables in per cent, and how to read them."""
    return "\n\n".join([*(part for group in groups for part in _tables(group)), _notes(groups)]) + "\n"


def to_csv(groups: Sequence[Group]) -> str:
    """Long form: a line for each metric, backbone and share of the labels; values in [0, 1], empty if undefined."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    header = (
        "dataset mode budget settings labels_percent seeds metric backbone mean sd difference low high transductive"
    )
    writer.writerow(header.split())
    for group in groups:
        row = group.first
        about = (*map(plain_cell, (row.dataset, row.mode, row.budget, _settings(row))),)
        for percent in group.percents:
            for backbone in group.backbones:
                of_seed = group.of(backbone, percent)
                common = (*about, percent, " ".join(map(str, sorted(of_seed))))
                for metric in METRICS if of_seed else ():
                    cell = group.cell(backbone, percent, metric)
                    assert cell is not None
                    numbers = (cell.mean, cell.deviation, cell.difference, cell.low, cell.high)
                    writer.writerow((*common, metric, plain_cell(backbone), *numbers, _saw(of_seed)))
                for kind, names in (("f1", row.classes), ("pattern_f1", list(row.pattern_f1))) if of_seed else ():
                    for name in names:
                        values = [v for one in of_seed.values() if (v := getattr(one, kind)[name]) is not None]
                        mean = fmean(values) if values else None
                        sd = stdev(values) if len(values) > 1 else None
                        metric = plain_cell(f"{kind}: {name}")
                        writer.writerow(
                            (*common, metric, plain_cell(backbone), mean, sd, None, None, None, _saw(of_seed))
                        )
    return file.getvalue()


def _saw(of_seed: dict[int, ClassifyRow]) -> bool:
    return any(row.transductive for row in of_seed.values())


def _settings(row: ClassifyRow) -> str:
    return ", ".join(f"{key} {value}" for key, value in row.settings.items() if value is not None)


def _tables(group: Group) -> list[str]:
    row, (first, *others) = group.first, group.backbones
    title = f"## {row.mode} on {row.dataset}: {count(len(row.classes), 'class', 'classes')}"
    parts = [for_terminal(title)]
    if row.budget == "quick":
        cut = f"at most {row.settings['per_class']} images of a class, {row.settings['size']} px"
        parts.append(f"**QUICK: {cut}. These numbers can't be compared with those of papers.**")
    parts.append(for_terminal(f"Seeds {', '.join(map(str, group.seeds))}; {_settings(row)}. {_images(group)}"))
    for metric, printed in METRICS.items():
        header = ["labels", *group.backbones, *(f"{other} - {first}" for other in others)]
        lines = []
        for percent in group.percents:
            cells = [group.cell(name, percent, metric) for name in group.backbones]
            marks = ["t" if _saw(group.of(name, percent)) else "" for name in group.backbones]
            lines.append([f"{percent} %", *map(_shown, cells, marks), *map(_difference, cells[1:])])
        parts.append(f"{printed}, %:\n\n{grid([header, *lines])}")
    if row.pattern_f1:
        percent = group.percents[-1]
        lines = [[name, *(_pattern(group, one, percent, name) for one in group.backbones)] for name in row.pattern_f1]
        parts.append(
            f"F1 of basic patterns with {percent} % of the labels, %:\n\n{grid([['pattern', *group.backbones], *lines])}"
        )
    return parts


def _images(group: Group) -> str:
    numbers = {row.labels: row.images for row in group.rows.values()}
    shares = ", ".join(f"{percent} %: {numbers[percent]['trained']}" for percent in group.percents)
    return f"Labelled images: {shares}; test images: {group.first.images['tested']}."


def _shown(cell: Cell | None, mark: str) -> str:
    if cell is None:
        return "not run"
    deviation = f" ± {100 * cell.deviation:.1f}" if cell.deviation is not None else ""
    return f"{100 * cell.mean:.1f}{deviation}{f' {mark}' if mark else ''}"


def _difference(cell: Cell | None) -> str:
    if cell is None or cell.difference is None:
        return "-"
    within = (
        f" [{100 * cell.low:+.1f}, {100 * cell.high:+.1f}]" if cell.low is not None and cell.high is not None else ""
    )
    return f"{100 * cell.difference:+.1f}{within}"


def _pattern(group: Group, backbone: str, percent: int, name: str) -> str:
    found = [one.pattern_f1.get(name) for one in group.of(backbone, percent).values()]
    values = [value for value in found if value is not None]
    return f"{100 * fmean(values):.1f}" if values else "-"


def _notes(groups: Sequence[Group]) -> str:
    rows = [row for group in groups for row in group.rows.values()]
    notes = [
        "Mean ± standard deviation over seeds; a seed draws the split, the labelled images and the training.",
        f"In brackets: 95 % interval of the difference, from a paired bootstrap over the test images of each class ({DRAWS} "
        f"draws; seeds are not resampled).",
        "Selection: the weights of the last training step; nothing is selected on test data.",
    ]
    kinds = {row.backbone: row.origin for row in rows}
    notes.append(f"Backbones: {'; '.join(f'{name}: {origin}' for name, origin in kinds.items())}.")
    if seen := list(dict.fromkeys(row.backbone for row in rows if row.transductive)):
        notes.append(f"t: {', '.join(seen)} was pre-trained on some of these images.")
    return "\n".join(f"- {for_terminal(note)}" for note in notes)
