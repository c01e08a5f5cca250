"""Folders to samples: every layout of inspection data that users have, read into arrays.

A folder is scanned once into a tree of file names; a layout is a function of that tree. A data set is a folder of class
folders, or one class folder by itself; what a class folder looks like is its *style*, and a layout is the styles it
accepts:

- `mvtec` (MVTec AD, MPDD and look-alikes): `train/good`, `test/good`, `test/DEFECT`, masks
  `ground_truth/DEFECT/STEM_mask.png` or `STEM.png`.
- `btad`: the same with `ok` for good, `ko` for the defect, and mixed file endings.
- `ksdd2`: `train/NNNNN.png` beside `train/NNNNN_GT.png`; an image whose mask is not empty is defective, also in
  `train`.
- `visa`: `Data/Images/Normal`, `Data/Images/Anomaly`, `Data/Masks/Anomaly`; the split from `split_csv/1cls.csv` beside
  the classes.
- `industrial`: images directly in folders that have the names of the paper's 30 classes.
- `folder`: class folders of any of these styles side by side, or with images directly in them (all normal, all for
  training).
- a manifest: a CSV or JSONL file, read when it is named itself; stray tables inside a folder are ignored.

The layouts are tried specific first. It is an error only when two of them would read the same folder differently.
"""

import csv
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tabzoo.data.images import IMAGE_SUFFIXES, read_mask
from tabzoo.errors import ImageError, InputError

__all__ = ["GOOD", "INDUSTRIAL_CLASSES", "LAYOUTS", "TEST", "TRAIN", "Samples", "class_words", "find_samples"]

logger = logging.getLogger(__name__)

GOOD = "good"
TRAIN, TEST = 0, 1
LAYOUTS = ("mvtec", "btad", "ksdd2", "visa", "mpdd", "industrial", "folder")

INDUSTRIAL_CLASSES = (
    "Bent Metal Stripe",
    "Board",
    "Bolt",
    "Bottle",
    "Brick Tile",
    "Capsule",
    "Chip",
    "Cork",
    "Encapsulates Carpet",
    "Hazelnut",
    "Hazelnut Toy",
    "Jagged Carpet",
    "Leather",
    "Metal Flat",
    "Metal Pole",
    "Metal Tube",
    "Metal ornament",
    "Plaid",
    "Rhombus Carpet",
    "Screw",
    "Solar Board",
    "Sponge",
    "Streak Board",
    "Stripe Carpet",
    "Stripe Wood",
    "Tile",
    "Toy Wheel",
    "Upholstery",
    "Washer",
    "Wave Carpet",
)

Bytes: TypeAlias = NDArray[np.bytes_]
_NO_FILES = np.zeros(0, dtype=np.bytes_)


# -------------------------------------------------------------------------------------------------------------- samples


