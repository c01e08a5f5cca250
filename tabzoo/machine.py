"""What a row records about the machine that computed it."""

import platform

import numpy as np
import PIL
import timm
import torch

from tabzoo._version import __version__
from tabzoo.system import process_use

__all__ = ["hardware", "peak_memory", "versions"]


def versions() -> dict[str, str]:
    """Of the software that numbers may depend on."""
    return {
        "python": platform.python_version(),
        "tabzoo": __version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }


def hardware(device: torch.device) -> str:
    """The GPU's name, or the processor and its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def peak_memory(device: torch.device) -> int | None:
    """Bytes: of the CUDA device since its counter was reset, or of the process since its start."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    used = process_use()
    return used.peak_memory if used else None
