"""Calls that differ between operating systems, and files that are written completely or not at all.

Calls that only POSIX has are made only here, and each function says what it does on a system without them.
"""

import errno
import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    "cpu_extensions",
    "folder_size",
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
"""A flag of `os.open`, so that it does not wait at a named pipe. On Windows, folders contain no pipes."""


def open_no_link(path: Path, *, create: bool) -> IO[str]:
    """Opens a file for reading and writing and keeps its content. It follows no link, which could lead to any file.

    Raises:
        OSError: It is a link, is missing, or can't be opened.
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


def folder_size(folder: Path) -> int:
    """Bytes of all files below a folder; a file with several names counts once, links are not followed."""
    files = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # deleted meanwhile
                status = os.lstat(os.path.join(parent, name))
                files[status.st_dev, status.st_ino] = status.st_size
    return sum(files.values())


def num_cores() -> int:
    """Number of CPU cores that this process may use, or, on a system that does not say, of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_EXTENSIONS = {
    "amx_bf16": "AMX bf16",
    "avx512_bf16": "AVX-512 bf16",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
    "bf16": "bf16",
    "asimd": "NEON",
}


def cpu_extensions() -> str:
    """The instructions for vectors that decide how fast this CPU computes, such as "AVX-512 bf16, AVX-512, AVX2"."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return "unknown"
    flags = next(
        (line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "features"))), []
    )
    return ", ".join(name for flag, name in _EXTENSIONS.items() if flag in flags) or "none that matter"


class ProcessUse(NamedTuple):
    """What this process has used since its start.

    Attributes:
        interruptions: How often the system interrupted one of its threads.
        seconds: CPU time.
        peak_memory: Bytes.
    """

    interruptions: int
    seconds: float
    peak_memory: int


def process_use() -> ProcessUse | None:
    """What this process has used; None on a system that does not say."""
    if resource is None:
        return None
    used = resource.getrusage(resource.RUSAGE_SELF)
    unit = 1 if sys.platform == "darwin" else 1024
    return ProcessUse(used.ru_nivcsw, used.ru_utime + used.ru_stime, unit * used.ru_maxrss)


def stop_signals() -> list[int]:
    """The signals that ask a process to stop, if the system has them."""
    return [int(getattr(signal, name)) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def hang_up() -> int | None:
    """The signal that a closed terminal sends, if the system has one."""
    return getattr(signal, "SIGHUP", None)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns errors while a file is written, such as a full disk, into one that names the file.

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
    """Gives a temporary file to write, which gets the name `path` when it is complete and on the disk.

    After an error, everything is as it was before.

    Raises:
        WriteError: It can't be written.
    """
    temporary = path.with_name(f".{path.stem[:80]}.{os.getpid()}.tmp{path.suffix}")  # writers check the ending
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()
            mode = stat.S_IMODE(temporary.stat().st_mode)  # what the umask allows
            temporary.unlink()
            yield temporary
            temporary.chmod(mode)  # safetensors lets only the owner read its files
            with temporary.open("r+b") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            _flush_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _flush_folder(folder: Path) -> None:
    """Flushes the folder, because a new name is on the disk only then. Windows can't open folders."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
