"""The page: complete in one file, and safe for names from outside."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import check_loads_nothing, needs_browser, open_page

from tabzoo.plain import for_path
from tabzoo.scores.compare import Comparison
from tabzoo.training.recipe import Recipe
from tabzoo.trial.page import Page, Score, write_page
from tabzoo.trial.split import Split
from tabzoo.trial.verdict import judge

BAD = "<b>x</b>\x1b[31m\u202e"


@pytest.fixture
def page(tmp_path: Path) -> str:
    one = Comparison(
        difference=0.02, low=0.01, high=0.03, p_value=0.01, good=9, defective=8, classes=2, training_runs=1
    )
    numbers: dict[str, Any] = {
        **{"test": "synthetic:perlin", "methods": {"padim": [0, 1, 2]}, "train": 40, "epochs": 3, "steps": 6},
        "runs": [{"folder": "runs/seed_0", "weights_sha256": "ab" * 32, "change": 0.1}],
    }
    verdict = judge(
        one, start=BAD, result="runs/seed_0", kind="perlin", untrained_texts=False, change=0.1, numbers=numbers
    )
    grid = tmp_path / "benchmark/maps/padim" / f"{for_path(BAD)}.png"
    grid.parent.mkdir(parents=True)
    grid.write_bytes(b"a picture")
    rows = np.arange(3)
    content = Page(
        verdict=verdict,
        by_class={BAD: one, "nut": one},
        scores=[Score(BAD, "padim", 0.9, 0.92, None, None), Score("nut", "padim", 0.8, 0.82, 0.7, 0.71)],
        notes=(f"Left out: {BAD}",),
        data=BAD,
        split=Split(train=rows, good=rows, defective=rows[:0], held_out=3, tested=(BAD, "nut"), notes=()),
        recipe=Recipe(class_names={BAD: BAD}),
        device=torch.device("cpu"),
        texts_sha256="cd" * 32,
        start_sha256="ef" * 32,
        minutes=1.5,
    )
    write_page(content, tmp_path)
    return (tmp_path / "index.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def test_it_loads_nothing(page: str) -> None:
    tags = Tags(page)
    assert tags.addresses == ["data:image/png;base64,YSBwaWN0dXJl"]
    assert not tags.names & {"script", "link", "iframe", "object"}
    assert not re.search(r"https?://|url\(|@import", page)
    assert "default-src 'none'" in page


def test_names_are_escaped(page: str) -> None:
    assert "b" not in Tags(page).names
    assert "&lt;b&gt;x&lt;/b&gt;\\x1b[31m\\u202e" in page
    assert not set(page) & {"\x1b", "\u202e"}


def test_it_says_what_was_found(page: str) -> None:
    for text in ("+2.0 (+1.0 to +3.0)", "92.0", "1.5 minutes", "3 epochs", "ab" * 32, "cd" * 32, "ef" * 32, "a proxy"):
        assert text in page
    assert "padim: 0, 1, 2" in page
    assert "there was one" in page


@needs_browser
def test_a_browser_has_nothing_to_complain_of(page: str, tmp_path: Path) -> None:
    opened = open_page(tmp_path / "index.html", tmp_path / "profile")
    assert opened.console == []
    scores, hashes = check_loads_nothing(opened.dom).tables
    assert [len(scores), len(hashes)] == [3, 4]
