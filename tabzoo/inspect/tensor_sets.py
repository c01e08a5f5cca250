"""A .safetensors file with one set of tensors for each position: written and read one set at a time.

The library writes only what is in memory all at once. The statistics of PaDiM for the tiles of a large photo can be gigabytes.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from tabzoo.system import whole_file

__all__ = ["read_set", "write_sets"]

_TYPES = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64"}


def write_sets(path: Path, sets: Iterable[Mapping[str, Tensor]], *, count: int) -> None:
    """Writes sets of tensors; the tensor `name` of the set at a position is called `position.name`.

    Args:
        path: The file.
        sets: Of the positions from 0 on. All have the names, types and shapes of the first.
        count: Number of sets.

    Raises:
        WriteError: The file can't be written.
    """
    with whole_file(path) as temporary, temporary.open("wb") as file:
        shapes: dict[str, tuple[torch.dtype, torch.Size]] = {}
        written = 0
        for tensors in sets:
            if not written:
                shapes = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
                header = _header(tensors, count)
                file.write(len(header).to_bytes(8, "little") + header)
            assert shapes == {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
            for tensor in tensors.values():
                file.write(tensor.cpu().contiguous().numpy().data)
            written += 1
        assert written == count


def read_set(path: Path, position: int) -> dict[str, Tensor]:
    """The tensors of one position, as views of the file. The memory that they map is free again when they are garbage."""
    prefix = f"{position}."
    with safe_open(path, framework="pt") as file:  # anew for each set: an open file keeps all that was read in memory
        return {name.removeprefix(prefix): file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118


def _header(tensors: Mapping[str, Tensor], count: int) -> bytes:
    """What comes before the tensors, except for its own length: name, type, shape and place of each, as JSON."""
    entries: dict[str, dict[str, object]] = {}
    start = 0
    for position in range(count):
        for name, tensor in tensors.items():
            kind: dict[str, object] = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape)}
            entries[f"{position}.{name}"] = kind | {"data_offsets": [start, start + tensor.nbytes]}
            start += tensor.nbytes
    header = json.dumps(entries, separators=(",", ":")).encode()
    return header + b" " * (-len(header) % 8)  # so that the tensors begin at a multiple of 8
