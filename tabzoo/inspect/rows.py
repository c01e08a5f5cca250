"""What is known of scored photos: a row each, in scores.jsonl for programs and in scores.csv for spreadsheets."""

import csv
import dataclasses
import hashlib
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tabzoo.errors import InputError, WeightsError
from tabzoo.hub.files import read_json, write_json
from tabzoo.jsonl import append_line, read_lines
from tabzoo.output_folder import check_output_folder, hold_folder
from tabzoo.plain import for_sheet
from tabzoo.system import whole_file, writing

__all__ = [
    "CSV",
    "JSONL",
    "MARK",
    "ScoreRow",
    "ScoresFolder",
    "Verdict",
    "csv_head",
    "csv_line",
    "open_scores",
    "read_scores",
]

MARK, JSONL, CSV = "scores.json", "scores.jsonl", "scores.csv"
_FORMAT = 1

Verdict = Literal["good", "defective", "error"]


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One photo, scored.

    Attributes:
        file: Its path, as it was typed or below the folder that was typed.
        score: How anomalous it is, in the unit of the method's distances; None if it could not be scored.
        threshold: Photos with a higher score are defective.
        verdict: "good", "defective" or "error".
        percentile: Share of the good photos that the detector was fitted to with a lower score, in [0, 100].
        milliseconds: From the file to the verdict, decoding included, the overlay not.
        error: Why it could not be scored, else empty.
        overlay: Path of the overlay, relative to the folder of the scores; empty if there is none.
        sha256: Hash of the photo's file; empty if it could not be read.
    """

    file: str
    score: float | None
    threshold: float
    verdict: Verdict
    percentile: float | None
    milliseconds: float | None
    error: str
    overlay: str
    sha256: str


_TEXTS = ("file", "verdict", "error", "overlay", "sha256")
_NUMBERS = ("score", "percentile", "milliseconds")


def _parsed(content: Mapping[str, Any]) -> ScoreRow:
    names = [field.name for field in dataclasses.fields(ScoreRow)]
    if missing := [name for name in names if name not in content]:
        raise ValueError(f"{missing[0]!r} is missing")
    row = ScoreRow(**{name: content[name] for name in names})
    for name in (*_TEXTS, *_NUMBERS, "threshold"):
        value = getattr(row, name)
        fits = isinstance(value, str) if name in _TEXTS else _is_number(value) or (value is None and name in _NUMBERS)
        if not fits:
            raise ValueError(f"{name}: {str(value)[:40]!r} is not a {'text' if name in _TEXTS else 'number'}")
    if row.verdict not in get_args(Verdict) or (row.score is None) != (row.verdict == "error"):
        raise ValueError(f"verdict: {row.verdict[:40]!r} does not fit")
    return row


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_scores(folder: Path) -> list[ScoreRow]:
    """The last row of each photo, in the order in which they were first scored; an empty list without a scores.jsonl.

    Raises:
        InputError: The file can't be read, or a line is wrong.
    """
    return list({row.file: row for row in _all_rows(folder)}.values())


def _all_rows(folder: Path) -> list[ScoreRow]:
    return read_lines(folder / JSONL, _parsed, what="a row of scores")


def csv_head() -> str:
    """The first line of the CSV, without its end."""
    return ",".join(field.name for field in dataclasses.fields(ScoreRow))


def csv_line(row: ScoreRow) -> str:
    """A row as one line of CSV, without its end. Texts in it can neither move the cursor nor be taken for formulas."""
    values = dataclasses.astuple(row)
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(
        for_sheet(value) if isinstance(value, str) else value for value in values
    )
    return line.getvalue()


class ScoresFolder:
    """The output folder, while this process writes into it.

    Args:
        path: The folder.

    Attributes:
        known: File to its last row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        rows = _all_rows(path)
        self.known = {row.file: row for row in rows}
        # A killed process, or a spreadsheet that saved the file, leaves lines that differ from the rows.
        text = "".join(f"{line}\n" for line in (csv_head(), *map(csv_line, rows))).encode()
        if not (path / CSV).is_file() or (path / CSV).read_bytes() != text:
            with whole_file(path / CSV) as file:
                file.write_bytes(text)

    def append(self, row: ScoreRow) -> None:
        """Adds a row; when it returns, the end of this process loses nothing of it.

        Raises:
            WriteError: It can't be written.
        """
        append_line(self.path / JSONL, dataclasses.asdict(row))
        self.known[row.file] = row
        with writing(self.path / CSV), (self.path / CSV).open("ab", buffering=0) as file:
            file.write(f"{csv_line(row)}\n".encode())


@contextmanager
def open_scores(path: Path, *, about: Mapping[str, Any], given: Path) -> Iterator[ScoresFolder]:
    """Makes the folder, or goes on with one of the same detector, and locks it.

    Args:
        path: The folder.
        about: What the numbers depend on, as the detector's record has it; JSON.
        given: The detector's folder, for messages.

    Raises:
        InputError: It is a file, holds something else or the scores of another detector, or is in use.
    """
    check_output_folder(path, mark=MARK, what="scores")
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    with hold_folder(path):
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        _check_detector(path, digest, given)
        yield ScoresFolder(path)


def _check_detector(path: Path, digest: str, given: Path) -> None:
    mark = path / MARK
    if not os.path.lexists(mark):
        write_json(mark, {"format": _FORMAT, "detector": str(given), "detector_sha256": digest})
        return
    try:
        before = read_json(mark)
    except WeightsError as error:
        raise InputError(f"{error}. Name another --output, or remove {path}.") from error
    if before.get("format") != _FORMAT:
        raise InputError(
            f"{mark}: of another version of tabzoo (format {before.get('format')!r}). Name another --output."
        )
    if before.get("detector_sha256") != digest:
        raise InputError(
            f"--output {path}: holds scores of another detector, {before.get('detector')}, which can't be compared with those "
            f"of {given}. Name another folder."
        )
