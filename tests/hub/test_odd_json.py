"""The JSON of a folder from elsewhere, and names in it: whatever they hold, an error is one line that steers no terminal."""

import copy
import itertools
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from small import rows

import tabzoo
from tabzoo.cli import main
from tabzoo.errors import InputError, TabzooError, WeightsError
from tabzoo.hub import store
from tabzoo.hub.card import published_card, read_results
from tabzoo.hub.folder import verify
from tabzoo.hub.load import install
from tabzoo.plain import PlainFormatter

Output = pytest.CaptureFixture[str]
NAME = "test_resnet.tab_here"
CLEAR = "\x1b[2J\u202e\x9b"


def _with(value: bytes) -> Callable[[bytes], bytes]:
    """One field more."""
    return lambda content: content.rstrip()[:-1] + b', "more": ' + value + b"}"


ODD: dict[str, Callable[[bytes], bytes]] = {
    "deep": _with(b"[" * 100_000 + b"]" * 100_000),
    "less deep": _with(b'{"a":' * 300 + b"1" + b"}" * 300),
    "latin-1": _with('"\xe9"'.encode("latin-1")),
    "utf-16": lambda content: content.decode().encode("utf-16"),
    "5,000 digits": _with(b"9" * 5000),
    "NaN": _with(b"NaN"),
    "list": lambda content: b"[]",
    "empty": lambda content: b"",
}


@pytest.fixture
def folder(small_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small_folder, tmp_path / NAME)


def one_line(shown: str) -> bool:
    return shown.startswith("error: ") and shown.count("\n") == 1 and shown[:-1].isprintable() and len(shown) < 1000


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", ["tabzoo.json", "config.json"])
def test_every_command_tells_of_files_that_are_no_json(
    name: str, kind: str, folder: Path, home: Path, capsys: Output, caplog: pytest.LogCaptureFixture
) -> None:
    install("test_resnet.odd", folder)
    for place in (folder, home / "weights" / "test_resnet.odd"):
        (place / name).write_bytes(ODD[kind]((place / name).read_bytes()))
    for command in (
        ["verify", str(folder)],
        ["install", "test_resnet.other", str(folder)],
        ["publish", str(folder), "--repo", f"org/{NAME}", "--dry-run"],
        ["download", str(folder), "--to", str(home / "out")],
    ):
        assert main(command) == 2, command
        shown = capsys.readouterr().err
        assert one_line(shown), shown
        assert str(folder / name) in shown
    with pytest.raises(WeightsError, match=name):
        tabzoo.create_model(folder)
    with pytest.raises(WeightsError, match=rf"{name}.*Type `tabzoo uninstall test_resnet\.odd`"):
        tabzoo.create_model("test_resnet.odd")
    capsys.readouterr()
    assert main(["list"]) == 0
    assert re.search(r"^test_resnet\.odd +broken ", capsys.readouterr().out, re.M)
    assert [one.name for one in store.installed()] == []
    assert name in caplog.text
    assert main(["info", "test_resnet.odd"]) == 0
    assert "broken" in capsys.readouterr().out


