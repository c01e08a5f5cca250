"""`tabzoo.pretrain`: the same run as the command's, the same mistakes, and nothing on the screen unless asked."""

import json
import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm

import tabzoo
from tabzoo.errors import InputError
from tabzoo.training import loop
from tabzoo.training.command import as_arguments, make_command, parse
from tabzoo.training.metrics import read_rows
from tabzoo.training.pretrain import main
from tabzoo.training.recipe import load_recipe

Arguments = Callable[..., list[str]]
NAMED = {"mean": (0.5, 0.4, 0.3), "class_names": {"01": "casting plate", "02": "rod"}, "mix_weights": {"nsa": 2.0}}


@pytest.fixture
def settings(toy: Path, make_text_file: Callable[..., Path], tmp_path: Path, sketches: None) -> dict[str, Any]:
    """Those of the fixture `small`, for the function."""
    return {
        **{"data": toy, "output": tmp_path / "function", "device": "cpu", "backbone": "test_resnet"},
        **{"projection": "none", "resize": 40, "crop": 32, "text_model": "ViT-B-16"},
        **{"text_pretrained": make_text_file("brushed_steel", "capsule", "hex_nut"), "batch_size": 16, "epochs": 2},
        **{"lr": 0.05, "warmup_epochs": 0, "val_share": 0, "cache": "ram", "workers": 0, "log_every": 1},
    }


def test_it_makes_what_the_command_makes(
    settings: dict[str, Any], small: Arguments, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = tabzoo.pretrain("quickstart", **settings)
    assert capfd.readouterr() == ("", "")
    assert made.folder == tmp_path / "function"
    assert made.metrics == read_rows(made.folder / "metrics.jsonl")[-1]
    assert made.metrics["step"] == 6
    assert main(small()) == 0
    for name in ("model.safetensors", "recipe.yaml"):
        assert (made.folder / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    # What run.json has as the command makes the same run.
    typed = shlex.split(json.loads((made.folder / "run.json").read_text())["command"])
    same = {"text_pretrained": "each has its own file"}
    assert parse(typed[3:]).settings.replace(**same) == parse(small()).settings.replace(**same)
    assert timm.create_model(f"local-dir:{made.folder}", pretrained=True, features_only=True).feature_info.channels()
    capfd.readouterr()
    again = tabzoo.pretrain("quickstart", **settings, resume=True, show=True)
    assert again == made
    assert "is finished; nothing to do" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epoch": 3}, "no setting 'epoch'. Did you mean 'epochs'?"),
        ({"epochs": "many"}, "epochs: 'many' given, expected a whole number"),
        ({"epochs": 0}, "epochs: 0 given, expected at least 1"),
        ({"device": "gpu"}, "device: 'gpu' given, expected one of auto, cpu, cuda"),
        ({"resume": "yes"}, "resume: 'yes' given, expected true or false"),
        ({"resume": True, "overwrite": True}, "exclude each other"),
        ({"class_names": "plate"}, "class_names: 'plate' given, expected a table"),
        ({"data": None}, "--data is missing"),
        ({"data": "missing"}, "missing"),
        ({"output": 3}, "output: 3 given, expected a string"),
        ({"output": ""}, "--output: ''"),
    ],
)
def test_mistakes_are_errors_with_the_commands_words(
    settings: dict[str, Any], changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        tabzoo.pretrain("resnet18.tab_mvtec", **(settings | changes))
    assert said in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_recipe_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'quickstart'"):
        tabzoo.pretrain("quickstat", output=tmp_path)


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)], ids=["ctrl-c", "term"]
)
def test_a_stopped_run_is_saved_and_goes_on(
    settings: dict[str, Any], number: int, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    optimise = loop.optimise

    def stopping(*arguments: Any) -> Any:
        os.kill(os.getpid(), number)
        return optimise(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "optimise", stopping)
        with pytest.raises(kind) as ended:
            tabzoo.pretrain("quickstart", **settings)
    if kind is SystemExit:
        assert ended.value.code == 128 + number  # type: ignore[attr-defined]
    assert tabzoo.pretrain("quickstart", **settings, resume=True).metrics["step"] == 6


@pytest.mark.parametrize("recipe", ["quickstart", "resnet18.tab_mvtec"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"epochs": 3, "lr": 1e-7, "nsa_shift": False, "learn_temperature": True, "license": "LicenseRef-a"},
        {"data": "-folder", "backbone": "resnet34.a1_in1k", "mix_weights": {}},
        {"backbone": "resnet34.a1_in1k", **NAMED},
    ],
)
def test_arguments_say_what_the_fields_say(recipe: str, fields: dict[str, Any]) -> None:
    running = {"resume": True, "benchmark": False, "device": "cpu"}
    made = make_command(load_recipe(recipe), fields, recipe=recipe, output="out", **running)
    assert parse(["--recipe", recipe, *as_arguments({"output": "out", **fields, **running})]) == made
