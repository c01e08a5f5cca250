"""JSON Lines: one JSON object a line, appended completely or not at all; a wrong line is reported with its number."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tabzoo.errors import InputError, brief
from tabzoo.system import writing

__all__ = ["append_line", "read_lines"]

Entry = TypeVar("Entry")


def append_line(path: Path, content: Mapping[str, Any], *, sync: bool = False) -> None:
    """Appends one line, or nothing if the disk is full.

    A killed process may have left a last line that is incomplete: it is removed first. A complete one whose line end is
    missing is kept.

    Args:
        path: The file; it is created if necessary.
        content: What `json.dumps` takes.
        sync: Return only when the line is on the disk.

    Raises:
        WriteError: The file can't be written; then it is as it was before.
    """
    line = json.dumps(content).encode() + b"\n"
    with writing(path), path.open("ab+", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 1, 0))
        if end and file.read(1) != b"\n":
            file.seek(0)
            last = file.read().rpartition(b"\n")[2]
            if _is_incomplete(last):
                end -= len(last)
                file.truncate(end)
            else:
                line = b"\n" + line
        try:
            while line:
                line = line[file.write(line) :]
            if sync:
                os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def read_lines(path: Path, parse: Callable[[dict[str, Any]], Entry], *, what: str) -> list[Entry]:
    """The lines of a file, none if it does not exist. An incomplete last line, as a killed process leaves it, is skipped.

    Args:
        path: The file.
        parse: Makes an entry from the JSON object of a line; it raises ValueError with the reason if it can't.
        what: What a line should be, for the message.

    Raises:
        InputError: The file can't be read, or a line is wrong.
    """
    try:
        *lines, last = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from error
    entries = []
    for number, line in enumerate(lines if _is_incomplete(last) else [*lines, last], start=1):
        try:
            content = json.loads(line.decode())
            if not isinstance(content, dict):
                raise ValueError("expected a JSON object")
            entries.append(parse(content))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: not {what} ({brief(error)}). Remove the line.") from error
    return entries


def _is_incomplete(last: bytes) -> bool:
    """Whether a last line without a line end is not a complete JSON object."""
    try:
        return not isinstance(json.loads(last.decode()), dict)
    except (ValueError, RecursionError):
        return True
