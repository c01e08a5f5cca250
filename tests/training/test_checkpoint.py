"""Checkpoints are whole or passed over."""

import logging
from pathlib import Path

import pytest
import torch

from tabzoo.training.checkpoint import load_latest_checkpoint, save_checkpoint


def test_latest_of_the_last_two(tmp_path: Path) -> None:
    assert load_latest_checkpoint(tmp_path / "none") is None
    for step in (5, 10, 15):
        save_checkpoint(tmp_path, step, {"weights": torch.full((3,), step)})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["step_00000010.pt", "step_00000015.pt"]
    state = load_latest_checkpoint(tmp_path)
    assert state is not None
    assert state["step"] == 15
    assert state["weights"].tolist() == [15, 15, 15]


def test_a_torn_checkpoint_is_said_and_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_checkpoint(tmp_path, 1, {"a": 1})
    newest = save_checkpoint(tmp_path, 2, {"a": 2})
    newest.write_bytes(newest.read_bytes()[:100])
    (tmp_path / "step_00000003.tmp").write_bytes(b"half")
    caplog.set_level(logging.WARNING)
    state = load_latest_checkpoint(tmp_path)
    assert state is not None
    assert state["a"] == 1
    assert "step_00000002.pt can't be read" in caplog.text
