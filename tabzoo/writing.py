"""Files that are whole or not there: a disk that fills up costs the file being written, and one line says which."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tabzoo.errors import InputError

__all__ = ["new_file", "told"]


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A file to write in the block, beside `path` and with its ending; it takes the place of `path` when the block is left.

    Raises:
        InputError: It can't be written, for example since the disk is full; a file that was there stays as it was.
    """
    temporary = path.with_name(f".{path.stem[:80]}.{os.getpid()}.tmp{path.suffix}")
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Makes an error of the system in the block one of the user's, in one line that names the path.

    Raises:
        InputError: As said.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path}: can't be written: {error.strerror or error}. Make room or choose another folder, then type the same "
            f"command again"
        ) from error
