"""One class folder: each style reads it into samples, or passes.

The names of folders and files do not say the label of KSDD2's images and the split of VisA's. Both are found out at the
end, when the layout has been chosen (`label_by_mask`, `split_by_table`).
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from tabzoo.data.folder_tree import Folder
from tabzoo.data.images import read_mask
from tabzoo.data.labels import GOOD, is_good, is_unlabelled
from tabzoo.data.manifest import csv_rows, read_split
from tabzoo.data.samples import TEST, TRAIN, Bytes, Samples
from tabzoo.errors import ImageError, InputError, counted

__all__ = [
    "Reading",
    "Style",
    "good_defect_style",
    "is_truth",
    "ksdd2_style",
    "label_by_mask",
    "plain_style",
    "split_by_table",
    "visa_style",
]

# The kind of defect and the split of samples for which they are not known yet. No folder can have this name.
_BY_MASK, _BY_TABLE = "/by mask", 2


@dataclass
class Reading:
    """What one layout reads from a tree of folders.

    Attributes:
        parts: The samples; each part is of one class, split and kind of defect.
        used: Paths of the folders that were used.
        notes: What was left out, for people.
    """

    parts: list[Samples] = field(default_factory=list)
    used: set[bytes] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def add(self, other: "Reading") -> None:
        """Adds what was read from another class folder."""
        self.parts += other.parts
        self.used |= other.used
        self.notes += other.notes

    def summary(self) -> str:
        """How many classes, and how many images of each split and label."""
        counts: Counter[str] = Counter()
        for part in self.parts:
            split = ("train", "test", "train and test")[part.split[0]]
            label = {GOOD: "good", _BY_MASK: "labelled by mask"}.get(part.defects[-1], "defective")
            counts[f"{split} {label}"] += len(part)
        classes = sorted({part.classes[0] for part in self.parts})
        listed = ", ".join(f"{number} {what}" for what, number in sorted(counts.items(), reverse=True))
        return f"{counted(classes, 'class', 'classes')} with {listed}"

    def content(self) -> list[tuple[str, int, bool, bytes]]:
        """What is compared to tell whether two readings are equal."""
        return sorted(
            (part.classes[0], int(part.split[0]), part.defects[-1] == GOOD, part.paths.tobytes()) for part in self.parts
        )


# Takes a class folder and the class name; returns None when the folder is not of this style.
Style: TypeAlias = Callable[[Folder, str], Reading | None]


def good_defect_style(marks: Callable[[str], bool]) -> Style:
    """`train/GOOD`, `test/GOOD`, `test/KIND`, `ground_truth/KIND`; in MVTec AD 2 `test_public`, with the masks inside.

    A kind of defect may have folders of its own: `test/KIND/PART`, `ground_truth/KIND/PART`.

    Args:
        marks: The folder is of this style when `train` or `test` has a folder whose name passes this test.
    """

    def read(folder: Folder, class_name: str) -> Reading | None:
        reading, fits = Reading(), False
        for split, names in ((TRAIN, ("train",)), (TEST, ("test", "test_public"))):
            top = next((found for name in names if (found := folder.child(name))), Folder(b""))
            truth = _truth(folder) or _truth(top)
            for kind in top.folders.values():
                if is_truth(kind.name):
                    continue
                if is_unlabelled(kind.name):
                    reading.notes.append(
                        f"{os.fsdecode(kind.path)}: left out, its name says neither good nor a kind of defect"
                    )
                    continue
                fits |= marks(kind.name)
                for images in kind.walk():
                    _read_kind(reading, class_name, split, top, images, truth)
        return reading if fits and reading.parts else None

    return read


def is_truth(name: str) -> bool:
    """Whether a folder with this name holds masks."""
    return re.sub(r"[\s_-]", "", name.lower()) in {"groundtruth", "gt", "mask", "masks", "label", "labels"}


def _truth(folder: Folder) -> Folder | None:
    return folder.child("ground_truth") or next((one for one in folder.folders.values() if is_truth(one.name)), None)


def _read_kind(
    reading: Reading, class_name: str, split: int, top: Folder, images: Folder, truth: Folder | None
) -> None:
    steps = os.fsdecode(images.path[len(top.path) + 1 :]).split("/")
    if not images.images.size or any(map(is_truth, steps)):
        return
    defect = GOOD if is_good(steps[0]) else "/".join(steps)
    masks = truth.child(*steps) if truth else None
    reading.used |= {images.path} | ({below.path for below in masks.walk()} if masks else set())
    reading.parts += _parts(reading, class_name, split, defect, images, masks if defect != GOOD else None)


_MARKED = re.compile(rb"(?P<stem>.+)[_.-](label|mask|gt|ground_?truth)", re.IGNORECASE | re.DOTALL)


def _parts(
    reading: Reading, class_name: str, split: int, defect: str, folder: Folder, truth: Folder | None = None
) -> list[Samples]:
    """A folder's images with their masks.

    Masks are in a folder of their own, or next to the images (STEM_label.*, STEM_mask.*, STEM_GT.* next to STEM.*, as in
    KolektorSDD). If the folder's name does not say that its images are defective, masks next to them do.
    """
    names: list[bytes] = folder.images.tolist()
    stems = {os.path.splitext(name)[0] for name in names}
    matches = {name: _MARKED.fullmatch(os.path.splitext(name)[0]) for name in names}
    labels = [name for name, match in matches.items() if match and match["stem"] in stems]
    images = replace(folder, images=_array(name for name in names if name not in set(labels)))
    if not labels:
        masks = _match_masks(images, truth, reading.notes) if truth else None
        return [Samples.alike(class_name, split, defect, images.image_paths(), masks)]
    masks = _match_masks(images, replace(folder, images=_array(labels)), [])
    note = f"{os.fsdecode(folder.path) or 'the folder itself'}: read as masks of the images next to them: "
    note += counted(list(map(os.fsdecode, labels)), "file")
    without = [os.fsdecode(name) for name, mask in zip(images.images.tolist(), masks.tolist(), strict=True) if not mask]
    reading.notes.append(f"{note}; without a mask, read as {defect}: {counted(without, 'image')}" if without else note)
    if truth:
        masks = np.where(from_truth := _match_masks(images, truth, reading.notes), from_truth, masks)
    paths = images.image_paths()
    if defect != GOOD:
        return [Samples.alike(class_name, split, defect, paths, masks)]
    kinds = ((_BY_MASK, masks != b""), (GOOD, masks == b""))
    return [Samples.alike(class_name, split, kind, paths[of], masks[of]) for kind, of in kinds if of.any()]


def _array(names: Iterable[bytes]) -> Bytes:
    return np.array(list(names), dtype=np.bytes_)


def _match_masks(images: Folder, masks: Folder, notes: list[str]) -> Bytes:
    """Finds masks by name, never by a fixed ending: STEM_mask.* (MVTec AD; also _label, _GT), STEM.* (BTAD, converted VisA),
    the same after the image's full name (for two images that differ only in their ending), or STEM/* (MVTec LOCO).

    Raises:
        InputError: Two images share a mask, or an image has two.
    """
    by_stem: dict[bytes, list[bytes]] = {}
    for name in masks.images.tolist():
        stem = os.path.splitext(name)[0]
        mark = _MARKED.fullmatch(stem)
        for key in {stem, mark["stem"] + b"_mask"} if mark else {stem}:
            by_stem.setdefault(key, []).append(name)
    found: list[bytes] = []
    users: dict[bytes, bytes] = {}
    for name in images.images.tolist():
        mask = _mask_of(name, masks, by_stem, images)
        if mask and users.setdefault(mask, name) != name:
            raise InputError(
                f"{os.fsdecode(masks.join(mask))}: the only mask for both {os.fsdecode(images.join(users[mask]))} and "
                f"{os.fsdecode(name)}; rename one of the images, or name each mask after the full name of its image, such "
                f"as {os.fsdecode(name)}.png"
            )
        found.append(mask)
    without = [os.fsdecode(name) for name, mask in zip(images.images.tolist(), found, strict=True) if not mask]
    if without:
        notes.append(
            f"{os.fsdecode(images.path)}: no mask in {os.fsdecode(masks.path)} for {counted(without, 'image')}"
        )
    unmatched = [os.fsdecode(name) for name in masks.images.tolist() if name not in users]
    if unmatched:
        notes.append(
            f"{os.fsdecode(masks.path)}: no image in {os.fsdecode(images.path)} for {counted(unmatched, 'mask')}"
        )
    return _array(masks.join(mask) if mask else b"" for mask in found)


def _mask_of(image: bytes, masks: Folder, by_stem: dict[bytes, list[bytes]], images: Folder) -> bytes:
    """The name of an image's mask in `masks`, or of its folder of masks; b"" if there is none."""
    stem = os.path.splitext(image)[0]
    for wanted in (image + b"_mask", image, stem + b"_mask", stem):
        if len(candidates := by_stem.get(wanted, [])) > 1 and image in candidates:
            return image
        if len(candidates) > 1:
            raise InputError(
                f"{os.fsdecode(images.join(image))}: more than one mask: "
                f"{' and '.join(os.fsdecode(masks.join(name)) for name in candidates)}; keep one"
            )
        if candidates:
            return candidates[0]
    return stem if masks.folders.get(stem, Folder(b"")).images.size else b""  # a folder of masks