@dataclass(frozen=True, eq=False)
class Samples:
    """Images and what is known of them, as arrays: a million samples are some 50 MB and no Python objects.

    Sorted by class, split, defect (good first) and path, in byte order, whatever order the file system lists.

    Attributes:
        root: The folder that all paths start from.
        layout: The layout that was read, or "manifest".
        classes: Class names, sorted.
        paths: Image paths relative to `root` with "/", encoded as the file system encodes names, [N].
        class_ids: Index into `classes`, [N].
        split: `TRAIN` or `TEST`, [N].
        defect_ids: Index into `defects`, [N]; 0 is good.
        defects: Names of defect folders, sorted after "good".
        masks: Mask paths like `paths`, b"" where there is none, [N].
        notes: What was found and left out, for people.
    """

    root: Path
    layout: str
    classes: tuple[str, ...]
    paths: Bytes
    class_ids: NDArray[np.int32]
    split: NDArray[np.uint8]
    defect_ids: NDArray[np.int32]
    defects: tuple[str, ...]
    masks: Bytes
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def labels(self) -> NDArray[np.uint8]:
        """0 good, 1 anomalous, [N]."""
        return np.asarray(self.defect_ids != 0, dtype=np.uint8)

    def path(self, i: int) -> Path:
        """The i-th image's file."""
        return self.root / os.fsdecode(bytes(self.paths[i]))

    def mask_path(self, i: int) -> Path | None:
        """The i-th image's mask file, None where there is none."""
        mask = bytes(self.masks[i])
        return self.root / os.fsdecode(mask) if mask else None

    def select(
        self, index: NDArray[np.bool_] | NDArray[np.integer] | Sequence[int], *, drop: bool = False
    ) -> "Samples":
        """Some of the samples, in the order of the index.

        Args:
            index: One boolean per sample, or indices.
            drop: Drop classes that no longer have a sample and renumber the rest; else `classes` stays as it is.
        """
        keep = np.asarray(index)
        if keep.size == 0:
            keep = keep.astype(np.int64)
        chosen = replace(
            self,
            paths=self.paths[keep],
            class_ids=self.class_ids[keep],
            split=self.split[keep],
            defect_ids=self.defect_ids[keep],
            masks=self.masks[keep],
        )
        if not drop:
            return chosen
        present, class_ids = np.unique(chosen.class_ids, return_inverse=True)
        return replace(chosen, classes=tuple(self.classes[i] for i in present), class_ids=class_ids.astype(np.int32))

    def train_normals(self) -> "Samples":
        """The good images of the train split. Classes without any are dropped, with a warning; the rest are renumbered."""
        normals = self.select((self.split == TRAIN) & (self.defect_ids == 0), drop=True)
        missing = sorted(set(self.classes) - set(normals.classes))
        if missing:
            logger.warning("%s: left out, no good image in their train split: %s", self.root, ", ".join(missing))
        return normals


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
        raise InputError(f"unknown layout {layout!r}{_nearest(layout, LAYOUTS)}; accepted: auto, {', '.join(LAYOUTS)}")
    root = Path(os.path.abspath(data))
    if os.path.isfile(root):
        samples = _read_manifest(root, layout)
    elif os.path.isdir(root):
        samples = _read_folder(root, layout)
    else:
        hint = _nearest(root.name, os.listdir(root.parent) if os.access(root.parent, os.R_OK) else ())
        raise InputError(f"no such folder: {data}{hint}; expected a folder of images or a .csv or .jsonl manifest")
    for note in samples.notes:
        logger.warning("%s", note)
    return samples


# ----------------------------------------------------------------------------------------------------------------- tree

# Deep enough for VisA's CLASS/Data/Images/Normal and one more; a bound also ends what links could multiply.
_MAX_DEPTH = 5
_SUFFIXES = frozenset(suffix.encode() for suffix in IMAGE_SUFFIXES)
_SYSTEM_FOLDERS = frozenset({b"__macosx", b"@eadir", b"lost+found", b"$recycle.bin", b"system volume information"})


@dataclass
class _Folder:
    path: bytes  # Relative to the root, b"" for the root itself.
    images: Bytes = field(default_factory=lambda: _NO_FILES)  # Sorted names.
    folders: dict[bytes, "_Folder"] = field(default_factory=dict)
    others: Counter[bytes] = field(default_factory=Counter)  # Endings of the other files.

    def join(self, name: bytes) -> bytes:
        return self.path + b"/" + name if self.path else name

    def image_paths(self) -> Bytes:
        return np.char.add(self.path + b"/", self.images) if self.path else self.images

    def child(self, *names: str) -> "_Folder | None":
        """The folder below by its name in any case, step by step."""
        folder: _Folder | None = self
        for name in names:
            assert folder is not None
            found = [key for key in folder.folders if os.fsdecode(key).lower() == name.lower()]
            if len(found) > 1:
                both = " and ".join(os.fsdecode(folder.join(key)) for key in found)
                raise InputError(f"{both}: two folders whose names differ in case only; expected one, named {name}")
            folder = folder.folders[found[0]] if found else None
            if folder is None:
                return None
        return folder

    def walk(self) -> Iterator["_Folder"]:
        yield self
        for folder in self.folders.values():
            yield from folder.walk()


def _scan(root: bytes, path: bytes, ancestors: frozenset[tuple[int, int]]) -> _Folder:
    """The tree of image names. Links are followed; one that leads back to a folder above it is not."""
    here = os.path.join(root, path)
    folder, images, below = _Folder(path), [], []
    try:
        status = os.stat(here)
        with os.scandir(here) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith(b"."):
                    continue
                suffix = name[name.rfind(b".") :].lower()
                if suffix in _SUFFIXES and _is_image_file(entry):
                    images.append(name)
                elif _is_folder(entry):
                    below.append(name)
                else:
                    folder.others[os.path.splitext(name)[1].lower()] += 1
    except OSError as error:
        raise InputError(
            f"{os.fsdecode(here)}: can't list this folder: {error.strerror}; make it readable or move it away"
        ) from error
    identity = (status.st_dev, status.st_ino)
    if identity in ancestors:
        return _Folder(path)
    folder.images = np.array(sorted(images), dtype=np.bytes_)
    if path.count(b"/") + bool(path) < _MAX_DEPTH:
        for name in sorted(below):
            if name.lower() not in _SYSTEM_FOLDERS:
                folder.folders[name] = _scan(root, folder.join(name), ancestors | {identity})
    return folder


