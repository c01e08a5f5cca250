"""Rows summarised: mean and standard deviation over seeds, averages over classes, differences between backbones."""

import json
from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from tabzoo.benchmark.paper import OBJECT_AVERAGE, OBJECTS, OVERALL, TEXTURE_AVERAGE, TEXTURES
from tabzoo.scores.averages import averages_by_seed
from tabzoo.scores.bootstrap import Array, auroc_differences, interval
from tabzoo.scores.rows import Row

__all__ = [
    "Cell",
    "Difference",
    "Group",
    "Line",
    "group_rows",
    "join_datasets",
    "latest_rows",
    "summarise",
    "summarise_datasets",
]

_LISTED = 3
"""In a table of data sets, a data set with up to this many classes has a line for each of them."""


class Cell(NamedTuple):
    """One backbone on one class, or averaged over classes; `mean` is None where the metric is undefined."""

    mean: float | None
    sd: float | None
    """Over seeds; None with a single one."""
    transductive: bool


class Difference(NamedTuple):
    """A backbone minus the first one; only image AUROC has an interval."""

    mean: float
    low: float | None
    high: float | None


class Line(NamedTuple):
    """A class, or an average over classes; None for what was not run or can't be compared."""

    name: str
    cells: list[Cell | None]
    differences: list[Difference | None]
    """One for each backbone but the first."""
    over: int | None
    """The number of classes of an average."""


class Group:
    """Rows that differ only in backbone, class and seed, and so make one table.

    Args:
        rows: Of each class those of the same images, as `latest_rows` returns them.
        order: Names of backbones to put first, in this order.

    Attributes:
        first: One of the rows, to look up what all have in common.
        backbones: Their names; the first is the baseline.
        classes: Names of the classes, sorted.
        seeds: Of all rows.
        rows: (backbone, class) to seed to row.
    """

    def __init__(self, rows: Sequence[Row], order: Sequence[str]) -> None:
        self.rows: dict[tuple[str, str], dict[int, Row]] = {}
        for row in rows:
            self.rows.setdefault((row.backbone, row.class_name), {})[row.seed] = row
        self.first = rows[0]
        names = list(dict.fromkeys(backbone for backbone, _ in self.rows))
        self.backbones = sorted(names, key=lambda name: order.index(name) if name in order else len(order))
        self.classes = sorted({row.class_name for row in rows})
        self.seeds = sorted({seed for by_seed in self.rows.values() for seed in by_seed})

    @property
    def with_oracle(self) -> list[str]:
        """Names of the backbones with rows that have a best meta-epoch on test."""
        having = {row.backbone for row in self.all_rows() if row.oracle_image_auroc is not None}
        return [name for name in self.backbones if name in having]

    def all_rows(self) -> list[Row]:
        """The rows, of all backbones, classes and seeds."""
        return [row for by_seed in self.rows.values() for row in by_seed.values()]

    def of(self, backbone: str, class_name: str) -> dict[int, Row]:
        """Seed to row."""
        return self.rows.get((backbone, class_name), {})


def latest_rows(rows: Iterable[Row], keys: Container[str] = ()) -> tuple[list[Row], int]:
    """The rows that belong together: of each backbone those of one set of weights, of each class those of the same images.

    Backbones keep their names when they are trained again, and classes when their images change; without this, older rows
    would share a column with the new ones.

    Args:
        rows: In the order they were measured.
        keys: Rows whose weights and images count; without any, those of the last row count.

    Returns:
        The rows, and the number of those left out.
    """
    ordered = sorted(rows, key=lambda row: row.key in keys)  # a stable sort: the ones that count come last
    weights = {_weights_of(row): row.weights_sha256 for row in ordered}
    images = {_images_of(row): row.data_sha256 for row in ordered}
    kept = [
        row
        for row in rows
        if (row.weights_sha256, row.data_sha256) == (weights[_weights_of(row)], images[_images_of(row)])
    ]
    return kept, len(ordered) - len(kept)


def _weights_of(row: Row) -> tuple[object, ...]:
    # The hash covers the weights that a method's layers need; random weights differ for each seed.
    seed = row.seed if row.backbone.split(":")[0] == "random" else None
    return row.backbone, row.method, json.dumps(row.settings.get("layers")), seed


def _images_of(row: Row) -> tuple[object, ...]:
    decoded = [row.settings.get(name) for name in ("resize", "crop", "resampling", "white_level", "pixels")]
    return row.dataset, row.class_name, row.method, row.shots, row.test, json.dumps(decoded)


