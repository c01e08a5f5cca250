"""The list of a trial's photos on disk, and the synthetic anomalies where there are no real defects.

`images.csv` is a manifest that training and benchmark both read, so both see the same split. In a synthetic test, the good
photos and the anomalies that are made from them are written by the same path, at the same size: nothing about a file tells
which is which.
"""

import csv
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tabzoo.data.cache import Images, open_images
from tabzoo.data.images import crop_edges
from tabzoo.data.labels import GOOD
from tabzoo.data.layouts import read_samples
from tabzoo.data.samples import Samples
from tabzoo.errors import InputError
from tabzoo.plain import for_path
from tabzoo.synthesis import make_synthesis
from tabzoo.synthesis.pairs import PairMaker
from tabzoo.system import whole_file, writing
from tabzoo.training.recipe import Recipe
from tabzoo.trial.split import Split

__all__ = ["HELD_OUT", "IMAGES", "write_images"]

IMAGES, HELD_OUT = "images.csv", "held_out"
_DEFECTIVE = "defective"
_FIELDS = ("path", "class", "split", "label", "mask")


class _Listed(NamedTuple):
    """A line of the list."""

    path: Path
    class_name: str
    split: str
    label: str
    mask: Path | None = None


def write_images(folder: Path, samples: Samples, split: Split, recipe: Recipe, kind: str | None) -> Path:
    """Writes the list of photos, and the synthetic anomalies first.

    Args:
        folder: The trial's.
        samples: All photos.
        split: Which of them are used.
        recipe: Size of the photos and of the crop, and the seed of the anomalies.
        kind: Kind of synthetic anomalies; None where there are real defects.

    Returns:
        The list.

    Raises:
        InputError: A name that a table can't hold.
        WriteError: A file can't be written.
    """
    listed = [_of_sample(samples, i, "train") for i in split.train.tolist()]
    if kind is None:
        listed += [_of_sample(samples, i, "test") for i in [*split.good.tolist(), *split.defective.tolist()]]
    else:
        listed += _make_anomalies(folder / HELD_OUT, samples.select(split.good), recipe, kind)
    path = folder / IMAGES
    with whole_file(path) as file, file.open("w", encoding="utf-8", errors="surrogateescape", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(_FIELDS)
        for one in listed:
            writer.writerow((one.path, one.class_name, one.split, one.label, one.mask or ""))
    _check(path, listed)
    return path


def _of_sample(samples: Samples, i: int, split: str) -> _Listed:
    label = _DEFECTIVE if samples.labels[i] else GOOD
    return _Listed(samples.path(i), samples.classes[samples.class_ids[i]], split, label, samples.mask_path(i))


def _check(path: Path, listed: Sequence[_Listed]) -> None:
    """Reads the list back: blanks at the end of a name, for example, would be lost."""
    try:
        found = read_samples(path)
        said = {(str(found.path(i)), found.classes[found.class_ids[i]]) for i in range(len(found))}
    except InputError as error:
        path.unlink()
        raise InputError(f"a name of these photos can't be written to a table. Rename it: {error}") from error
    base = path.parent.absolute()
    if lost := [one for one in listed if (os.path.normpath(base / one.path), one.class_name) not in said]:
        path.unlink()
        raise InputError(
            f"{lost[0].path}: this name, or that of class {lost[0].class_name!r}, does not fit a table. Rename it"
        )


def _make_anomalies(folder: Path, samples: Samples, recipe: Recipe, kind: str) -> list[_Listed]:
    """Writes each good photo and an anomaly made from it; complete or not at all."""
    half = folder.with_name(f".{folder.name}.half")
    for old in (half, folder):  # of a trial that was stopped before its list was complete
        shutil.rmtree(old, ignore_errors=True)
    images = open_images(
        samples,
        size=recipe.resize,
        mode=recipe.cache,
        cache_dir=recipe.cache_dir,
        workers=recipe.workers,
        white_level=recipe.white_level,
    )
    listed: list[_Listed] = []
    with writing(folder):
        for class_id in np.unique(images.samples.class_ids).tolist():
            listed += _make_class(half, images, class_id, recipe, kind)
        half.rename(folder)
    return [one._replace(path=_moved(one.path, folder), mask=one.mask and _moved(one.mask, folder)) for one in listed]


def _moved(path: Path, folder: Path) -> Path:
    """Where a file is once its folder has its final name, relative to the trial's folder, which may move."""
    return Path(folder.name, *path.parts[-3:])


def _make_class(folder: Path, images: Images, class_id: int, recipe: Recipe, kind: str) -> list[_Listed]:
    members = torch.from_numpy(np.flatnonzero(images.samples.class_ids == class_id))
    alike = torch.zeros(len(members), dtype=torch.long)
    synthesis = make_synthesis(kind, alike, recipe.crop)
    maker = PairMaker(images, members, alike, synthesis, crop=recipe.crop, device=torch.device("cpu"))
    raw = maker.raw(recipe.seed, 0, torch.arange(len(members)))
    good = images.batch(members).cpu().numpy()  # [N, S, S, 3]
    abnormal, masks = good.copy(), np.zeros(good.shape[:3], np.uint8)
    inside = slice(*crop_edges(recipe.resize, recipe.crop))  # the anomaly is where backbones look
    abnormal[:, inside, inside] = raw.abnormal.permute(0, 2, 3, 1).numpy()
    masks[:, inside, inside] = 255 * raw.mask[:, 0].byte().numpy()
    name = images.samples.classes[class_id]
    of_class = folder / for_path(name)
    listed = []
    for i, row in enumerate(members.tolist()):
        stem = for_path(
            f"{i:04d}_{os.path.splitext(os.path.basename(os.fsdecode(bytes(images.samples.paths[row]))))[0]}"
        )
        listed.append(_Listed(_save(of_class / GOOD / f"{stem}.png", good[i]), name, "test", GOOD))
        if masks[i].any():  # a patch can leave an image as it was
            made = _save(of_class / f"synthetic_{kind}" / f"{stem}.png", abnormal[i])
            mask = _save(of_class / "masks" / f"{stem}.png", masks[i])
            listed.append(_Listed(made, name, "test", _DEFECTIVE, mask))
    return listed


def _save(path: Path, pixels: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path
