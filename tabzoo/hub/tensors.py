"""Tensors from .safetensors files, read safely."""

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from tabzoo.errors import WeightsError, brief
from tabzoo.hub.files import Digest, read_verified

__all__ = ["read_tensors"]

_LONGEST_NAME = 300
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)


def read_tensors(path: Path, expected: Digest | None = None) -> tuple[dict[str, Tensor], Digest]:
    """Reads the tensors of a .safetensors file and its digest, from one reading: what is verified is what is used.

    Args:
        path: The file.
        expected: The digest that it must have; None if that is not known.

    Raises:
        WeightsError: The file is not the expected one, not a complete .safetensors file, or has values that weights never
            have.
    """
    content, digest = read_verified(path, expected)
    try:
        tensors = safetensors.torch.load(content)
    except Exception as error:  # also KeyError and others, on data types that torch lacks
        raise WeightsError(
            f"{path}: not a complete .safetensors file{_looks_like(content)} ({brief(error)})"
        ) from error
    _check_tensors(path, tensors)
    return tensors, digest


def _check_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    if not tensors:
        raise WeightsError(f"{path}: contains no tensors")
    for key, tensor in tensors.items():
        if len(key) > _LONGEST_NAME or not key.isprintable():
            raise WeightsError(f"{path}: a tensor has the name {key[:40]!r}...; expected one short line of plain text")
        if tensor.dtype not in _DTYPES:
            accepted = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
            raise WeightsError(f"{path}: {key} has the type {tensor.dtype}; expected one of {accepted}")
        # Models use single precision; double precision has larger values.
        if tensor.is_floating_point() and not tensor.float().isfinite().all():
            raise WeightsError(f"{path}: {key} contains values that are not finite in single precision")


def _looks_like(content: bytes) -> str:
    """What was probably saved instead of the weights."""
    start = content[:200].lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return ": it is a Git LFS pointer; run `git lfs pull` in the clone, or download the file itself"
    if start.startswith((b"<!doctype", b"<html")):
        return ": it is a web page, perhaps of a proxy or a login, which replaced the download"
    if content[:1] == b"\x80" or content[:4] == b"PK\x03\x04":
        return ": it looks like a pickle of torch.save; tabzoo loads no pickles, but `tabzoo convert` converts them"
    if len(content) < 8 or int.from_bytes(content[:8], "little") + 8 > len(content):
        return ": it is truncated"
    return ""
