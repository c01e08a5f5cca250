"""The page of a run: verdicts, tables and pictures of the rows in its folder."""

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from browser import Elements, check_loads_nothing, needs_browser, open_page
from PIL import Image

from tabzoo.benchmark import page
from tabzoo.benchmark.__main__ import main
from tabzoo.benchmark.options import Options
from tabzoo.benchmark.page import write_page
from tabzoo.benchmark.run import run
from tabzoo.plain import for_path
from tabzoo.scores.compare import compare
from tabzoo.scores.rows import Row, append_row

BAD = "<script>alert(1)</script>\"'\x1b\u202e"
SEEN = "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;\\x1b\\u202e"


@pytest.fixture
def rows(make_row: Callable[..., Row]) -> list[Row]:
    """Two backbones, two methods and two classes, one with an odd name; the second backbone is better."""
    made = [
        make_row(name, of, 0, shift=1 + 3 * (name == "mine"), method=method)
        for method in ("padim", "patchcore")
        for name in ("start", "mine")
        for of in ("nut", BAD)
    ]
    return [dataclasses.replace(row, transductive=row.backbone == "mine") for row in made]


def written(folder: Path) -> str:
    return (folder / "index.html").read_text(encoding="utf-8")


def draw(folder: Path, name: str, side: int = 20) -> None:
    path = folder / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)).save(path)


def test_verdicts_differences_and_tables(rows: list[Row], tmp_path: Path) -> None:
    write_page(tmp_path, rows, order=["start", "mine"])
    text = written(tmp_path)
    elements = check_loads_nothing(text)
    by_method, *tables, weights = elements.tables
    assert '<div class="verdict better"><b>mine</b>' in text
    assert "with padim and patchcore, seed 0." in text
    assert "Transductive: mine was pre-trained on images of nut" in text
    padim = [row for row in rows if row.method == "padim"]
    one = compare(padim[:2], [padim[2:]])
    numbers = [f"{100 * value:+.1f}" for value in (one.difference, one.low, one.high)]
    assert by_method[1] == ["mine", "padim on factory, all good training images", "better", *numbers, "40", "60", "2"]
    assert f"{numbers[0]} ({numbers[1]} to {numbers[2]})" in text
    assert len(tables) == 2 * 3
    start, mine = (100 * float(row.image_auroc or 0) for row in (padim[0], padim[2]))
    assert tables[0][0] == ["class", "start", "mine", "mine - start"]
    assert ["nut", f"{start:.1f}", f"{mine:.1f} t", f"{mine - start:+.1f}"] in tables[0]
    assert tables[0][-1][0] == "average (2)"
    assert [row[:2] for row in weights[1:]] == [
        [name, method] for method in ("padim", "patchcore") for name in ("start", "mine")
    ]
    assert "Left out" not in text


def test_names_are_only_text(rows: list[Row], tmp_path: Path) -> None:
    named = [dataclasses.replace(row, backbone=BAD if row.backbone == "mine" else "start", dataset=BAD) for row in rows]
    write_page(tmp_path, named, order=["start"], left_out=2)
    text = written(tmp_path)
    assert Elements(text).tags.count("script") == 1  # ours
    assert SEEN in text
    assert not set(text) & {"\x1b", "\u202e"}
    assert "Left out: 2 rows" in text


def test_pictures_of_the_rows_are_inside_as_many_as_fit(
    rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("roc/padim", "maps/padim/nut", f"maps/padim/{for_path(BAD)}", "maps/patchcore/nut", "maps/padim/old"):
        draw(tmp_path, name)
    write_page(tmp_path, rows, order=["start"])
    assert len(Elements(written(tmp_path)).sources) == 4
    assert "roc and maps beside this page" not in written(tmp_path)
    drawn = {row.key for row in rows if row.method == "patchcore"}
    write_page(tmp_path, rows, order=["start"], drawn=drawn)
    assert len(Elements(written(tmp_path)).sources) == 1
    monkeypatch.setattr(page, "_CHARACTERS", 2 * len(max(Elements(written(tmp_path)).sources, key=len)))
    write_page(tmp_path, rows, order=["start"])
    assert len(Elements(written(tmp_path)).sources) in (1, 2)
    assert "more pictures are in the folders roc and maps beside this page" in written(tmp_path)


def test_what_can_not_be_judged_is_said(rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_page(tmp_path, [row for row in rows if row.backbone == "start"], order=["start"])
    assert "There is nothing to compare" in written(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    write_page(tmp_path, rows, order=["start"])
    text = written(tmp_path)
    assert "they need SciPy" in text
    assert "<svg" not in text
    assert len(Elements(text).tables) == 2 * 3 + 1


def test_synthetic_and_real_tests_have_verdicts_of_their_own(rows: list[Row], tmp_path: Path) -> None:
    proxy = [dataclasses.replace(row, test="synthetic:perlin", key=row.key[::-1]) for row in rows]
    write_page(tmp_path, rows + proxy, order=["start"])
    text = written(tmp_path)
    assert "<h2>Verdict</h2>" in text
    assert "<h2>Verdict on synthetic anomalies (perlin), a proxy</h2>" in text
    assert text.count("PROXY: synthetic perlin anomalies") == 2
    assert text.count('<div class="verdict better">') == 2


def test_a_run_and_table_write_it(options: Callable[..., Options], tmp_path: Path) -> None:
    run(options(backbone=["random:test_resnet", "random:resnet10t"], classes=["capsule"]), progress=False)
    text = written(tmp_path / "out")
    assert len(check_loads_nothing(text).sources) == 2  # curves and a grid
    assert "<b>random:resnet10t</b>" in text
    assert "Baseline: <b>random:test_resnet</b>" in text
    (tmp_path / "out" / "index.html").unlink()
    assert main(["table", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out" / "index.html").exists()
    assert main(["table", str(tmp_path / "out"), "--page"]) == 0
    assert written(tmp_path / "out") == text


def test_the_page_of_table_is_that_of_one_folder(
    rows: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for row in rows:
        append_row(tmp_path, row)
    for outputs in ([str(tmp_path)] * 2, [str(tmp_path / "results.jsonl")]):
        assert main(["table", *outputs, "--page"]) == 2
        assert "--page: expected one output folder of runs; got" in capsys.readouterr().err


@needs_browser
def test_it_opens_and_sorts(rows: list[Row], tmp_path: Path) -> None:
    draw(tmp_path, "maps/padim/nut", side=400)
    write_page(tmp_path, rows, order=["start"])
    click = 'document.querySelectorAll("table.sortable")[1].querySelector("thead button").click();'
    for script, names in (("", [BAD, "nut"]), (click * 2, ["nut", BAD])):
        opened = open_page(tmp_path / "index.html", tmp_path / "profile", script=script)
        assert opened.console == []
        table = check_loads_nothing(opened.dom).tables[1]
        assert [len(one) for one in Elements(opened.dom).tables] == [3, *[4] * 6, 5]
        assert [line[0].startswith("nut") for line in table[1:]] == [name == "nut" for name in (*names, "average")]
        assert "average (2)" in table[3][0]
