"""Rows on disk: whole or not there."""

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tabzoo.benchmark.summary import latest_rows
from tabzoo.errors import InputError
from tabzoo.scores.rows import METRICS, ORACLE, RESULTS, Row, append_row, read_rows, row_key

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
        file.write(json.dumps(second.to_dict())[:50])
    assert read_rows(tmp_path) == [first]
    append_row(tmp_path, second)
    assert read_rows(tmp_path) == [first, second]


def test_several_may_append_at_once(tmp_path: Path, make_row: MakeRow) -> None:
    rows = [make_row("random", f"class {i}") for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda row: append_row(tmp_path, row), rows))
    assert {row.key for row in read_rows(tmp_path)} == {row.key for row in rows}


def test_of_rows_with_one_key_the_last_counts(tmp_path: Path, make_row: MakeRow) -> None:
    append_row(tmp_path, make_row(key="0123456789abcdef", aupro=0.1))
    append_row(tmp_path, make_row(key="0123456789abcdef", aupro=0.2))
    assert [row.aupro for row in read_rows(tmp_path)] == [0.2]


def test_a_line_that_is_no_row_is_named(tmp_path: Path, make_row: MakeRow) -> None:
    append_row(tmp_path, make_row())
    with (tmp_path / RESULTS).open("a") as file:
        file.write('{"backbone": "random"}\n')
    with pytest.raises(InputError, match=f"{RESULTS}, line 2: not a row of results"):
        read_rows(tmp_path)


def test_keys_follow_the_content_alone() -> None:
    assert row_key({"a": 1, "b": [2]}) == row_key({"b": [2], "a": 1})
    assert row_key({"a": 1}) != row_key({"a": 2})


def test_a_whole_last_line_without_its_end_is_a_row(tmp_path: Path, make_row: MakeRow) -> None:
    first, second, third = (make_row("random", name) for name in ("nut", "bolt", "screw"))
    append_row(tmp_path, first)
    with (tmp_path / RESULTS).open("a") as file:
        file.write(json.dumps(second.to_dict()))  # an editor that ends no last line
    assert read_rows(tmp_path) == [first, second]
    append_row(tmp_path, third)
    assert read_rows(tmp_path) == [first, second, third]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "93", "-0.1", '"0.9"', "[]"])
@pytest.mark.parametrize("metric", ["image_auroc", "aupro", "oracle_image_auroc"])
def test_metrics_are_numbers_from_0_to_1(tmp_path: Path, make_row: MakeRow, metric: str, value: str) -> None:
    line = json.dumps(json.loads(json.dumps(make_row().to_dict())) | {metric: "HERE"}).replace('"HERE"', value)
    (tmp_path / RESULTS).write_text(f"{line}\n")
    with pytest.raises(InputError, match=f"line 1: not a row of results .{metric} is .*expected a number from 0 to 1"):
        read_rows(tmp_path)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe{}\n", "{}\n".encode("utf-16"), b"[" * 100_000 + b"\n", b"3\n", b"null\n"]
)
def test_lines_of_another_kind_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / RESULTS).write_bytes(content)
    with pytest.raises(InputError, match="line 1: not a row of results"):
        read_rows(tmp_path)


def test_rows_of_other_weights_or_images_under_one_name_are_left_out(make_row: MakeRow) -> None:
    """States come back: of images D1, D2, D1 the rows of D1 count again, though none was computed anew."""
    d1, d2 = (make_row("mine", "nut", data_sha256=name) for name in ("D1", "D2"))
    other = make_row("mine", "bolt")
    assert latest_rows([d1, d2, other]) == ([d2, other], 1)  # the last state
    assert latest_rows([d1, d2, other], {d1.key, other.key}) == ([d1, other], 1)  # the one that was asked for
    w1 = [make_row("mine", name, seed, weights_sha256="W1") for name in ("nut", "bolt") for seed in (0, 1)]
    w2 = make_row("mine", "nut", 0, weights_sha256="W2")
    assert latest_rows([*w1, w2]) == ([w2], 4)  # never both under one name
    assert latest_rows([*w1, w2], {row.key for row in w1}) == (w1, 1)
    random = [make_row("random", "nut", seed, weights_sha256=f"R{seed}") for seed in (0, 1)]
    assert latest_rows([*random, w2]) == ([*random, w2], 0)  # other weights for each seed


ODD: list[object] = [
    "text",
    "\ud800",
    7,
    -1,
    1.5,
    math.nan,
    math.inf,
    True,
    None,
    [],
    ["a"],
    [1],
    {},
    {"a": [1, {}]},
    10**400,
]
ACCEPTED: dict[str, list[object]] = {
    **{name: ["text"] for name in ("backbone", "method", "dataset", "class", "test", "weights_sha256", "data_sha256")},
    **{"hardware": ["text"], "created": ["text"], "seed": [7], "shots": [7, None], "peak_memory": [7, None]},
    **{"transductive": [True], "draw": [None, [], ["a"]], **{name: [None] for name in (*METRICS, ORACLE)}},
    **{"settings": [{}, {"a": [1, {}]}], "versions": [{}], "seconds": [{}], "undefined_because": [{}]},
}


def test_every_field_of_a_row_is_what_it_should_be(tmp_path: Path, make_row: MakeRow) -> None:
    """A row of another type is named with its line and its field; the others stay, and nothing is deleted."""
    good = make_row()
    for field in json.loads(json.dumps(good.to_dict())):
        for value in ODD:
            row = json.loads(json.dumps(good.to_dict())) | {field: value}
            content = f"{json.dumps(good.to_dict())}\n{json.dumps(row)}\n"
            (tmp_path / RESULTS).write_text(content)
            if any(value is one or (value == one and type(value) is type(one)) for one in ACCEPTED.get(field, [])):
                assert read_rows(tmp_path)
                continue
            with pytest.raises(InputError, match=f"{RESULTS}, line 2: not a row of results \\({field} is .*; expected"):
                read_rows(tmp_path)
            assert (tmp_path / RESULTS).read_text() == content


@pytest.mark.parametrize(
    "content",
    [
        *("row".encode("utf-16"), b"\xff\xfe\n", b"[" * 100_000 + b"\n", b"[]\n", b"7\n", b"null\n", b"{}\n"),
        b'{"key": ' + b"9" * 5000 + b"}\n",
    ],
)
def test_files_that_hold_no_rows(content: bytes, tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_bytes(content + b"\n")
    with pytest.raises(InputError, match=f"{RESULTS}, line 1: not a row of results .*Remove the line"):
        read_rows(tmp_path)


def test_a_folder_in_place_of_the_rows(tmp_path: Path, make_row: MakeRow) -> None:
    (tmp_path / RESULTS).mkdir()
    with pytest.raises(InputError, match=f"{RESULTS}: expected a file"):
        read_rows(tmp_path)
