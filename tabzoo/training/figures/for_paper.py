"""Figures of a run at the width of a paper's column: image-text similarities, synthetic anomalies, losses."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from tabzoo.figures import COLUMN, PAGE, fitting, paper_style, save_for_paper
from tabzoo.synthesis.pairs import RawPairs

__all__ = ["draw_gallery", "draw_losses", "draw_matrix"]

_PITCH = 0.095  # inches that a name needs beside the next
_NUMBER = 0.16  # and a number
# Okabe and Ito's colours, which people with any colour vision can tell apart; the lines differ too.
_FIRST: dict[str, Any] = {"color": "#0072B2", "linestyle": "-"}
_SECOND: dict[str, Any] = {"color": "#D55E00", "linestyle": "--"}
_BOTH: dict[str, Any] = {"color": "#000000", "linestyle": "-."}
_STYLES = {"normal": _FIRST, "abnormal": _SECOND, "nearest": _FIRST, "position": _SECOND, "mean of both": _BOTH}

# What each of two panels shows: its label, and metrics of a row with their names.
_Panels = tuple[tuple[str, dict[str, str]], tuple[str, dict[str, str]]]
_OF_BRANCHES: _Panels = (
    ("loss", {"loss_normal": "normal", "loss_abnormal": "abnormal"}),
    ("class accuracy", {"accuracy_normal": "normal", "accuracy_abnormal": "abnormal"}),
)
_OF_RANKING: _Panels = (
    ("loss", {"loss_nearest": "nearest", "loss_position": "position"}),
    ("AUROC", {"auroc": "mean of both"}),
)


def draw_matrix(path: Path, panels: Mapping[str, Tensor], classes: Tensor, words: Sequence[str]) -> None:
    """Similarities of images and texts (the paper's Figure 4): red is high, blue is low, on one symmetric range.

    Each line is shown relative to its mean in the panel, as in the run's own figure. Where names of columns would overlap,
    columns have the numbers that stand beside the names of the lines.

    Args:
        path: Files to write, without their endings.
        panels: Title to cosine similarities [B, C S]: S texts of each class, class by class; S may differ between panels.
        classes: Class of each image, ascending, [B].
        words: Of each class.
    """
    relative = {title: (values - values.mean(dim=1, keepdim=True)).numpy() for title, values in panels.items()}
    limit = max(1e-6, *(float(np.abs(values).max()) for values in relative.values()))
    longest = max(map(len, words))
    # A column's width, if the names below the panels have room in it.
    room = {width: (width - 0.06 * longest - 0.3) / len(panels) / len(words) for width in (COLUMN, PAGE)}
    width = COLUMN if room[COLUMN] >= _PITCH else PAGE
    numbered = room[width] < _PITCH
    below = [str(i) for i in range(1, len(words) + 1)] if numbered else words
    beside = [f"{word}  {i}" for i, word in enumerate(words, start=1)] if numbered else words
    every = math.ceil(_NUMBER / room[width]) if numbered else 1
    rows = [np.flatnonzero(classes.numpy() == i) for i in range(len(words))]
    with paper_style():
        figure = Figure(figsize=(width, _height(below)), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axis, (title, values) in zip(axes, relative.items(), strict=True):
            each = values.shape[1] // len(words)
            image = axis.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
            axis.set_title(title)
            named = range(0, len(words), every)
            places, names = [(i + 0.5) * each - 0.5 for i in named], [below[i] for i in named]
            axis.set_xticks(places, names, rotation=0 if numbered else 90)
            axis.tick_params(length=0, pad=2)
            if each > 1:
                axis.vlines(
                    [i * each - 0.5 for i in range(1, len(words))], -0.5, len(values) - 0.5, color="0.3", linewidth=0.3
                )
            edges = [of_class[0] - 0.5 for of_class in rows[1:] if len(of_class)]
            axis.hlines(edges, -0.5, values.shape[1] - 0.5, color="0.3", linewidth=0.3)
        shown = [i for i, of_class in enumerate(rows) if len(of_class)]
        axes[0].set_yticks([rows[i].mean() for i in shown], [beside[i] for i in shown])
        axes[0].set_ylabel("abnormal images of")
        bar = figure.colorbar(image, ax=axes, location="bottom", aspect=40, shrink=0.8, pad=0.02)
        bar.set_label("cosine similarity, relative to the mean of its line")
        bar.ax.tick_params(length=1.5)
        save_for_paper(figure, path)


def _height(below: Sequence[str]) -> float:
    """Inches of a figure of matrices with a line of names for each class, and these below it."""
    return max(0.7 * COLUMN, _PITCH * len(below) + 0.2) + 0.05 * max(map(len, below)) + 0.4


def draw_gallery(path: Path, pairs: RawPairs, words: Sequence[str]) -> None:
    """Columns of normal image, synthetic anomaly and mask of the change, in blocks below each other.

    Args:
        path: Files to write, without their endings.
        pairs: On any device.
        words: Of each class.
    """
    number = len(pairs.classes)
    width, most = (COLUMN, 6) if number <= 12 else (PAGE, 12)
    blocks = math.ceil(number / most)
    columns = math.ceil(number / blocks)
    top, left = 0.14, 0.15
    side = (width - left) / max(columns, 4)
    width = left + columns * side
    height = blocks * (top + 3 * side)
    with paper_style():
        figure = Figure(figsize=(width, height))
        for index in range(number):
            block, column = divmod(index, columns)
            images = (pairs.normal[index], pairs.abnormal[index], 255 * pairs.mask[index].byte().expand(3, -1, -1))
            for line, image in enumerate(images):
                bottom = height - block * (top + 3 * side) - top - (line + 1) * side
                place = ((left + column * side) / width, bottom / height, 0.96 * side / width, 0.96 * side / height)
                axis = figure.add_axes(place)
                axis.imshow(image.permute(1, 2, 0).cpu().numpy())
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
                if line == 0:
                    axis.set_title(words[int(pairs.classes[index])], fontsize=fitting(words, side), pad=1.5)
                if column == 0:
                    axis.set_ylabel(("normal", "anomaly", "mask")[line], fontsize=6, labelpad=1)
        save_for_paper(figure, path)


def draw_losses(path: Path, rows: Sequence[Mapping[str, float]], validation: Sequence[Mapping[str, float]]) -> None:
    """Losses and accuracies of both branches over the steps, or losses and AUROC of `ranking`; those held out as dots.

    Args:
        path: Files to write, without their endings.
        rows: Of metrics.jsonl.
        validation: Of validation.jsonl; none without held-out images.
    """
    with paper_style():
        figure = Figure(figsize=(COLUMN, 0.55 * COLUMN), layout="constrained")
        axes = figure.subplots(1, 2)
        panels = _OF_RANKING if any("auroc" in row for row in rows) else _OF_BRANCHES
        for axis, (label, series) in zip(axes, panels, strict=True):
            for name, curve in series.items():
                style = _STYLES[curve]
                alone = {"marker": "s", "markersize": 3} if len(rows) == 1 else {}
                axis.plot(*_points(rows, name), **style, **alone, label=curve)
                if validation:
                    dots = {
                        "color": style["color"],
                        "linestyle": "none",
                        "marker": "o",
                        "markersize": 2.5,
                        "fillstyle": "none",
                    }
                    axis.plot(*_points(validation, name), **dots, label=f"{curve}, held out")
            axis.set(xlabel="step", ylabel=label)
            axis.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes[0].set_ylim(bottom=0)
        axes[1].set_ylim(0, 1.02)
        curves = {line.get_label(): line for axis in axes for line in axis.lines}
        figure.legend(list(curves.values()), list(curves), loc="outside upper center", ncols=2, frameon=False)
        save_for_paper(figure, path)


def _points(rows: Sequence[Mapping[str, float]], name: str) -> tuple[list[float], list[float]]:
    having = [row for row in rows if name in row]
    return [row["step"] for row in having], [row[name] for row in having]
