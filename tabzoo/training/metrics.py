"""Rows of metrics of a training run: read, and cut back to a step."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabzoo.jsonl import read_lines
from tabzoo.system import whole_file

__all__ = ["ACCURACY", "cut_back", "read_rows"]

ACCURACY = {"tab": "product accuracy", "joint": "accuracy of product and state"}
"""Objective to what its accuracies are called: the share of images whose most similar text is their own. With `tab` they are
compared with the texts of all products, with `joint` with the normal and the abnormal texts of all products."""


def cut_back(path: Path, step: int) -> None:
    """Drops the rows of steps after `step`, and an incomplete last line.

    Raises:
        InputError: As for `read_rows`; the file stays as it is.
    """
    if path.exists():
        kept = [row for row in read_rows(path) if row["step"] <= step]
        with whole_file(path) as file:
            file.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")


def read_rows(path: Path) -> Sequence[dict[str, Any]]:
    """Rows of a JSONL file, each with its step; an empty list if the file does not exist. An incomplete last line is skipped.

    Raises:
        InputError: A line is not a row, or the file can't be read.
    """
    return read_lines(path, _with_step, what="a row of metrics")


def _with_step(row: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(row.get("step"), int):
        raise ValueError("expected a JSON object with a step")
    return row
