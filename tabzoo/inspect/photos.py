"""The photos that a command line names: files, and folders with all below them."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tabzoo.data.folder_tree import scan
from tabzoo.inspect.rows import MARK

__all__ = ["find_photos"]

# A limit, because links could multiply folders. It is more than the folders of a line, a year, a month, a day and a shift need.
_DEPTH = 16


def find_photos(arguments: Iterable[str], *, without: Path | None = None) -> list[str]:
    """The photos, each once: in the order of the arguments, those of a folder in byte order of their paths.

    Folders are read as those of a data set: hidden files, hidden folders and those of the system are left out, links are
    followed. What `tabzoo score` wrote is left out too.

    Args:
        arguments: Files, whatever their names end with and even if they are missing, and folders.
        without: A folder to leave out with all below it.

    Returns:
        Their paths: as they were typed, or below the folder that was typed.

    Raises:
        InputError: A folder can't be listed.
    """
    left_out = None if without is None else os.path.realpath(without)
    files: dict[str, None] = {}
    for argument in arguments:
        if os.path.isdir(argument):
            files.update(dict.fromkeys(_below(argument, lambda folder: _is_output(folder, left_out))))
        else:
            files[str(Path(argument))] = None
    return list(files)


def _below(folder: str, leave_out: Callable[[str], bool]) -> Iterator[str]:
    waiting = [scan(os.fsencode(folder), b"", frozenset(), depth=_DEPTH)]
    found: list[bytes] = []
    while waiting:
        part = waiting.pop()
        if not leave_out(os.path.join(folder, os.fsdecode(part.path))):
            found += part.image_paths().tolist()
            waiting += part.folders.values()
    return (str(Path(folder, os.fsdecode(path))) for path in sorted(found))


def _is_output(folder: str, left_out: str | None) -> bool:
    return os.path.realpath(folder) == left_out or os.path.lexists(os.path.join(folder, MARK))
