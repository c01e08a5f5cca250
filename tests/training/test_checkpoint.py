"""Checkpoints are whole or passed over."""

import hashlib
import io
import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from tabzoo.errors import InputError, WriteError
from tabzoo.training import checkpoint
from tabzoo.training.checkpoint import CheckpointWriter, load_latest_checkpoint, save_checkpoint


def state_of(value: float = 0.0) -> dict[str, Any]:
    """What a run saves, but for the step."""
    return {
        "modules": {"a": torch.full((50,), value)},
        "optimizer": {0: {"momentum_buffer": torch.zeros(50)}},
        "scaler": {},
        "recipe": {"lr": 0.1},
        "samples": "digest",
    }


def write(folder: Path, step: int, content: bytes, sidecar: bytes | None = None) -> None:
    """A checkpoint of any content, with the right hash unless another side-car is given."""
    sidecar = json.dumps({"sha256": hashlib.sha256(content).hexdigest()}).encode() if sidecar is None else sidecar
    (folder / f"step_{step:08d}.pt").write_bytes(content)
    (folder / f"step_{step:08d}.json").write_bytes(sidecar)


def saved(value: object) -> bytes:
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


def latest(folder: Path) -> int:
    state = load_latest_checkpoint(folder)
    return -1 if state is None else int(state["step"])


def test_the_last_three_are_kept(tmp_path: Path) -> None:
    assert latest(tmp_path / "none") == -1
    for step in (5, 10, 15, 20):
        save_checkpoint(tmp_path, step, state_of(step))
    assert sorted(entry.name for entry in tmp_path.glob("*.pt")) == [f"step_000000{step}.pt" for step in (10, 15, 20)]
    assert len(list(tmp_path.iterdir())) == 6
    state = load_latest_checkpoint(tmp_path)
    assert state is not None
    assert state["modules"]["a"].tolist() == [20] * 50


@pytest.mark.parametrize("damage", ["torn", "flipped", "gone", "hash torn", "hash gone"])
def test_a_damaged_checkpoint_is_said_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    save_checkpoint(tmp_path, 1, state_of())
    newest = save_checkpoint(tmp_path, 2, state_of(1))
    content = newest.read_bytes()
    if damage == "torn":
        newest.write_bytes(content[:100])
    elif damage == "flipped":
        newest.write_bytes(content[:-300] + bytes([content[-300] ^ 1]) + content[-299:])
    elif damage == "gone":
        newest.unlink()
    elif damage == "hash torn":
        newest.with_suffix(".json").write_bytes(b'{"sha')
    else:
        newest.with_suffix(".json").unlink()  # killed between the two files: the checkpoint does not count yet
    (tmp_path / "step_00000003.pt.tmp").write_bytes(b"half")
    caplog.set_level(logging.WARNING)
    assert latest(tmp_path) == 1
    assert ("step_00000002.pt is damaged" in caplog.text) is (damage != "hash gone")


@pytest.mark.parametrize("flush", range(4))
def test_a_save_that_breaks_off_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, flush: int
) -> None:
    """At each of its flushes to the disk: the checkpoint's, its folder's, the hash's, its folder's."""
    flushed = []

    def fsync(descriptor: int) -> None:
        if len(flushed) == flush:
            raise OSError("the disk is full")
        flushed.append(descriptor)

    save_checkpoint(tmp_path, 1, state_of())
    monkeypatch.setattr("os.fsync", fsync)
    with pytest.raises(OSError, match="the disk is full"):
        save_checkpoint(tmp_path, 2, state_of())
    assert latest(tmp_path) == (1 if flush < 3 else 2)
    assert not caplog.text


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in {"step": 2, **state_of()}.items() if key != name}


