"""What differs between operating systems, in one place, and files that are whole or not there.

A call that only POSIX has is made here alone, and each function says what it does where that call is missing.
"""

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, NamedTuple

from safetensors import SafetensorError

from tabzoo.errors import WriteError, brief

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = [
    "NON_BLOCKING",
    "ProcessUse",
    "hang_up",
    "num_cores",
    "open_no_link",
    "process_use",
    "stop_signals",
    "user_folder",
    "whole_file",
    "writing",
]

NON_BLOCKING = getattr(os, "O_NONBLOCK", 0)
"""For `os.open`: not to wait at a pipe. Windows has no such files in folders."""


def open_no_link(path: Path, *, create: bool) -> IO[str]:
    """Opens a file for reading and writing, its content kept; not through a link, which might name any file.

    Raises:
        OSError: It is a link, is not there, or can't be opened.
    """
    if not hasattr(os, "O_NOFOLLOW") and path.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | (os.O_CREAT if create else 0)
    return os.fdopen(os.open(path, flags, 0o666), "r+")


_USER_FOLDERS = {
    "cache": ("TABZOO_CACHE", "XDG_CACHE_HOME", "~/.cache"),
    "data": ("TABZOO_HOME", "XDG_DATA_HOME", "~/.local/share"),
}


def user_folder(kind: Literal["cache", "data"]) -> Path:
    """tabzoo's folder for this user: `$TABZOO_CACHE` for what can be made again, `$TABZOO_HOME` for what can't.

    Without these variables, it is `tabzoo` in the user's cache folder (`$XDG_CACHE_HOME` or `~/.cache`, as in torch.hub)
    or data folder (`$XDG_DATA_HOME` or `~/.local/share`).
    """
    ours, parent, default = _USER_FOLDERS[kind]
    folder = os.environ.get(ours)
    return Path(folder or os.path.join(os.environ.get(parent) or os.path.expanduser(default), "tabzoo"))


def num_cores() -> int:
    """CPU cores that this process may use; where the system does not tell, those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ProcessUse(NamedTuple):
    """What this process has used since its start.

    Attributes:
        interruptions: How often a core was taken away from one of its threads.
        seconds: CPU time.
        peak_memory: Bytes.
    """

    interruptions: int
    seconds: float
    peak_memory: int


def process_use() -> ProcessUse | None:
    """What this process has used; None where the system does not tell."""
    if resource is None:
        return None
    used = resource.getrusage(resource.RUSAGE_SELF)
    unit = 1 if sys.platform == "darwin" else 1024
    return ProcessUse(used.ru_nivcsw, used.ru_utime + used.ru_stime, unit * used.ru_maxrss)


def stop_signals() -> list[int]:
    """The signals that ask a process to stop, as far as the system has them."""
    return [int(getattr(signal, name)) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def hang_up() -> int | None:
    """The signal after which the terminal is gone, if the system has one."""
    return getattr(signal, "SIGHUP", None)


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
    temporary = path.with_name(f".{path.stem[:80]}.{os.getpid()}.tmp{path.suffix}")  # writers go by the ending
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("r+b") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            _flush_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _flush_folder(folder: Path) -> None:
    """A new name is on the disk only once its folder is. Windows opens no folders."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
