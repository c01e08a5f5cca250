"""Text from outside: nothing of it steers a terminal, breaks a table or leaves a folder."""

import json
import logging
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabzoo.command import log_to_terminal
from tabzoo.plain import for_lines, for_path, for_sheet, for_table, for_terminal, plain_json

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates too


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("metal nut, Größe 3 µm", "metal nut, Größe 3 µm"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("a\rb\nc\td", r"a\rb\nc\td"),
        ("\x7f\x80\x9b31m", r"\x7f\x80\x9b31m"),
        ("\u202egnp.exe\u2066", r"\u202egnp.exe\u2066"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ("\ud800", r"\ud800"),
        (b"caf\xe9".decode(errors="surrogateescape"), r"caf\xe9"),
        (r"C:\new", r"C:\new"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text: str, shown: str) -> None:
    assert for_terminal(text) == shown


@given(ANY_TEXT)
def test_any_text_becomes_one_line_that_can_be_written_and_stays_so(text: str) -> None:
    shown = for_terminal(text)
    shown.encode()
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert for_terminal(shown) == shown
    assert len(for_lines(text).split("\n")) == text.count("\n") + 1


def test_a_message_keeps_its_lines() -> None:
    assert for_lines("one:\n  \x1b[1mtwo\r") == "one:\n  \\x1b[1mtwo\\r"


@pytest.mark.parametrize(
    ("text", "cell"), [("a|b", r"a\|b"), ("a\n| b |", r"a\n\| b \|"), (r"a\|b", r"a\\\|b"), (r"a\b", r"a\b")]
)
def test_a_cell_stays_one_cell(text: str, cell: str) -> None:
    assert for_table(text) == cell


@pytest.mark.parametrize("start", [*"=+-@", " =", "\uff1d", "\xa0@"])
def test_a_spreadsheet_computes_no_name(start: str) -> None:
    assert for_sheet(f"{start}1+1.png") == f"'{start}1+1.png"
    assert for_sheet("a=b.png") == "a=b.png"
    assert for_sheet("\t=1") == r"\t=1"


@pytest.mark.parametrize(
    "name", ["bottle", "metal nut", "Größe µ 検査", "resnet18.tab_mvtec", "a~b", "-x", "conny", "x" * 100]
)
def test_ordinary_names_are_left_as_they_are(name: str) -> None:
    assert for_path(name) == name


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("", ""),
        ("..", "_"),
        ("...", "_"),
        (".hidden", "_hidden"),
        ("../../etc/passwd", "__.._etc_passwd"),
        ("a\\b:c|d", "a_b_c_d"),
        ("\x1b[2J\n", "_[2J_"),
        ("nul", "_nul"),
        ("Aux.txt", "_Aux.txt"),
        ("name. ", "name_"),
        ("\ud800", "_"),
        ("ü" * 51, "ü" * 43),
        ("x~0123456789ab", "x~0123456789ab"),
    ],
)
def test_other_names_are_changed_and_marked(name: str, stem: str) -> None:
    changed = for_path(name)
    assert re.fullmatch(re.escape(stem) + "~[0-9a-f]{12}", changed), changed


@given(ANY_TEXT, ANY_TEXT)
def test_names_become_single_components_and_stay_distinct(one: str, two: str) -> None:
    first = for_path(one)
    assert Path(first).name == first
    assert not first.startswith(".")
    assert not first.endswith((".", " "))
    assert for_terminal(first) == first
    assert 0 < len(first.encode()) <= 100
    assert (for_path(two) == first) == (one == two)
    # What another name was changed to is itself a name that may come from outside.
    assert (for_path(first) == first) == (first == one)


def test_log_messages_are_plain_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    log_to_terminal(logging.WARNING)
    logging.getLogger("tabzoo.test").warning("%s:\n  is odd", "\x1b[2J")
    assert capsys.readouterr().err == "\\x1b[2J:\n  is odd\n"


def test_json_for_people_is_json() -> None:
    content = {"Größe\u202e": ["\x1b\x9b\ud800\n", 1.5, None]}
    shown = plain_json(content)
    assert json.loads(shown) == content
    assert "Größe" in shown
    assert shown.replace("\n", "").isprintable()
