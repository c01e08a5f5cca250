"""Photos that arrive in folders: found by looking again and again, which works on network drives too.

A photo is complete when two looks find the same size, time and inode, and it can be read. A program that writes slowly may
pause for longer than that, so one that can't be read is tried again at the next looks.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tabzoo.errors import InputError
from tabzoo.inspect.photos import find_photos

__all__ = ["TRIES", "Watch"]

TRIES = 5
"""Looks at which an unchanged photo can't be read before that is an error."""

logger = logging.getLogger(__name__)


@dataclass
class _Seen:
    state: tuple[int, int, int]
    tries: int = 0
    done: bool = False


class Watch:
    """The photos of folders over time.

    Args:
        folders: The folders; they may be empty.
        without: A folder in them to leave out.
    """

    def __init__(self, folders: Sequence[str], *, without: Path | None) -> None:
        self._folders, self._without = folders, without
        self._seen: dict[str, _Seen] = {}
        self._problem = ""

    def look(self) -> list[str]:
        """The photos that have not changed since the last look and were not settled since they last changed."""
        try:
            if missing := [folder for folder in self._folders if not os.path.isdir(folder)]:
                raise InputError(f"{missing[0]}: no such folder")
            files = find_photos(self._folders, without=self._without)
        except InputError as error:  # such as a network drive that is away for a while
            if str(error) != self._problem:
                logger.warning("%s. Watching goes on.", error)
            self._problem = str(error)
            return []
        self._problem, before, self._seen = "", self._seen, {}
        complete = []
        for file in files:
            if (state := _state(file)) is None:
                continue
            seen = before.get(file)
            if seen is None or seen.state != state:
                self._seen[file] = _Seen(state)
                continue
            self._seen[file] = seen
            if not seen.done:
                complete.append(file)
        return complete

    def settle(self, file: str, *, readable: bool) -> bool:
        """Notes what became of a photo of the last look.

        Returns:
            Whether that is final: a photo that can't be read is tried `TRIES` times.
        """
        seen = self._seen[file]
        seen.tries += 1
        seen.done = readable or seen.tries >= TRIES
        return seen.done


def _state(file: str) -> tuple[int, int, int] | None:
    """Size in bytes, modification time in ns and inode; None if the file is gone."""
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino
