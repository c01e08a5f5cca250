"""Which images are trained on and which are tested on: 8 to 2 in each class, by seed, and parts of the training images."""

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tabzoo.errors import InputError, brief
from tabzoo.synthesis.draws import permutation
from tabzoo.system import whole_file

__all__ = ["SPLITS", "TEST_SHARE", "Split", "split_images", "split_path", "tested_images", "write_split"]

SPLITS = "splits"
"""The folder."""
TEST_SHARE = 0.2
_STREAM = 202  # key of the draw, different from those of training and of few-shot images
Rows = NDArray[np.int64]


class Split(NamedTuple):
    """The images of each class in an order drawn from the seed: those to test on, and those to train on.

    Attributes:
        test: Rows, ascending, [M].
        train: Class to its rows, in the order in which labels are given out.
    """

    test: Rows
    train: tuple[Rows, ...]

    def labelled(self, percent: int) -> Rows:
        """The training images of this share of the labels, ascending: of each class its share, and at least one."""
        return np.sort(np.concatenate([rows[: _share(len(rows), percent)] for rows in self.train]))

    @property
    def sha256(self) -> str:
        """Of both parts, in hex."""
        digest = hashlib.sha256(self.test.tobytes())
        for rows in self.train:
            digest.update(b"\0" + rows.tobytes())
        return digest.hexdigest()


def split_images(class_ids: Rows, classes: Sequence[str], *, seed: int, per_class: int | None = None) -> Split:
    """Splits the images of each class 8 to 2, with at least one image on each side.

    Args:
        class_ids: Class of each image, [N].
        classes: Their names.
        seed: Of the draw.
        per_class: Use at most so many images of a class; all if None.

    Raises:
        InputError: A class has a single image.
    """
    test, train = [], []
    for class_id, name in enumerate(classes):
        rows = np.flatnonzero(class_ids == class_id)
        if len(rows) < 2:
            raise InputError(
                f"class {name}: {len(rows)} image; expected at least 2, one to train on and one to test on"
            )
        rows = rows[permutation(seed, class_id, len(rows), _STREAM).numpy()][:per_class]
        tested = max(1, round(TEST_SHARE * len(rows)))
        test.append(rows[:tested])
        train.append(rows[tested:])
    return Split(np.sort(np.concatenate(test)), tuple(train))


def write_split(
    path: Path, split: Split, names: Sequence[str], class_names: Sequence[str], percents: Sequence[int]
) -> None:
    """Writes a split as CSV: image, class, part, and the smallest of the shares of labels that includes the image.

    Args:
        path: File to write.
        split: The split.
        names: Of each image.
        class_names: Class of each image.
        percents: The shares.

    Raises:
        WriteError: It can't be written.
    """
    smallest = {row: percent for percent in sorted(percents, reverse=True) for row in split.labelled(percent).tolist()}
    train = np.sort(np.concatenate(split.train)).tolist()
    with whole_file(path) as file, file.open("w", encoding="utf-8", errors="surrogateescape", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(("image", "class", "part", "labels_from_percent"))
        writer.writerows((names[row], class_names[row], "train", smallest.get(row, "")) for row in train)
        writer.writerows((names[row], class_names[row], "test", "") for row in split.test.tolist())


def split_path(folder: Path, dataset: str, seed: int, sha256: str) -> Path:
    """Where a folder of results has the split of a data set."""
    return folder / SPLITS / f"{dataset}-seed{seed}-{sha256[:8]}.csv"


def tested_images(path: Path) -> list[str]:
    """The test images of a file of `write_split`, as it calls them, in the order of `Split.test`.

    Raises:
        InputError: The file can't be read.
    """
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as opened:
            return [line["image"] for line in csv.DictReader(opened) if line["part"] == "test"]
    except (OSError, KeyError, csv.Error) as error:
        raise InputError(f"{path}: missing or damaged ({brief(error)}). Run classify with this seed again.") from error


def _share(number: int, percent: int) -> int:
    return min(number, max(1, round(number * percent / 100)))
