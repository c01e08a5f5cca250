"""Rows on disk: whole or not there."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tabzoo.benchmark.results import RESULTS, Row, append_row, read_rows, row_key
from tabzoo.errors import InputError

MakeRow = Callable[..., Row]


def test_rows_come_back(tmp_path: Path, make_row: MakeRow) -> None:
    rows = [
        make_row("random", "nut"),
        make_row("tab", "nut", image_auroc=None, undefined_because={"image_auroc": "why"}),
    ]
    for row in rows:
        append_row(tmp_path, row)
    assert read_rows(tmp_path) == rows
    written = json.loads((tmp_path / RESULTS).read_text().splitlines()[0])
    assert {"backbone", "method", "dataset", "class", "seed", "shots", "image_auroc", "pixel_auroc", "aupro"} <= set(
        written
    )
    assert "class_name" not in written
    assert read_rows(tmp_path / "none") == []


def test_a_torn_last_line_is_cut(tmp_path: Path, make_row: MakeRow) -> None:
    first, second = make_row("random", "nut"), make_row("random", "bolt")
    append_row(tmp_path, first)
    with (tmp_path / RESULTS).open("a") as file:
        file.write(second.to_json()[:50])
    assert read_rows(tmp_path) == [first]
    append_row(tmp_path, second)
    assert read_rows(tmp_path) == [first, second]


def test_several_may_append_at_once(tmp_path: Path, make_row: MakeRow) -> None:
    rows = [make_row("random", f"class {i}") for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda row: append_row(tmp_path, row), rows))
    assert {row.key for row in read_rows(tmp_path)} == {row.key for row in rows}


def test_of_rows_with_one_key_the_last_counts(tmp_path: Path, make_row: MakeRow) -> None:
    append_row(tmp_path, make_row(key="k", aupro=0.1))
    append_row(tmp_path, make_row(key="k", aupro=0.2))
    assert [row.aupro for row in read_rows(tmp_path)] == [0.2]


def test_a_line_that_is_no_row_is_named(tmp_path: Path, make_row: MakeRow) -> None:
    append_row(tmp_path, make_row())
    with (tmp_path / RESULTS).open("a") as file:
        file.write('{"backbone": "random"}\n')
    with pytest.raises(InputError, match=f"{RESULTS}, line 2: no row of results"):
        read_rows(tmp_path)


def test_keys_follow_the_content_alone() -> None:
    assert row_key({"a": 1, "b": [2]}) == row_key({"b": [2], "a": 1})
    assert row_key({"a": 1}) != row_key({"a": 2})
