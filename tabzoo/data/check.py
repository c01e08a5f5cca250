"""Checks a folder of images: its content, its problems, and what is missing of the Industrial dataset."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tabzoo.data.images import Facts, Levels, read_image, read_mask
from tabzoo.data.industrial import INDUSTRIAL, IndustrialClass
from tabzoo.data.labels import GOOD
from tabzoo.data.layouts import find_samples
from tabzoo.data.samples import TEST, TRAIN, Samples
from tabzoo.data.white_level import check_value, suggested_white_level, white_level_messages
from tabzoo.errors import ImageError, InputError, count
from tabzoo.progress import Progress

__all__ = ["FEW_IMAGES", "Problem", "Report", "Standing", "check_samples", "compare"]

FEW_IMAGES = 5
"""A class with fewer good training images than this is reported as too small."""

_BENCHMARK_SIZE = 256


class Problem(NamedTuple):
    """One problem.

    Attributes:
        kind: unreadable, mask, duplicate, small or levels.
        path: A file, a class or the data set.
        message: What is wrong.
    """

    kind: str
    path: str
    message: str


@dataclass
class Report:
    """What `check_samples` found.

    Attributes:
        samples: What was checked.
        forms: For each class, the number of images of each size and mode, such as "300x300 L".
        problems: Sorted.
        white_level: What to give as --white-level: the one given to `check_samples`, or one that the images need.
    """

    samples: Samples
    forms: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    problems: list[Problem] = field(default_factory=list)
    white_level: float | None = None

    def counts(self) -> dict[str, dict[str, Any]]:
        """For each class, the number of images in each split with each label, and of masks, as in `--json`."""
        table: dict[str, dict[str, Any]] = {}
        samples = self.samples
        for class_id, name in enumerate(samples.classes):
            rows = samples.class_ids == class_id
            table[name] = {"train": {GOOD: 0}, "test": {GOOD: 0}}
            for split, title in ((TRAIN, "train"), (TEST, "test")):
                for defect_id in np.unique(samples.defect_ids[rows & (samples.split == split)]):
                    chosen = rows & (samples.split == split) & (samples.defect_ids == defect_id)
                    table[name][title][samples.defects[defect_id]] = int(chosen.sum())
            table[name]["masks"] = int((samples.masks[rows] != b"").sum())
        return table

    def to_json(self) -> dict[str, Any]:
        """The report for `--json`."""
        return {
            "layout": self.samples.layout,
            "classes": self.counts(),
            "problems": [problem._asdict() for problem in self.problems],
            "total": len(self.samples),
        }


class _Seen(NamedTuple):
    form: str | None  # None: can't be read
    digest: bytes
    problems: list[Problem]
    levels: Levels | None = None


def check_samples(
    samples: Samples, *, workers: int = 2, white_level: float | None = None, progress: bool = False
) -> Report:
    """Reads every image and mask.

    Args:
        samples: What to check.
        workers: Number of threads.
        white_level: The value that becomes white in images with more than 8 bits; None: it depends on the kind of file.
        progress: Show progress, if a command runs.

    Raises:
        InputError: A value out of range.
    """
    if workers < 1:
        raise InputError(f"--workers {workers}: expected the number of threads, at least 1")
    check_value(white_level)
    report = Report(samples, white_level=white_level)
    # A defective image without a mask is a problem only if others of its class have one.
    masked = set(samples.class_ids[samples.masks != b""].tolist())
    seen: list[_Seen] = []
    with (
        ThreadPoolExecutor(workers) as pool,
        Progress(len(samples), "reading images", unit="img", kept=True, show=progress) as bar,
    ):
        for one in pool.map(
            lambda i: _look_at(samples, i, int(samples.class_ids[i]) in masked, white_level), range(len(samples))
        ):
            seen.append(one)
            bar.update()
    for i, one in enumerate(seen):
        if one.form is not None:
            report.forms[samples.classes[samples.class_ids[i]]][one.form] += 1
        report.problems += one.problems
    report.problems += _duplicates(samples, seen) + _small_classes(samples)
    levels = np.array([one.levels or (0, 0, 0, 0, 0) for one in seen], dtype=np.float32)
    report.problems += [
        Problem("levels", str(samples.root), message) for message in white_level_messages(samples, levels)
    ]
    report.problems.sort()
    if white_level is None:
        report.white_level = suggested_white_level(samples, levels)
    return report


def _look_at(samples: Samples, i: int, mask_expected: bool, white_level: float | None) -> _Seen:
    path = samples.path(i)
    name = _shown(samples, i)
    try:
        pixels = read_image(path, white_level=white_level, facts=(facts := Facts()))
        with Image.open(path) as image:
            mode = image.mode
    except ImageError as error:
        return _Seen(None, b"", [Problem("unreadable", name, error.reason)])
    digest = hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).digest()
    form, problems = f"{pixels.shape[1]}x{pixels.shape[0]} {mode}", _mask_problems(samples, i, pixels, mask_expected)
    return _Seen(form, digest, problems, facts.levels)


def _mask_problems(samples: Samples, i: int, pixels: np.ndarray[Any, Any], expected: bool) -> list[Problem]:
    name, defective = _shown(samples, i), samples.defect_ids[i] != 0
    path = samples.mask_path(i)
    if path is None:
        missing = defective and expected
        return (
            [Problem("mask", name, "defective and without a mask, but others of its class have one")] if missing else []
        )
    try:
        mask = read_mask(path)
    except ImageError as error:
        return [Problem("mask", name, f"its mask {path.name} can't be read: {error.reason}")]
    if mask.shape != pixels.shape[:2]:
        sizes = f"{mask.shape[1]}x{mask.shape[0]}, the image {pixels.shape[1]}x{pixels.shape[0]}"
        return [Problem("mask", name, f"its mask {path.name} is {sizes}")]
    if defective and not mask.any():
        return [Problem("mask", name, f"its mask {path.name} is empty")]
    if defective and not read_mask(path, size=_BENCHMARK_SIZE).any():
        lost = f"its mask {path.name} is empty at {_BENCHMARK_SIZE} px, the size at which most methods measure pixels"
        return [Problem("mask", name, f"{lost}; there the benchmark leaves it out, unless --resize is larger")]
    return []


def _duplicates(samples: Samples, seen: Sequence[_Seen]) -> list[Problem]:
    """Test images that are also training images, which makes test results too good."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for i, one in enumerate(seen):
        if one.form is not None:
            groups[one.digest].append(i)
    problems = []
    for members in groups.values():
        train = [i for i in members if samples.split[i] == TRAIN]
        problems += [
            Problem("duplicate", _shown(samples, i), f"the same image as {_shown(samples, train[0])}")
            for i in members
            if train and samples.split[i] == TEST
        ]
    return problems


