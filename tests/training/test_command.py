"""The flags are a promise: this test is changed only when the promise is."""

import dataclasses
from pathlib import Path

import pytest

from tabzoo.errors import InputError
from tabzoo.training.command import Running, RunOptions, again, parse
from tabzoo.training.recipe import Recipe

FLAGS = """
allow-recipe-change amp backbone batch-norm batch-size benchmark cache cache-dir channels-last class-names class-words compile
crop cutpaste-variant data device epochs init interpolation layout learn-temperature license log-every lr mask-block
mask-num-blocks mean micro-batch mix-weights momentum nsa-background nsa-background-threshold nsa-blend
nsa-gamma-lower nsa-gamma-scale
nsa-gamma-shape nsa-min-object nsa-min-overlap nsa-mode nsa-num-patches nsa-resize nsa-resize-max nsa-resize-min
nsa-resize-std nsa-same-source nsa-shift nsa-width-max nsa-width-min objective optimizer output overwrite
perlin-beta-max perlin-textures perlin-threshold projection prompts recipe reduction repeats resize resume sampling
save-every schedule seed std strict synthesis temperature text-layout text-model text-pretrained val-share warmup-epochs
weight-decay white-level workers
""".split()


def test_flags_are_frozen(capsys: pytest.CaptureFixture[str]) -> None:
    fields = {
        field.name.replace("_", "-") for kind in (Recipe, RunOptions, Running) for field in dataclasses.fields(kind)
    }
    assert sorted(fields) == FLAGS
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert [flag for flag in FLAGS if f" --{flag} " not in shown.replace(",", " ")] == []
    assert shown.index("most-used") < shown.index("--epochs") < shown.index("--nsa-gamma-shape")


def test_flags_override_the_recipe() -> None:
    command = parse(
        ["--recipe", "quickstart", "--epochs", "3", "--class-names", "01", "casting plate", "--no-nsa-shift"]
    )
    assert (command.settings.epochs, command.settings.class_names) == (3, {"01": "casting plate"})
    assert not command.settings.nsa_shift
    assert command.settings.lr == 0.05  # the recipe's
    assert parse(["--recipe=quickstart"]).settings.epochs == 4
    assert parse([]).recipe == "resnet18.tab_mvtec"  # as --help says


def test_tables_of_a_recipe_are_added_to(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("class_names: {'01': plate, '02': rod}\nmix_weights: {nsa: 3}\n")
    settings = parse(["--recipe", str(tmp_path / "r.yaml"), "--class-names", "02", "bar"]).settings
    assert settings.class_names == {"01": "plate", "02": "bar"}
    assert settings.mix_weights == {"nsa": 3.0}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--recipe", "quickstart", "--epoch", "3"], "--epochs"),
        (["--recipe", "quickstart", "--epochs", "many"], "--epochs"),
        (["--recipe", "quickstart", "--objective", "tub"], "tab"),
    ],
)
def test_wrong_flags_exit_with_2_and_name_the_right_one(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    output = capsys.readouterr()
    assert said in output.err + output.out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--recipe", "nonsense"], "neither a recipe of tabzoo"),
        (["--recipe", "quickstart", "--resume", "--overwrite"], "exclude each other"),
        (["--recipe", "quickstart", "--epochs", "0"], "^--epochs: 0 given, expected at least 1$"),
    ],
)
def test_values_that_do_not_fit(arguments: list[str], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse(arguments)


def test_again() -> None:
    assert again(["--data", "my dir", "--overwrite"], "--resume", without=("--overwrite",)).endswith(
        "--data 'my dir' --resume"
    )
