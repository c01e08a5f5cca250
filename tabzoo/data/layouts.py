"""Finds the samples of a data set: its layout, its classes, splits, labels and masks.

A folder is scanned once into a tree of file names; a layout is a function of that tree. A data set is a folder of class
folders, or one class folder by itself. The form of a class folder is its *style*, and a layout accepts certain styles:

- `mvtec` (MVTec AD, AD 2, LOCO, MPDD and look-alikes): `train/good`, `test/good`, `test/DEFECT`, masks
  `ground_truth/DEFECT/STEM_mask.png` or `STEM.png`. Words such as `ok` and `normal` also mean good (`is_good`); a
  kind of defect may have folders of its own.
- `btad`: the same, with `ok` for good and `ko` for the defect.
- `ksdd2`: `train/NNNNN.png` next to `train/NNNNN_GT.png`; an image whose mask is not empty is defective, also in
  `train`.
- `visa`: `Data/Images/Normal`, `Data/Images/Anomaly`, `Data/Masks/Anomaly`; the split from `split_csv/1cls.csv` next
  to the classes.
- `industrial`: images directly in folders that have the names of the paper's 30 classes.
- `folder`: class folders of any of these styles together, or with images directly in them (all good, all for training).
- a manifest: a CSV or JSONL file, read when the user names it; tables inside a folder are ignored.

Masks may also be next to the images: STEM_label.*, STEM_mask.*, STEM_GT.* next to STEM.*, as in KolektorSDD.

The most specific layouts are tried first. It is an error only when two of them would read the same folder differently.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tabzoo.data.class_folders import (
    Reading,
    Style,
    good_defect_style,
    is_truth,
    ksdd2_style,
    label_by_mask,
    plain_style,
    split_by_table,
    visa_style,
)
from tabzoo.data.folder_tree import Folder, scan
from tabzoo.data.images import IMAGE_SUFFIXES
from tabzoo.data.industrial import INDUSTRIAL
from tabzoo.data.labels import is_good, is_unlabelled, near_good
from tabzoo.data.manifest import read_manifest
from tabzoo.data.samples import Samples
from tabzoo.data.wafers import is_wafer_file
from tabzoo.errors import InputError, count, counted, did_you_mean

__all__ = ["LAYOUTS", "find_samples", "read_samples"]

logger = logging.getLogger(__name__)

LAYOUTS = ("mvtec", "btad", "ksdd2", "visa", "mpdd", "industrial", "folder")

# Endings of images that are not read, although a user may expect it.
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


_MVTEC = good_defect_style(is_good)
_BTAD = good_defect_style(lambda name: name.lower() in ("ok", "ko"))

# In the order in which the layouts are tried.
_STYLES: dict[str, tuple[Style, ...]] = {
    "visa": (visa_style,),
    "ksdd2": (ksdd2_style,),
    "btad": (_BTAD,),
    "mvtec": (_MVTEC,),
    "industrial": (plain_style,),
    "folder": (visa_style, ksdd2_style, _BTAD, _MVTEC, plain_style),
}

# Folders with these names are a split or a label; images directly in them are not a class.
_NOT_CLASSES = frozenset(
    [
        *("train", "training", "test", "testing", "val", "valid", "validation"),
        *("bad", "ko", "ng", "nio", "abnormal", "anomaly", "anomalous", "anomalies", "fail", "failed"),
        *("defect", "defects", "defective", "faulty", "image", "images"),
    ]
)


def find_samples(data: str | os.PathLike[str], *, layout: str = "auto") -> Samples:
    """The same as `read_samples`; each of the notes becomes a warning."""
    samples = read_samples(data, layout=layout)
    for note in samples.notes:
        logger.warning("%s", note)
    return samples


def read_samples(data: str | os.PathLike[str], *, layout: str = "auto") -> Samples:
    """Reads a data set's folder, one class's folder, or a manifest.

    A folder that itself looks like a class (images directly in it, or `train/good`) is one class with the folder's
    name.

    Args:
        data: The folder, or a `.csv` or `.jsonl` file with the fields path, class and optionally split, label, mask.
        layout: One of `LAYOUTS`, or "auto".

    Raises:
        InputError: No such folder, no images, an unknown layout, or a folder that can be read in two ways.
    """
    if layout not in ("auto", *LAYOUTS):
        raise InputError(
            f"unknown layout {layout!r}; accepted: auto, {', '.join(LAYOUTS)}.{did_you_mean(layout, LAYOUTS)}"
        )
    if not os.fspath(data):
        raise InputError("no folder given (an empty name); expected a folder of images or a .csv or .jsonl manifest")
    root = Path(os.path.abspath(data))
    if is_wafer_file(root):
        raise InputError(
            f"{data}: a file of wafer maps; expected a folder of images or a .csv or .jsonl manifest. Wafer maps are for "
            f"`python -m tabzoo.benchmark classify`"
        )
    if os.path.isfile(root):
        samples = read_manifest(root, layout)
    elif os.path.isdir(root):
        samples = _read_folder(root, layout)
    else:
        hint = did_you_mean(root.name, os.listdir(root.parent) if os.access(root.parent, os.R_OK) else ())
        raise InputError(f"no such folder: {data}; expected a folder of images or a .csv or .jsonl manifest.{hint}")
    doubts = [
        f"{root}: images labelled {defect!r} are read as defective; labels of good images are good, ok or normal"
        for defect in filter(near_good, samples.defects)
    ]
    return replace(samples, notes=(*samples.notes, *doubts))


def _read_folder(root: Path, layout: str) -> Samples:
    tree = scan(os.fsencode(root), b"", frozenset())
    wanted = "mvtec" if layout == "mpdd" else layout
    readings, problem = _read_tree(tree, root, wanted)
    if not readings:
        raise InputError(problem or _nothing_found(root, tree, wanted))
    chosen, reading = next(iter(readings.items()))
    if any(other.content() != reading.content() for other in readings.values()):
        raise InputError(_ambiguous(root, readings))
    name = "mpdd" if layout == "mpdd" else chosen
    samples = label_by_mask(split_by_table(Samples.merged(root, name, reading.parts, reading.notes)))
    if not len(samples):
        raise InputError(
            f"no usable images under {root}: {'; '.join(samples.notes[:3])}. See `tabzoo data check {root}`"
        )
    return replace(samples, notes=(*samples.notes, *_unused(root, tree, reading.used), *_unread(root, tree)))


def _ambiguous(root: Path, readings: dict[str, Reading]) -> str:
    ways = "; ".join(f"--layout {name} gives {reading.summary()}" for name, reading in readings.items())
    return f"{root} can be read in more than one way: {ways}. Choose one with --layout"


def _nothing_found(root: Path, tree: Folder, wanted: str) -> str:
    check = f"tabzoo data check {root}"
    expected = [_EXPECTED[name] for name in (("mvtec", "folder") if wanted == "auto" else (wanted,))]
    images = [path for folder in tree.walk() for path in folder.image_paths()]
    others: Counter[str] = Counter()
    for folder in tree.walk():
        others.update({os.fsdecode(suffix) or "(no ending)": number for suffix, number in folder.others.items()})
    got = f"got {count(len(images), 'file')} with a known image ending"
    if images:
        got += f" ({os.fsdecode(images[0])}, ...)"
    if others and not images:
        common = sorted(others.items(), key=lambda other: (-other[1], other[0]))[:3]
        got += f", {', '.join(f'{number} {suffix}' for suffix, number in common)}"
    fitting = _read_tree(tree, root, "auto")[0] if wanted != "auto" else {}
    hints = [f"`--layout {name}` fits. " for name in fitting] + [
        f"{root / name} is a data set: use that folder. " for name in _readable_below(tree, root)
    ]
    # Below train, kinds of parts are as likely as kinds of defects; then the hint helps.
    unclear = bool(hints) and tree.child("train") is not None
    if wanted in ("auto", "mvtec") and not unclear and (only := _only_defective(root, tree)):
        return f"{only} See `{check}`."
    return f"no images under {root}: expected {' or '.join(expected)}; {got}. {''.join(hints[:1])}See `{check}`."


def _only_defective(root: Path, tree: Folder) -> str:
    """What a data set lacks that has folders of splits with kinds of defects alone; empty if there are none."""
    for folder in (tree, *tree.folders.values()):
        tops = [top for name in ("train", "test", "test_public") if (top := folder.child(name))]
        kinds = {
            kind.path: sum(len(one.images) for one in kind.walk()) for top in tops for kind in top.folders.values()
        }
        listed = [f"{count(number, 'image')} in {os.fsdecode(path)}" for path, number in kinds.items() if number]
        if listed:
            more = f" and {len(listed) - 3} more folders" if len(listed) > 3 else ""
            return (
                f"no good images under {root}: found {', '.join(listed[:3])}{more}, and no folder whose name says good, such "
                f"as good, ok or normal. Put images of good parts into {root / os.fsdecode(folder.path) / 'train' / 'good'}."
            )
    return ""


def _readable_below(tree: Folder, root: Path) -> Iterator[str]:
    """The folders inside that are data sets themselves: an archive often unpacks into a folder of its own."""
    for key, folder in tree.folders.items():
        name = os.fsdecode(key)
        if _read_tree(folder, root / name, "auto")[0]:
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
    if not found:
        return []
    accepted = ", ".join(sorted(ending[1:].upper() for ending in IMAGE_SUFFIXES))
    return [f"{root}: left out, not a supported format: {', '.join(found)}; convert to one of {accepted}"]


def _read_tree(tree: Folder, root: Path, wanted: str) -> tuple[dict[str, Reading], str]:
    """Every layout that fits, the most specific first, and why one that nearly fits does not."""
    readings: dict[str, Reading] = {}
    problem = ""
    for name in _STYLES if wanted == "auto" else (wanted,):
        try:
            reading = _read_layout(tree, root, name, strict=wanted == "auto")
        except _Doubt as doubt:
            problem = str(doubt)
            continue
        if reading is not None:
            readings[name] = reading
    return readings, problem


class _Doubt(Exception):  # noqa: N818 (not an error: another layout may fit)
    """Why a layout should be read only if the user names it."""


def _read_layout(tree: Folder, root: Path, name: str, *, strict: bool) -> Reading | None:
    """One class if the root itself has the style, else its folders as classes.

    Args:
        tree: The folders.
        root: Where the tree starts.
        name: The layout.
        strict: Refuse what probably means something else; false when the user has named the layout.

    Raises:
        _Doubt: A plain folder is probably not a class.
    """
    structured = [style for style in _STYLES[name] if style is not plain_style]
    for style in structured:
        single = style(tree, _single_class(root))
        if single is not None:
            return single
    reading, plain = Reading(), []
    for key, folder in tree.folders.items():
        found = next((found for style in structured if (found := style(folder, os.fsdecode(key))) is not None), None)
        if found is not None:
            reading.add(found)
        elif folder.images.size and plain_style in _STYLES[name]:
            plain.append(folder)
    if name == "industrial":
        plain = _industrial_only(root, plain, strict=strict)
    elif strict and plain:
        plain = _surely_classes(root, tree, plain, alone=not reading.parts)
    for folder in plain:
        reading.add(plain_style(folder, folder.name) or Reading())
    if name == "folder" and not reading.parts:
        return plain_style(tree, _single_class(root))
    return reading if reading.parts else None


def _single_class(root: Path) -> str:
    """The name of the only class of a data set; also for `hazelnut/train/good`, it is hazelnut."""
    names = [folder.name for folder in (root, *root.parents[:2]) if folder.name]
    return next((name for name in names if not _no_class(name)), names[0] if names else "images")


def _no_class(name: str) -> bool:
    return name.lower() in _NOT_CLASSES or is_good(name) or is_unlabelled(name) or is_truth(name)


def _industrial_only(root: Path, folders: list[Folder], *, strict: bool) -> list[Folder]:
    classes = [entry.name for entry in INDUSTRIAL]
    known = {name.lower() for name in classes}
    unknown = [folder.name for folder in folders if folder.name.lower() not in known]
    if unknown and not strict:
        hint = did_you_mean(unknown[0], classes)
        raise _Doubt(
            f"{root / unknown[0]}: not a class of the Industrial dataset; rename it, or use --layout folder.{hint}"
        )
    return [] if unknown else folders


def _surely_classes(root: Path, tree: Folder, folders: list[Folder], *, alone: bool) -> list[Folder]:
    """The plain folders that are certainly classes."""
    doubtful = [folder for folder in folders if _no_class(folder.name)]
    if doubtful and alone:
        name = doubtful[0].name
        raise _Doubt(
            f"{root / name}: {count(len(doubtful[0].images), 'image')} directly in a folder that is named like a split or a "
            "label, not like a class. For one product, arrange NAME/train/good/*.png, NAME/test/good/*.png and "
            "NAME/test/DEFECT/*.png, or list the images in a manifest (CSV or JSONL with path, class, split, label, mask) "
            "and give that file. To read each folder as a class anyway, use --layout folder"
        )
    classes = [folder for folder in folders if folder not in doubtful]
    if classes and tree.images.size:
        names = counted([folder.name for folder in classes], "class", "classes")
        raise _Doubt(
            f"{root}: {count(len(tree.images), 'image')} directly in it ({os.fsdecode(tree.images[0])}, ...) and more in "
            f"folders: either one class or {names}. Use --layout folder to read the folders as classes and leave out the "
            "images next to them, or move the folders somewhere else"
        )
    return classes