def _is_image_file(entry: os.DirEntry[bytes]) -> bool:
    """A regular file, or a broken link: that one is kept so that reading it names it, instead of losing it here."""
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
    except OSError:  # A link to itself.
        return True


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


# --------------------------------------------------------------------------------------------------------------- styles


@dataclass(frozen=True, eq=False)
class _Group:
    """Images that share a class, a split and a defect name."""

    class_name: str
    split: int
    defect: str
    paths: Bytes  # [N]
    masks: Bytes  # [N], b"" where there is none.

    def select(self, keep: NDArray[np.bool_], *, split: int, defect: str) -> list["_Group"]:
        """The group's kept part under another split and defect; none if that is empty."""
        return [_Group(self.class_name, split, defect, self.paths[keep], self.masks[keep])] if keep.any() else []


def _without_masks(class_name: str, split: int, defect: str, images: _Folder) -> _Group:
    return _Group(class_name, split, defect, images.image_paths(), np.zeros(len(images.images), dtype="S1"))


@dataclass
class _Reading:
    """What one layout makes of a tree."""

    groups: list[_Group] = field(default_factory=list)
    used: set[bytes] = field(default_factory=set)  # Folders.
    notes: list[str] = field(default_factory=list)

    def add(self, other: "_Reading") -> None:
        self.groups += other.groups
        self.used |= other.used
        self.notes += other.notes

    def summary(self) -> str:
        counts: Counter[str] = Counter()
        for group in self.groups:
            split = ("train", "test", "train and test")[group.split]
            label = {GOOD: "good", _UNLABELLED: "labelled by mask"}.get(group.defect, "anomalous")
            counts[f"{split} {label}"] += len(group.paths)
        classes = sorted({group.class_name for group in self.groups})
        listed = ", ".join(f"{count} {what}" for what, count in sorted(counts.items(), reverse=True))
        return f"{_some(classes, 'class', 'classes')} with {listed}"

    def content(self) -> list[tuple[str, int, bool, bytes]]:
        """What two readings are compared by."""
        return sorted(
            (group.class_name, group.split, group.defect == GOOD, group.paths.tobytes()) for group in self.groups
        )


# Of a group whose label or split is not in its folder names; it is found out once the layout is chosen. No folder can
# have this name.
_UNLABELLED, _UNSPLIT = "/by mask", 2

# A class folder and its class name to a reading, None when the folder is not of that style.
_Style: TypeAlias = Callable[[_Folder, str], _Reading | None]


def _good_defect_style(marks: tuple[str, ...], goods: tuple[str, ...]) -> _Style:
    """`train/GOOD`, `test/GOOD`, `test/DEFECT`, `ground_truth/DEFECT`.

    Args:
        marks: The folder is of this style when one of these lies in `train` or `test`.
        goods: Names that mean normal.
    """

    def read(folder: _Folder, class_name: str) -> _Reading | None:
        reading, fits = _Reading(), False
        truth = folder.child("ground_truth")
        for split, split_name in ((TRAIN, "train"), (TEST, "test")):
            top = folder.child(split_name)
            for name, images in top.folders.items() if top else ():
                if not images.images.size:
                    continue
                defect = os.fsdecode(name)
                fits |= defect.lower() in marks
                group = _without_masks(class_name, split, GOOD if defect.lower() in goods else defect, images)
                masks = truth.child(defect) if truth and group.defect != GOOD else None
                if masks is not None:
                    group = replace(group, masks=_match_masks(images, masks, reading.notes))
                reading.groups.append(group)
                reading.used.add(images.path)
        reading.used |= {masks.path for masks in truth.walk()} if truth else set()
        return reading if fits else None

    return read