FIELDS = ("step", "modules", "optimizer", "scaler", "recipe", "samples")
DAMAGED = {
    **{f"no {name}": (saved(without(name)), None, f"its '{name}' is missing") for name in FIELDS},
    **{
        f"{name} {value!r}": (
            saved(without(name) | {name: value}),
            None,
            f"its '{name}' is missing or not what tabzoo writes",
        )
        for name, value in [
            *(("step", "2"), ("step", None), ("step", 2.0), ("modules", [torch.zeros(2)]), ("modules", {"a": 3})),
            *(("optimizer", []), ("optimizer", {0: 3}), ("scaler", None), ("recipe", "x"), ("samples", 3)),
        ]
    },
    "no weights": (saved(without("modules") | {"modules": {}}), None, "it holds no weights"),
    "negative step": (saved(without("step") | {"step": -1}), None, "its step is -1"),
    "a list": (saved([1, 2]), None, "it holds a list"),
    "no torch file": (b"\x80\x04hello", None, "damaged ("),
    "empty": (b"", None, "damaged ("),
    "cut off, with the hash of what is left": (saved(without(""))[:700], None, "damaged ("),
    "nested": (saved(without("")), b"[" * 100_000, "damaged ("),
    "a list beside it": (saved(without("")), b"[1]", "not those that were written"),
    "a number for a hash": (saved(without("")), b'{"sha256": 3}', "not those that were written"),
    "not UTF-8 beside it": (saved(without("")), b"\xff\xfe\x00", "damaged ("),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_one_that_holds_something_else_is_passed_over_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    content, sidecar, reason = DAMAGED[damage]
    save_checkpoint(tmp_path, 1, state_of())
    write(tmp_path, 2, content, sidecar)
    caplog.set_level(logging.WARNING)
    assert latest(tmp_path) == 1
    (record,) = caplog.records
    assert "step_00000002.pt is damaged" in record.message
    assert reason in record.message
    assert "continuing from the checkpoint before it" in record.message
    assert "\n" not in record.message


def test_when_none_is_left_it_is_an_error_and_the_run_does_not_start_anew(tmp_path: Path) -> None:
    write(tmp_path, 1, b"broken")
    write(tmp_path, 2, b"broken", b"{}")
    with pytest.raises(InputError, match="no intact checkpoint is left: .*step_00000001.pt is damaged .*--overwrite"):
        load_latest_checkpoint(tmp_path)


def test_nothing_is_executed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return open, (str(tmp_path / "executed"),)

    save_checkpoint(tmp_path, 1, state_of())
    save_checkpoint(tmp_path, 2, state_of() | {"a": Hostile()})
    assert latest(tmp_path) == 1
    assert "Weights only load failed" in caplog.text
    assert not (tmp_path / "executed").exists()


def test_in_the_background_the_state_of_the_moment_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_write, save_now = threading.Event(), checkpoint.save_checkpoint

    def slow(folder: Path, step: int, state: dict[str, Any]) -> Path:
        assert may_write.wait(60)
        return save_now(folder, step, state)

    monkeypatch.setattr(checkpoint, "save_checkpoint", slow)
    state, weights = state_of(1), torch.zeros(3)
    state["modules"] = {"w": weights}
    with CheckpointWriter(tmp_path, in_background=True) as writer:
        writer.save(1, state)
        weights.fill_(7)  # the next step
        assert not list(tmp_path.glob("*.json"))
        may_write.set()
        writer.save(2, state)
    newest = load_latest_checkpoint(tmp_path)
    assert newest is not None
    assert (newest["step"], newest["modules"]["w"].tolist()) == (2, [7, 7, 7])
    (tmp_path / "step_00000002.json").unlink()
    newest = load_latest_checkpoint(tmp_path)
    assert newest is not None
    assert (newest["step"], newest["modules"]["w"].tolist()) == (1, [0, 0, 0])


def end_by_another_error(folder: Path) -> None:
    with CheckpointWriter(folder, in_background=True) as writer:
        writer.save(1, state_of(1))
        raise ValueError("of the run")


def test_an_error_in_the_background_comes_at_the_next_one_or_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise WriteError(f"{path}: can't be written")

    monkeypatch.setattr(checkpoint, "_write", full)
    with pytest.raises(WriteError, match="step_00000001"), CheckpointWriter(tmp_path, in_background=True) as writer:
        writer.save(1, state_of(1))
    with pytest.raises(ValueError, match="of the run"):
        end_by_another_error(tmp_path)
    writer = CheckpointWriter(tmp_path, in_background=True)
    writer.save(1, state_of(1))
    with pytest.raises(WriteError, match="step_00000001"):
        writer.save(2, state_of(1))
