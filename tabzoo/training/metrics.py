"""Rows of metrics on disk: one JSON object a line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabzoo.errors import InputError, brief
from tabzoo.system import whole_file, writing

__all__ = ["append_row", "cut_back", "read_rows"]


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Appends one row, or, on a full disk, nothing.

    Raises:
        WriteError: It can't be written.
    """
    left = (json.dumps(row) + "\n").encode()
    with writing(path), path.open("ab", buffering=0) as file:
        end = file.tell()
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            file.truncate(end)
            raise


def cut_back(path: Path, step: int) -> None:
    """Drops the rows of steps after `step`, and what is left of a last line that was cut off.

    Raises:
        InputError: As for `read_rows`; the file stays as it is.
    """
    if path.exists():
        kept = [row for row in read_rows(path) if row["step"] <= step]
        with whole_file(path) as file:
            file.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")


def read_rows(path: Path) -> Sequence[dict[str, Any]]:
    """Rows of a JSONL file, or an empty list if the file does not exist. A last line that was cut off is skipped.

    Raises:
        InputError: Another line is not a row, or the file can't be read.
    """
    if not path.exists():
        return []
    try:
        *lines, last = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from error
    rows = []
    for number, line in enumerate([*lines, last], start=1):
        try:
            row = json.loads(line.decode())
            if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                raise ValueError("expected a JSON object with a step")
        except (ValueError, RecursionError) as error:
            if number > len(lines):
                break
            raise InputError(
                f"{path}, line {number}: not a row of metrics: {brief(error)}. Remove the line."
            ) from error
        rows.append(row)
    return rows
