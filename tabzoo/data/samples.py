"""Samples: the images of a data set and what is known of them, and how they are put together from groups."""

import difflib
import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "GOOD",
    "TEST",
    "TRAIN",
    "Bytes",
    "Group",
    "Samples",
    "assemble",
    "counted",
    "is_good",
    "is_unlabelled",
    "near_good",
]

logger = logging.getLogger(__name__)

GOOD = "good"
TRAIN, TEST = 0, 1
Bytes: TypeAlias = NDArray[np.bytes_]

# Lower case, without spaces, "_", "-" and ".": "Defect-Free" is "defectfree", the German "i.O." is "io".
_GOOD_WORDS = frozenset(
    [
        *("good", "ok", "okay", "normal", "nominal", "pass", "passed", "io", "healthy", "intact", "faultless"),
        *("defectfree", "nodefect", "nodefects", "nondefect", "nondefective", "notdefective"),
        *("nonanomalous", "noanomaly", "anomalyfree", "faultfree", "nofault"),
    ]
)
_UNLABELLED_WORDS = frozenset(
    [
        *("", "none", "null", "nil", "nan", "na", "n/a", "unknown", "undefined", "tbd", "todo"),
        *("unlabeled", "unlabelled", "notlabeled", "notlabelled", "unsorted", "unclassified"),
    ]
)


def is_good(word: str) -> bool:
    """Whether a folder or a label with this name holds good parts: the one list for all layouts and manifests."""
    return _plain(word) in _GOOD_WORDS


def is_unlabelled(word: str) -> bool:
    """Whether a name says that nothing is known: "unknown", "n/a", "-", "?" or nothing."""
    return re.sub(r"[^\w/]", "", _plain(word)) in _UNLABELLED_WORDS


def near_good(word: str) -> bool:
    """Whether a kind of defect is probably a good part misspelt, such as "goood"."""
    plain = _plain(word)
    near = difflib.get_close_matches(plain, _GOOD_WORDS, n=1, cutoff=0.8)
    return bool(near) and not is_good(word) and len(plain) > 3 and abs(len(plain) - len(near[0])) < 2


def _plain(word: str) -> str:
    return re.sub(r"[\s_.-]+", "", word.lower())


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


@dataclass(frozen=True, eq=False)
class Group:
    """Images that share a class, a split and a defect name."""

    class_name: str
    split: int
    defect: str
    paths: Bytes  # [N]
    masks: Bytes  # [N], b"" where there is none.

    def select(self, keep: NDArray[np.bool_], *, split: int, defect: str) -> list["Group"]:
        """The group's kept part under another split and defect; none if that is empty."""
        return [Group(self.class_name, split, defect, self.paths[keep], self.masks[keep])] if keep.any() else []


def assemble(root: Path, layout: str, groups: list[Group], notes: Iterable[str]) -> Samples:
    """The arrays, in the order that `Samples` promises."""
    merged: dict[tuple[bytes, int, bool, bytes], list[Group]] = {}
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


def counted(names: Sequence[str], one: str, many: str | None = None) -> str:
    """How many, and the first few by name."""
    count = f"{len(names):,} {one if len(names) == 1 else many or one + 's'}"
    return f"{count} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
