"""The page of scored photos: what it says, and that names from outside are only text in it."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from browser import Elements, check_loads_nothing, needs_browser, open_page
from PIL import Image

from tabzoo.hub.files import Digest
from tabzoo.inspect import page
from tabzoo.inspect import record as records
from tabzoo.inspect.page import write_page
from tabzoo.inspect.record import DetectorRecord
from tabzoo.inspect.threshold import Threshold

BAD = "<script>alert(1)</script>\"'\x1b\u202e.png"


class Row(NamedTuple):
    file: str
    score: float | None
    verdict: str
    percentile: float | None = 50.0
    milliseconds: float | None = 12.0
    error: str = ""
    overlay: str = ""


@pytest.fixture
def record() -> DetectorRecord:
    threshold = Threshold(
        value=4.0,
        **{"false_alarms_asked": 0.01, "false_alarms_expected": 30.0, "false_alarms_low": 1.0},
        **{"false_alarms_high": 90.0, "photos": 4, "folds": 4, "quantile": 1.0, "words": "Expect 1 to 90 <b>."},
    )
    return DetectorRecord(
        **{"method": "padim", "settings": {"channels": 100}, "layers": ("layer1",), "size": 224},
        **{"resampling": "lanczos", "mean": (0.5,) * 3, "std": (0.5,) * 3, "class_name": BAD},
        **{"backbone": {"name": "random:resnet18", "architecture": "resnet18", "license": None}},
        **{"threshold": threshold, "good_scores": (1.0, 2.0, 3.0, 4.0), "scale": records.Scale(0.5, 9.0)},
        **{"tested": records.Tested(30, 28, 20, 1), "blank_score": 1.0},
        **{"provenance": {"photos": 4, "versions": {"torch": "2.4"}, "command": f"tabzoo fit --class '{BAD}'"}},
        **{"files": {"state.safetensors": Digest("ab" * 32, 62_700_000)}},
    )


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """Scores 0 to 11 of twelve photos in one folder, in an odd order, and two files that are no photos."""
    folder, made = tmp_path / "photos", []
    (tmp_path / "overlays").mkdir()
    folder.mkdir()
    for index in (7, 3, 11, 0, 1, 2, 4, 5, 6, 8, 9, 10):
        name, overlay = f"{index}.png", f"overlays/a #{index}.png"
        for path in (folder / name, tmp_path / overlay):
            Image.fromarray(np.full((40, 30, 3), 20 * index, np.uint8)).save(path)
        verdict = "defective" if index > 4 else "good"
        made.append(Row(str(folder / name), float(index), verdict, overlay=overlay))
    for name in (BAD, "b.png"):
        made.append(Row(str(folder / name), None, "error", None, None, error=f"not an image: {BAD}"))
    return made


def written(folder: Path) -> str:
    return (folder / "index.html").read_text(encoding="utf-8")


def test_it_says_what_was_found(tmp_path: Path, record: DetectorRecord, rows: list[Row]) -> None:
    write_page(tmp_path, record, rows, notes=["The camera is <i>dirty</i>."])
    text = written(tmp_path)
    elements = check_loads_nothing(text)
    errors, photos, files = elements.tables
    assert "7 of 12 photos are defective; 2 could not be scored." in text
    assert "Expect 1 to 90 &lt;b&gt;." in text
    assert "28 of 30 defects and 1 of 20 good photos are above it" in text
    assert "The camera is &lt;i&gt;dirty&lt;/i&gt;." in text
    assert f"Photos in {tmp_path / 'photos'}." in text
    assert [row[:4] for row in photos[1:4]] == [[f"{i}.png", "defective", str(i), "50.0"] for i in (11, 10, 9)]
    assert [row[1] for row in photos[1:]] == ["defective"] * 7 + ["good"] * 5
    assert [row[0] for row in errors[1:]] == ["<script>alert(1)</script>\"'\\x1b\\u202e.png", "b.png"]
    assert files[1] == ["state.safetensors", "62,700,000", "ab" * 32]
    assert "overlays/a%20%2311.png" in elements.links


def test_green_only_if_all_photos_were_scored(tmp_path: Path, record: DetectorRecord, rows: list[Row]) -> None:
    good, unread = [row for row in rows if row.verdict == "good"], rows[-1]
    for shown, state in (([*good, unread], ""), (good, "good"), (rows, "defective"), ([unread], "")):
        write_page(tmp_path, record, shown)
        assert f'<div class="verdict {state}">' in written(tmp_path)


def test_names_are_only_text(tmp_path: Path, record: DetectorRecord, rows: list[Row]) -> None:
    write_page(tmp_path, record, rows)
    text = written(tmp_path)
    assert Elements(text).tags.count("script") == 1  # ours
    assert "alert(1)</script>" not in text
    assert not set(text) & {"\x1b", "\u202e"}


def test_pictures_are_capped(
    tmp_path: Path, record: DetectorRecord, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "_PICTURES", 2)
    monkeypatch.setattr(page, "_ROWS", 9)
    monkeypatch.setattr(page, "_ERRORS", 1)
    write_page(tmp_path, record, rows)
    elements, text = Elements(written(tmp_path)), written(tmp_path)
    assert len(elements.sources) == 2 * 3  # thumbnail, overlay, photo
    assert "The 2 most anomalous photos have a picture" in text
    assert [len(table) - 1 for table in elements.tables[:2]] == [1, 9]
    assert "lists the most anomalous photos. 3 more are in scores.csv" in text
    assert "1 more are in scores.csv" in text
    assert "12 photos scored now" in text  # the histogram has all


def test_photos_that_are_gone_have_no_picture(tmp_path: Path, record: DetectorRecord, rows: list[Row]) -> None:
    write_page(tmp_path, record, rows)
    assert len(Elements(written(tmp_path)).sources) == 12 * 3
    for row in rows[:6]:
        Path(row.file).unlink(missing_ok=True)
    Path(rows[6].file).write_bytes(b"no photo")
    write_page(tmp_path, record, rows)
    assert len(Elements(written(tmp_path)).sources) == 5 * 3


def test_a_page_without_scores(tmp_path: Path, record: DetectorRecord) -> None:
    for rows in ([], [Row("a.png", None, "error", None, None, error="no such file")]):
        write_page(tmp_path, dataclasses.replace(record, tested=None), rows)
        assert "No photo was scored" in written(tmp_path)
    write_page(tmp_path, record, [Row("a/b.png", 1.0, "good"), Row("/c.png", 2.0, "good")])
    assert "No defect found in 2 photos." in written(tmp_path)
    assert [row[0] for row in Elements(written(tmp_path)).tables[0][1:]] == ["/c.png", "a/b.png"]


@needs_browser
def test_it_opens_and_sorts(tmp_path: Path, record: DetectorRecord, rows: list[Row]) -> None:
    rows[0] = rows[0]._replace(percentile=None)
    write_page(tmp_path, record, rows)
    opened = open_page(tmp_path / "index.html", tmp_path / "profile")
    assert opened.console == []
    errors, photos, _ = check_loads_nothing(opened.dom).tables
    assert [len(errors), len(photos)] == [3, 13]
    assert opened.dom.count("<button") == 2 + 5
    numbers = range(12)
    for columns, order in ([2], numbers), ([2, 2], numbers[::-1]), ([0], numbers), ([0, 0], numbers[::-1]):
        click = f'for (const n of {columns}) document.querySelectorAll("#photos thead button")[n].click();'
        after = open_page(tmp_path / "index.html", tmp_path / "profile", script=click)
        assert after.console == []
        names = [row[0] for row in Elements(after.dom).tables[1][1:]]
        assert names == [f"{index}.png" for index in order]  # 10 comes after 9
    for columns in ([3], [3, 3]):  # what has no value is the last, whatever the direction
        click = f'for (const n of {columns}) document.querySelectorAll("#photos thead button")[n].click();'
        after = open_page(tmp_path / "index.html", tmp_path / "profile", script=click)
        assert Elements(after.dom).tables[1][-1][0] == "7.png"