def _match_masks(images: _Folder, masks: _Folder, notes: list[str]) -> Bytes:
    """Masks by stem, never by a fixed ending: STEM_mask.* (MVTec AD) or STEM.* (BTAD, converted VisA)."""
    by_stem = {os.path.splitext(name)[0]: name for name in reversed(masks.images.tolist())}
    stems = [os.path.splitext(name)[0] for name in images.images.tolist()]
    found = [by_stem.get(stem + b"_mask") or by_stem.get(stem) or b"" for stem in stems]
    without = [os.fsdecode(name) for name, mask in zip(images.images.tolist(), found, strict=True) if not mask]
    if without:
        notes.append(f"{os.fsdecode(images.path)}: no mask in {os.fsdecode(masks.path)} for {_some(without, 'image')}")
    unmatched = [os.fsdecode(name) for name in sorted(set(by_stem.values()) - set(found))]
    if unmatched:
        notes.append(
            f"{os.fsdecode(masks.path)}: no image in {os.fsdecode(images.path)} for {_some(unmatched, 'mask')}"
        )
    return np.array([masks.join(mask) if mask else b"" for mask in found], dtype=np.bytes_)


def _plain_style(folder: _Folder, class_name: str) -> _Reading | None:
    """Images directly in the class folder: all normal, all for training."""
    if not folder.images.size:
        return None
    return _Reading([_without_masks(class_name, TRAIN, GOOD, folder)], {folder.path})


def _ksdd2_style(folder: _Folder, class_name: str) -> _Reading | None:
    """Images and masks side by side.

    Only NNNNN.png with its NNNNN_GT.png counts: the published archive holds stray "(copy)" files of both.
    """
    reading = _Reading()
    for split, split_name in ((TRAIN, "train"), (TEST, "test")):
        top = folder.child(split_name)
        if top is None:
            continue
        names: list[bytes] = top.images.tolist()
        truths = {name[:5]: name for name in names if re.fullmatch(rb"\d{5}_GT\.png", name, re.IGNORECASE)}
        images = [name for name in names if re.fullmatch(rb"\d{5}\.png", name, re.IGNORECASE) and name[:5] in truths]
        if not images:
            continue
        masks = [truths[name[:5]] for name in images]
        strays = [os.fsdecode(name) for name in sorted(set(names) - {*images, *masks})]
        if strays:
            where = os.fsdecode(top.path)
            reading.notes.append(f"{where}: left out, not NNNNN.png with its NNNNN_GT.png: {_some(strays, 'file')}")
        paths = [np.array([top.join(name) for name in kind], dtype=np.bytes_) for kind in (images, masks)]
        reading.groups.append(_Group(class_name, split, _UNLABELLED, *paths))
        reading.used.add(top.path)
    return reading if reading.groups else None


def _label_by_mask(root: Path, reading: _Reading) -> _Reading:
    """Splits groups whose label is in their masks: a non-zero pixel means defective."""
    labelled = replace(reading, groups=[])
    for group in reading.groups:
        if group.defect != _UNLABELLED:
            labelled.groups.append(group)
            continue
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            states = list(pool.map(lambda mask: _has_defect(root, mask), group.masks.tolist()))
        for path, state in zip(group.paths.tolist(), states, strict=True):
            if isinstance(state, ImageError):
                labelled.notes.append(f"{os.fsdecode(path)}: left out, its label is unknown: {state}")
        good, bad = (np.array([state is label for state in states]) for label in (False, True))
        # An all-zero mask tells no more than "good" does.
        clean = replace(group, masks=np.zeros(len(group.paths), dtype="S1"))
        labelled.groups += clean.select(good, split=group.split, defect=GOOD)
        labelled.groups += group.select(bad, split=group.split, defect="defect")
    return labelled


def _has_defect(root: Path, mask: bytes) -> bool | ImageError:
    try:
        return bool(read_mask(root / os.fsdecode(mask)).any())
    except ImageError as error:
        return error


def _visa_style(folder: _Folder, class_name: str) -> _Reading | None:
    """VisA as it is published. The split is not in the folders, but in a table beside them."""
    reading = _Reading()
    for name, defect in (("normal", GOOD), ("anomaly", "bad")):
        images = folder.child("data", "images", name)
        if images is not None and images.images.size:
            group = _without_masks(class_name, _UNSPLIT, defect, images)
            masks = folder.child("data", "masks", name) if defect != GOOD else None
            if masks is not None:
                group = replace(group, masks=_match_masks(images, masks, reading.notes))
            reading.groups.append(group)
            reading.used.add(images.path)
    truth = folder.child("data", "masks")
    reading.used |= {masks.path for masks in truth.walk()} if truth else set()
    return reading if reading.groups else None


