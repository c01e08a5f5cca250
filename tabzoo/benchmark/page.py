"""The page of a folder of results: verdicts, differences with intervals, tables, curves and maps in one HTML file."""

import importlib.util
from collections.abc import Container, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from tabzoo.benchmark.notes import SHOWN, list_notes
from tabzoo.benchmark.report import MAPS, ROC, name_of_group
from tabzoo.benchmark.summary import Group, Line, group_rows, summarise
from tabzoo.benchmark.table import (
    SQUASHED,
    cautions,
    cell_in_words,
    images_in_words,
    seeds_in_words,
    settings_in_words,
    title,
)
from tabzoo.benchmark.verdicts import Verdict, compare_parts, judge_tests
from tabzoo.pages import IntervalPlot, embed_file, interval_plot, write_html
from tabzoo.plain import for_path
from tabzoo.scores.compare import Comparison
from tabzoo.scores.rows import METRICS, Row

__all__ = ["PAGE", "write_page"]

PAGE = "index.html"
_CHARACTERS = 12_000_000
"""Of all pictures of a page together, at most."""
_INTERVALS = (
    "Verdicts and intervals: 95 %, from the variance over the test images (DeLong), with methods, seeds and classes counted "
    "equally. They are about these weights: another training of the same backbone may differ by more. The intervals in "
    "table.md are from a bootstrap over the same images, and a little different."
)


class _Study(NamedTuple):
    """The verdicts of one kind of test."""

    title: str
    verdicts: Sequence[Verdict]
    plot: IntervalPlot | None


class _Table(NamedTuple):
    """One metric of a section."""

    caption: str
    lines: Sequence[Line]
    averages: Sequence[Line]


class _Section(NamedTuple):
    """Rows that differ only in backbone, class and seed."""

    title: str
    cautions: Sequence[str]
    about: str
    backbones: Sequence[str]
    plots: Sequence[tuple[str, IntervalPlot]]
    tables: Sequence[_Table]
    pictures: Sequence[tuple[str, str]]


def write_page(
    folder: Path,
    rows: Sequence[Row],
    *,
    order: Sequence[str],
    left_out: int = 0,
    drawn: Container[str] | None = None,
) -> None:
    """Writes index.html.

    Args:
        folder: Of the results; curves and maps are taken from it.
        rows: Rows of this folder, as `summary.latest_rows` returns them; at least one.
        order: Names of backbones; the first is the baseline.
        left_out: Number of rows left out by `summary.latest_rows`.
        drawn: Keys of the rows that the pictures show; all if not given.

    Raises:
        WriteError: It can't be written.
    """
    groups = group_rows(rows, order=order)
    names = dict.fromkeys(row.backbone for row in rows)
    baseline, *others = sorted(names, key=lambda name: order.index(name) if name in order else len(order))
    without_scipy = importlib.util.find_spec("scipy") is None
    parts = [] if without_scipy else compare_parts([group.all_rows() for group in groups], baseline)
    album = _Album(folder, drawn)
    write_html(
        folder / PAGE,
        "tabzoo.benchmark/page.html",
        sortable=True,
        datasets=list(dict.fromkeys(row.dataset for row in rows)),
        baseline=baseline,
        others=others,
        without_scipy=without_scipy,
        studies=_studies(rows, order),
        parts=parts,
        sections=[_section(group, baseline, album) for group in groups],
        cell=cell_in_words,
        notes=list_notes(groups, left_out=left_out, about_intervals=_INTERVALS),
        not_embedded=album.not_embedded,
        weights=list(dict.fromkeys((row.backbone, row.method, row.weights_sha256) for row in rows)),
        machines=list(dict.fromkeys(_machine(row) for row in rows)),
    )


def _machine(row: Row) -> str:
    return ", ".join([row.hardware, *(f"{name} {version}" for name, version in row.versions.items())])


def _studies(rows: Sequence[Row], order: Sequence[str]) -> list[_Study]:
    """For each kind of test the verdicts on all that was measured with it."""
    studies = []
    for heading, verdicts in judge_tests(rows, order).items():
        named = [(one.backbone, one.comparison) for one in verdicts if one.comparison]
        studies.append(_Study(heading, verdicts, interval_plot(named, first_decides=False) if named else None))
    return studies


def _section(group: Group, baseline: str, album: "_Album") -> _Section:
    row = group.first
    return _Section(
        title=title(row, f"on {row.dataset}"),
        cautions=cautions(row),
        about=f"Seeds {seeds_in_words(group)}; {settings_in_words(row)}. {SQUASHED} {images_in_words(group)}",
        backbones=group.backbones,
        plots=_plots(group, baseline),
        tables=list(filter(None, (_table(group, metric) for metric in SHOWN))),
        pictures=album.of(group),
    )


def _table(group: Group, metric: str) -> _Table | None:
    lines = summarise(group, metric)
    if not any(cell and cell.mean is not None for line in lines for cell in line.cells):
        return None
    of_classes, averages = ([line for line in lines if (line.over is None) == one] for one in (True, False))
    return _Table(f"{METRICS[metric]}, %", of_classes, averages)


def _plots(group: Group, baseline: str) -> list[tuple[str, IntervalPlot]]:
    """For each backbone its differences to the baseline: on all classes, and on each."""
    if baseline not in group.backbones or importlib.util.find_spec("scipy") is None:
        return []
    plots = []
    for part in compare_parts([group.all_rows()], baseline):
        by_class = [
            (name, one.comparison)
            for name, rows in groupby(sorted(part.rows, key=_class_of), key=_class_of)
            for one in compare_parts([list(rows)], baseline)
        ]
        every = [("all classes", part.comparison)] if len(by_class) > 1 else []
        named: list[tuple[str, Comparison]] = [(name, one) for name, one in (*every, *by_class) if one]
        if named:
            plots.append((part.backbone, interval_plot(named, first_decides=len(named) > 1)))
    return plots


def _class_of(row: Row) -> str:
    return row.class_name


class _Album:
    """The pictures in a folder of results, as many as a page bears.

    Attributes:
        not_embedded: Number of pictures that are only in the folder.
    """

    def __init__(self, folder: Path, drawn: Container[str] | None) -> None:
        self._folder, self._drawn = folder, drawn
        self._seen: set[Path] = set()
        self._characters = 0
        self.not_embedded = 0

    def of(self, group: Group) -> list[tuple[str, str]]:
        """Name and data address of a group's ROC curves and grids of maps; each file once."""
        if self._drawn is not None and not any(row.key in self._drawn for row in group.all_rows()):
            return []
        new = [
            (name, path) for name, path in _pictures(self._folder, group) if path.is_file() and path not in self._seen
        ]
        self._seen |= {path for _, path in new}
        return [(name, address) for name, path in new if (address := self._embed(path))]

    def _embed(self, path: Path) -> str:
        """The picture as a data address, or "" if the page has no room for it."""
        address = embed_file(path) if self._characters < _CHARACTERS else ""
        if not address or self._characters + len(address) > _CHARACTERS:
            self.not_embedded += 1
            return ""
        self._characters += len(address)
        return address


def _pictures(folder: Path, group: Group) -> Iterable[tuple[str, Path]]:
    name = name_of_group(group.first)
    yield "ROC curves of the image scores", folder / ROC / f"{name}.png"
    for class_name in group.classes:
        yield f"anomaly maps of {class_name}", folder / MAPS / name / f"{for_path(class_name)}.png"
