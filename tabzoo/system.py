"""What differs between operating systems and disks, in one place: files that are whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from tabzoo.errors import WriteError, brief

__all__ = ["whole_file", "writing"]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within it, what keeps a file from being written, such as a full disk, becomes an error that names the file.

    Raises:
        WriteError: It can't be written.
    """
    try:
        yield
    except WriteError:
        raise
    except (OSError, SafetensorError) as error:
        raise WriteError(f"{path}: can't be written: {getattr(error, 'strerror', None) or brief(error)}") from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a file to write, which takes the name `path` once it is whole and on the disk; else all is as it was before.

    Raises:
        WriteError: It can't be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path):
            yield temporary
            with temporary.open("r+b") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            _flush_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _flush_folder(folder: Path) -> None:
    """A new name is on the disk only once its folder is."""
    if os.name == "nt":  # no folder can be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