def _split_by_table(root: Path, reading: _Reading) -> _Reading:
    """Splits VisA's groups by its `1cls.csv` (object, split, label, image, mask), beside the class folders."""
    unsplit = [group for group in reading.groups if group.split == _UNSPLIT]
    if not unsplit:
        return reading
    present: set[bytes] = {path for group in unsplit for path in group.paths.tolist()}
    splits, table = _visa_table(root)
    divided = replace(reading, groups=[group for group in reading.groups if group.split != _UNSPLIT])
    if table is None:
        divided.notes.append(f"{root}: no split_csv/1cls.csv: all normal images are read as train, none as test")
        splits = {path: TRAIN if group.defect == GOOD else TEST for group in unsplit for path in group.paths.tolist()}
    for group in unsplit:
        for split in (TRAIN, TEST):
            keep = np.array([splits.get(path) == split for path in group.paths.tolist()])
            divided.groups += group.select(keep, split=split, defect=group.defect)
    folders = {os.path.dirname(path) for path in present}
    unlisted = [os.fsdecode(path) for path in sorted(present - set(splits))]
    absent = [os.fsdecode(path) for path in sorted(set(splits) - present) if os.path.dirname(path) in folders]
    if unlisted:
        divided.notes.append(f"{root}: left out, not in {table}: {_some(unlisted, 'image')}")
    if absent:
        divided.notes.append(f"{root}: in {table} but not there: {_some(absent, 'image')}")
    return divided


def _visa_table(root: Path) -> tuple[dict[bytes, int], Path | None]:
    """The split of each image path relative to `root`, which holds the class folders or is one of them."""
    for base, prefix in ((root, ""), (root.parent, root.name + "/")):
        for table in (base / "split_csv" / "1cls.csv", base / "1cls.csv"):
            if table.is_file():
                rows = [row for _, row in _csv_rows(table, ("image", "split")) if row["image"].startswith(prefix)]
                return {
                    os.fsencode(row["image"][len(prefix) :]): TEST if row["split"] == "test" else TRAIN for row in rows
                }, table
    return {}, None


# -------------------------------------------------------------------------------------------------------------- layouts

_MVTEC = _good_defect_style(("good",), ("good",))
_BTAD = _good_defect_style(("ok", "ko"), ("ok", "good"))

# In the order in which they are tried.
_STYLES: dict[str, tuple[_Style, ...]] = {
    "visa": (_visa_style,),
    "ksdd2": (_ksdd2_style,),
    "btad": (_BTAD,),
    "mvtec": (_MVTEC,),
    "industrial": (_plain_style,),
    "folder": (_visa_style, _ksdd2_style, _BTAD, _MVTEC, _plain_style),
}

_EXPECTED = {
    "mvtec": "CLASS/train/good/*.png (MVTec AD)",
    "btad": "CLASS/train/ok/*.bmp (BTAD)",
    "ksdd2": "train/NNNNN.png with train/NNNNN_GT.png (KSDD2)",
    "visa": "CLASS/Data/Images/Normal/*.JPG (VisA)",
    "industrial": "CLASS NAME/*.png with the names of the Industrial dataset",
    "folder": "CLASS/*.png (plain)",
}

# Folders with these names hold a split or a label; images directly in them are not a class.
_NOT_CLASSES = frozenset(
    [
        *("train", "training", "test", "testing", "val", "valid", "validation"),
        *("good", "ok", "normal", "bad", "ko", "ng", "abnormal", "anomaly", "anomalous", "anomalies"),
        *("defect", "defects", "defective", "faulty", "ground_truth", "gt", "mask", "masks", "label", "labels"),
        *("image", "images"),
    ]
)


def _read_folder(root: Path, layout: str) -> Samples:
    tree = _scan(os.fsencode(root), b"", frozenset())
    wanted = "mvtec" if layout == "mpdd" else layout
    readings, problem = _read_tree(tree, root, wanted)
    if not readings:
        raise InputError(problem or _nothing_found(root, tree, wanted))
    chosen, reading = next(iter(readings.items()))
    if any(other.content() != reading.content() for other in readings.values()):
        raise InputError(_ambiguous(root, readings))
    reading = _label_by_mask(root, _split_by_table(root, reading))
    if not reading.groups:
        raise InputError(
            f"no usable images under {root}: {'; '.join(reading.notes[:3])}. See `tabzoo data check {root}`"
        )
    reading.notes += _unused(root, tree, reading.used)
    return _assemble(root, "mpdd" if layout == "mpdd" else chosen, reading.groups, reading.notes)


def _read_tree(tree: _Folder, root: Path, wanted: str) -> tuple[dict[str, _Reading], str]:
    """Every layout that fits, specific first, and why one that nearly fits does not."""
    readings: dict[str, _Reading] = {}
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
    """Why a layout should not be read without being asked for."""


