"""Files from anywhere: digests and JSON, read safely and with a limit on their size; JSON written atomically."""

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from tabzoo.errors import WeightsError, brief
from tabzoo.plain import plain_json
from tabzoo.system import NON_BLOCKING, whole_file

__all__ = [
    "LARGEST_JSON",
    "LARGEST_WEIGHTS",
    "Digest",
    "json_bytes",
    "FileState",
    "file_state",
    "open_regular",
    "read_json",
    "read_verified",
    "write_json",
]

LARGEST_WEIGHTS = 32 << 30
"""Largest accepted file of weights, in bytes; the largest CNNs have a few per cent of it."""
LARGEST_JSON = 1_000_000
"""Largest accepted config.json or tabzoo.json, in bytes; real ones have a few thousand."""

_DEEPEST = 20

FileState = tuple[int, ...]
"""Device, inode, size, mtime and ctime of a file: at least one of them changes when the content does."""


class Digest(NamedTuple):
    """What identifies the content of a file.

    Attributes:
        sha256: 64 hexadecimal digits.
        size: In bytes.
    """

    sha256: str
    size: int

    @classmethod
    def of(cls, path: Path) -> "Digest":
        """The digest of a file; a file that has not changed is hashed only once in a process.

        Raises:
            OSError: It can't be read.
            WeightsError: It is not a regular file, or larger than `LARGEST_WEIGHTS`.
        """
        if (state := file_state(path)) in _DIGESTS:
            return _DIGESTS[state]
        with open_regular(path, LARGEST_WEIGHTS) as (file, size):
            before = _state(os.fstat(file.fileno()))
            digest = cls(hashlib.file_digest(file, "sha256").hexdigest(), size)
            _remember(digest, file, before)
            return digest


_DIGESTS: dict[FileState | None, Digest] = {}
"""Digests of the files that were hashed in this process."""


def _remember(digest: Digest, file: BufferedReader, before: FileState) -> None:
    """Keeps a digest, unless the file changed since the state before the reading, or might change unseen."""
    # Clocks of file systems have ticks, a few of seconds: two changes within one tick leave the same times.
    changed = before[-1]
    tick = 20_000_000 if changed % 1_000_000_000 else 2_000_000_000
    if _state(os.fstat(file.fileno())) == before and time.time_ns() - changed > tick:
        _DIGESTS[before] = digest


def file_state(path: Path) -> FileState | None:
    """The state of a file or folder; None if there is none."""
    try:
        return _state(os.stat(path))
    except (OSError, ValueError):
        return None


def _state(status: os.stat_result) -> FileState:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@contextmanager
def open_regular(path: Path, limit: int) -> Iterator[tuple[BufferedReader, int]]:
    """Opens a regular file and gives its size too. A pipe or a device could block, or never end.

    Args:
        path: The file.
        limit: Its largest accepted size, in bytes.

    Raises:
        OSError: It can't be opened.
        WeightsError: It is not a regular file, or too large.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise WeightsError(f"{path}: not a regular file")
        if status.st_size > limit:
            raise WeightsError(f"{path}: too large: {status.st_size:,} bytes, expected at most {limit:,}")
        yield file, status.st_size


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | NON_BLOCKING)  # else it would wait at a pipe without a writer


def read_verified(path: Path, expected: Digest | None = None) -> tuple[bytes, Digest]:
    """Reads a file and its digest, from one reading: what is verified is what is used.

    Args:
        path: The file.
        expected: The digest that it must have; None if that is not known.

    Raises:
        WeightsError: The file can't be read, or is not the expected one.
    """
    try:
        with open_regular(path, LARGEST_WEIGHTS) as (file, size):
            if expected is not None and size != expected.size:
                raise WeightsError(f"{path}: wrong size: {size:,} bytes, expected {expected.size:,}")
            before = _state(os.fstat(file.fileno()))
            content = file.read()
            unchanged = _state(os.fstat(file.fileno())) == before
            digest = _DIGESTS.get(before) if unchanged else None
            if digest is None:
                digest = Digest(hashlib.sha256(content).hexdigest(), len(content))
                _remember(digest, file, before)
    except OSError as error:
        raise WeightsError(f"{path}: can't be read: {error.strerror}") from error
    if expected is not None and digest != expected:
        raise WeightsError(f"{path}: wrong checksum: SHA-256 {digest.sha256}, expected {expected.sha256}")
    return content, digest


def read_json(path: Path, *, largest: int = LARGEST_JSON) -> dict[str, Any]:
    """Reads a JSON object from a file.

    Args:
        path: The file.
        largest: Its largest accepted size, in bytes.

    Raises:
        WeightsError: The file is missing, too large, or not a JSON object.
    """
    try:
        with open_regular(path, largest) as (file, _):
            content = json.loads(file.read().decode(), parse_constant=_refuse)  # given bytes, it would guess UTF-16 too
    except OSError as error:
        raise WeightsError(f"{path}: can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not JSON in UTF-8: {brief(error)}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: expected a JSON object")
    if _is_deep(content):
        raise WeightsError(f"{path}: nested deeper than {_DEEPEST} levels; a file of this kind has few")
    return content


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _is_deep(content: object) -> bool:
    """Whether objects and lists are nested too deep to be shown and written again."""
    level = [content]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return any(isinstance(entry, dict | list) for entry in level)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file, completely or not at all.

    Raises:
        WriteError: It can't be written.
    """
    with whole_file(path) as file:
        file.write_bytes(json_bytes(content))


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """What `write_json` writes."""
    return f"{plain_json(content)}\n".encode()
