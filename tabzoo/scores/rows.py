"""Rows of results on disk: `results.jsonl`, one line for each backbone, method, class, seed and number of shots.

A row has a key: a digest of everything that decides its numbers. So a run that was killed continues where it stopped, and
another run into the same folder computes only what is missing.
"""

import dataclasses
import hashlib
import json
import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tabzoo.errors import InputError
from tabzoo.jsonl import append_line, read_lines
from tabzoo.locks import lock

__all__ = [
    "EMPTY_MASKS",
    "METRICS",
    "ORACLE",
    "REAL",
    "RESULTS",
    "Metrics",
    "Row",
    "append_row",
    "read_rows",
    "row_key",
]

RESULTS = "results.jsonl"
REAL = "real"
"""`Row.test` where the test split's defects are tested on; otherwise "synthetic:KIND"."""
EMPTY_MASKS = "empty masks"
"""In `Row.images`."""
ORACLE = "oracle_image_auroc"
"""A field of a row that is not a metric to compare methods by."""


def _metric(printed: str) -> Any:
    return field(default=None, metadata={"printed": printed})


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Metrics of one class, in [0, 1], or None; then `undefined_because` holds the metric's name and the reason."""

    image_auroc: float | None = _metric("image AUROC")
    pixel_auroc: float | None = _metric("pixel AUROC")
    aupro: float | None = _metric("AUPRO")
    image_average_precision: float | None = _metric("image average precision")
    image_f1_max: float | None = _metric("image F1-max")
    pixel_average_precision: float | None = _metric("pixel average precision")
    pixel_f1_max: float | None = _metric("pixel F1-max")
    undefined_because: dict[str, str] = field(default_factory=dict)


METRICS: dict[str, str] = {
    entry.name: entry.metadata["printed"] for entry in dataclasses.fields(Metrics) if "printed" in entry.metadata
}
"""Name of each metric to how tables print it."""


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """What was measured."""

    key: str
    backbone: str
    method: str
    dataset: str
    class_name: str
    seed: int
    shots: int | None
    """How many good images the method was fitted to; None: all of the train split."""
    test: str = REAL


@dataclass(frozen=True, kw_only=True)
class Row(Metrics, _Subject):
    """One class tested with one method on one backbone with one seed. In the file, `class_name` is called `class`."""

    oracle_image_auroc: float | None = None
    """The best image AUROC after any meta-epoch, selected on the test images; None where it was not asked for. Fitting then
    takes longer, by the time for scoring."""
    transductive: bool
    """Whether the backbone was pre-trained on images of this class."""
    draw: list[str] | list[list[str]] | None = None
    """Paths of the good images that were drawn, with `shots`; of a few-shot method a list for each draw."""
    images: dict[str, int]
    """How many images the method was fitted to, and how many good and anomalous ones it was tested on; if any, also the
    images of other classes it learned on, and anomalous images that pixel metrics leave out because their masks are empty
    at this size."""
    scores: dict[str, list[float] | list[list[float]]]
    """Image scores of the good and of the anomalous test images, in the order of the samples; of a few-shot method a list
    for each draw, and metrics are averages over the draws."""
    settings: dict[str, Any]
    weights_sha256: str
    data_sha256: str
    versions: dict[str, str]
    hardware: str
    seconds: dict[str, float]
    peak_memory: int | None
    """Bytes: of the CUDA device during this row, or of the process up to its end; None where the system does not tell."""
    created: str

    @property
    def test_images(self) -> tuple[str, int | None]:
        """Equal for rows that were tested on the same images; synthetic anomalies change with the seed."""
        return self.data_sha256, None if self.test == REAL else self.seed

    @property
    def lacks_oracle(self) -> bool:
        """Whether the best on test could be known, but was not asked for."""
        return self.image_auroc is not None and self.oracle_image_auroc is None

    def to_dict(self) -> dict[str, Any]:
        """The row as it stands in the file."""
        return {"class" if key == "class_name" else key: value for key, value in dataclasses.asdict(self).items()}


