"""Rows of results on disk: `results.jsonl`, one line for each backbone, method, class, seed and number of shots.

Rows are appended whole, and a row is found again by its key: a digest of everything that decides its numbers. So a run
that was killed goes on where it stopped, and another run into the same folder computes only what is not there.
"""

import dataclasses
import hashlib
import json
import os
import re
import reprlib
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tabzoo.errors import InputError, brief
from tabzoo.locks import lock
from tabzoo.system import writing

__all__ = [
    "EMPTY_MASKS",
    "METRICS",
    "ORACLE",
    "RESULTS",
    "REAL",
    "Row",
    "append_row",
    "current",
    "read_rows",
    "row_key",
]

RESULTS = "results.jsonl"
REAL = "real"
"""`Row.test` where the test split's defects are tested on; otherwise "synthetic:KIND"."""
METRICS = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
    "image_average_precision": "image average precision",
    "image_f1_max": "image F1-max",
    "pixel_average_precision": "pixel average precision",
    "pixel_f1_max": "pixel F1-max",
}
"""Fields of a row that are metrics, in [0, 1], and what they are called."""
EMPTY_MASKS = "empty masks"
"""In `Row.images`."""
ORACLE = "oracle_image_auroc"
"""A field that is not a metric to compare methods by."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One class tested by one method on one backbone with one seed. In the file, `class_name` is called `class`."""

    key: str
    backbone: str
    method: str
    dataset: str
    class_name: str
    seed: int
    shots: int | None
    """How many good images the method was given; None: all of the train split."""
    test: str = REAL
    image_auroc: float | None
    oracle_image_auroc: float | None = None
    """The best that the method had after any meta-epoch, chosen on the test images; None where it was not asked for. Fitting
    then takes longer by the scoring."""
    pixel_auroc: float | None
    aupro: float | None
    image_average_precision: float | None
    image_f1_max: float | None
    pixel_average_precision: float | None
    pixel_f1_max: float | None
    undefined_because: dict[str, str] = field(default_factory=dict)
    """Metric that is None to the reason."""
    transductive: bool
    """Whether the backbone was pre-trained on images of this class."""
    draw: list[str] | list[list[str]] | None = None
    """Paths of the good images that were drawn, with `shots`; of a few-shot method a list for each draw."""
    images: dict[str, int]
    """Images fitted to, good and anomalous ones tested on; if any, of other classes those learned on, and anomalous ones that
    pixel metrics leave out because nothing is left of their masks at this size."""
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
    """Bytes: of the CUDA device during this row, or of the process up to its end; None where it can't be known."""
    created: str

    @property
    def test_images(self) -> tuple[str, int | None]:
        """What two rows that were tested on the same images have in common; synthetic anomalies change with the seed."""
        return self.data_sha256, None if self.test == REAL else self.seed

    @property
    def lacks_oracle(self) -> bool:
        """Whether the best on test could be known, but was not asked for."""
        return self.image_auroc is not None and self.oracle_image_auroc is None

    def to_json(self) -> str:
        """The row as one line, without its end."""
        values = dataclasses.asdict(self)
        return json.dumps({"class" if key == "class_name" else key: value for key, value in values.items()})


