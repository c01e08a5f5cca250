"""Lines of JSON on disk: complete or not there."""

from pathlib import Path

import pytest

from tabzoo.errors import InputError
from tabzoo.jsonl import append_line, read_lines


def read(path: Path) -> list[dict[str, object]]:
    return read_lines(path, dict, what="a line")


def test_lines_come_back(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    assert read(path) == []
    lines = [{"a": 1}, {"b": "two\nlines \u2028"}, {}]
    for line in lines:
        append_line(path, line)
    assert read(path) == lines


@pytest.mark.parametrize("last", ["", '{"a', '{"a": 1}{', "[1]", "7", "nul"])
def test_an_incomplete_last_line_is_skipped_and_then_replaced(last: str, tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    for before in ("", '{"a": 1}\n'):
        path.write_text(before + last)
        expected = [{"a": 1}] if before else []
        assert read(path) == expected
        append_line(path, {"b": 2}, sync=True)
        assert read(path) == [*expected, {"b": 2}]


def test_a_complete_last_line_without_line_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"a": 1}')
    assert read(path) == [{"a": 1}]
    append_line(path, {"b": 2})
    assert path.read_text() == '{"a": 1}\n{"b": 2}\n'


def test_a_wrong_line_is_reported_with_its_number_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"a": 1}\n[2]\n{"a": 3}\n')
    with pytest.raises(
        InputError, match=r"lines\.jsonl, line 2: not a line \(expected a JSON object\)\. Remove the line"
    ):
        read(path)

    def refuse(line: dict[str, object]) -> object:
        raise ValueError("no a")

    with pytest.raises(InputError, match=r"line 1: not a b \(no a\)"):
        read_lines(path, refuse, what="a b")
