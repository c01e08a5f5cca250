"""What all pages share: nothing is loaded, nothing runs but our own script, and figures are where they should be."""

import base64
import hashlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
from browser import check_loads_nothing
from jinja2 import UndefinedError
from PIL import Image

from tabzoo.pages import embed_file, embed_picture, histogram, interval_plot, write_html
from tabzoo.pages import environment as pages
from tabzoo.scores.compare import Comparison

BAD = "<script>alert(1)</script>\"'\x1b\u202e"


@pytest.fixture
def template(monkeypatch: pytest.MonkeyPatch) -> str:
    """A template that shows a text and an address."""
    text = (
        '{% extends "tabzoo.pages/base.html" %}{% block title %}{{ name }}{% endblock %}'
        '{% block content %}<p title="{{ name }}">{{ name | plain }}</p>{{ value | percent }}{% endblock %}'
    )
    read = pages._read
    monkeypatch.setattr(pages, "_read", lambda name: text if name == "tests/page.html" else read(name))
    pages._environment.cache_clear()
    monkeypatch.setattr(pages, "_environment", pages._environment.__wrapped__)
    return "tests/page.html"


def written(path: Path, template: str, **content: object) -> str:
    write_html(path / "new" / "page.html", template, **content)
    return (path / "new" / "page.html").read_text(encoding="utf-8")


def test_text_from_outside_is_only_text(template: str, tmp_path: Path) -> None:
    text = written(tmp_path, template, name=BAD, value=None)
    elements = check_loads_nothing(text)
    assert "script" not in elements.tags
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;\\x1b\\u202e</p>" in text


def test_only_the_style_and_the_script_of_the_page_are_allowed(template: str, tmp_path: Path) -> None:
    text = written(tmp_path, template, name="", value=0.5, sortable=True)
    (policy,) = re.findall('Content-Security-Policy" content="(.*?)"', text)
    assert "unsafe" not in policy
    for kind in ("style", "script"):
        (inside,) = re.findall(f"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_a_value_that_is_missing_is_an_error(template: str, tmp_path: Path) -> None:
    with pytest.raises(UndefinedError):
        written(tmp_path, template, name="")
    assert not (tmp_path / "new").exists()


def comparison(difference: float, half: float) -> Comparison:
    return Comparison(
        **{"difference": difference, "low": difference - half, "high": difference + half, "p_value": 0.5},
        **{"good": 1, "defective": 1, "classes": 1, "training_runs": 1},
    )


def test_intervals_are_placed_around_the_middle() -> None:
    plot = interval_plot([("mine", comparison(0.02, 0.02)), ("x" * 60, comparison(-0.01, 0.005))])
    assert plot.half == pytest.approx(0.04)
    middle = plot.width / 2
    for line, (low, at, high) in zip(plot.lines, [(0, 0.5, 1), (-0.375, -0.25, -0.125)], strict=True):
        places = [middle * (1 + one) for one in (low, at, high)]
        assert [line.low, line.middle, line.high] == pytest.approx(places, abs=0.06)
    assert plot.lines[0].label == "+2.0 (0.0 to +4.0)"
    assert len(plot.lines[1].short) < 30
    assert plot.lines[1].name == "x" * 60


def test_bars_count_the_scores() -> None:
    good, scored = [1.0, 1.1, 1.2, 1.2], [1.0, 1.9, 2.0, 2.1, 3.0]
    plot = histogram(good, scored, 2.0)
    above, below = plot.panels
    assert above.title.startswith("4 good photos")
    assert below.title == "5 photos scored now"
    assert (above.most, below.most) == (2, 1)
    counted = [int(bar.label.split()[0]) for bar in below.bars]
    assert sum(counted) == 5
    colours = {bar.colour for bar in above.bars}
    assert len(colours) == 1
    right = [bar for bar in below.bars if bar.colour not in colours]
    assert sum(int(bar.label.split()[0]) for bar in right) == 2  # the threshold itself is good
    assert all(bar.x >= plot.threshold for bar in right)
    assert all(bar.x + bar.width <= plot.threshold for panel in plot.panels for bar in panel.bars if bar not in right)
    assert plot.beyond == 0
    for bar in below.bars:
        assert bar.y + bar.height <= below.bottom + 0.1
        assert bar.y >= below.top - 0.1


def test_a_huge_score_does_not_press_the_others_together() -> None:
    plot = histogram([1.0, 1.5], [1.2, 1e6], 2.0)
    assert plot.beyond == 1
    assert plot.threshold == pytest.approx(plot.width / 4, abs=plot.width / 40)
    assert max(bar.x + bar.width for bar in plot.panels[1].bars) <= plot.width


@pytest.mark.parametrize("scored", [[], [0.0, 0.0], [-1.0], [5e-324]])
def test_odd_scores_have_a_histogram(scored: list[float]) -> None:
    plot = histogram([0.0, 0.0], scored, 0.0)
    assert all(np.isfinite([bar.x, bar.y, bar.width, bar.height]).all() for panel in plot.panels for bar in panel.bars)
    assert 0 <= plot.threshold <= plot.width
    assert 2 <= len(plot.ticks) <= 7


def test_large_pictures_become_small() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 600, 3), np.uint8)
    kind, _, content = embed_picture(pixels, 100).partition(";base64,")
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        assert (kind, picture.format, picture.size) == ("data:image/jpeg", "JPEG", (100, 50))


def test_files_keep_their_size_and_large_ones_become_jpeg(tmp_path: Path) -> None:
    for side, kind in ((40, "png"), (400, "jpeg")):
        pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "picture.png")
        address = embed_file(tmp_path / "picture.png")
        assert address.startswith(f"data:image/{kind};base64,")
        with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as picture:
            assert picture.size == (side, side)
