"""Rows of metrics on disk: one JSON object a line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["append_row", "cut_back", "read_rows"]


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Appends one row."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def cut_back(path: Path, step: int) -> None:
    """Drops the rows of steps after `step`."""
    if path.is_file():
        kept = [row for row in read_rows(path) if row["step"] <= step]
        path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")


def read_rows(path: Path) -> Sequence[dict[str, Any]]:
    """Rows of a JSONL file, none if there is no such file; a last line that was cut off is left out."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