def _read_layout(tree: _Folder, root: Path, name: str, *, strict: bool) -> _Reading | None:
    """One class if the root itself has the style, else its folders as classes.

    Args:
        strict: Refuse what is probably meant otherwise; false when the user has named the layout.

    Raises:
        _Doubt: A plain folder is probably no class.
    """
    structured = [style for style in _STYLES[name] if style is not _plain_style]
    for style in structured:
        whole = style(tree, _single_class(root))
        if whole is not None:
            return whole
    reading, plain = _Reading(), []
    for key, folder in tree.folders.items():
        found = next((found for style in structured if (found := style(folder, os.fsdecode(key))) is not None), None)
        if found is not None:
            reading.add(found)
        elif folder.images.size and _plain_style in _STYLES[name]:
            plain.append(folder)
    if name == "industrial":
        plain = _industrial_only(root, plain, strict=strict)
    elif strict and plain:
        plain = _surely_classes(root, tree, plain, alone=not reading.groups)
    for folder in plain:
        reading.add(_plain_style(folder, os.fsdecode(folder.path)) or _Reading())
    if name == "folder" and not reading.groups:
        return _plain_style(tree, _single_class(root))
    return reading if reading.groups else None


def _single_class(root: Path) -> str:
    """The name of a class that is the whole data set; `hazelnut/train/good` is hazelnut, too."""
    names = [folder.name for folder in (root, *root.parents[:2]) if folder.name]
    return next((name for name in names if name.lower() not in _NOT_CLASSES), names[0] if names else "images")


def _industrial_only(root: Path, folders: list[_Folder], *, strict: bool) -> list[_Folder]:
    known = {name.lower() for name in INDUSTRIAL_CLASSES}
    unknown = [name for name in (os.fsdecode(folder.path) for folder in folders) if name.lower() not in known]
    if unknown and not strict:
        hint = _nearest(unknown[0], INDUSTRIAL_CLASSES)
        raise _Doubt(
            f"{root / unknown[0]}: no class of the Industrial dataset{hint}; rename it, or use --layout folder"
        )
    return [] if unknown else folders


def _surely_classes(root: Path, tree: _Folder, folders: list[_Folder], *, alone: bool) -> list[_Folder]:
    """The plain folders that are classes without doubt."""
    doubtful = [folder for folder in folders if os.fsdecode(folder.path).lower() in _NOT_CLASSES]
    if doubtful and alone:
        name = os.fsdecode(doubtful[0].path)
        raise _Doubt(
            f"{root / name}: {len(doubtful[0].images)} images directly in a folder that is named like a split or a label, "
            "not like a class. For one product, arrange NAME/train/good/*.png, NAME/test/good/*.png and "
            "NAME/test/DEFECT/*.png, or list the images in a manifest (CSV or JSONL with path, class, split, label, mask) "
            "and give that file. To take each folder as a class all the same, use --layout folder"
        )
    classes = [folder for folder in folders if folder not in doubtful]
    if classes and tree.images.size:
        names = _some([os.fsdecode(folder.path) for folder in classes], "class", "classes")
        raise _Doubt(
            f"{root}: {len(tree.images)} images directly in it ({os.fsdecode(tree.images[0])}, ...) and more in folders: "
            f"either one class or {names}. Use --layout folder to take the folders as classes and leave the images beside "
            "them out, or move the folders away"
        )
    return classes


def _ambiguous(root: Path, readings: dict[str, _Reading]) -> str:
    ways = "; ".join(f"--layout {name} gives {reading.summary()}" for name, reading in readings.items())
    return f"{root} can be read in more than one way: {ways}. Say which with --layout"


def _nothing_found(root: Path, tree: _Folder, wanted: str) -> str:
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
    fitting = _read_tree(tree, root, "auto")[0] if wanted != "auto" else {}
    hints = [f"`--layout {name}` fits. " for name in fitting] + [
        f"{root / name} fits: give that folder. " for name in _readable_below(tree, root)
    ]
    return f"no images under {root}: expected {' or '.join(expected)}; {got}. {''.join(hints[:1])}See `{check}`."


def _readable_below(tree: _Folder, root: Path) -> Iterator[str]:
    """Folders one down that are data sets themselves: archives often unpack into one more folder."""
    for key, folder in tree.folders.items():
        name = os.fsdecode(key)
        if _read_tree(folder, root / name, "auto")[0]:
            yield name