def plain_style(folder: Folder, class_name: str) -> Reading | None:
    """Images directly in the class folder: all good, all for training."""
    if not folder.images.size:
        return None
    reading = Reading(used={folder.path})
    reading.parts += _parts(reading, class_name, TRAIN, GOOD, folder)
    return reading


def ksdd2_style(folder: Folder, class_name: str) -> Reading | None:
    """Images and masks in one folder.

    Only NNNNN.png with its NNNNN_GT.png counts: the published archive contains stray "(copy)" files of both.
    """
    reading = Reading()
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
            reading.notes.append(f"{where}: left out, not NNNNN.png with its NNNNN_GT.png: {counted(strays, 'file')}")
        paths = [np.array([top.join(name) for name in kind], dtype=np.bytes_) for kind in (images, masks)]
        reading.parts.append(Samples.alike(class_name, split, _BY_MASK, *paths))
        reading.used.add(top.path)
    return reading if reading.parts else None


def visa_style(folder: Folder, class_name: str) -> Reading | None:
    """VisA as it is published. The split is not in the folders, but in a table next to them."""
    reading = Reading()
    for name, defect in (("normal", GOOD), ("anomaly", "bad")):
        images = folder.child("data", "images", name)
        if images is not None and images.images.size:
            masks = folder.child("data", "masks", name) if defect != GOOD else None
            reading.parts += _parts(reading, class_name, _BY_TABLE, defect, images, masks)
            reading.used.add(images.path)
    truth = folder.child("data", "masks")
    reading.used |= {masks.path for masks in truth.walk()} if truth else set()
    return reading if reading.parts else None


