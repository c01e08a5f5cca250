"""Images with a class each, for classification: wafer maps, or a folder with a folder for each kind of defect."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tabzoo.compute import to_device
from tabzoo.data.cache import CacheMode, open_images
from tabzoo.data.decoding import Hashes
from tabzoo.data.folder_tree import Folder, scan
from tabzoo.data.labels import GOOD
from tabzoo.data.samples import TRAIN, Samples
from tabzoo.data.wafers import LEVELS, PATTERNS, is_wafer_file, read_wafers
from tabzoo.errors import InputError

__all__ = ["LabelledImages", "open_labelled"]

_TEST = "test"
_AT_A_TIME = 256


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images with a class each.

    Attributes:
        name: Of the data set.
        classes: Names of the classes.
        class_ids: Index into `classes`, int64 [N].
        patterns: Basic pattern to the classes that have it, bool [classes]; empty if the classes are not mixtures of patterns.
        names: What a list of images calls each: its path, or its row in the file.
        sha256: Of all images and labels, in hex.
        hashes: Of the files, [N]; None for wafer maps.
        drawn: Whether they are drawings in few grey levels, whose pixels are not to be mixed.
        raw: Returns images by row as they are stored, uint8 [B, 3, H, W] on the device.
    """

    name: str
    classes: tuple[str, ...]
    class_ids: NDArray[np.int64]
    patterns: dict[str, NDArray[np.bool_]]
    names: Sequence[str]
    sha256: str
    hashes: Hashes | None
    drawn: bool
    raw: Callable[[Tensor], Tensor]

    def batch(self, rows: Tensor, size: int) -> Tensor:
        """Images by row, uint8 [B, 3, size, size]."""
        images = self.raw(rows)
        if images.shape[-2:] == (size, size):
            return images
        return F.interpolate(images, (size, size), mode="nearest")


def open_labelled(
    data: str, *, size: int, device: torch.device, cache_dir: str | None = None, workers: int | None = None
) -> LabelledImages:
    """Opens wafer maps (.npz) or a folder of kinds of defects.

    Args:
        data: The file or folder.
        size: Side of the square that photos are squashed to; wafer maps stay as they are.
        device: Where batches go; on a GPU all images are kept there.
        cache_dir: Of decoded photos.
        workers: Processes that decode photos.

    Raises:
        InputError: The file or folder does not exist, has an unknown form, or holds fewer than two classes.
    """
    if is_wafer_file(data):
        return _wafers(data, device)
    if not os.path.isdir(data):
        raise InputError(f"--data {data}: no such folder; expected DIR/KIND/*.png, DIR/test/KIND/*.png, or FILE.npz")
    samples = _kinds(Path(os.path.abspath(data)))
    mode: CacheMode = "device" if device.type == "cuda" else "disk"
    images = open_images(
        samples, size=size, mode=mode, cache_dir=cache_dir, workers=workers, device=device, resampling="bilinear"
    )
    samples = images.samples.select(np.arange(len(images)), drop=True)  # a class may have lost all its images
    _check_classes(data, samples.classes)
    digest = hashlib.sha256(samples.class_ids.tobytes() + "\0".join(samples.classes).encode(errors="replace"))
    for rows in torch.arange(len(samples)).split(_AT_A_TIME):
        digest.update(images.batch(rows).cpu().numpy().tobytes())
    return LabelledImages(
        name=Path(os.path.abspath(data)).name,
        classes=samples.classes,
        class_ids=samples.class_ids.astype(np.int64),
        patterns={},
        names=[os.fsdecode(path) for path in samples.paths.tolist()],
        sha256=digest.hexdigest(),
        hashes=images.hashes,
        drawn=False,
        raw=lambda rows: images.batch(rows).permute(0, 3, 1, 2).contiguous(),
    )


def _wafers(data: str, device: torch.device) -> LabelledImages:
    wafers = read_wafers(data)
    maps = torch.from_numpy(wafers.maps).to(device)
    levels = torch.tensor(LEVELS, dtype=torch.uint8, device=device)
    parts = [set(name.split("+")) for name in wafers.classes]
    digest = hashlib.sha256(wafers.labels.tobytes() + wafers.maps.tobytes())
    return LabelledImages(
        name=Path(data).stem,
        classes=wafers.classes,
        class_ids=wafers.class_ids,
        patterns={
            one: np.array([one in part for part in parts]) for one in PATTERNS if any(one in part for part in parts)
        },
        names=[str(row) for row in range(len(wafers.maps))],
        sha256=digest.hexdigest(),
        hashes=None,
        drawn=True,
        raw=lambda rows: levels[maps[to_device(rows, device)].long()][:, None].expand(-1, 3, -1, -1),
    )


def _kinds(root: Path) -> Samples:
    """The images of each folder in the folder, or in its `test`, as samples whose class is the kind of defect."""
    tree = scan(os.fsencode(root), b"", frozenset())
    test = tree.child(_TEST)
    top = test if test and test.folders else tree
    parts = [part for kind in top.folders.values() for part in _of_kind(kind)]
    if not parts:
        raise InputError(f"--data {root}: no images; expected DIR/KIND/*.png, DIR/test/KIND/*.png, or FILE.npz")
    if top is tree and {"test", "train", "ground_truth"} & {
        os.fsdecode(os.path.basename(one)).lower() for inner in tree.folders.values() for one in inner.folders
    }:
        raise InputError(
            f"--data {root}: a folder of several classes; give one of them, such as {root / parts[0].classes[0]}"
        )
    _check_classes(str(root), sorted({part.classes[0] for part in parts}))
    return Samples.merged(root, "kinds", parts, ())


def _of_kind(kind: Folder) -> list[Samples]:
    return [Samples.alike(kind.name, TRAIN, GOOD, one.image_paths()) for one in kind.walk() if one.images.size]


def _check_classes(data: str, classes: Sequence[str]) -> None:
    if len(classes) < 2:
        held = f"one class, {classes[0]}" if classes else "no classes"
        raise InputError(f"--data {data}: holds images of {held}; expected at least two kinds, DIR/KIND/*.png")
