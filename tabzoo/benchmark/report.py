"""What a run leaves next to its rows: tables, grids of anomaly maps, ROC curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tabzoo.benchmark.class_images import ClassImages, EvaluationSet
from tabzoo.benchmark.kept_maps import keep_raw_maps
from tabzoo.benchmark.plan import Job, Plan
from tabzoo.benchmark.summary import Group, group_rows
from tabzoo.benchmark.table import to_csv, to_markdown
from tabzoo.figures import save_figure
from tabzoo.plain import for_path
from tabzoo.scores.rows import REAL, Row
from tabzoo.system import whole_file

__all__ = ["KEPT", "MAPS", "ROC", "Panel", "draw_grid", "draw_roc", "keep_maps", "name_of_group", "roc", "write_report"]

Pixels = NDArray[np.uint8]
MAPS, ROC = "maps", "roc"
KEPT = "kept"
"""Folder in `MAPS` of what pictures are made from."""
_DEFECTS, _GOOD = 4, 2  # images in a grid
_BRIGHTEST = 0.995
_GAP = 6  # pixels between the images of a grid


class Panel(NamedTuple):
    """The anomaly maps of one backbone: a title, and a map for each image of the grid, [K, H, W]."""

    title: str
    maps: Pixels


def keep_maps(folder: Path, key: str, evaluation: EvaluationSet, maps: Tensor) -> None:
    """Keeps the maps of the images that a grid shows: raw, and side by side in one picture, black to white over their range."""
    keep_raw_maps(folder / MAPS / KEPT, key, evaluation, maps, _shown(evaluation))
    shown = maps[_shown(evaluation)]
    low, high = shown.amin(), shown.flatten().quantile(_BRIGHTEST)  # one bright pixel should not darken all others
    levels = (255 * (shown - low) / (high - low).clamp(min=1e-12)).clamp(max=255).round().byte()
    with whole_file(folder / MAPS / KEPT / f"{key}.png") as file:
        Image.fromarray(np.concatenate(list(levels.numpy()), axis=1)).save(file)


def write_report(plan: Plan, jobs: Sequence[Job], rows: Sequence[Row], *, left_out: int) -> str:
    """Writes table.md, table.csv and the pictures.

    Args:
        plan: Of the run.
        jobs: Its rows, which the pictures show.
        rows: The rows of the folder that have the weights and images of this run, which the tables show.
        left_out: Number of the other rows.

    Returns:
        The tables.
    """
    folder, order = plan.options.output, [backbone.name for backbone in plan.backbones]
    keys = {job.key for job in jobs}
    table = to_markdown(rows, order=order, left_out=left_out)
    for name, text in (("table.md", table), ("table.csv", to_csv(rows, order=order))):
        with whole_file(folder / name) as file:
            file.write_text(text, encoding="utf-8")
    images = {(job.method, job.images.name): job.images for job in jobs}
    for group in group_rows(rows, order=order):
        if keys.isdisjoint(row.key for row in group.all_rows()):
            continue
        draw_roc(folder / ROC / f"{name_of_group(group.first)}.png", group)
        for class_name in group.classes:
            if of_class := images.get((group.first.method, class_name)):
                _draw_grid(plan, group, of_class)
    return table


def name_of_group(row: Row) -> str:
    """Names the pictures of rows like this one: method, shots and test."""
    parts = [row.method, *([f"{row.shots}shots"] if row.shots else []), *([] if row.test == REAL else ["synthetic"])]
    return for_path("-".join(parts))


def _draw_grid(plan: Plan, group: Group, images: ClassImages) -> None:
    """The grid of a class with the run's first seed."""
    folder, seed = plan.options.output / MAPS, plan.options.seeds[0]
    panels = []
    for backbone in group.backbones:
        row = group.of(backbone, images.name).get(seed)
        if row and (kept := folder / KEPT / f"{row.key}.png").is_file():
            auroc = "" if row.image_auroc is None else f"\nimage AUROC {100 * row.image_auroc:.1f}"
            panels.append(Panel(f"{backbone}{auroc}", _split(kept)))
    evaluation = images.evaluation_set(test=plan.test, seed=seed)
    shown = _shown(evaluation)
    if panels:
        draw_grid(
            folder / name_of_group(group.first) / f"{for_path(images.name)}.png",
            f"{name_of_group(group.first)} on {plan.dataset}, {images.name}, seed {seed}; "
            f"each backbone's maps have their own scale",
            evaluation.pixels(evaluation.rows[shown]).cpu().numpy(),
            evaluation.masks[shown].byte().cpu().numpy() if evaluation.has_mask.any() else None,
            [evaluation.kinds[i] for i in shown],
            panels,
        )


def _split(path: Path) -> Pixels:
    with Image.open(path) as picture:
        strip = np.asarray(picture)
    return np.stack(np.split(strip, strip.shape[1] // strip.shape[0], axis=1))


def _shown(evaluation: EvaluationSet) -> Tensor:
    """Positions in the evaluation set of the images of a grid: defects of as many kinds as possible, then good ones."""
    defects, good = (np.flatnonzero(evaluation.labels == label) for label in (True, False))
    chosen = [_evenly_spaced(defects, _DEFECTS), _evenly_spaced(good, _GOOD)]
    return torch.from_numpy(np.concatenate(chosen))


def _evenly_spaced(rows: np.ndarray, count: int) -> np.ndarray:
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)] if len(rows) else rows


def draw_grid(
    path: Path, title: str, images: Pixels, masks: Pixels | None, labels: Sequence[str], panels: Sequence[Panel]
) -> None:
    """A grid with a row for each image: image, mask if there are any, one map for each backbone.

    Args:
        path: PNG to write.
        title: Of the grid.
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
    # All in one picture: an axis for each image would take a second a grid.
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
    classes = sorted({row.class_name for row in group.all_rows() if row.image_auroc is not None})
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


def roc(good: Sequence[float], anomalous: Sequence[float]) -> tuple[list[float], list[float]]:
    """False and true positive rates at every threshold, from (0, 0) to (1, 1)."""
    thresholds = np.unique([*good, *anomalous])[::-1]
    rates = [[0.0, *((np.array(scores) >= t).mean() for t in thresholds)] for scores in (good, anomalous)]
    return rates[0], rates[1]