def label_by_mask(samples: Samples) -> Samples:
    """Labels the samples whose label is in their masks: a pixel that is not zero means defective."""
    if _BY_MASK not in samples.defects:
        return samples
    unknown = samples.defect_ids == samples.defects.index(_BY_MASK)
    some = samples.select(unknown)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        states = list(pool.map(lambda mask: _has_defect(samples.root, mask), some.masks.tolist()))
    notes = [
        f"{os.fsdecode(path)}: left out, its label is unknown: {state}"
        for path, state in zip(some.paths.tolist(), states, strict=True)
        if isinstance(state, ImageError)
    ]
    good, bad = (some.select(np.array([state is label for state in states])) for label in (False, True))
    # A mask of zeros says no more than "good" does.
    good = replace(good, defect_ids=np.zeros_like(good.defect_ids), masks=np.zeros(len(good), dtype="S1"))
    bad = replace(bad, defect_ids=np.ones_like(bad.defect_ids), defects=(GOOD, "defect"))
    parts = [samples.select(~unknown), good, bad]
    return Samples.merged(samples.root, samples.layout, parts, (*samples.notes, *notes))


def _has_defect(root: Path, mask: bytes) -> bool | ImageError:
    try:
        return bool(read_mask(root / os.fsdecode(mask)).any())
    except ImageError as error:
        return error


def split_by_table(samples: Samples) -> Samples:
    """Splits VisA's samples by its `1cls.csv` (object, split, label, image, mask), which is next to the class folders."""
    unknown = samples.split == _BY_TABLE
    if not unknown.any():
        return samples
    root, notes = samples.root, []
    paths: list[bytes] = samples.paths[unknown].tolist()
    splits, table = _visa_table(root)
    if table is None:
        notes.append(f"{root}: no split_csv/1cls.csv: all normal images are read as train, none as test")
        splits = dict(zip(paths, np.where(samples.labels[unknown] == 0, TRAIN, TEST).tolist(), strict=True))
    split = samples.split.copy()
    split[unknown] = [splits.get(path, _BY_TABLE) for path in paths]
    folders = {os.path.dirname(path) for path in paths}
    unlisted = [os.fsdecode(path) for path in sorted(set(paths) - set(splits))]
    absent = [os.fsdecode(path) for path in sorted(set(splits) - set(paths)) if os.path.dirname(path) in folders]
    if unlisted:
        notes.append(f"{root}: left out, not in {table}: {counted(unlisted, 'image')}")
    if absent:
        notes.append(f"{root}: listed in {table} but missing: {counted(absent, 'image')}")
    listed = replace(samples, split=split).select(split != _BY_TABLE)
    return Samples.merged(root, samples.layout, [listed], (*samples.notes, *notes))


def _visa_table(root: Path) -> tuple[dict[bytes, int], Path | None]:
    """The split of each image path relative to `root`, which contains the class folders or is one of them."""
    for base, prefix in ((root, ""), (root.parent, root.name + "/")):
        for table in (base / "split_csv" / "1cls.csv", base / "1cls.csv"):
            if table.is_file():
                rows = [
                    (line, row) for line, row in csv_rows(table, ("image", "split")) if row["image"].startswith(prefix)
                ]
                splits = {os.fsencode(row["image"][len(prefix) :]): read_split(table, line, row) for line, row in rows}
                return splits, table
    return {}, None