def _small_classes(samples: Samples) -> list[Problem]:
    normals = (samples.split == TRAIN) & (samples.defect_ids == 0)
    counts = np.bincount(samples.class_ids[normals], minlength=len(samples.classes)).tolist()
    return [
        Problem("small", name, f"{count(number, 'good training image')}; expected at least {FEW_IMAGES}")
        for name, number in zip(samples.classes, counts, strict=True)
        if number < FEW_IMAGES
    ]


def _shown(samples: Samples, i: int) -> str:
    return os.fsdecode(bytes(samples.paths[i]))


class Standing(NamedTuple):
    """How many images of a class a folder has; `state` is "complete", "short", "more" or "missing"."""

    entry: IndustrialClass
    found: int
    state: str


def compare(root: str | Path) -> list[Standing]:
    """Compares the images under a folder with the Industrial dataset, class by class.

    Raises:
        InputError: The folder does not exist.
    """
    if not Path(root).is_dir():
        raise InputError(f"--root {root}: no such folder; expected one with {INDUSTRIAL[0].name}/*.png and so on in it")
    counts: dict[str, int] = {}
    if any(Path(root).iterdir()):
        samples = find_samples(root, layout="folder")
        per_class = np.bincount(samples.class_ids, minlength=len(samples.classes)).tolist()
        counts = {name.lower(): number for name, number in zip(samples.classes, per_class, strict=True)}
    return [_standing(entry, counts.get(entry.name.lower(), 0)) for entry in INDUSTRIAL]


def _standing(entry: IndustrialClass, found: int) -> Standing:
    if found in (0, entry.images):
        return Standing(entry, found, "complete" if found else "missing")
    return Standing(entry, found, "short" if found < entry.images else "more")
