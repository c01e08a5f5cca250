"""Checkpoints are whole or passed over."""

import logging
from pathlib import Path

import pytest
import torch

from tabzoo.training.checkpoint import load_latest_checkpoint, save_checkpoint


def latest(folder: Path) -> int:
    state = load_latest_checkpoint(folder)
    return -1 if state is None else int(state["step"])


def test_the_last_three_are_kept(tmp_path: Path) -> None:
    assert latest(tmp_path / "none") == -1
    for step in (5, 10, 15, 20):
        save_checkpoint(tmp_path, step, {"weights": torch.full((3,), step)})
    assert sorted(entry.name for entry in tmp_path.glob("*.pt")) == [f"step_000000{step}.pt" for step in (10, 15, 20)]
    assert len(list(tmp_path.iterdir())) == 6
    state = load_latest_checkpoint(tmp_path)
    assert state is not None
    assert state["weights"].tolist() == [20, 20, 20]


@pytest.mark.parametrize("damage", ["torn", "flipped", "gone", "hash torn", "hash gone"])
def test_a_damaged_checkpoint_is_said_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    save_checkpoint(tmp_path, 1, {"a": torch.zeros(50)})
    newest = save_checkpoint(tmp_path, 2, {"a": torch.ones(50)})
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

    save_checkpoint(tmp_path, 1, {"a": 1})
    monkeypatch.setattr("os.fsync", fsync)
    with pytest.raises(OSError, match="the disk is full"):
        save_checkpoint(tmp_path, 2, {"a": 2})
    assert latest(tmp_path) == (1 if flush < 3 else 2)
    assert not caplog.text


def test_nothing_is_executed(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return open, (str(tmp_path / "executed"),)

    save_checkpoint(tmp_path, 1, {"a": 1})
    save_checkpoint(tmp_path, 2, {"a": Hostile()})
    with pytest.raises(Exception, match="weights_only|Weights only"):
        load_latest_checkpoint(tmp_path)
    assert not (tmp_path / "executed").exists()
