"""Figures of classification: label efficiency, and confusion matrices."""

import csv
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tabzoo.benchmark.classify.metrics import confusion_matrix
from tabzoo.benchmark.classify.summary import METRICS, Group
from tabzoo.benchmark.table import plain_cell
from tabzoo.data.wafers import name_and_short, short
from tabzoo.figures import COLUMN, PAGE, paper_style, save_for_paper
from tabzoo.system import whole_file

__all__ = ["draw_confusion", "draw_label_efficiency"]

# Colours that people with any colour vision tell apart (Okabe and Ito 2008), without yellow, which is too light for lines.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_MARKERS = "os^Dv<>"
_NUMBERED = 12  # a matrix with more classes has no numbers in its cells
_FEW = 6  # classes, whose cells have room for larger numbers
_LETTERS = 36  # that fit below a matrix at a column's width
_APART = 0.02  # of an axis, between the marks of two backbones, so that none hides the other


def draw_label_efficiency(stem: Path, group: Group) -> None:
    """Accuracy and macro-F1 over the share of labels, a line for each backbone, with the seeds' standard deviation.

    Args:
        stem: Files to write, without their ending.
        group: The rows.
    """
    with paper_style():
        figure = Figure(figsize=(PAGE * 0.75, 2.7), layout="constrained")
        for axis, (metric, printed) in zip(figure.subplots(1, 2, sharey=True), METRICS.items(), strict=True):
            apart = (group.percents[-1] / group.percents[0]) ** _APART
            for number, backbone in enumerate(group.backbones):
                cells = {percent: group.cell(backbone, percent, metric) for percent in group.percents}
                found = {percent: cell for percent, cell in cells.items() if cell}
                deviations = [100 * (cell.deviation or 0) for cell in found.values()]
                axis.errorbar(
                    [percent * apart ** (number - (len(group.backbones) - 1) / 2) for percent in found],
                    [100 * cell.mean for cell in found.values()],
                    deviations if any(deviations) else None,
                    color=_COLOURS[number % len(_COLOURS)],
                    marker=_MARKERS[number % len(_MARKERS)],
                    markersize=4,
                    capsize=2,
                    label=backbone,
                )
            axis.set_xscale("log")
            axis.set_xticks(group.percents, [f"{percent} %" for percent in group.percents])
            axis.minorticks_off()
            axis.set_title(printed)
            axis.set_xlabel("training labels")
            axis.grid(axis="y", color="0.9", linewidth=0.5)
        figure.supylabel("%", fontsize=7)
        # Beside the axes, since lines can run anywhere in them.
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(3, len(names)), frameon=False)
        save_for_paper(figure, stem)


def draw_confusion(stem: Path, group: Group, backbone: str) -> None:
    """The confusion matrix of a backbone with the largest share of labels, summed over seeds: PNG, SVG and CSV.

    Args:
        stem: Files to write, without their ending.
        group: The rows.
        backbone: One that was measured with this share.
    """
    percent, classes = group.percents[-1], group.first.classes
    of_seed = group.of(backbone, percent)
    matrix = np.sum([confusion_matrix(*row.ids(), len(classes)) for row in of_seed.values()], axis=0)
    _write_csv(stem.with_name(f"{stem.name}.csv"), matrix, classes)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = COLUMN if len(classes) <= _NUMBERED else min(PAGE, 0.15 * len(classes) + 1.2)
    with paper_style():
        names = list(map(short, classes))
        turned = len(names) * (max(map(len, names)) + 1) > _LETTERS
        figure = Figure(figsize=(side, (0.88 if turned else 0.78) * side), layout="constrained")
        axis = figure.subplots()
        picture = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
        size = 6 if len(classes) <= _NUMBERED else 5
        axis.set_xticks(range(len(names)), names, rotation=90 if turned else 0, fontsize=size)
        axis.set_yticks(range(len(names)), list(map(name_and_short, classes)), fontsize=size)
        inside = 7 if len(classes) <= _FEW else 5
        for (row, column), number in np.ndenumerate(matrix) if len(classes) <= _NUMBERED else ():
            colour = "white" if share[row, column] > 0.5 else "black"
            axis.text(column, row, str(number), ha="center", va="center", fontsize=inside, color=colour)
        axis.set_xlabel("predicted class")
        axis.set_ylabel("true class")
        title = f"{backbone}, {group.first.mode}, {percent} % of the labels"
        axis.set_title(
            "\n".join(textwrap.wrap(title, int(12 * side)))
        )  # matplotlib's own wrapping leaves a wide margin
        figure.colorbar(picture, ax=axis, shrink=0.6, label="share of the true class")
        save_for_paper(figure, stem)


def _write_csv(path: Path, matrix: NDArray[np.int64], classes: Sequence[str]) -> None:
    names = list(map(plain_cell, classes))
    with whole_file(path) as file, file.open("w", encoding="utf-8", errors="backslashreplace", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(["true \\ predicted", *names])
        writer.writerows([name, *line] for name, line in zip(names, matrix.tolist(), strict=True))
