"""Checkpoints: each is complete or not there, has the hash of its bytes, and the newest intact one is loaded."""

import hashlib
import io
import json
import logging
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from tabzoo.errors import InputError, WriteError, brief
from tabzoo.system import whole_file, writing

__all__ = ["CheckpointWriter", "load_latest_checkpoint", "save_checkpoint"]

_KEPT = 3
# What a run resumes from: the type of each entry, and of the values in a table.
_CONTENT: dict[str, tuple[type, type]] = {
    "step": (int, object),
    "modules": (dict, torch.Tensor),
    "optimizer": (dict, dict),
    "scaler": (dict, object),
    "recipe": (dict, object),
    "samples": (str, object),
}
_log = logging.getLogger(__name__)


class CheckpointWriter:
    """Writes checkpoints, as a context at whose end all are written.

    In the background, a thread writes a copy of the state in main memory while training continues: hashing and flushing
    90 MB takes as long as some ten steps of a GPU.

    Args:
        folder: Where to write them.
        in_background: Whether to do so.
    """

    def __init__(self, folder: Path, *, in_background: bool) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1) if in_background else None
        self._pending: Future[Path] | None = None

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.wait()
        else:
            with suppress(WriteError):  # the error that ends the run is the one to tell
                self.wait()

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Writes a checkpoint, see `save_checkpoint`.

        Raises:
            WriteError: It can't be written; or, in the background, the one before it.
        """
        self.wait()
        if self._thread is None:
            save_checkpoint(self._folder, step, state)
        else:
            self._pending = self._thread.submit(save_checkpoint, self._folder, step, _copied(state))

    def wait(self) -> None:
        """Waits for the checkpoint that is being written, if there is one.

        Raises:
            WriteError: It can't be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()


def _copied(state: Any) -> Any:
    """The same with all tensors copied to main memory: the next steps change those of the run."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    return [_copied(value) for value in state] if isinstance(state, list) else state


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Writes `step_NNNNNNNN.pt` and a file with its hash, and keeps the last three.

    A checkpoint counts only once its `.json` is there, which is written last. Each file is flushed to the disk, then renamed:
    a process that is killed at any moment leaves the earlier checkpoints as they were.

    Args:
        folder: Made if need be.
        step: Steps done so far.
        state: Tensors, numbers, texts, and lists and tables of them; `_CONTENT` lists what it must contain.

    Raises:
        WriteError: It can't be written; the checkpoints before it are still there.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{step:08d}.pt"
    content = io.BytesIO()
    torch.save({"step": step, **state}, content)
    _write(path, content.getvalue())
    _write(path.with_suffix(".json"), json.dumps({"sha256": hashlib.sha256(content.getvalue()).hexdigest()}).encode())
    for old in _checkpoints(folder)[:-_KEPT]:
        old.with_suffix(".json").unlink()
        old.unlink(missing_ok=True)
    for left in folder.glob("step_*.tmp"):  # of a process that was killed
        left.unlink(missing_ok=True)
    return path


def load_latest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest intact checkpoint, or None if there are none; a warning names damaged ones.

    Raises:
        InputError: All are damaged.
    """
    reasons = []
    for path in reversed(paths := _checkpoints(folder)):
        try:
            state = _read(path)
        except Exception as error:  # torch and the JSON parser raise many types
            reasons.append(f"{path} is damaged ({brief(error)})")
            if path is not paths[0]:
                _log.warning("%s; continuing from the checkpoint before it.", reasons[-1])
        else:
            return state
    if reasons:
        raise InputError(
            f"--resume: no intact checkpoint is left: {reasons[-1]}. Restore the files in {folder} from a copy, or type "
            f"--overwrite to start again."
        )
    return None


def _read(path: Path) -> dict[str, Any]:
    sidecar = json.loads(path.with_suffix(".json").read_bytes())
    content = path.read_bytes()
    if not isinstance(sidecar, dict) or hashlib.sha256(content).hexdigest() != sidecar.get("sha256"):
        raise ValueError("its bytes are not those that were written")
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise ValueError(f"it holds a {type(state).__name__}, not a table")
    for name, (kind, of) in _CONTENT.items():
        value = state.get(name)
        if not isinstance(value, kind) or not all(isinstance(item, of) for item in _items(value)):
            raise ValueError(f"its '{name}' is missing or not what tabzoo writes")
    if state["step"] < 0 or not state["modules"]:
        raise ValueError("it holds no weights" if not state["modules"] else f"its step is {state['step']}")
    return state


def _items(value: object) -> Iterable[object]:
    return value.values() if isinstance(value, dict) else ()


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path.with_suffix(".pt") for path in folder.glob("step_*.json"))


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as file:
        file.write_bytes(content)
