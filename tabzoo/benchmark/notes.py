"""The notes below the tables: what one must know to read the numbers."""

from collections.abc import Iterable, Sequence

from tabzoo.benchmark.paper import is_mvtec
from tabzoo.benchmark.summary import Group
from tabzoo.plain import for_terminal
from tabzoo.scores.bootstrap import DRAWS
from tabzoo.scores.rows import EMPTY_MASKS, METRICS, Row

__all__ = ["SHOWN", "list_notes", "write_notes"]

SHOWN = ("image_auroc", "pixel_auroc", "aupro")
"""Metrics that have a table; the CSV has all."""
_MEANS = "Mean ± standard deviation over seeds. Averages: over the classes for which the metric is defined with every backbone."
_INTERVALS = (
    f"In brackets: 95 % interval of the difference, from a paired bootstrap over the test images ({DRAWS} draws; seeds are not "
    f"resampled). Pixel metrics have no interval."
)
_PIXELS = (
    "Pixel metrics use masks at the size of the method's input (same resize and crop, nearest neighbour) unless the settings "
    "say full resolution. AUPRO: up to FPR 0.3, over all images of a class together."
)
_ORACLE = (
    "Oracle: the best meta-epoch by image AUROC on the test images, as the method's public code selects it. It is selected on "
    "test data, so it must not be compared with other methods' numbers."
)
_PAPER = (
    "Paper: Table 2 of arXiv 2312.09480, image AUROC on MVTec AD, ResNet-18. Its TAB columns are transductive, except RegAD's, "
    "whose weights come from the Industrial dataset."
)


def write_notes(groups: Sequence[Group], *, against_paper: bool, left_out: int) -> str:
    """A Markdown list.

    Args:
        groups: The rows of the tables.
        against_paper: Whether the tables have the paper's numbers.
        left_out: Number of rows left out by `summary.latest_rows`.
    """
    notes = list_notes(groups, left_out=left_out, about_intervals=_INTERVALS)
    if against_paper:
        rows = [row for group in groups for row in group.all_rows()]
        notes.append(_PAPER)
        if others := _list(f"{row.class_name} of {row.dataset}" for row in rows if not is_mvtec(row)):
            reason = "since the name or the numbers of images are not MVTec AD's"
            notes.append(f"Not compared with the paper, {reason}: {others}.")
    return "\n".join(f"- {for_terminal(note)}" for note in notes)


def list_notes(groups: Sequence[Group], *, left_out: int, about_intervals: str) -> list[str]:
    """The notes, without those on the paper's numbers.

    Args:
        groups: The rows of the tables.
        left_out: Number of rows left out by `summary.latest_rows`.
        about_intervals: How the intervals beside the tables are made.
    """
    rows = [row for group in groups for row in group.all_rows()]
    with_oracle = any(group.with_oracle for group in groups)
    exception = ", except in columns called oracle" if with_oracle else ""
    notes = [_MEANS, about_intervals, _PIXELS]
    notes.append(f"Selection: the weights of the last training step; nothing is selected on test data{exception}.")
    if draws := {group.first.settings["draws"] for group in groups if "draws" in group.first.settings}:
        numbers = _list(map(str, sorted(draws)))
        notes.append(f"Few-shot: means over {numbers} draws of the good images; maps are from the first draw.")
    notes += [*_transductive(rows), *_undefined(rows), *_empty_masks(rows)]
    if with_oracle:
        notes.append(_ORACLE)
    if left_out:
        what = "row" if left_out == 1 else "rows"
        notes.append(f"Left out: {left_out} {what} of older weights or images with the same names.")
    return notes


def _transductive(rows: Sequence[Row]) -> Iterable[str]:
    for backbone in dict.fromkeys(row.backbone for row in rows if row.transductive):
        classes = _list(row.class_name for row in rows if row.transductive and row.backbone == backbone)
        yield f"t: transductive, {backbone} was pre-trained on images of {classes}."


def _undefined(rows: Sequence[Row]) -> Iterable[str]:
    undefined: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for metric, reason in row.undefined_because.items():
            if metric in SHOWN:
                undefined.setdefault((METRICS[metric], reason), []).append(row.class_name)
    for (metric, reason), classes in undefined.items():
        yield f"Undefined: {metric} of {_list(classes)}, {reason}."


def _empty_masks(rows: Sequence[Row]) -> Iterable[str]:
    empty = {
        f"{row.class_name} {row.images[EMPTY_MASKS]} of {row.images['anomalous']} ({row.method})"
        for row in rows
        if row.images.get(EMPTY_MASKS)
    }
    if empty:
        yield (
            f"Pixel metrics leave out anomalous images whose masks are empty at this size: {_list(sorted(empty))}. To keep "
            f"small defects, use a larger --resize or --full-resolution."
        )


def _list(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
