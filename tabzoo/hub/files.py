"""A weights file that nobody trusts yet: its bytes against size and SHA-256, its content through safetensors alone."""

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from tabzoo.errors import WeightsError, brief
from tabzoo.system import NON_BLOCKING

__all__ = ["LARGEST", "Digest", "full_disk", "open_regular", "read_tensors"]

LARGEST = 32 << 30
"""Bytes that a file of weights may have; those of the largest CNN have a few per cent of it."""

_LONGEST_NAME = 300

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64)


class Digest(NamedTuple):
    """What tells a file from any other.

    Attributes:
        sha256: 64 hexadecimal digits.
        size: In bytes.
    """

    sha256: str
    size: int

    @classmethod
    def of(cls, path: Path) -> "Digest":
        """The digest of a file on the disk; one that has not changed since is not read again.

        Raises:
            OSError: It can't be read.
            WeightsError: It is no regular file, or larger than `LARGEST`.
        """
        with open_regular(path, LARGEST) as (file, size):
            state = _state(file)
            if state in _DIGESTS:
                return _DIGESTS[state]
            digest = cls(hashlib.file_digest(file, "sha256").hexdigest(), size)
            # A file system's clock has ticks, of seconds on a few: of a file changed just now, the next change may go unseen.
            changed = state[-1]
            tick = 20_000_000 if changed % 1_000_000_000 else 2_000_000_000
            if _state(file) == state and time.time_ns() - changed > tick:
                _DIGESTS[state] = digest
            return digest


_DIGESTS: dict[tuple[int, ...], Digest] = {}
"""By `_state`: of files that were read in this process."""


def _state(file: BufferedReader) -> tuple[int, ...]:
    """What a change of a file's content changes."""
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@contextmanager
def open_regular(path: Path, limit: int) -> Iterator[tuple[BufferedReader, int]]:
    """A regular file and its size. A pipe or a device in its place could block, or never end.

    Args:
        path: The file.
        limit: Bytes that it may have.

    Raises:
        OSError: It can't be opened.
        WeightsError: It is something else than a file, or too large.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise WeightsError(f"{path}: not a regular file")
        if status.st_size > limit:
            raise WeightsError(f"{path}: {status.st_size:,} bytes; expected at most {limit:,}")
        yield file, status.st_size


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | NON_BLOCKING)  # a pipe that nobody writes to


def full_disk(error: BaseException) -> str | None:
    """What keeps a file from being written, in the system's words; None for any other error, such as the network's."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno in codes else None


def read_tensors(path: Path, expected: Digest | None = None) -> tuple[dict[str, Tensor], Digest]:
    """The tensors of a .safetensors file and its digest, from one reading, so that what is checked is what is used.

    Args:
        path: The file.
        expected: What its digest must be; None where nothing says so.

    Raises:
        WeightsError: Not the expected file, not a whole safetensors file, or with values that no weight has.
    """
    try:
        with open_regular(path, LARGEST) as (file, size):
            if expected is not None and size != expected.size:
                raise WeightsError(
                    f"{path}: not the file it should be: {size:,} bytes where {expected.size:,} are expected"
                )
            content = file.read()
    except OSError as error:
        raise WeightsError(f"{path}: can't be read: {error.strerror}") from error
    digest = Digest(hashlib.sha256(content).hexdigest(), len(content))
    if expected is not None and digest != expected:
        raise WeightsError(f"{path}: not the file it should be: SHA-256 {digest.sha256}, expected {expected.sha256}")
    try:
        tensors = safetensors.torch.load(content)
    except Exception as error:  # besides its own errors, KeyError and others on data types that torch lacks
        raise WeightsError(f"{path}: not a whole .safetensors file{_looks_like(content)} ({brief(error)})") from error
    if not tensors:
        raise WeightsError(f"{path}: holds no tensors")
    for key, tensor in tensors.items():
        if len(key) > _LONGEST_NAME or not key.isprintable():
            raise WeightsError(
                f"{path}: a tensor has the name {key[:40]!r}...; expected a line of plain text, and not a long one"
            )
        if tensor.dtype not in _DTYPES:
            raise WeightsError(f"{path}: {key} is of type {tensor.dtype}, which no weights of tabzoo are")
        # Models hold single precision, beyond which double precision may go.
        if tensor.is_floating_point() and not tensor.float().isfinite().all():
            raise WeightsError(f"{path}: {key} holds values that are not finite in single precision")
    return tensors, digest


def _looks_like(content: bytes) -> str:
    """What was likely saved in its place."""
    start = content[:200].lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return ": it is a Git LFS pointer; run `git lfs pull` where it was cloned, or download the file itself"
    if start.startswith((b"<!doctype", b"<html")):
        return ": it is a web page, such as a proxy or a login puts in place of a download"
    if content[:1] == b"\x80" or content[:4] == b"PK\x03\x04":
        return (
            ": it looks like a pickle of torch.save, which tabzoo converts with `tabzoo convert` and loads no other way"
        )
    if len(content) < 8 or int.from_bytes(content[:8], "little") + 8 > len(content):
        return ": it is cut off"
    return ""