def places(table: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    for key, value in table.items() if isinstance(table, dict) else enumerate(table):
        yield (*before, key)
        if isinstance(value, dict | list):
            yield from places(value, (*before, key))


def put(table: Any, place: tuple[Any, ...], value: object) -> Any:
    changed = copy.deepcopy(table)
    at = changed
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    return changed


ODD_TEXT = (f"{CLEAR}\ud800\n| x |", {CLEAR: [None]})
VALUES = (None, True, -1, 10**4000, 1e999, "", "x" * 10**5, [], [[]], {}, *ODD_TEXT)


@pytest.mark.parametrize("name", ["tabzoo.json", "config.json", "installed.json"])
def test_any_value_in_any_place_is_an_error_or_harmless(
    name: str, folder: Path, home: Path, capsys: Output, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(folder, home / "weights" / NAME)
    (home / "weights" / NAME / "installed.json").write_text('{"from": "x", "installed": "2026"}')
    path = home / "weights" / NAME / name
    whole = json.loads(path.read_text())
    caplog.set_level(logging.WARNING, "tabzoo")
    for place, value in itertools.product(places(whole), VALUES):
        text = json.dumps(put(whole, place, value)).replace("Infinity", "1e999")
        path.write_text(text)
        info = [] if name == "config.json" else [["info", NAME]]  # which shows nothing of it
        for command in (["list"], *info, *([["list", "--json"]] if value in ODD_TEXT else [])):
            assert main(command) == 0, (place, value)
            shown = capsys.readouterr().out
            assert shown.replace("\n", "").isprintable(), (place, value)
            assert "--json" not in command or json.loads(shown)
            assert command != ["list"] or len(shown) < 1000, (place, value)
        message = ""
        try:
            verify(path.parent)
        except TabzooError as error:
            message = str(error)
        assert len(message) < 1000, (place, value)
    assert all(PlainFormatter().format(record).isprintable() for record in caplog.records)


@pytest.mark.parametrize("name", [f"a{CLEAR}b", "x" * 10**5, "a\nb"])
def test_names_of_tensors_are_plain_text(name: str, folder: Path, capsys: Output) -> None:
    tensors = load_file(folder / "model.safetensors") | {name: torch.ones(1)}
    (folder / "model.safetensors").write_bytes(save(tensors))
    (folder / "tabzoo.json").unlink()
    assert main(["verify", str(folder / "model.safetensors")]) == 2
    shown = capsys.readouterr().err
    assert one_line(shown)
    assert "a tensor has the name" in shown


def test_no_command_prints_what_steers_a_terminal(folder: Path, home: Path, tmp_path: Path, capsys: Output) -> None:
    odd = tmp_path / f"odd{CLEAR}\n\udce9"
    folder.rename(odd)
    for command in (
        ["verify", str(odd)],
        ["verify", str(odd), "--json"],
        ["install", NAME, str(odd)],
        ["info", NAME],
        ["list", "--json"],
        ["download", str(odd), "--to", str(tmp_path / f"out{CLEAR}")],
        ["uninstall", NAME],
    ):
        assert main(command) == 0, command
        shown = capsys.readouterr()
        assert (shown.out + shown.err).replace("\n", "").isprintable(), command
    for command in (
        ["verify", f"none{CLEAR}"],
        ["info", f"none{CLEAR}"],
        ["uninstall", CLEAR],
        ["install", CLEAR, str(odd)],
        ["install", NAME, f"none{CLEAR}"],
        ["publish", str(odd), "--repo", CLEAR],
        ["publish", str(odd), "--repo", f"org/{NAME}", "--version", CLEAR],
        ["convert", str(odd / "config.json"), "--to", str(tmp_path / "new"), "--name", "resnet18.x"],
        ["convert", f"none{CLEAR}", "--to", str(tmp_path / "new"), "--name", CLEAR],
        ["download", f"hf-hub:{CLEAR}", "--to", str(tmp_path / "new")],
        ["install", NAME, str(odd), CLEAR],
        ["list", f"--x{CLEAR}"],
    ):
        try:
            code = main(command)
        except SystemExit as error:  # of a wrong flag
            code = int(error.code or 0)
        assert code == 2, command
        assert capsys.readouterr().err.replace("\n", "").isprintable(), command


@pytest.mark.parametrize(
    "field", ["key", "backbone", "class", "dataset", "method", "seed", "shots", "test", "settings"]
)
def test_results_of_another_type_are_refused(field: str, tmp_path: Path) -> None:
    for value in (1.5, True, [1], f"x{CLEAR}" * 1000 if field in ("seed", "shots", "settings") else {"a": 1}):
        with pytest.raises(InputError, match=f"{field} is .*; expected ") as caught:
            read_results([rows(tmp_path / "results.jsonl", [{field: value}])], [NAME])
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("kind", ["deep", "latin-1", "utf-16", "5,000 digits", "list"])
def test_results_that_are_no_json(kind: str, tmp_path: Path) -> None:
    path = rows(tmp_path / "results.jsonl", [{}])
    path.write_bytes(ODD[kind](path.read_bytes()))
    with pytest.raises(InputError, match="results"):
        read_results([tmp_path], [NAME])


def test_a_data_set_does_not_break_the_cards_table(tmp_path: Path) -> None:
    measured = rows(tmp_path / "results.jsonl", [{"dataset": f"a|b\n{CLEAR}", "method": "c|d"}])
    results = read_results([measured], [NAME])
    text = "---\nlicense: mit\n---\n# x\n"
    options: dict[str, Any] = {"name": NAME, "license": "mit", "source": "x", "datasets": [f"\udce9{CLEAR}"]}
    card = published_card(text, results=results, **options)
    assert r"| a\|b\n\x1b[2J\u202e\x9b | c\|d | all good images |" in card
    assert card.replace("\n", "").isprintable()
    with pytest.raises(WeightsError, match="metadata between the lines of --- can't be read"):
        published_card("---\n1: 2\n---\n# x\n", results=results, **options)