def row_key(identity: dict[str, Any]) -> str:
    """16 hex digits that stand for what decides a row's numbers."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def append_row(folder: Path, row: Row) -> None:
    """Appends a row; what a killed run left of its last line is cut off before, a whole row without its end is kept.

    Several processes may share a folder.
    """
    path = folder / RESULTS
    with writing(path), lock(path), path.open("ab+", buffering=0) as file:
        file.seek(0)
        content = file.read()
        line = row.to_json().encode() + b"\n"
        whole = len(content)
        if content and not content.endswith(b"\n"):
            last = content.rfind(b"\n") + 1
            if _is_torn(content[last:]):
                file.truncate(whole := last)
            else:
                line = b"\n" + line
        try:
            while line:
                line = line[file.write(line) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(whole)  # no half row
            raise


def read_rows(folder: Path) -> list[Row]:
    """The rows of a folder, none if there are none yet; of rows with one key the last.

    Raises:
        InputError: A line, other than a last one that was cut off, is no row.
    """
    path = folder / RESULTS
    if not path.exists():
        return []
    if not path.is_file():
        raise InputError(f"{path}: expected a file with a row a line, as runs write it; move this away")
    rows = {}
    *lines, last = path.read_bytes().split(b"\n")
    if not _is_torn(last):
        lines.append(last)
    for number, line in enumerate(lines, start=1):
        try:
            row = _parse(json.loads(line.decode()))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{path}, line {number}: not a row of results ({brief(error)}). Remove the line."
            ) from error
        rows[row.key] = row
    return list(rows.values())


def _is_torn(line: bytes) -> bool:
    """Whether a last line without its end is not a whole row either, as a killed run leaves it."""
    try:
        return not isinstance(json.loads(line.decode()), dict)
    except (ValueError, RecursionError):
        return True


def current(rows: Iterable[Row], keys: Container[str] = ()) -> tuple[list[Row], int]:
    """The rows that belong together: of each backbone those of one set of weights, of each class those of the same images.

    A backbone that was trained again, and images that changed, keep their names; rows from before would share a column with
    the new ones.

    Args:
        rows: In the order they were measured.
        keys: Rows whose weights and images count; where there are none, those of the last row do.

    Returns:
        The rows, and how many others were left out.
    """
    ordered = sorted(rows, key=lambda row: row.key in keys)  # stable: the ones that count come last
    weights = {_weights_of(row): row.weights_sha256 for row in ordered}
    images = {_images_of(row): row.data_sha256 for row in ordered}
    kept = [
        row
        for row in rows
        if (row.weights_sha256, row.data_sha256) == (weights[_weights_of(row)], images[_images_of(row)])
    ]
    return kept, len(ordered) - len(kept)


def _weights_of(row: Row) -> tuple[object, ...]:
    # Weights are hashed as far as a method's layers need them; random ones are others for each seed.
    seed = row.seed if row.backbone.split(":")[0] == "random" else None
    return row.backbone, row.method, json.dumps(row.settings.get("layers")), seed


def _images_of(row: Row) -> tuple[object, ...]:
    decoded = [row.settings.get(name) for name in ("resize", "crop", "resampling", "white_level", "pixels")]
    return row.dataset, row.class_name, row.method, row.shots, row.test, json.dumps(decoded)


def _parse(values: dict[str, Any]) -> Row:
    known = {entry.name for entry in dataclasses.fields(Row)}
    renamed = {"class_name" if key == "class" else key: value for key, value in values.items()}
    row = Row(**{key: value for key, value in renamed.items() if key in known})
    for name, (fits, expected) in _FITS.items():
        if not fits(value := getattr(row, name)):
            raise ValueError(
                f"{'class' if name == 'class_name' else name} is {reprlib.repr(value)}; expected {expected}"
            )
    return row


def _is_text(value: object) -> bool:
    # A lone surrogate, which JSON can hold, can't be written again.
    return isinstance(value, str) and value.encode(errors="replace").decode() == value


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and -1e308 < value < 1e308  # type: ignore[operator]


def _is_share(value: object) -> bool:
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
    **dict.fromkeys(("backbone", "method", "dataset", "class_name", "test", "weights_sha256"), (_is_text, "text")),
    **dict.fromkeys(("data_sha256", "hardware", "created"), (_is_text, "text")),
    "seed": (_is_count, "a whole number"),
    "shots": (_none_or(_is_count), "a whole number or null"),
    **dict.fromkeys((*METRICS, ORACLE), (_is_share, "a number from 0 to 1, or null")),
    "undefined_because": (_table(_is_text), "a table of texts"),
    "transductive": (lambda value: isinstance(value, bool), "true or false"),
    "draw": (_none_or(_all(_is_text), _all(_all(_is_text))), "a list of paths, one for each draw, or null"),
    "images": (_are_images, "numbers of images: fitted, good and anomalous at least"),
    "scores": (_are_scores, "lists of numbers: good and anomalous"),
    "settings": (_table(lambda value: True), "a table"),
    "versions": (_table(_is_text), "a table of texts"),
    "seconds": (_table(lambda value: _is_number(value) and value >= 0), "a table of numbers"),
    "peak_memory": (_none_or(_is_count), "a whole number or null"),
}
"""Field of a row to what its value must be."""
