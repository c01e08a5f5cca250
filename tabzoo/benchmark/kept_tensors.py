"""Files in which a run keeps what figures are drawn from: tensors, in half precision where that is enough."""

import json
from collections.abc import Set
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tabzoo.errors import InputError, brief

__all__ = ["halved", "read_kept_tensors"]


def halved(values: Tensor) -> Tensor:
    """In float16, unless some values are too large or too small for it."""
    half = values.half()
    scale = float(values.abs().max()) if values.numel() else 0.0
    return half if torch.allclose(half.float(), values, rtol=1e-3, atol=1e-4 * scale) else values.contiguous()


def read_kept_tensors(path: Path, names: Set[str]) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Reads a file.

    Args:
        path: The file, in safetensors' form.
        names: Of the tensors that it must hold.

    Returns:
        The tensors, and the JSON table in the metadata `tabzoo`.

    Raises:
        InputError: The file is missing, damaged or not of this form.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            if set(file.keys()) != names:
                raise ValueError(f"it holds {', '.join(sorted(file.keys())) or 'nothing'}")
            tensors = {name: file.get_tensor(name) for name in names}
            about = json.loads((file.metadata() or {})["tabzoo"])
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: missing, damaged or not written by tabzoo ({brief(error)}). Measure the row again."
        ) from error
    if not isinstance(about, dict):
        raise InputError(f"{path}: not written by tabzoo")
    return tensors, about
