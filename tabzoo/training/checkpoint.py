"""Checkpoints: written whole or not at all, the newest readable one found again."""

import logging
import os
from pathlib import Path
from typing import Any

import torch

__all__ = ["load_latest_checkpoint", "save_checkpoint"]

_KEPT = 2
_log = logging.getLogger(__name__)


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Writes `step_NNNNNNNN.pt` and keeps the last two.

    Args:
        folder: Made if need be.
        step: Steps done so far.
        state: Tensors, numbers, texts, and lists and tables of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{step:08d}.pt"
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save({"step": step, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    for old in _checkpoints(folder)[:-_KEPT]:
        old.unlink()
    return path


def load_latest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None; one that can't be is named in a warning and passed over."""
    for path in reversed(_checkpoints(folder)):
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a torn file raises many types
            _log.warning("%s can't be read (%s); using the checkpoint before it.", path, error)
        else:
            return state
    return None


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("step_*.pt"))
