"""Rows of scores on the disk: nothing is lost by a stop, and nothing in a name does anything."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tabzoo.errors import InputError
from tabzoo.inspect.rows import CSV, JSONL, MARK, ScoreRow, csv_head, csv_line, open_scores, read_scores

ABOUT = {"threshold": 2.0}
ROW = ScoreRow(
    file="a.png",
    score=1.5,
    threshold=2.0,
    verdict="good",
    percentile=40.0,
    milliseconds=12.5,
    error="",
    overlay="",
    sha256="0" * 64,
)
BROKEN = replace(ROW, file="b.png", score=None, verdict="error", percentile=None, milliseconds=None, error="truncated")
ODD = [
    "a,b.png",
    'q"uote.png',
    "new\nline.png",
    "\x1b[2J.png",
    "\udce9.png",
    "\u202egnp.exe",
    "=1+1.png",
    "-x.png",
    "@a.png",
]


def written(path: Path, *rows: ScoreRow) -> Path:
    with open_scores(path, about=ABOUT, given=Path("detector")) as folder:
        for row in rows:
            folder.append(row)
    return path


@pytest.mark.parametrize("name", ODD)
def test_any_name_is_one_cell_of_csv_and_whole_in_json(name: str, tmp_path: Path) -> None:
    row = replace(ROW, file=name)
    folder = written(tmp_path / "out", row)
    assert read_scores(folder) == [row]
    text = (folder / CSV).read_text(encoding="utf-8")
    head, cells = csv.reader(io.StringIO(text))
    assert len(head) == len(cells)
    shown = cells[head.index("file")]
    assert shown.isprintable()
    assert not shown.startswith(("=", "+", "-", "@"))
    assert text.count("\n") == 2


def test_the_columns_are_those_that_scripts_know() -> None:
    assert csv_head() == "file,score,threshold,verdict,percentile,milliseconds,error,overlay,sha256"
    assert csv_line(BROKEN) == f"b.png,,2.0,error,,,truncated,,{'0' * 64}"


def test_a_row_is_on_the_disk_when_append_returns(tmp_path: Path) -> None:
    with open_scores(tmp_path, about=ABOUT, given=Path("d")) as folder:
        folder.append(ROW)
        assert json.loads((tmp_path / JSONL).read_text()) == ROW.__dict__
        assert (tmp_path / CSV).read_text() == f"{csv_head()}\n{csv_line(ROW)}\n"


def test_a_later_row_of_a_photo_counts(tmp_path: Path) -> None:
    later = replace(ROW, score=3.0, verdict="defective")
    folder = written(tmp_path, ROW, BROKEN, later)
    assert read_scores(folder) == [later, BROKEN]
    assert len((folder / JSONL).read_text().splitlines()) == 3


@pytest.mark.parametrize("left", ["", "file,sco", "{csv}a.png,1.", "{csv}b.png,1.5,2.0,good,,,,\n"])
def test_a_csv_that_a_stop_or_a_spreadsheet_left_is_written_again(tmp_path: Path, left: str) -> None:
    folder = written(tmp_path, ROW, BROKEN)
    whole = (folder / CSV).read_bytes()
    (folder / CSV).write_text(left.replace("{csv}", whole.decode()))
    with (folder / JSONL).open("a") as file:
        file.write('{"file": "c.p')  # stopped here
    written(folder)
    assert (folder / CSV).read_bytes() == whole
    (folder / CSV).unlink()
    written(folder)
    assert (folder / CSV).read_bytes() == whole


def test_scores_of_another_detector_are_not_mixed(tmp_path: Path) -> None:
    folder = written(tmp_path, ROW)
    with (
        pytest.raises(InputError, match=r"scores of another detector, detector, .*of new\. Name another"),
        open_scores(folder, about={"threshold": 2.1}, given=Path("new")),
    ):
        pass
    assert read_scores(folder) == [ROW]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notes.txt", "mine", "holds no scores of tabzoo"),
        (MARK, "{", "Name another --output, or remove"),
        (MARK, '{"format": 2}', "another version of tabzoo"),
    ],
)
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=said):
        written(tmp_path, ROW)
    assert (tmp_path / name).read_text() == content


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"score": "high"}, "score: 'high' is not a number"),
        ({"score": float("nan")}, "score: 'nan' is not a number"),
        ({"verdict": "fine"}, "verdict: 'fine' does not fit"),
        ({"verdict": "error"}, "verdict: 'error' does not fit"),
        ({"file": 3}, "file: '3' is not a text"),
    ],
)
def test_a_changed_row_is_an_error_that_names_its_line(tmp_path: Path, change: dict[str, object], said: str) -> None:
    folder = written(tmp_path, ROW)
    with (folder / JSONL).open("a") as file:
        file.write(json.dumps(ROW.__dict__ | change) + "\n")
    with pytest.raises(InputError, match=rf"scores\.jsonl, line 2: .*{said}"):
        read_scores(folder)


def test_two_processes_do_not_write_into_one_folder(tmp_path: Path) -> None:
    with (
        open_scores(tmp_path, about=ABOUT, given=Path("d")),
        pytest.raises(InputError, match="writes into it"),
        open_scores(tmp_path, about=ABOUT, given=Path("d")),
    ):
        pass