def group_rows(rows: Iterable[Row], *, order: Sequence[str] = ()) -> list[Group]:
    """The groups, in the order of their first rows.

    Args:
        rows: Rows of one or several folders, as `latest_rows` returns them.
        order: Names of backbones to put first, in this order.
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.dataset, *_conditions(row)), []).append(row)
    return [Group(members, order) for members in groups.values()]


def join_datasets(groups: Iterable[Group]) -> list[list[Group]]:
    """Groups that differ only in the data set, together."""
    joined: dict[tuple[object, ...], list[Group]] = {}
    for group in groups:
        joined.setdefault(_conditions(group.first), []).append(group)
    return list(joined.values())


def _conditions(row: Row) -> tuple[object, ...]:
    return row.test, row.shots, row.method, json.dumps(row.settings, sort_keys=True)


def summarise(group: Group, metric: str) -> list[Line]:
    """A line for each class, then the averages over the classes where the metric is defined for every backbone."""
    lines = [_line(group, name, [name], metric) for name in group.classes]
    complete = [line.name for line in lines if all(cell and cell.mean is not None for cell in line.cells)]
    averages = {OVERALL: complete}
    if set(group.classes) <= {*TEXTURES, *OBJECTS}:
        parts = {TEXTURE_AVERAGE: TEXTURES, OBJECT_AVERAGE: OBJECTS}
        of_parts = {name: [c for c in complete if c in kind] for name, kind in parts.items()}
        averages = of_parts | averages if all(of_parts.values()) else averages
    return lines + [
        _line(group, name, over, metric)._replace(over=len(over)) for name, over in averages.items() if over
    ]


def summarise_datasets(groups: Sequence[Group], metric: str, backbones: Sequence[str]) -> list[Line]:
    """A line for each data set: the average over its classes, after lines for the classes if there are few.

    Args:
        groups: One of each data set.
        metric: Field of a row.
        backbones: One for each cell of a line; differences are to the first of them.
    """
    lines = []
    for group in groups:
        dataset = group.first.dataset
        *of_classes, average = summarise(group, metric)
        if average.over is None:  # no class has the metric for every backbone: show "undefined", not no line at all
            of_classes, average = [*of_classes, average], _line(group, OVERALL, group.classes, metric)
        chosen = [line for line in of_classes if line.over is None] if len(group.classes) <= _LISTED else []
        for line in chosen + ([average] if len(group.classes) > 1 else []):
            name = dataset if line.name == dataset else f"{dataset} {line.name}"
            lines.append(_widen(line._replace(name=name), group.backbones, backbones))
    return lines


def _widen(line: Line, own: Sequence[str], backbones: Sequence[str]) -> Line:
    """A line with a place for each backbone, run or not."""
    cells = dict(zip(own, line.cells, strict=True))
    differences = dict(zip(own[1:], line.differences, strict=True)) if own[0] == backbones[0] else {}
    return line._replace(
        cells=[cells.get(name) for name in backbones], differences=[differences.get(name) for name in backbones[1:]]
    )


def _line(group: Group, name: str, classes: Sequence[str], metric: str) -> Line:
    first, *others = group.backbones
    cells = [_cell(group, backbone, classes, metric) for backbone in group.backbones]
    return Line(name, cells, [_difference(group, first, other, classes, metric) for other in others], None)


def _cell(group: Group, backbone: str, classes: Sequence[str], metric: str) -> Cell | None:
    rows = {name: group.of(backbone, name) for name in classes}
    if not all(rows.values()):
        return None
    averages = averages_by_seed(
        {name: {seed: getattr(row, metric) for seed, row in by_seed.items()} for name, by_seed in rows.items()}
    )
    transductive = any(row.transductive for by_seed in rows.values() for row in by_seed.values())
    sd = float(np.std(averages, ddof=1)) if len(averages) > 1 else None
    return Cell(float(np.mean(averages)) if averages else None, sd, transductive)


def _difference(group: Group, first: str, other: str, classes: Sequence[str], metric: str) -> Difference | None:
    """Over the seeds that both backbones have."""
    means, draws = [], []
    for name in classes:
        one, two = group.of(first, name), group.of(other, name)
        pairs = [(one[seed], two[seed]) for seed in sorted(one.keys() & two.keys())]
        values = [(getattr(a, metric), getattr(b, metric)) for a, b in pairs]
        if not values or any(value is None for pair in values for value in pair):
            return None
        means.append(np.mean([b - a for a, b in values]))
        draws.append(auroc_differences(pairs) if metric == "image_auroc" else None)
    known: list[Array] = [array for array in draws if array is not None]
    low, high = interval(np.mean(known, axis=0)) if known and len(known) == len(draws) else (None, None)
    return Difference(float(np.mean(means)), low, high)