def _unused(root: Path, tree: _Folder, used: set[bytes]) -> list[str]:
    left = [
        os.fsdecode(bytes(path)) for folder in tree.walk() if folder.path not in used for path in folder.image_paths()
    ]
    return [f"{root}: left out, in folders that the layout does not use: {_some(left, 'image')}"] if left else []


def _assemble(root: Path, layout: str, groups: list[_Group], notes: Iterable[str]) -> Samples:
    """The arrays, in the order that `Samples` promises."""
    merged: dict[tuple[bytes, int, bool, bytes], list[_Group]] = {}
    for group in groups:
        key = (os.fsencode(group.class_name), group.split, group.defect != GOOD, os.fsencode(group.defect))
        merged.setdefault(key, []).append(group)
    keys = sorted(merged)
    classes = sorted({key[0] for key in keys})
    defects = [os.fsencode(GOOD), *sorted({key[3] for key in keys if key[2]})]
    paths, masks = [], []
    for key in keys:
        joined = np.concatenate([group.paths for group in merged[key]])
        order = np.argsort(joined, kind="stable")
        paths.append(joined[order])
        masks.append(np.concatenate([group.masks for group in merged[key]])[order])
    sizes = [len(part) for part in paths]
    return Samples(
        root=root,
        layout=layout,
        classes=tuple(map(os.fsdecode, classes)),
        paths=np.concatenate(paths),
        class_ids=np.repeat(np.array([classes.index(key[0]) for key in keys], dtype=np.int32), sizes),
        split=np.repeat(np.array([key[1] for key in keys], dtype=np.uint8), sizes),
        defect_ids=np.repeat(np.array([defects.index(key[3]) for key in keys], dtype=np.int32), sizes),
        defects=tuple(map(os.fsdecode, defects)),
        masks=np.concatenate(masks),
        notes=tuple(notes),
    )


# ------------------------------------------------------------------------------------------------------------- manifest

_GOOD_LABELS = frozenset({"", "good", "normal", "ok", "0", "false"})
_ANOMALOUS_LABELS = frozenset({"1", "true"})
_SPLITS = {"": TRAIN, "train": TRAIN, "training": TRAIN, "test": TEST, "testing": TEST}


def _read_manifest(path: Path, layout: str) -> Samples:
    """A table of images; paths start from its folder, or are absolute."""
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise InputError(f"{path}: a file; expected a folder of images, or a manifest that ends in .csv or .jsonl")
    if layout != "auto":
        raise InputError(f"{path}: a manifest states class, split and label itself; leave --layout {layout} away")
    rows = _csv_rows(path, ("path", "class")) if path.suffix.lower() == ".csv" else _jsonl_rows(path, ("path", "class"))
    groups: dict[tuple[str, int, str], tuple[list[bytes], list[bytes]]] = {}
    lines: dict[bytes, int] = {}
    for line, row in rows:
        image, class_name = _manifest_path(row.get("path", "")), row.get("class", "")
        split, label = row.get("split", "").lower(), row.get("label", "")
        if not image or not class_name:
            raise InputError(f"{path}, line {line}: no {'class' if image else 'path'} given")
        if split not in _SPLITS:
            raise InputError(f"{path}, line {line}: split {split!r}; accepted: train, test")
        if image in lines:
            raise InputError(f"{path}, line {line}: {os.fsdecode(image)} is listed twice, first in line {lines[image]}")
        lines[image] = line
        defect = GOOD if label.lower() in _GOOD_LABELS else "anomaly" if label.lower() in _ANOMALOUS_LABELS else label
        paths, masks = groups.setdefault((class_name, _SPLITS[split], defect), ([], []))
        paths.append(image)
        masks.append(_manifest_path(row.get("mask", "")))
    if not groups:
        raise InputError(
            f"{path}: no rows; expected one image a line with path, class and optionally split, label, mask"
        )
    arrays = [_Group(*key, *(np.array(part, dtype=np.bytes_) for part in parts)) for key, parts in groups.items()]
    return _assemble(path.parent, "manifest", arrays, ())


def _manifest_path(text: str) -> bytes:
    # A table written on Windows; a backslash inside a name does not occur in practice.
    text = text.replace("\\", "/") if "/" not in text else text
    return os.fsencode(os.path.normpath(text)) if text else b""


def _csv_rows(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and fields of a table separated by comma, semicolon or tab, as spreadsheets write them.

    Names in the header are read in lower case.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=max(",;\t", key=first.count), restval="")
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            _check_fields(path, 1, reader.fieldnames, required)
            for row in reader:
                yield reader.line_num, {name: value.strip() for name, value in row.items() if name is not None}
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: can't be read as a UTF-8 table: {error}") from error


