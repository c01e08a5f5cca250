"""What a class folder looks like: each style reads a folder of the tree into groups of images, or passes."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from tabzoo.data.samples import GOOD, TEST, TRAIN, Bytes, Group, counted, is_good, is_unlabelled
from tabzoo.data.tree import Folder
from tabzoo.errors import InputError

__all__ = [
    "UNLABELLED",
    "UNSPLIT",
    "Reading",
    "Style",
    "good_defect_style",
    "is_truth",
    "ksdd2_style",
    "plain_style",
    "visa_style",
]


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


def good_defect_style(marks: Callable[[str], bool]) -> Style:
    """`train/GOOD`, `test/GOOD`, `test/KIND`, `ground_truth/KIND`; MVTec AD 2 says `test_public` and has the masks there.

    A kind may have folders of its own: `test/KIND/PART`, `ground_truth/KIND/PART`.

    Args:
        marks: The folder is of this style when a folder that this holds for lies in `train` or `test`.
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
                        f"{os.fsdecode(kind.path)}: left out, the name tells neither good nor a kind of defect"
                    )
                    continue
                fits |= marks(kind.name)
                for images in kind.walk():
                    _read_kind(reading, class_name, split, top, images, truth)
        return reading if fits and reading.groups else None

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
    reading.groups += _groups(reading, class_name, split, defect, images, masks if defect != GOOD else None)


_BESIDE = re.compile(rb"(?P<stem>.+)[_.-](label|mask|gt|ground_?truth)", re.IGNORECASE | re.DOTALL)


def _groups(
    reading: Reading, class_name: str, split: int, defect: str, folder: Folder, truth: Folder | None = None
) -> list[Group]:
    """A folder's images with their masks.

    Masks lie in a folder of their own, or beside the images (STEM_label.*, STEM_mask.*, STEM_GT.* beside STEM.*, as in
    KolektorSDD). Where the folder's name does not say that its images are defective, masks beside them do.
    """
    names: list[bytes] = folder.images.tolist()
    stems = {os.path.splitext(name)[0] for name in names}
    matches = {name: _BESIDE.fullmatch(os.path.splitext(name)[0]) for name in names}
    labels = [name for name, match in matches.items() if match and match["stem"] in stems]
    images = replace(folder, images=_array(name for name in names if name not in set(labels)))
    if not labels:
        group = _without_masks(class_name, split, defect, images)
        return [replace(group, masks=_match_masks(images, truth, reading.notes))] if truth else [group]
    masks = _match_masks(images, replace(folder, images=_array(labels)), [])
    note = f"{os.fsdecode(folder.path) or 'the folder itself'}: read as masks of the images beside them: "
    note += counted(list(map(os.fsdecode, labels)), "file")
    without = [os.fsdecode(name) for name, mask in zip(images.images.tolist(), masks.tolist(), strict=True) if not mask]
    reading.notes.append(f"{note}; {defect}, without one: {counted(without, 'image')}" if without else note)
    if truth:
        masks = np.where(from_truth := _match_masks(images, truth, reading.notes), from_truth, masks)
    group = Group(class_name, split, defect, images.image_paths(), masks)
    if defect != GOOD:
        return [group]
    has_mask = masks != b""
    return group.select(has_mask, split=split, defect=UNLABELLED) + group.select(~has_mask, split=split, defect=GOOD)


def _array(names: Iterable[bytes]) -> Bytes:
    return np.array(list(names), dtype=np.bytes_)


def _match_masks(images: Folder, masks: Folder, notes: list[str]) -> Bytes:
    """Masks by name, never by a fixed ending: STEM_mask.* (MVTec AD; also _label, _GT), STEM.* (BTAD, converted VisA), the
    same after the image's whole name (for two images that differ in their ending only), or STEM/* (MVTec LOCO).

    Raises:
        InputError: Two images have one mask, or an image has two.
    """
    by_stem: dict[bytes, list[bytes]] = {}
    for name in masks.images.tolist():
        stem = os.path.splitext(name)[0]
        mark = _BESIDE.fullmatch(stem)
        for key in {stem, mark["stem"] + b"_mask"} if mark else {stem}:
            by_stem.setdefault(key, []).append(name)
    found: list[bytes] = []
    users: dict[bytes, bytes] = {}
    for name in images.images.tolist():
        mask = _mask_of(name, masks, by_stem, images)
        if mask and users.setdefault(mask, name) != name:
            raise InputError(
                f"{os.fsdecode(masks.join(mask))}: the only mask of {os.fsdecode(images.join(users[mask]))} and of "
                f"{os.fsdecode(name)}; rename one of the images, or name masks after whole file names, as "
                f"{os.fsdecode(name)}.png"
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
    """Images directly in the class folder: all normal, all for training."""
    if not folder.images.size:
        return None
    reading = Reading(used={folder.path})
    reading.groups += _groups(reading, class_name, TRAIN, GOOD, folder)
    return reading


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
            masks = folder.child("data", "masks", name) if defect != GOOD else None
            reading.groups += _groups(reading, class_name, UNSPLIT, defect, images, masks)
            reading.used.add(images.path)
    truth = folder.child("data", "masks")
    reading.used |= {masks.path for masks in truth.walk()} if truth else set()
    return reading if reading.groups else None
