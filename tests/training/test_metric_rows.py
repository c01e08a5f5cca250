"""Rows of metrics: appended, cut back, and read as far as they are whole."""

from pathlib import Path

import pytest

from tabzoo.errors import InputError
from tabzoo.jsonl import append_line
from tabzoo.training.metrics import cut_back, read_rows


def test_rows_are_appended_and_cut_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    cut_back(path, 3)
    assert read_rows(path) == []
    rows = [{"step": step, "loss": 1 / step} for step in range(1, 6)]
    for row in rows:
        append_line(path, row)
    assert read_rows(path) == rows
    cut_back(path, 3)
    assert read_rows(path) == rows[:3]
    append_line(path, rows[3])
    assert read_rows(path) == rows[:4]


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_rows(path) == [{"step": 1}, {"step": 2}]
    cut_back(path, 2)
    append_line(path, {"step": 3})
    assert read_rows(path) == [{"step": 1}, {"step": 2}, {"step": 3}]


@pytest.mark.parametrize(
    "damaged",
    [
        b"not JSON",
        b"\xff\xfe",
        '{"step": 1}'.encode("utf-16"),
        b"[" * 20_000,
        b"[1]",
        b"3",
        b'{"loss": 1}',
        b'{"step": "1"}',
    ],
)
def test_a_damaged_line_is_named_and_nothing_is_lost(damaged: bytes, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + damaged + b'\n{"step": 2}\n')
    before = path.read_bytes()
    for use in (lambda: read_rows(path), lambda: cut_back(path, 1)):
        with pytest.raises(InputError, match="metrics.jsonl, line 2: not a row of metrics .*Remove the line"):
            use()
    assert path.read_bytes() == before


def test_other_separators_of_lines_are_part_of_a_row(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": 1, "note": "a\u2028b\x85c"}, {"step": 2}]
    path.write_text("".join(f'{{"step": {row["step"]}, "note": "{row.get("note", "")}"}}\n' for row in rows), "utf-8")
    assert [row["step"] for row in read_rows(path)] == [1, 2]


def test_a_folder_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(InputError, match="metrics.jsonl: can't be read: Is a directory"):
        read_rows(tmp_path / "metrics.jsonl")
