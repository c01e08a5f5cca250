"""Samples: a list of images and what is known of them, from discovery in folders to batches."""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tabzoo.data.labels import GOOD

__all__ = ["TEST", "TRAIN", "Bytes", "Samples"]

logger = logging.getLogger(__name__)

TRAIN, TEST = 0, 1
Bytes: TypeAlias = NDArray[np.bytes_]


@dataclass(frozen=True, eq=False)
class Samples:
    """Images and what is known of them, as arrays: a million samples take some 50 MB and no Python objects.

    A sample's index is its row here, from 0 to N - 1. The rows belong to this object alone: `select` and `train_normals`
    return other samples with other rows. `cache.Images` goes by the rows of its own `samples`.

    The rows are sorted by class, split, defect (good first) and path, in byte order, in whatever order the file system
    lists the files.

    Attributes:
        root: The folder that all paths start from.
        layout: The layout that was read, or "manifest".
        classes: Class names, sorted.
        paths: Image paths relative to `root` with "/", encoded as the file system encodes names, [N].
        class_ids: Index into `classes`, [N].
        split: `TRAIN` or `TEST`, [N].
        defect_ids: Index into `defects`, [N]; 0 is good.
        defects: Names of the kinds of defects, sorted after "good".
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

    @classmethod
    def alike(cls, class_name: str, split: int, defect: str, paths: Bytes, masks: Bytes | None = None) -> "Samples":
        """Images that share a class, a split and a kind of defect (or `GOOD`); a part for `merged`.

        Args:
            class_name: Their class.
            split: Their split.
            defect: Their kind of defect, which is the last of `defects`.
            paths: [N]
            masks: [N]; none of them has a mask if not given.
        """
        bad = int(defect != GOOD)
        return cls(
            root=Path(),
            layout="",
            classes=(class_name,),
            paths=paths,
            class_ids=np.zeros(len(paths), dtype=np.int32),
            split=np.full(len(paths), split, dtype=np.uint8),
            defect_ids=np.full(len(paths), bad, dtype=np.int32),
            defects=(GOOD, defect)[: 1 + bad],
            masks=np.zeros(len(paths), dtype="S1") if masks is None else masks,
        )

    @classmethod
    def merged(cls, root: Path, layout: str, parts: Sequence["Samples"], notes: Iterable[str]) -> "Samples":
        """The samples of all parts, sorted; classes and defects that have none are dropped."""
        classes, class_ids = _renumbered([(part.classes, part.class_ids) for part in parts])
        defects, defect_ids = _renumbered([(part.defects, part.defect_ids) for part in parts], first=(GOOD,))
        split = np.concatenate([part.split for part in parts])
        paths = np.concatenate([part.paths for part in parts])
        order = np.lexsort((paths, defect_ids, split, class_ids))  # the last key counts most
        return cls(
            root=root,
            layout=layout,
            classes=classes,
            paths=paths[order],
            class_ids=class_ids[order],
            split=split[order],
            defect_ids=defect_ids[order],
            defects=defects,
            masks=np.concatenate([part.masks for part in parts])[order],
            notes=tuple(notes),
        )

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def labels(self) -> NDArray[np.uint8]:
        """0 good, 1 defective, [N]."""
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
        """Some of the samples, in the order of the index; their rows count from 0 again.

        Args:
            index: One boolean per sample, or indices.
            drop: Drop classes that have no sample left and renumber the others; if not, `classes` stays as it is.
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
        classes, class_ids = _renumbered([(chosen.classes, chosen.class_ids)])
        return replace(chosen, classes=classes, class_ids=class_ids)

    def train_normals(self) -> "Samples":
        """The good images of the train split. Classes without any are dropped, with a warning; the rest are renumbered."""
        normals = self.select((self.split == TRAIN) & (self.defect_ids == 0), drop=True)
        missing = sorted(set(self.classes) - set(normals.classes))
        if missing:
            logger.warning("%s: left out, no good images in their train split: %s", self.root, ", ".join(missing))
        return normals


def _renumbered(
    columns: Sequence[tuple[tuple[str, ...], NDArray[np.int32]]], *, first: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """The names that are used, each once, and the ids of all columns as indices into them.

    Args:
        columns: Names, and ids that are indices into them.
        first: Names that are kept and come first; the others are sorted in byte order.
    """
    used = {names[i] for names, ids in columns for i in np.unique(ids).tolist()}
    merged = (*first, *sorted(used - set(first), key=os.fsencode))
    new = {name: i for i, name in enumerate(merged)}
    ids = [np.array([new.get(name, -1) for name in names], dtype=np.int32)[ids] for names, ids in columns]
    return merged, np.concatenate(ids)
