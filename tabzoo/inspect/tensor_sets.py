"""A .safetensors file with one set of tensors for each position: written and read one set at a time.

The library writes only what is in memory all at once, and keeps in memory what was read while the file is open. The
statistics of PaDiM for the tiles of a large photo can be gigabytes.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tabzoo.errors import WeightsError, brief
from tabzoo.hub.files import Digest
from tabzoo.system import whole_file

__all__ = ["TensorSets", "write_sets"]

_TYPES = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64}
_LARGEST_HEADER = 100_000_000  # bytes; the library's own limit
_LENGTH = 8  # bytes of the header's length


class _Kind(NamedTuple):
    """What is equal in all sets about the tensors of one name."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)


def write_sets(path: Path, sets: Iterable[Mapping[str, Tensor]], *, count: int) -> None:
    """Writes sets of tensors; the tensor `name` of the set at a position is called `position.name`.

    Args:
        path: The file.
        sets: Of the positions from 0 on. All have the names, types and shapes of the first.
        count: Number of sets.

    Raises:
        WriteError: The file can't be written.
    """
    first: dict[str, _Kind] = {}
    written = 0
    with whole_file(path) as temporary, temporary.open("wb") as file:
        for tensors in sets:
            kinds = {name: _Kind(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
            if not written:
                first, header = kinds, json.dumps(_entries(kinds, count), separators=(",", ":")).encode()
                header += b" " * (-len(header) % 8)  # so that the tensors begin at a multiple of 8
                file.write(len(header).to_bytes(_LENGTH, "little") + header)
            assert list(kinds.items()) == list(first.items())
            for tensor in tensors.values():
                file.write(tensor.cpu().contiguous().numpy().data)
            written += 1
        assert written == count


def _entries(kinds: Mapping[str, _Kind], count: int) -> dict[str, Any]:
    """The header of a file with so many sets of tensors of these kinds."""
    codes = {dtype: code for code, dtype in _TYPES.items()}
    entries, start = {}, 0
    for position in range(count):
        for name, kind in kinds.items():
            end = start + kind.num_bytes
            about = {"dtype": codes[kind.dtype], "shape": list(kind.shape), "data_offsets": [start, end]}
            entries[f"{position}.{name}"], start = about, end
    return entries


class TensorSets:
    """Reads what `write_sets` wrote, one set at a time. The file stays open: one that takes its name is not read.

    Args:
        path: The file.
        expected: Its digest.

    Attributes:
        count: Number of sets.

    Raises:
        WeightsError: It is not the expected file, or has no such sets.
    """

    def __init__(self, path: Path, expected: Digest) -> None:
        self._path = path
        try:
            self._file = path.open("rb")
            found = Digest(hashlib.file_digest(self._file, "sha256").hexdigest(), self._file.tell())
            if found != expected:
                raise WeightsError(f"{path}: was changed: SHA-256 {found.sha256}, expected {expected.sha256}")
            self._file.seek(0)
            length = int.from_bytes(self._file.read(_LENGTH), "little")
            if length > _LARGEST_HEADER:
                raise ValueError(f"a header of {length:,} bytes")
            self._kinds, self.count = _sets_of(json.loads(self._file.read(length).decode()))
        except OSError as error:
            raise WeightsError(f"{path}: can't be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise WeightsError(f"{path}: not a file of tensors for each tile: {brief(error)}") from error
        self._start, self._bytes = _LENGTH + length, sum(kind.num_bytes for kind in self._kinds.values())
        if self._start + self.count * self._bytes != found.size:
            raise WeightsError(f"{path}: not a file of tensors for each tile: they do not fill it")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def read(self, position: int) -> dict[str, Tensor]:
        """The tensors of a position, by name."""
        tensors = {name: torch.empty(kind.shape, dtype=kind.dtype) for name, kind in self._kinds.items()}
        self._file.seek(self._start + position * self._bytes)
        for tensor in tensors.values():
            if self._file.readinto(tensor.numpy().data) != tensor.nbytes:
                raise WeightsError(f"{self._path}: was cut off while it was in use")
        return tensors


def _sets_of(header: Mapping[str, Any]) -> tuple[dict[str, _Kind], int]:
    """The kinds of tensors in each set, and the number of sets.

    Raises:
        ValueError: It is not the header of such a file. KeyError, TypeError, AttributeError: the same.
    """
    of_first = {name.removeprefix("0."): about for name, about in header.items() if name.startswith("0.")}
    kinds = {name: _Kind(_TYPES[about["dtype"]], tuple(map(int, about["shape"]))) for name, about in of_first.items()}
    if not kinds or min((side for kind in kinds.values() for side in kind.shape), default=0) < 0:
        raise ValueError("no tensors of a first tile")
    count = len(header) // len(kinds)
    if header != _entries(kinds, count):
        raise ValueError("not the same tensors for all tiles")
    return kinds, count
