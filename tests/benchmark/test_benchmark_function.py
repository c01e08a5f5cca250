"""`tabzoo.benchmark_backbones`: the command's rows, the command's mistakes, and nothing on the screen unless asked."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tabzoo
from tabzoo.benchmark.__main__ import main
from tabzoo.errors import InputError
from tabzoo.extras import how_to_install
from tabzoo.scores.rows import read_rows

SMALL = "random:test_resnet"


@pytest.fixture
def arguments(toy: Path, tmp_path: Path, sketches: None) -> dict[str, Any]:
    return {
        **{"data": toy, "output": tmp_path / "out", "resize": 40, "crop": 32},
        **{"cache": "ram", "workers": 0, "device": "cpu"},
    }


def test_it_measures_what_the_command_measures(
    arguments: dict[str, Any], toy: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """With one value where several are possible, and settings of a method; the rows come in the order of the arguments."""
    more: dict[str, Any] = {"settings": {"padim": {"channels": 20}}, "seeds": np.int64(1), "show": False}
    measured = tabzoo.benchmark_backbones(SMALL, classes=("hex_nut", "capsule"), **arguments, **more)
    assert capfd.readouterr() == ("", "")
    assert [(row.class_name, row.seed, row.backbone) for row in measured.rows] == [
        ("capsule", 1, SMALL),
        ("hex_nut", 1, SMALL),
    ]
    command = ["run", "--backbone", SMALL, "--data", str(toy), "--output", str(tmp_path / "command"), "--seeds", "1"]
    small = ["--resize", "40", "--crop", "32", "--cache", "ram", "--workers", "0", "--device", "cpu"]
    assert main([*command, *small, "--classes", "hex_nut", "capsule", "--padim-channels", "20"]) == 0
    assert measured.table in capfd.readouterr().out

    def numbers(rows: list[Any]) -> list[dict[str, Any]]:
        changing = ("seconds", "created", "peak_memory")
        return [{k: v for k, v in dataclasses.asdict(row).items() if k not in changing} for row in rows]

    assert numbers(measured.rows) == numbers(list(read_rows(tmp_path / "command")))

    # Rows that are there are not measured again, and those of another call are not returned.
    more |= {"shots": None}
    again = tabzoo.benchmark_backbones([SMALL], classes=["hex_nut"], **arguments, **(more | {"show": True}))
    assert [row.created for row in again.rows] == [measured.rows[1].created]
    assert "capsule" in again.table
    assert again.table in capfd.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 0}, "no option 'seed'. Did you mean 'seeds'?"),
        ({"methods": "padam"}, "--method padam: unknown; there are padim"),
        ({"methods": []}, "--method: expected at least one value"),
        ({"backbones": 3.5}, "backbones: 3.5 given, expected a list, each item a string"),
        ({"seeds": ["0"]}, "seeds: ['0'] given, expected a list, each item a whole number"),
        ({"backbones": {SMALL, "random"}}, "expected a list, each item a string"),
        ({"show": "no"}, "show: 'no' given, expected true or false"),
        ({"seeds": -1}, "--seeds -1: expected at least 0"),
        ({"shots": "4"}, "shots: ['4'] given, expected a list, each item a whole number"),
        ({"budget": "quik"}, "budget: 'quik' given, expected one of paper, quick. Did you mean 'quick'?"),
        ({"data": ""}, "data: '' given"),
        ({"data": None}, "data: None given, expected a string"),
        ({"methods": None}, "methods: None given, expected a list"),
        ({"shots": []}, "--shots: expected at least one value"),
        ({"output": ""}, "output: '' given"),
        ({"data": "missing"}, "missing"),
        ({"device": "gpu"}, "--device gpu: expected auto, cpu, cuda"),
        ({"settings": {"patchcore": {"share": 0.1}}}, "settings: 'patchcore' is not among the methods"),
        ({"settings": {"padim": 20}}, "settings: {'padim': 20} given, expected a table for each method"),
        ({"settings": ["padim"]}, "settings: ['padim'] given, expected a table for each method"),
        ({"settings": {"padim": {"features": 3}}}, "settings: padim has no 'features'"),
        ({"settings": {"padim": {"channels": "3"}}}, "--padim-channels: '3' given, expected a whole number"),
        ({"settings": {"padim": {"channels": 0}}}, "--padim-channels 0: expected at least"),
    ],
)
def test_mistakes_are_errors_with_the_commands_words(
    arguments: dict[str, Any], changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        tabzoo.benchmark_backbones(**({"backbones": SMALL} | arguments | changes))
    assert said in str(error.value)
    assert not list(tmp_path.iterdir())


def test_what_must_be_installed_is_said(arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError) as error:
        tabzoo.benchmark_backbones(SMALL, **arguments)
    assert str(error.value) == f"AUPRO needs SciPy: {how_to_install('benchmark')}"
