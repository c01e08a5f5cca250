"""Checkpoints: written whole or not at all, each with the hash of its bytes, the newest good one found again."""

import hashlib
import io
import json
import logging
import os
from pathlib import Path
from typing import Any

import torch

__all__ = ["load_latest_checkpoint", "save_checkpoint"]

_KEPT = 3
_log = logging.getLogger(__name__)


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Writes `step_NNNNNNNN.pt` and its hash beside it, and keeps the last three.

    A checkpoint counts once its `.json` is there, which is written last; each file is flushed to the disk and renamed, so a
    process that is killed at any moment leaves the checkpoints before it as they were.

    Args:
        folder: Made if need be.
        step: Steps done so far.
        state: Tensors, numbers, texts, and lists and tables of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{step:08d}.pt"
    content = io.BytesIO()
    torch.save({"step": step, **state}, content)
    _write(path, content.getvalue())
    _write(path.with_suffix(".json"), json.dumps({"sha256": hashlib.sha256(content.getvalue()).hexdigest()}).encode())
    for old in _checkpoints(folder)[:-_KEPT]:
        old.with_suffix(".json").unlink()
        old.unlink(missing_ok=True)
    return path


def load_latest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint whose bytes have their hash, or None; one that is damaged is named in a warning."""
    for path in reversed(_checkpoints(folder)):
        try:
            expected = json.loads(path.with_suffix(".json").read_bytes())["sha256"]
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != expected:
                raise ValueError("its bytes are not the ones that were written")
            state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s is damaged (%s); going on from the checkpoint before it.", path, error)
        else:
            return state
    return None


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path.with_suffix(".pt") for path in folder.glob("step_*.json"))


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    if os.name == "nt":  # no folder can be opened there
        return
    # The name, too, is on the disk only once the folder is.
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
