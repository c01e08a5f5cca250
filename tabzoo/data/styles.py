"""What a class folder looks like: each style reads a folder of the tree into groups of images, or passes."""

import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from tabzoo.data.samples import GOOD, TEST, TRAIN, Bytes, Group, counted
from tabzoo.data.tree import Folder

__all__ = ["UNLABELLED", "UNSPLIT", "Reading", "Style", "good_defect_style", "ksdd2_style", "plain_style", "visa_style"]


def _without_masks(class_name: str, split: int, defect: str, images: Folder) -> Group:
    return Group(class_name, split, defect, images.image_paths(), np.zeros(len(images.images), dtype="S1"))


@dataclass
class Reading:
    """What one layout makes of a tree."""

    groups: list[Group] = field(default_factory=list)
    used: set[bytes] = field(default_factory=set)  # Folders.
    notes: list[str] = field(default_factory=list)

    def add(self, other: "Reading") -> None:
        """Takes in another class folder's reading."""
        self.groups += other.groups
        self.used |= other.used
        self.notes += other.notes

    def summary(self) -> str:
        """How many classes, with how many images of which split and label."""
        counts: Counter[str] = Counter()
        for group in self.groups:
            split = ("train", "test", "train and test")[group.split]
            label = {GOOD: "good", UNLABELLED: "labelled by mask"}.get(group.defect, "anomalous")
            counts[f"{split} {label}"] += len(group.paths)
        classes = sorted({group.class_name for group in self.groups})
        listed = ", ".join(f"{count} {what}" for what, count in sorted(counts.items(), reverse=True))
        return f"{counted(classes, 'class', 'classes')} with {listed}"

    def content(self) -> list[tuple[str, int, bool, bytes]]:
        """What two readings are compared by."""
        return sorted(
            (group.class_name, group.split, group.defect == GOOD, group.paths.tobytes()) for group in self.groups
        )


# Of a group whose label or split is not in its folder names; it is found out once the layout is chosen. No folder can
# have this name.
UNLABELLED, UNSPLIT = "/by mask", 2

# A class folder and its class name to a reading, None when the folder is not of that style.
Style: TypeAlias = Callable[[Folder, str], Reading | None]


def good_defect_style(marks: tuple[str, ...], goods: tuple[str, ...]) -> Style:
    """`train/GOOD`, `test/GOOD`, `test/DEFECT`, `ground_truth/DEFECT`.

    Args:
        marks: The folder is of this style when one of these lies in `train` or `test`.
        goods: Names that mean normal.
    """

    def read(folder: Folder, class_name: str) -> Reading | None:
        reading, fits = Reading(), False
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


def _match_masks(images: Folder, masks: Folder, notes: list[str]) -> Bytes:
    """Masks by stem, never by a fixed ending: STEM_mask.* (MVTec AD) or STEM.* (BTAD, converted VisA)."""
    by_stem = {os.path.splitext(name)[0]: name for name in reversed(masks.images.tolist())}
    stems = [os.path.splitext(name)[0] for name in images.images.tolist()]
    found = [by_stem.get(stem + b"_mask") or by_stem.get(stem) or b"" for stem in stems]
    without = [os.fsdecode(name) for name, mask in zip(images.images.tolist(), found, strict=True) if not mask]
    if without:
        notes.append(
            f"{os.fsdecode(images.path)}: no mask in {os.fsdecode(masks.path)} for {counted(without, 'image')}"
        )
    unmatched = [os.fsdecode(name) for name in sorted(set(by_stem.values()) - set(found))]
    if unmatched:
        notes.append(
            f"{os.fsdecode(masks.path)}: no image in {os.fsdecode(images.path)} for {counted(unmatched, 'mask')}"
        )
    return np.array([masks.join(mask) if mask else b"" for mask in found], dtype=np.bytes_)


def plain_style(folder: Folder, class_name: str) -> Reading | None:
    """Images directly in the class folder: all normal, all for training."""
    if not folder.images.size:
        return None
    return Reading([_without_masks(class_name, TRAIN, GOOD, folder)], {folder.path})


def ksdd2_style(folder: Folder, class_name: str) -> Reading | None:
    """Images and masks side by side.

    Only NNNNN.png with its NNNNN_GT.png counts: the published archive holds stray "(copy)" files of both.
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
        reading.groups.append(Group(class_name, split, UNLABELLED, *paths))
        reading.used.add(top.path)
    return reading if reading.groups else None


def visa_style(folder: Folder, class_name: str) -> Reading | None:
    """VisA as it is published. The split is not in the folders, but in a table beside them."""
    reading = Reading()
    for name, defect in (("normal", GOOD), ("anomaly", "bad")):
        images = folder.child("data", "images", name)
        if images is not None and images.images.size:
            group = _without_masks(class_name, UNSPLIT, defect, images)
            masks = folder.child("data", "masks", name) if defect != GOOD else None
            if masks is not None:
                group = replace(group, masks=_match_masks(images, masks, reading.notes))
            reading.groups.append(group)
            reading.used.add(images.path)
    truth = folder.child("data", "masks")
    reading.used |= {masks.path for masks in truth.walk()} if truth else set()
    return reading if reading.groups else None
