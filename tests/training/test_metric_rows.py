"""Rows of metrics: appended, cut back, and read as far as they are whole."""

from pathlib import Path

from tabzoo.training.metrics import append_row, cut_back, read_rows


def test_rows_are_appended_and_cut_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    cut_back(path, 3)
    assert read_rows(path) == []
    rows = [{"step": step, "loss": 1 / step} for step in range(1, 6)]
    for row in rows:
        append_row(path, row)
    assert read_rows(path) == rows
    cut_back(path, 3)
    assert read_rows(path) == rows[:3]
    append_row(path, rows[3])
    assert read_rows(path) == rows[:4]


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_rows(path) == [{"step": 1}, {"step": 2}]
    cut_back(path, 2)
    append_row(path, {"step": 3})
    assert read_rows(path) == [{"step": 1}, {"step": 2}, {"step": 3}]
