"""Pictures of results: anomaly maps beside the images they belong to, and ROC curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tabzoo.benchmark.summary import Group

__all__ = ["Panel", "draw_roc", "draw_sheet", "roc"]

Pixels = NDArray[np.uint8]


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
    columns = ["image", *(["mask"] if masks is not None else []), *(panel.title for panel in panels)]
    figure = Figure(figsize=(1.6 * len(columns) + 0.4, 1.6 * len(images) + 0.7), layout="constrained")
    figure.suptitle(title, fontsize=9)
    axes = figure.subplots(len(images), len(columns), squeeze=False)
    for k, line in enumerate(axes):
        shown: list[tuple[Pixels, dict[str, Any]]] = [(images[k], {})]
        if masks is not None:
            shown.append((masks[k], {"cmap": "gray", "vmin": 0, "vmax": 1}))
        shown += [(panel.maps[k], {"cmap": "inferno", "vmin": 0, "vmax": 255}) for panel in panels]
        for axis, (pixels, how) in zip(line, shown, strict=True):
            axis.imshow(pixels, **how)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(labels[k], fontsize=8)
    for axis, name in zip(axes[0], columns, strict=True):
        axis.set_title(name, fontsize=8)
    _write(figure, path)


def draw_roc(path: Path, group: Group) -> None:
    """ROC curves of the image scores, a panel for each class, a curve for each backbone and seed.

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
            for n, row in enumerate(group.of(backbone, name).values()):
                false, true = roc(row.scores["good"], row.scores["anomalous"])
                axis.plot(false, true, color=f"C{index}", linewidth=1, label=backbone if n == 0 else None)
        axis.plot((0, 1), (0, 1), color="0.8", linewidth=0.8, zorder=0)
        axis.set_title(name, fontsize=9)
        axis.set_aspect("equal")
        axis.tick_params(labelsize=7)
    axes[0, 0].legend(fontsize=7)
    figure.supxlabel("false positive rate", fontsize=8)
    figure.supylabel("true positive rate", fontsize=8)
    _write(figure, path)


def _rows(group: Group, class_name: str) -> list[Any]:
    return [row for backbone in group.backbones for row in group.of(backbone, class_name).values()]


def roc(good: Sequence[float], anomalous: Sequence[float]) -> tuple[list[float], list[float]]:
    """False and true positive rates at every threshold, from (0, 0) to (1, 1)."""
    thresholds = np.unique([*good, *anomalous])[::-1]
    rates = [[0.0, *((np.array(scores) >= t).mean() for t in thresholds)] for scores in (good, anomalous)]
    return rates[0], rates[1]


def _write(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
