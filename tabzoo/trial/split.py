"""Which photos are trained on and which are tested on."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tabzoo.data.samples import TEST, TRAIN, Samples
from tabzoo.errors import InputError, count, counted
from tabzoo.synthesis.draws import permutation

__all__ = ["Split", "hash_files", "split_samples"]

_HELD_OUT = 301  # key of the draw, different from those of training and benchmark
_FEWEST = 2
"""Good photos of a class to test on, and to train on."""

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Split:
    """Rows of the samples.

    Attributes:
        train: Good photos that backbone and detectors are trained on.
        good: Good photos to test on.
        defective: Real defects to test on; none in a synthetic test.
        held_out: How many of `good` were taken from the training photos.
        tested: Classes that are tested, in the order of the samples' classes.
        notes: What was left out and why, for people.
    """

    train: Rows
    good: Rows
    defective: Rows
    held_out: int
    tested: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def synthetic(self) -> bool:
        """Whether no class has real defects, so that synthetic anomalies take their place."""
        return not len(self.defective)


def hash_files(samples: Samples) -> list[str]:
    """SHA-256 of each file, in hex.

    Raises:
        InputError: A file can't be read.
    """
    hashes = []
    for i in range(len(samples)):
        try:
            with samples.path(i).open("rb") as file:
                hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise InputError(f"{samples.path(i)}: can't be read: {error.strerror}") from error
    return hashes


def split_samples(samples: Samples, hashes: Sequence[str], *, seed: int) -> Split:
    """Chooses the photos of a trial.

    If any class has real defects in its test split, only classes that have some are tested. A class without at least two
    good photos in its test split gives a quarter of its good training photos, at least two, and is not trained on these.
    Copies of test photos are not trained on.

    Args:
        samples: All photos.
        hashes: Of their files, [N].
        seed: Of the choice of held-out photos.

    Raises:
        InputError: No class can be tested.
    """
    normal, test = samples.defect_ids == 0, samples.split == TEST
    defects = test & ~normal
    train, good, tested, small, held_out = (samples.split == TRAIN) & normal, np.zeros(len(samples), bool), [], [], 0
    for class_id, name in enumerate(samples.classes):
        of_class = samples.class_ids == class_id
        if not (train & of_class).any() or (defects.any() and not (defects & of_class).any()):
            continue
        held = _held_out(np.flatnonzero(train & of_class), np.flatnonzero(test & normal & of_class), class_id, seed)
        chosen = (test & normal & of_class) | np.isin(np.arange(len(samples)), held)
        if chosen.sum() < _FEWEST or (train & of_class & ~chosen).sum() < _FEWEST:
            small.append(name)
            continue
        good, train, held_out = good | chosen, train & ~chosen, held_out + len(held)
        tested.append((class_id, name))
    defects &= np.isin(samples.class_ids, [class_id for class_id, _ in tested])
    copies = train & _is_in(hashes, good | defects)
    train &= ~copies
    poor = [name for class_id, name in tested if (train & (samples.class_ids == class_id)).sum() < _FEWEST]
    names = tuple(name for _, name in tested if name not in poor)
    kept = np.isin(samples.class_ids, [class_id for class_id, name in tested if name in names])
    if not names:
        raise InputError(
            f"{samples.root}: no class can be tested: expected at least 4 good photos of a class (CLASS/train/good/*), or 2 "
            f"and test photos (CLASS/test/good/*). Copies of one photo count as one."
        )
    return Split(
        train=np.flatnonzero(train),
        good=np.flatnonzero(good & kept),
        defective=np.flatnonzero(defects & kept),
        held_out=held_out,
        tested=names,
        notes=tuple(_notes(samples, names, [*small, *poor], int(copies.sum()), train)),
    )


def _held_out(own: Rows, tested: Rows, class_id: int, seed: int) -> Rows:
    """Good training photos to test on: none where the test split has enough good photos, or the class is too small."""
    number = max(_FEWEST, len(own) // 4)
    if len(tested) >= _FEWEST or len(own) < number + _FEWEST:
        return own[:0]
    chosen: Rows = own[permutation(seed, class_id, len(own), _HELD_OUT)[:number].numpy()]
    return chosen


def _is_in(hashes: Sequence[str], mask: Mask) -> Mask:
    """For each file, whether it has the content of one that the mask holds."""
    wanted = {hashes[i] for i in np.flatnonzero(mask).tolist()}
    return np.array([one in wanted for one in hashes], dtype=bool)


def _notes(samples: Samples, tested: Sequence[str], small: Sequence[str], copies: int, train: Mask) -> list[str]:
    trained = {samples.classes[i] for i in np.unique(samples.class_ids[train])}
    only = sorted(trained - set(tested) - set(small), key=os.fsencode)
    without = sorted(set(samples.classes) - trained - set(small), key=os.fsencode)
    unused = int(((samples.split == TRAIN) & (samples.defect_ids != 0)).sum())
    said: list[tuple[Any, str]] = [
        (small, f"Trained on but not tested, too few good photos: {counted(small, 'class', 'classes')}."),
        (only, f"Trained on but not tested, no real defects: {counted(only, 'class', 'classes')}."),
        (without, f"Left out, no good training photos: {counted(without, 'class', 'classes')}."),
        (unused, f"Left out: {count(unused, 'defective photo')} in the train split."),
        (copies, f"Left out of training: {count(copies, 'photo')} whose file is also among the test photos."),
    ]
    return [text for found, text in said if found]