def row_key(identity: dict[str, Any]) -> str:
    """16 hex digits that identify what decides a row's numbers."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def append_row(folder: Path, row: Row) -> None:
    """Appends a row to the results of a folder. Several processes may share a folder.

    Raises:
        WriteError: It can't be written.
    """
    path = folder / RESULTS
    with lock(path):
        append_line(path, row.to_dict(), sync=True)


def read_rows(path: Path) -> list[Row]:
    """The rows of a folder or of a file, none if there are none yet; of rows with the same key the last.

    Raises:
        InputError: A line is not a row; an incomplete last line is skipped.
    """
    path = path / RESULTS if path.is_dir() else path
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: expected a file with one row a line, as runs write it; move this folder elsewhere")
    rows = read_lines(path, _parse, what="a row of results")
    return list({row.key: row for row in rows}.values())


def _parse(values: dict[str, Any]) -> Row:
    renamed = {"class_name" if key == "class" else key: value for key, value in values.items()}
    known = {entry.name: entry for entry in dataclasses.fields(Row)}
    required = {name for name, entry in known.items() if entry.default is entry.default_factory} | METRICS.keys()
    if lacking := sorted(_in_file(name) for name in required - renamed.keys()):
        raise ValueError(f"lacks {', '.join(lacking)}")
    row = Row(**{key: value for key, value in renamed.items() if key in known})
    for name, (fits, expected) in _FITS.items():
        if not fits(value := getattr(row, name)):
            raise ValueError(f"{_in_file(name)} is {reprlib.repr(value)}; expected {expected}")
    return row


def _in_file(name: str) -> str:
    return "class" if name == "class_name" else name


def _is_text(value: object) -> bool:
    # A lone surrogate, which JSON can hold, can't be written again.
    return isinstance(value, str) and value.encode(errors="replace").decode() == value


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and -1e308 < value < 1e308  # type: ignore[operator]


def _is_fraction(value: object) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= value <= 1)  # type: ignore[operator]


def _all(fits: Callable[[Any], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _table(fits: Callable[[Any], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and all(_is_text(key) and fits(one) for key, one in value.items())


def _none_or(*fits: Callable[[Any], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or any(one(value) for one in fits)


def _are_scores(value: object) -> bool:
    """Of good and of anomalous images: numbers, or for each draw a list of them."""
    lists = _table(lambda one: _all(_is_number)(one) or _all(_all(_is_number))(one))
    return isinstance(value, dict) and {"good", "anomalous"} <= value.keys() and lists(value)


def _are_images(value: object) -> bool:
    return isinstance(value, dict) and {"fitted", "good", "anomalous"} <= value.keys() and _table(_is_count)(value)


_FITS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "key": (lambda value: _is_text(value) and re.fullmatch("[0-9a-f]{16}", value) is not None, "16 hex digits"),
    **dict.fromkeys(("backbone", "method", "dataset", "class_name", "test", "weights_sha256"), (_is_text, "a string")),
    **dict.fromkeys(("data_sha256", "hardware", "created"), (_is_text, "a string")),
    "seed": (_is_count, "a whole number"),
    "shots": (_none_or(_is_count), "a whole number or null"),
    **dict.fromkeys((*METRICS, ORACLE), (_is_fraction, "a number from 0 to 1, or null")),
    "undefined_because": (_table(_is_text), "a table of strings"),
    "transductive": (lambda value: isinstance(value, bool), "true or false"),
    "draw": (_none_or(_all(_is_text), _all(_all(_is_text))), "a list of paths, one for each draw, or null"),
    "images": (_are_images, "numbers of images: fitted, good and anomalous at least"),
    "scores": (_are_scores, "lists of numbers: good and anomalous"),
    "settings": (_table(lambda value: True), "a table"),
    "versions": (_table(_is_text), "a table of strings"),
    "seconds": (_table(lambda value: _is_number(value) and value >= 0), "a table of numbers"),
    "peak_memory": (_none_or(_is_count), "a whole number or null"),
}
"""Field of a row to what its value must be."""
