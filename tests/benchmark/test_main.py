"""The flags are a promise: this test is changed only when the promise is."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from PIL import Image

from tabzoo.benchmark.__main__ import COMMANDS, main
from tabzoo.benchmark.options import Options
from tabzoo.detectors import DETECTORS
from tabzoo.extras import how_to_install
from tabzoo.scores.rows import Row, append_row, read_rows

SMALL = "random:test_resnet"
FLAGS = {
    "run": """amp backbone batch-size budget cache cache-dir classes crop data device full-resolution layout
        method oracle output padim-channels padim-regularisation patchcore-neighbours patchcore-share
        patchcore-width rd4ad-batch-size rd4ad-epochs rd4ad-lr rd4ad-steps regad-batch-size regad-draws regad-epochs
        regad-lr regad-regularisation regad-steps resampling resize seeds shots simplenet-adaptor-lr
        simplenet-batch-size simplenet-discriminator-lr simplenet-gan-epochs simplenet-hidden
        simplenet-margin simplenet-meta-epochs simplenet-noise simplenet-steps simplenet-width test white-level workers""",
    "table": "across against page",
    "classify": """amp backbone batch-size budget cache-dir data device epochs labels lr mode optimizer output seeds size
        weight-decay workers""",
    "fid": "batch-size classes crop data device features layout output resize seed synthesis white-level",
    "panels": "backbone classes method output seed",
    "embed": "backbone batch-size classes crop data device layout output resize seed synthesis white-level",
}


def flags(kind: Any) -> Iterator[str]:
    """The flags of a command, from its fields and those of its groups."""
    types = get_type_hints(kind)
    for entry in dataclasses.fields(kind):
        if dataclasses.is_dataclass(types[entry.name]):
            prefix = f"{entry.name}-" if entry.name in DETECTORS else ""
            yield from (f"{prefix}{flag}" for flag in flags(types[entry.name]))
        elif entry.name not in ("outputs", "results"):  # those of table and of panels have no flag
            yield entry.name.replace("_", "-")


@pytest.mark.parametrize("command", FLAGS)
def test_flags_are_frozen(command: str) -> None:
    assert sorted(flags(COMMANDS[command])) == FLAGS[command].split()


@pytest.mark.parametrize("equals", [True, False])
def test_every_flag_of_run_is_accepted(monkeypatch: pytest.MonkeyPatch, equals: bool) -> None:
    """Both as --flag VALUE and as --flag=VALUE."""
    text = {"backbone": "random", "method": "regad", "data": "there", "output": "out", "layout": "folder"}
    text |= {"classes": "nut", "test": "synthetic", "budget": "quick", "resampling": "lanczos", "device": "cpu"}
    text |= {"amp": "auto", "cache": "ram", "cache-dir": "cached"}
    got: list[Options] = []
    monkeypatch.setattr("tabzoo.benchmark.__main__.run", lambda options: got.append(options))
    arguments: list[str] = []
    for flag in FLAGS["run"].split():
        if flag in ("oracle", "full-resolution"):  # not with this test and this method
            continue
        value = text.get(flag, "1")
        arguments += [f"--{flag}={value}"] if equals else [f"--{flag}", value]
    assert main(["run", *arguments]) == 0
    (options,) = got
    for flag, value in text.items():
        found = getattr(options, flag.replace("-", "_"))
        assert (str(found) if isinstance(found, str | Path) else list(found)) in (value, [value])
    assert (list(options.seeds), list(options.shots or ()), options.white_level, options.workers) == ([1], [1], 1.0, 1)
    assert {name: len(values) for name, values in options.settings.items()} == {
        name: len(dataclasses.fields(spec.settings)) for name, spec in DETECTORS.items()
    }


def test_flags_take_several_values_and_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[Options] = []
    monkeypatch.setattr("tabzoo.benchmark.__main__.run", lambda options: got.append(options))
    run = [
        "run",
        "--method",
        "padim",
        "simplenet",
        "--data",
        "there",
        "--output",
        "out",
        "--backbone",
        "random",
        "mine",
    ]
    assert main([*run, "--oracle", "--full-resolution", "--seeds", "3", "4", "--shots", "2", "8"]) == 0
    (options,) = got
    assert [list(values) for values in (options.method, options.backbone, options.seeds, options.shots or ())] == [
        *(["padim", "simplenet"], ["random", "mine"], [3, 4], [2, 8])
    ]
    assert options.oracle
    assert options.full_resolution
    assert options.settings == {}


def test_a_stopped_run_exits_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped(options: Options) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tabzoo.benchmark.__main__.run", stopped)
    assert main(["run", "--backbone", "random", "--data", "there", "--output", "out"]) == 130
    assert capsys.readouterr().err == "Stopped. Finished rows are in out; the same command continues.\n"


def test_run_and_table(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    arguments = ["--data", str(toy), "--classes", "capsule", "--resize", "40", "--crop", "32", "--workers", "0"]
    assert main(["run", "--backbone", SMALL, "--method", "padim", "--output", out, *arguments]) == 0
    printed = capsys.readouterr().out
    assert "## padim on factory, all good training images" in printed
    assert f"Made in {out}" in printed
    for name in ("maps/padim/capsule", "roc/padim"):
        with Image.open(tmp_path / "out" / f"{name}.png") as picture:
            assert min(picture.size) > 300
    assert main(["table", out]) == 0
    assert capsys.readouterr().out == (tmp_path / "out" / "table.md").read_text()


@pytest.mark.usefixtures("sketches")
def test_settings_of_methods_are_flags(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    run = ["run", "--backbone", SMALL, "--data", str(toy), "--output", out, "--classes", "capsule", "--workers", "0"]
    run += ["--resize", "40", "--crop", "32"]
    assert main([*run, "--padim-channels", "7", "--patchcore-share", "0.5", "--budget", "quick"]) == 0
    (row,) = read_rows(tmp_path / "out")
    assert (row.method, row.settings["channels"], row.settings["regularisation"]) == ("padim", 7, 0.01)
    assert "--patchcore-share: no effect, since patchcore is not among --method\n" in capsys.readouterr().err
    assert main([*run, "--padim-channels", "7", "--resampling", "bilinear"]) == 0
    assert [row.settings["resampling"] for row in read_rows(tmp_path / "out")] == ["lanczos", "bilinear"]
    capsys.readouterr()
    assert main([*run, "--padim-channels", "4000"]) == 2
    assert capsys.readouterr().err == "error: --padim-channels 4000: the layers of this backbone have 272\n"


def test_amp_is_a_value_or_asks_the_device(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["run", "--backbone", "random:test_resnet", "--data", str(toy), "--classes", "capsule", "--workers", "0"]
    run += ["--resize", "40", "--crop", "32", "--output", str(tmp_path)]

    def used(*amp: str, native: bool = True) -> list[str]:
        """Mixed precision of the rows that are there once this has run."""
        monkeypatch.setattr("tabzoo.compute._bf16_support", lambda _: (native, f"the answer is {native}"))
        assert main([*run, *amp]) == 0
        return [row.settings["amp"] for row in read_rows(tmp_path)]

    assert used() == ["off"]
    assert "amp" not in capsys.readouterr().err
    assert used("--amp", "auto", native=False) == ["off"]  # that row is there already
    assert "amp auto: off, because the answer is False." in capsys.readouterr().err
    assert used("--amp", "auto") == ["off", "bf16"]
    assert "amp auto: bf16, because the answer is True." in capsys.readouterr().err
    assert used("--amp") == used("--amp", "bf16") == ["off", "bf16"]
    with pytest.raises(SystemExit):
        main([*run, "--amp", "fp16"])
    assert "--amp: 'fp16' given, expected bf16, auto, off" in capsys.readouterr().err


def test_table_of_several_folders(
    tmp_path: Path, make_row: Callable[..., Row], capsys: pytest.CaptureFixture[str]
) -> None:
    screws = {"fitted": 320, "good": 41, "anomalous": 119}
    for name in ("random", "mine"):
        (tmp_path / name).mkdir()
        append_row(tmp_path / name, make_row(name, "screw", images=screws))
    append_row(tmp_path / "mine", make_row("random", "screw", images=screws))  # a row that both folders hold
    assert main(["table", str(tmp_path / "random"), str(tmp_path / "mine"), "--against", "paper"]) == 0
    printed = capsys.readouterr().out
    assert "mine - random" in printed
    assert "|           74.50 |      77.37 |" in printed


def test_table_across_data_sets(
    tmp_path: Path, make_row: Callable[..., Row], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("BTAD", "KSDD2"):
        (tmp_path / name).mkdir()
        append_row(tmp_path / name, make_row("random", "screw", dataset=name))
    table = ["table", str(tmp_path / "BTAD"), str(tmp_path / "KSDD2"), "--across", "datasets"]
    assert main(table) == 0
    printed = capsys.readouterr().out
    assert printed.count("## ") == 1
    assert "| BTAD screw " in printed
    assert main([*table, "--against", "paper"]) == 2
    assert "not allowed with" in capsys.readouterr().err


def test_what_must_be_installed_is_said_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["run", "--backbone", "random", "--data", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert f"AUPRO needs SciPy: {how_to_install('benchmark')}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run", "--backbone", "random", "--data", "there", "--output", ""], "--output"),
        (["run", "--backbone", "random", "--data", "there", "--output="], "--output"),
        (["run", "--output", "out", "--data", "", "--backbone", "random"], "--data"),
        (["run", "--output", "out", "--data", "there", "--backbone", "random", ""], "--backbone"),
        (["table", ""], "table"),
        (["fid", "--data", "there", "--output", ""], "--output"),
        ([""], "COMMAND"),
    ],
)
def test_an_empty_text_is_no_value(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As a path it would be the current folder."""
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"error: {named}: '' given, expected a value\n"


def test_mistakes_are_one_line(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(tmp_path)]) == 2
    assert "no results.jsonl with rows" in capsys.readouterr().err
    run = ["run", "--data", str(toy), "--output", str(tmp_path / "out"), "--backbone"]
    assert main([*run, "random", "--method", "padin"]) == 2
    assert capsys.readouterr().err.startswith("error: --method padin: unknown")
    assert main([*run, "resnet81"]) == 2
    assert "Did you mean" in capsys.readouterr().err
    for flags, reason in (
        (["--device", "gpu"], "--device gpu: expected auto, cpu, cuda"),
        (["--seeds"], "--seeds: expected at least one value"),
    ):
        assert main([*run, "random", *flags]) == 2
        assert capsys.readouterr().err == f"error: {reason}\n"
    assert main(["table"]) == 2
    assert capsys.readouterr().err == "error: table: expected one or more output folders of runs\n"
