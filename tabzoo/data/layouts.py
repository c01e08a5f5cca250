"""Folders to samples: every layout of inspection data that users have, read into arrays.

A folder is scanned once into a tree of file names; a layout is a function of that tree. A data set is a folder of class
folders, or one class folder by itself; what a class folder looks like is its *style*, and a layout is the styles it
accepts:

- `mvtec` (MVTec AD, AD 2, LOCO, MPDD and look-alikes): `train/good`, `test/good`, `test/DEFECT`, masks
  `ground_truth/DEFECT/STEM_mask.png` or `STEM.png`. Words such as `ok` and `normal` mean good as well (`is_good`); a
  kind of defect may have folders of its own.
- `btad`: the same, with `ok` for good and `ko` for the defect.
- `ksdd2`: `train/NNNNN.png` beside `train/NNNNN_GT.png`; an image whose mask is not empty is defective, also in
  `train`.
- `visa`: `Data/Images/Normal`, `Data/Images/Anomaly`, `Data/Masks/Anomaly`; the split from `split_csv/1cls.csv` beside
  the classes.
- `industrial`: images directly in folders that have the names of the paper's 30 classes.
- `folder`: class folders of any of these styles side by side, or with images directly in them (all normal, all for
  training).
- a manifest: a CSV or JSONL file, read when it is named itself; stray tables inside a folder are ignored.

Masks may also lie beside the images: STEM_label.*, STEM_mask.*, STEM_GT.* beside STEM.*, as in KolektorSDD.

The layouts are tried specific first. It is an error only when two of them would read the same folder differently.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tabzoo.data.detection import read_tree
from tabzoo.data.images import IMAGE_SUFFIXES
from tabzoo.data.labels import label_by_mask, split_by_table
from tabzoo.data.manifest import read_manifest
from tabzoo.data.samples import GOOD, TEST, TRAIN, Samples, assemble, counted, near_good
from tabzoo.data.styles import Reading
from tabzoo.data.tree import Folder, scan
from tabzoo.data.words import class_words
from tabzoo.errors import InputError, did_you_mean

__all__ = ["GOOD", "LAYOUTS", "TEST", "TRAIN", "Samples", "class_words", "find_samples"]

logger = logging.getLogger(__name__)

LAYOUTS = ("mvtec", "btad", "ksdd2", "visa", "mpdd", "industrial", "folder")

# Endings of images that are not read, which a user may take for part of the data set.
_OTHER_IMAGES = frozenset(
    [
        *(b".heic", b".heif", b".avif", b".jxl", b".jp2", b".gif", b".dng", b".cr2", b".cr3", b".nef", b".arw"),
        *(b".ppm", b".pgm", b".exr", b".tga", b".psd", b".dcm", b".npy"),
    ]
)

_EXPECTED = {
    "mvtec": "CLASS/train/good/*.png (MVTec AD)",
    "btad": "CLASS/train/ok/*.bmp (BTAD)",
    "ksdd2": "train/NNNNN.png with train/NNNNN_GT.png (KSDD2)",
    "visa": "CLASS/Data/Images/Normal/*.JPG (VisA)",
    "industrial": "CLASS NAME/*.png with the names of the Industrial dataset",
    "folder": "CLASS/*.png (plain)",
}


def find_samples(data: str | os.PathLike[str], *, layout: str = "auto") -> Samples:
    """Reads a data set's folder, one class's folder, or a manifest.

    A folder that itself looks like a class (images directly in it, or `train/good`) is one class with the folder's
    name.

    Args:
        data: The folder, or a `.csv` or `.jsonl` file with the fields path, class and optionally split, label, mask.
        layout: One of `LAYOUTS`, or "auto".

    Raises:
        InputError: Nothing there, no images, an unknown layout, or a folder that can be read in two ways.
    """
    if layout not in ("auto", *LAYOUTS):
        raise InputError(
            f"unknown layout {layout!r}; accepted: auto, {', '.join(LAYOUTS)}.{did_you_mean(layout, LAYOUTS)}"
        )
    if not os.fspath(data):
        raise InputError("no folder given: an empty name; expected a folder of images or a .csv or .jsonl manifest")
    root = Path(os.path.abspath(data))
    if os.path.isfile(root):
        samples = read_manifest(root, layout)
    elif os.path.isdir(root):
        samples = _read_folder(root, layout)
    else:
        hint = did_you_mean(root.name, os.listdir(root.parent) if os.access(root.parent, os.R_OK) else ())
        raise InputError(f"no such folder: {data}; expected a folder of images or a .csv or .jsonl manifest.{hint}")
    doubts = [
        f"{root}: images named {defect!r} are read as defects; good ones are named good, ok or normal"
        for defect in filter(near_good, samples.defects)
    ]
    samples = replace(samples, notes=(*samples.notes, *doubts))
    for note in samples.notes:
        logger.warning("%s", note)
    return samples


def _read_folder(root: Path, layout: str) -> Samples:
    tree = scan(os.fsencode(root), b"", frozenset())
    wanted = "mvtec" if layout == "mpdd" else layout
    readings, problem = read_tree(tree, root, wanted)
    if not readings:
        raise InputError(problem or _nothing_found(root, tree, wanted))
    chosen, reading = next(iter(readings.items()))
    if any(other.content() != reading.content() for other in readings.values()):
        raise InputError(_ambiguous(root, readings))
    reading = label_by_mask(root, split_by_table(root, reading))
    if not reading.groups:
        raise InputError(
            f"no usable images under {root}: {'; '.join(reading.notes[:3])}. See `tabzoo data check {root}`"
        )
    reading.notes += _unused(root, tree, reading.used) + _unread(root, tree)
    return assemble(root, "mpdd" if layout == "mpdd" else chosen, reading.groups, reading.notes)


def _ambiguous(root: Path, readings: dict[str, Reading]) -> str:
    ways = "; ".join(f"--layout {name} gives {reading.summary()}" for name, reading in readings.items())
    return f"{root} can be read in more than one way: {ways}. Say which with --layout"


def _nothing_found(root: Path, tree: Folder, wanted: str) -> str:
    check = f"tabzoo data check {root}"
    expected = [_EXPECTED[name] for name in (("mvtec", "folder") if wanted == "auto" else (wanted,))]
    images = [path for folder in tree.walk() for path in folder.image_paths()]
    others: Counter[str] = Counter()
    for folder in tree.walk():
        others.update({os.fsdecode(suffix) or "(no ending)": count for suffix, count in folder.others.items()})
    got = f"got {len(images)} files with a known image ending"
    if images:
        got += f" ({os.fsdecode(images[0])}, ...)"
    if others and not images:
        common = sorted(others.items(), key=lambda other: (-other[1], other[0]))[:3]
        got += f", {', '.join(f'{count} {suffix}' for suffix, count in common)}"
    fitting = read_tree(tree, root, "auto")[0] if wanted != "auto" else {}
    hints = [f"`--layout {name}` fits. " for name in fitting] + [
        f"{root / name} fits: give that folder. " for name in _readable_below(tree, root)
    ]
    return f"no images under {root}: expected {' or '.join(expected)}; {got}. {''.join(hints[:1])}See `{check}`."


def _readable_below(tree: Folder, root: Path) -> Iterator[str]:
    """Folders one down that are data sets themselves: archives often unpack into one more folder."""
    for key, folder in tree.folders.items():
        name = os.fsdecode(key)
        if read_tree(folder, root / name, "auto")[0]:
            yield name


def _unused(root: Path, tree: Folder, used: set[bytes]) -> list[str]:
    left = [
        os.fsdecode(bytes(path)) for folder in tree.walk() if folder.path not in used for path in folder.image_paths()
    ]
    return [f"{root}: left out, in folders that the layout does not use: {counted(left, 'image')}"] if left else []


def _unread(root: Path, tree: Folder) -> list[str]:
    others: Counter[bytes] = Counter()
    for folder in tree.walk():
        others.update(folder.others)
    found = [f"{others[ending]} {os.fsdecode(ending)}" for ending in sorted(_OTHER_IMAGES & others.keys())]
    accepted = ", ".join(sorted(ending[1:].upper() for ending in IMAGE_SUFFIXES))
    return [f"{root}: left out, can't be read: {', '.join(found)}; convert them to one of {accepted}"] if found else []