def _jsonl_rows(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and fields; null counts as absent."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            for line, text in enumerate(file, start=1):
                if not text.strip():
                    continue
                row = json.loads(text)
                if not isinstance(row, dict):
                    raise InputError(f"{path}, line {line}: expected an object, got {text.strip()[:40]}")
                fields = {name.lower(): "" if value is None else str(value).strip() for name, value in row.items()}
                _check_fields(path, line, list(fields), required)
                yield line, fields
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: can't be read as UTF-8 text: {error}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {line}: not JSON: {error}") from error


def _check_fields(path: Path, line: int, fields: Sequence[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in fields]
    if missing:
        got = ", ".join(fields) or "none"
        raise InputError(f"{path}, line {line}: no field {missing[0]!r}; expected {', '.join(required)}; got {got}")


# ---------------------------------------------------------------------------------------------------------------- words

# Only where the rule of `class_words` would not give words that people use. Words must differ between classes: equal
# words are equal text features.
_WORDS = {
    "chewinggum": "chewing gum",  # VisA
    **{f"pcb{i}": f"printed circuit board {i}" for i in range(1, 5)},
    "bracket_black": "black bracket",  # MPDD
    "bracket_brown": "brown bracket",
    "bracket_white": "white bracket",
    "tubes": "tube",
}

# BTAD publishes numbers only. The words describe what its images show: 01 a round grey part, 02 a surface with wood
# grain, 03 a dark round part like a wheel. They are ours, from general knowledge of the data set, and not from its
# authors.
_BTAD_WORDS = {"01": "round metal part", "02": "wood surface", "03": "wheel"}


def class_words(classes: Sequence[str], overrides: Mapping[str, str], layout: str) -> dict[str, str]:
    """The words that stand for each class in prompts.

    Built in for MVTec AD, BTAD, VisA, MPDD and the Industrial dataset. Otherwise the folder's name in lower case, with
    spaces for underscores and hyphens and before trailing digits: `metal_nut` is "metal nut", `pcb1` "pcb 1".

    Args:
        classes: Class names.
        overrides: Class name to words; these win.
        layout: The layout that the classes were read with; BTAD's numbers mean something only in BTAD.

    Raises:
        InputError: An override names no class, or is empty.
    """
    for name, words in overrides.items():
        if name not in classes:
            listed = _some(list(classes), "class", "classes")
            raise InputError(f"class_names: no class {name!r}{_nearest(name, classes)}; there are {listed}")
        if not words.strip():
            raise InputError(f"class_names: no words for class {name!r}; expected for example '{name}: metal nut'")
    built_in = {**_WORDS, **(_BTAD_WORDS if layout == "btad" else {})}
    if layout == "ksdd2" and len(classes) == 1:
        built_in[classes[0]] = "metal surface"  # A single class has no name of its own in KSDD2.
    words_of = {name: overrides.get(name) or built_in.get(name) or _spelled(name) for name in classes}
    _warn_of_poor_words(words_of)
    return words_of


def _spelled(name: str) -> str:
    words = " ".join(re.sub(r"[_\-]+", " ", name).split()).lower()
    return re.sub(r"(?<=[^\W\d])(\d+)$", r" \1", words) or name


def _warn_of_poor_words(words_of: Mapping[str, str]) -> None:
    by_words: dict[str, list[str]] = {}
    for name, words in words_of.items():
        by_words.setdefault(words, []).append(name)
        if not any(character.isalpha() for character in words):
            logger.warning(
                "class %r has no words for the prompts: give some with class_names, for example '%s: metal nut'",
                name,
                name,
            )
    for words, names in by_words.items():
        if len(names) > 1:
            logger.warning(
                "classes %s share the words %r, so text can't tell them apart: give others with class_names",
                ", ".join(names),
                words,
            )


# ----------------------------------------------------------------------------------------------------------------- text


def _nearest(name: str, accepted: Iterable[str]) -> str:
    lower = {option.lower(): option for option in accepted}
    near = get_close_matches(name.lower(), lower, n=1)
    return f" (did you mean {lower[near[0]]!r}?)" if near else ""


def _some(names: Sequence[str], one: str, many: str | None = None) -> str:
    """How many, and the first few by name."""
    count = f"{len(names):,} {one if len(names) == 1 else many or one + 's'}"
    return f"{count} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
