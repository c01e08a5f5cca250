"""Pictures of results: anomaly maps beside the images they belong to, and ROC curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tabzoo.benchmark.summary import Group
from tabzoo.figures import save_figure
from tabzoo.scores.rows import Row

__all__ = ["Panel", "draw_roc", "draw_sheet", "roc"]

Pixels = NDArray[np.uint8]
_GAP = 6


class Panel(NamedTuple):
    """The anomaly maps of one backbone: a title, and a map for each image of the sheet, [K, H, W]."""

    title: str
    maps: Pixels


def draw_sheet(
    path: Path, title: str, images: Pixels, masks: Pixels | None, labels: Sequence[str], panels: Sequence[Panel]
) -> None:
    """A sheet with a row for each image: image, mask if there are any, one map for each backbone.

    Args:
        path: PNG to write.
        title: Of the sheet.
        images: [K, H, W, 3], what the backbones saw.
        masks: [K, H, W], 0 and 1.
        labels: Kind of defect of each image, or "good".
        panels: One for each backbone.
    """
    inferno = matplotlib.colormaps["inferno"]
    columns = [("image", images)]
    if masks is not None:
        columns += [("mask", np.repeat(255 * masks[..., None], 3, axis=-1))]
    columns += [(panel.title, inferno(panel.maps, bytes=True)[..., :3]) for panel in panels]
    # One picture of all: an axis for each of them would take a second a sheet.
    gap = [(0, 0), (0, _GAP), (0, _GAP), (0, 0)]
    tiles = [np.pad(column, gap, constant_values=255) for _, column in columns]
    height, width = tiles[0].shape[1:3]
    canvas = np.concatenate([np.concatenate(list(column)) for column in tiles], axis=1)
    figure = Figure(figsize=(1.6 * len(columns) + 0.4, 1.6 * len(images) + 0.8), layout="constrained")
    figure.suptitle(title, fontsize=8, wrap=True)
    axis = figure.subplots()
    axis.imshow(canvas)
    axis.set_xticks((np.arange(len(columns)) + 0.5) * width, [name for name, _ in columns], fontsize=8)
    axis.set_yticks((np.arange(len(images)) + 0.5) * height, labels, fontsize=8, rotation=90, va="center")
    axis.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)
    save_figure(figure, path, dpi=120)


def draw_roc(path: Path, group: Group) -> None:
    """ROC curves of the image scores, a panel for each class, a curve for each backbone, seed and draw.

    Args:
        path: PNG to write.
        group: The rows; classes without an AUROC are left out.
    """
    classes = [c for c in group.classes if any(row.image_auroc is not None for row in _rows(group, c))]
    if not classes:
        return
    columns = min(4, len(classes))
    lines = -(-len(classes) // columns)
    figure = Figure(figsize=(3 * columns, 3 * lines + 0.4), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    for axis in axes.flat[len(classes) :]:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, classes, strict=False):
        for index, backbone in enumerate(group.backbones):
            drawn = [pair for row in group.of(backbone, name).values() for pair in _draws(row)]
            for n, scores in enumerate(drawn):
                false, true = roc(*scores)
                axis.plot(false, true, color=f"C{index}", linewidth=1, label=backbone if n == 0 else None)
        axis.plot((0, 1), (0, 1), color="0.8", linewidth=0.8, zorder=0)
        axis.set_title(name, fontsize=9)
        axis.set_aspect("equal")
        axis.tick_params(labelsize=7)
    axes[0, 0].legend(fontsize=7)
    figure.supxlabel("false positive rate", fontsize=8)
    figure.supylabel("true positive rate", fontsize=8)
    save_figure(figure, path, dpi=120)


def _draws(row: Row) -> list[tuple[list[float], list[float]]]:
    """Scores of good and of anomalous images, for each draw of support images."""
    good, anomalous = (np.atleast_2d(row.scores[kind]).tolist() for kind in ("good", "anomalous"))
    return list(zip(good, anomalous, strict=True))


def _rows(group: Group, class_name: str) -> list[Any]:
    return [row for backbone in group.backbones for row in group.of(backbone, class_name).values()]


def roc(good: Sequence[float], anomalous: Sequence[float]) -> tuple[list[float], list[float]]:
    """False and true positive rates at every threshold, from (0, 0) to (1, 1)."""
    thresholds = np.unique([*good, *anomalous])[::-1]
    rates = [[0.0, *((np.array(scores) >= t).mean() for t in thresholds)] for scores in (good, anomalous)]
    return rates[0], rates[1]
