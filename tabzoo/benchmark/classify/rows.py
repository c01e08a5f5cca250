"""Rows of results on disk: `classify.jsonl`, one line for each backbone, mode, share of labels and seed.

A row's key is a digest of everything that decides its numbers, as in `scores.rows`.
"""

import dataclasses
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tabzoo.jsonl import append_line, read_lines
from tabzoo.locks import lock

__all__ = ["RESULTS", "ClassifyRow", "append_row", "read_rows"]

RESULTS = "classify.jsonl"
Ids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ClassifyRow:
    """One backbone, fine-tuned or probed with a share of the labels, and tested."""

    key: str
    backbone: str
    origin: str
    """Where the weights come from, in words."""
    mode: str
    dataset: str
    seed: int
    labels: int
    """Percentage of the training labels."""
    budget: str
    transductive: bool
    """Whether the backbone was pre-trained on some of these images."""
    accuracy: float
    macro_f1: float
    f1: dict[str, float]
    """Of each class."""
    pattern_f1: dict[str, float | None]
    """Of each basic pattern of wafer maps."""
    classes: list[str]
    truth: list[int]
    """Class of each test image."""
    predicted: list[int]
    images: dict[str, int]
    """How many were trained on, and how many were tested on."""
    settings: dict[str, Any]
    weights_sha256: str
    data_sha256: str
    split_sha256: str
    versions: dict[str, str]
    hardware: str
    seconds: float
    peak_memory: int | None
    created: str

    def ids(self) -> tuple[Ids, Ids]:
        """True and predicted classes of the test images."""
        return np.array(self.truth, dtype=np.int64), np.array(self.predicted, dtype=np.int64)


def append_row(folder: Path, row: ClassifyRow) -> None:
    """Appends a row to the results of a folder. Several processes may share a folder.

    Raises:
        WriteError: It can't be written.
    """
    path = folder / RESULTS
    with lock(path):
        append_line(path, dataclasses.asdict(row), sync=True)


def read_rows(folder: Path) -> list[ClassifyRow]:
    """The rows of a folder, none if there are none yet; of rows with the same key the last.

    Raises:
        InputError: A line is not a row; an incomplete last line is skipped.
    """
    rows = read_lines(folder / RESULTS, _parse, what="a row of results")
    return list({row.key: row for row in rows}.values())


def _parse(values: dict[str, Any]) -> ClassifyRow:
    known = {entry.name: entry.type for entry in dataclasses.fields(ClassifyRow)}
    if lacking := sorted(known.keys() - values.keys()):
        raise ValueError(f"lacks {', '.join(lacking)}")
    row = ClassifyRow(**{name: values[name] for name in known})
    texts = ("key", "backbone", "origin", "mode", "dataset", "budget", "weights_sha256", "data_sha256", "split_sha256")
    expected: dict[str, tuple[Any, str]] = {
        **dict.fromkeys(texts, (lambda value: isinstance(value, str), "a string")),
        **dict.fromkeys(("accuracy", "macro_f1"), (_is_fraction, "a number from 0 to 1")),
        "seed": (lambda value: type(value) is int and value >= 0, "a whole number"),
        "labels": (lambda value: type(value) is int and 1 <= value <= 100, "a percentage"),
        "transductive": (lambda value: isinstance(value, bool), "true or false"),
        "classes": (lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value), "names"),
        "f1": (_is_table_of_fractions, "a table of numbers from 0 to 1"),
        "pattern_f1": (_is_table_of_fractions, "a table of numbers from 0 to 1"),
        "settings": (lambda value: isinstance(value, dict), "a table"),
        "images": (
            lambda value: isinstance(value, dict) and {"trained", "tested"} <= value.keys(),
            "numbers of images",
        ),
    }
    for name, (fits, words) in expected.items():
        if not fits(value := getattr(row, name)):
            raise ValueError(f"{name} is {reprlib.repr(value)}; expected {words}")
    for name in ("truth", "predicted"):
        value = getattr(row, name)
        ids = isinstance(value, list) and all(type(one) is int and 0 <= one < len(row.classes) for one in value)
        if not ids or not value or len(value) != len(row.truth):
            raise ValueError(f"{name} is {reprlib.repr(value)}; expected the class of each test image")
    return row


def _is_fraction(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1  # type: ignore[operator]


def _is_table_of_fractions(value: object) -> bool:
    return isinstance(value, dict) and all(one is None or _is_fraction(one) for one in value.values())
