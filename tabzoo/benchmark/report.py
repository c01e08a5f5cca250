"""What a run leaves beside its rows: tables, sheets of anomaly maps, ROC curves."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tabzoo.benchmark.figures import Panel, Pixels, draw_roc, draw_sheet
from tabzoo.benchmark.images import ClassImages, Trial
from tabzoo.benchmark.plan import Job, Plan
from tabzoo.benchmark.summary import Group, group_rows, latest_rows
from tabzoo.benchmark.table import to_csv, to_markdown
from tabzoo.plain import for_path
from tabzoo.scores.rows import REAL, Row, read_rows
from tabzoo.system import whole_file

__all__ = ["MAPS", "keep_maps", "write_report"]

MAPS = "maps"
_KEPT = "kept"
"""Folder in `MAPS` of the maps that sheets are put together from."""
_DEFECTS, _GOOD = 4, 2  # images on a sheet
_BRIGHTEST = 0.995


def keep_maps(folder: Path, key: str, trial: Trial, maps: Tensor) -> None:
    """Keeps the maps of the images that a sheet shows, side by side in one picture, black to white over their range."""
    shown = maps[_shown(trial)]
    low, high = shown.amin(), shown.flatten().quantile(_BRIGHTEST)  # one hot spot should not leave all else dark
    levels = (255 * (shown - low) / (high - low).clamp(min=1e-12)).clamp(max=255).round().byte()
    with whole_file(folder / MAPS / _KEPT / f"{key}.png") as file:
        Image.fromarray(np.concatenate(list(levels.numpy()), axis=1)).save(file)


def write_report(plan: Plan, jobs: Sequence[Job]) -> str:
    """Writes table.md, table.csv and the pictures; the tables are of the folder's rows with the weights and images of this
    run, the pictures of this run's rows.

    Returns:
        The tables.
    """
    folder, order = plan.options.output, [backbone.name for backbone in plan.backbones]
    keys = {job.key for job in jobs}
    rows, left_out = latest_rows(read_rows(folder), keys)
    table = to_markdown(rows, order=order, left_out=left_out)
    for name, text in (("table.md", table), ("table.csv", to_csv(rows, order=order))):
        with whole_file(folder / name) as file:
            file.write_text(text, encoding="utf-8")
    images = {(job.method, job.images.name): job.images for job in jobs}
    for group in group_rows(rows, order=order):
        if keys.isdisjoint(row.key for row in group.all_rows()):
            continue
        draw_roc(folder / "roc" / f"{_name(group.first)}.png", group)
        for class_name in group.classes:
            if of_class := images.get((group.first.method, class_name)):
                _draw_sheet(plan, group, of_class)
    return table


def _name(row: Row) -> str:
    parts = [row.method, *([f"{row.shots}shots"] if row.shots else []), *([] if row.test == REAL else ["synthetic"])]
    return for_path("-".join(parts))


def _draw_sheet(plan: Plan, group: Group, images: ClassImages) -> None:
    """The sheet of a class with the run's first seed."""
    folder, seed = plan.options.output / MAPS, plan.options.seeds[0]
    panels = []
    for backbone in group.backbones:
        row = group.of(backbone, images.name).get(seed)
        if row and (kept := folder / _KEPT / f"{row.key}.png").is_file():
            auroc = "" if row.image_auroc is None else f"\nimage AUROC {100 * row.image_auroc:.1f}"
            panels.append(Panel(f"{backbone}{auroc}", _split(kept)))
    trial = images.trial(test=plan.test, seed=seed)
    shown = _shown(trial)
    if panels:
        draw_sheet(
            folder / _name(group.first) / f"{for_path(images.name)}.png",
            f"{_name(group.first)} on {plan.dataset}, {images.name}, seed {seed}; each backbone's maps on a scale of their own",
            trial.pixels(shown).cpu().numpy(),
            trial.masks[shown].byte().cpu().numpy() if trial.has_mask.any() else None,
            [trial.kinds[i] for i in shown],
            panels,
        )


def _split(path: Path) -> Pixels:
    with Image.open(path) as picture:
        strip = np.asarray(picture)
    return np.stack(np.split(strip, strip.shape[1] // strip.shape[0], axis=1))


def _shown(trial: Trial) -> Tensor:
    """Indices of the images of a sheet: some defects, of as many kinds as go, then some good ones."""
    defects, good = (np.flatnonzero(trial.labels == label) for label in (True, False))
    chosen = [_spread(defects, _DEFECTS), _spread(good, _GOOD)]
    return torch.from_numpy(np.concatenate(chosen))


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)] if len(rows) else rows
