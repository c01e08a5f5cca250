"""What images are normalised by: the backbone's own mean and std, from the recipe to the benchmark."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, resolve_data_config

from tabzoo.backbones import own_normalisation
from tabzoo.detectors.extractor import build_extractor
from tabzoo.errors import InputError, WeightsError
from tabzoo.synthesis.pairs import PairMaker
from tabzoo.training import pretrain, setup
from tabzoo.training.command import parse
from tabzoo.training.metrics import read_rows
from tabzoo.training.normalisation import resolve_normalisation
from tabzoo.training.recipe import Recipe, list_recipes, load_recipe

Arguments = Callable[..., list[str]]

IMAGENET = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
UNIT = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
DPN = ((124 / 255, 117 / 255, 104 / 255), (1 / (0.0167 * 255),) * 3)
BY_IMAGENET = ["--mean", "0.485", "0.456", "0.406", "--std", "0.229", "0.224", "0.225"]

# Typed by hand from timm's tables; of several kinds within a family where it has them.
FAMILIES = {
    "tf_efficientnet_lite0.in1k": HALF,
    "efficientnet_lite0": IMAGENET,
    "tf_efficientnet_b0.ns_jft_in1k": IMAGENET,
    "tf_efficientnet_b0.ap_in1k": HALF,
    "mobilenetv2_050": IMAGENET,
    "mobilenetv3_small_050": IMAGENET,
    "tf_mobilenetv3_small_minimal_100": HALF,
    "inception_v3.tv_in1k": HALF,
    "inception_v3.gluon_in1k": IMAGENET,
    "resnetv2_50x1_bit.goog_in21k": HALF,
    "resnet18.tv_in1k": IMAGENET,
    "resnet18": IMAGENET,
    "test_resnet": HALF,
    "convnext_atto": IMAGENET,
    "regnetx_002": IMAGENET,
    "densenet121": IMAGENET,
    "vgg11": IMAGENET,
    "dpn68": DPN,
    "xception41": HALF,
    "mobilevit_xxs": UNIT,
}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object, **__: object) -> None:
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr("tabzoo.backbones.local_copy", asked)
    monkeypatch.setattr("tabzoo.backbones.load_model_config_from_hf", asked)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", FAMILIES)
def test_timms_families(name: str) -> None:
    config = timm.get_pretrained_cfg(name)
    assert config is not None
    reference = resolve_data_config(pretrained_cfg=config.to_dict())
    assert own_normalisation(name) == (reference["mean"], reference["std"])
    for found, typed in zip(own_normalisation(name), FAMILIES[name], strict=True):
        assert found == pytest.approx(typed)
    recipe = Recipe(backbone=name)
    assert resolve_normalisation(recipe, named=recipe).normalisation == own_normalisation(name)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "tf_efficientnet_lite0.in1k", "dpn68"])
def test_the_model_that_timm_builds_says_the_same(name: str) -> None:
    """Also of a name without tag: what the benchmark takes from the model is what training takes from the name."""
    model = timm.create_model(name, num_classes=0)
    reference = resolve_data_config(pretrained_cfg=model.pretrained_cfg)
    assert own_normalisation(name) == (reference["mean"], reference["std"])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"architecture": "resnet18", "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}, None),
        ({"architecture": "resnet18", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}, None),  # an older form
        ({"architecture": "test_resnet", "pretrained_cfg": {}}, IMAGENET),  # so does timm
    ],
)
def test_a_folder_and_a_repository_say_it_themselves(
    content: dict[str, Any],
    expected: tuple[tuple[float, ...], ...] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = expected or ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert own_normalisation(f"local-dir:{tmp_path}") == expected
    built = timm.create_model(f"local-dir:{tmp_path}", num_classes=0).pretrained_cfg
    assert (tuple(built["mean"]), tuple(built["std"])) == expected
    # With the Hub out of reach, the copy in its cache.
    monkeypatch.setattr("tabzoo.backbones.local_copy", lambda *_, **__: tmp_path / "model.safetensors")
    assert own_normalisation("hf-hub:someone/some@main") == expected
    # With the Hub at hand, what it answers.
    monkeypatch.setattr("tabzoo.backbones.local_copy", lambda *_, **__: None)
    monkeypatch.setattr("tabzoo.backbones.load_model_config_from_hf", lambda name: ({"mean": (0.9,) * 3}, name, None))
    assert own_normalisation("hf-hub:someone/some@main") == ((0.9,) * 3, IMAGENET_DEFAULT_STD)


def test_configurations_that_can_not_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"local-dir:{tmp_path}"
    recipe = Recipe(backbone=name)
    with pytest.raises(WeightsError, match="its pretrained configuration, .*config.json: can't be read"):
        resolve_normalisation(recipe, named=recipe)
    for mean, reason in (
        ([123.7, 116.3, 103.5], "expected numbers from 0 to 1.*Type --mean and --std"),
        (["a", "b", "c"], "expected three numbers. Type --mean and --std"),
        ([0.5], "expected three numbers. Type --mean and --std"),
    ):
        content = {"architecture": "resnet18", "pretrained_cfg": {"mean": mean, "std": [0.5, 0.5, 0.5]}}
        (tmp_path / "config.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match=f"--backbone {name}: its pretrained configuration says mean: .*{reason}"):
            resolve_normalisation(recipe, named=recipe)
        given = recipe.replace(mean=HALF[0], std=HALF[1])  # then it isn't needed
        assert resolve_normalisation(given, named=given) == given
    monkeypatch.setattr(
        "tabzoo.backbones.local_copy", lambda *_, **__: (_ for _ in ()).throw(WeightsError("no answer"))
    )
    there = Recipe(backbone="hf-hub:someone/some")
    with pytest.raises(WeightsError, match="--backbone hf-hub:someone/some: its pretrained .* no answer"):
        resolve_normalisation(there, named=there)


@pytest.mark.usefixtures("no_network")
def test_stated_or_left_out_the_digest_is_the_same(tmp_path: Path) -> None:
    for name in list_recipes():
        stated = load_recipe(name)
        assert stated.normalisation == (((0.5,) * 3,) * 2 if name.startswith("tf_efficientnet") else IMAGENET)
        left_out = resolve_normalisation(stated.replace(mean=None, std=None), named=stated)
        assert (left_out, left_out.digest()) == (stated, stated.digest())
    # Whole numbers in a recipe file are the configuration's fractions.
    (tmp_path / "r.yaml").write_text("backbone: mobilevit_xxs\nmean: [0, 0, 0]\nstd: [1, 1, 1]\n")
    (tmp_path / "s.yaml").write_text("backbone: mobilevit_xxs\n")
    stated, left_out = (parse(["--recipe", str(tmp_path / f"{name}.yaml")]).settings for name in "rs")
    left_out = resolve_normalisation(left_out, named=left_out)
    assert left_out.digest() == stated.digest()
    (tmp_path / "t.yaml").write_text(left_out.to_yaml())
    assert load_recipe(str(tmp_path / "t.yaml")) == left_out


def resolved(arguments: list[str]) -> Recipe:
    command = parse(arguments)
    return resolve_normalisation(command.settings, named=command.named)


@pytest.mark.usefixtures("no_network")
def test_a_recipe_for_another_backbone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    lite = ["--recipe", "resnet18.tab_mvtec", "--backbone", "tf_efficientnet_lite0"]
    assert resolved(lite).normalisation == HALF
    (line,) = capsys.readouterr().out.splitlines()
    assert "normalised by mean 0.5 0.5 0.5 and std 0.5 0.5 0.5, the pretrained configuration of tf_eff" in line
    assert "the recipe's mean 0.485 0.456 0.406 and std 0.229 0.224 0.225 belong" in line
    assert resolved(["--recipe", "resnet18.tab_mvtec", "--backbone", "regnetx_002"]).normalisation == IMAGENET
    # A recipe's numbers stay with its own backbone, and with a flag that repeats it.
    (tmp_path / "r.yaml").write_text("backbone: vgg11\ninit: random\nmean: [0.3, 0.3, 0.3]\n")
    for more in ([], ["--backbone", "vgg11"]):
        assert resolved(["--recipe", str(tmp_path / "r.yaml"), *more]).mean == (0.3, 0.3, 0.3)
    assert (capsys.readouterr().out, caplog.messages) == ("", [])


@pytest.mark.usefixtures("no_network")
def test_numbers_by_hand_win_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    lite = ["--recipe", "resnet18.tab_mvtec", "--backbone", "tf_efficientnet_lite0"]
    assert resolved([*lite, *BY_IMAGENET]).normalisation == IMAGENET
    (said,) = caplog.messages
    assert "by mean 0.485 0.456 0.406 and std 0.229 0.224 0.225, as given, but the pretrained configuration of " in said
    assert "tf_efficientnet_lite0 says mean 0.5 0.5 0.5 and std 0.5 0.5 0.5. For its own, leave out --mean and" in said
    assert said.endswith("--mean and --std; in a recipe file, remove these lines.")
    caplog.clear()
    assert resolved([*lite, *BY_IMAGENET[:4]]).normalisation == (IMAGENET_DEFAULT_MEAN, HALF[1])
    (said,) = caplog.messages
    assert said.endswith("says mean 0.5 0.5 0.5. For its own, leave out --mean; in a recipe file, remove this line.")
    assert "std" not in said
    caplog.clear()
    (tmp_path / "r.yaml").write_text("backbone: tf_efficientnet_lite0\nmean: [0.485, 0.456, 0.406]\n")
    assert resolved(["--recipe", str(tmp_path / "r.yaml")]).normalisation == (IMAGENET_DEFAULT_MEAN, HALF[1])
    assert len(caplog.messages) == 1
    # Not of random weights, which expect nothing, nor of the same numbers with fewer digits.
    caplog.clear()
    capsys.readouterr()
    assert resolved([*lite, *BY_IMAGENET, "--init", "random"]).normalisation == IMAGENET
    dpn = [*("--mean", "0.486", "0.459", "0.408", "--std", "0.235", "0.235", "0.235"), "--backbone", "dpn68"]
    assert resolved(["--recipe", "resnet18.tab_mvtec", *dpn]).mean == (0.486, 0.459, 0.408)
    assert (capsys.readouterr().out, caplog.messages) == ("", [])


def test_from_pre_training_to_the_benchmark(small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a run writes says 0.5, the pixels it saw were so normalised, and the benchmark does the same."""
    made: list[PairMaker] = []
    original = setup.pair_maker

    def pair_maker(*args: Any, **options: Any) -> PairMaker:
        made.append(original(*args, **options))
        return made[-1]

    monkeypatch.setattr(setup, "pair_maker", pair_maker)
    out = tmp_path / "out"
    assert pretrain.main(small()) == 0  # quickstart states ImageNet's numbers, for its own backbone
    raw, pairs = made[0].raw(0, 0, torch.arange(2)), made[0](0, 0, torch.arange(2))
    torch.testing.assert_close(pairs.normal, (raw.normal / 255 - 0.5) / 0.5)
    config = json.loads((out / "config.json").read_text())["pretrained_cfg"]
    assert (tuple(config["mean"]), tuple(config["std"])) == HALF
    assert load_recipe(str(out / "recipe.yaml")).normalisation == HALF
    run = json.loads((out / "run.json").read_text())
    assert (tuple(run["mean"]), tuple(run["std"])) == HALF
    card = (out / "README.md").read_text()
    assert "squashed to 40 x 40, centre crop 32 x 32;\nmean 0.5 0.5 0.5 and std 0.5 0.5 0.5." in card
    sha256 = json.loads((out / "tabzoo.json").read_text())["recipe"]["sha256"]
    explicit = small("--mean", "0.5", "0.5", "0.5", "--std", "0.5", "0.5", "0.5", "--output", str(tmp_path / "same"))
    assert pretrain.main(explicit) == 0
    assert json.loads((tmp_path / "same" / "tabzoo.json").read_text())["recipe"]["sha256"] == sha256
    assert (tmp_path / "same" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    for extractor in (build_extractor(name, layers=["1"]) for name in (str(out), "random:test_resnet")):
        assert (extractor.mean, extractor.std) == HALF
    # And as the start of another run: its configuration is this folder's.
    again = small("--backbone", f"local-dir:{out}", "--output", str(tmp_path / "again"))
    assert own_normalisation(f"local-dir:{out}") == HALF
    assert pretrain.main(again) == 0
    assert load_recipe(str(tmp_path / "again" / "recipe.yaml")).normalisation == HALF


def test_a_run_keeps_what_it_began_with(
    small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Earlier versions took ImageNet's numbers for every backbone: their runs go on, and a warning says so."""
    safetensors.torch.save_file(
        timm.create_model("test_resnet", num_classes=0).state_dict(), tmp_path / "i.safetensors"
    )
    arguments = small("--init", str(tmp_path / "i.safetensors"), "--save-every", "2")
    whole = tmp_path / "whole"
    assert pretrain.main([*arguments, *BY_IMAGENET, "--output", str(whole)]) == 0
    original = pretrain.report.finish

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrain.report, "finish", stopped)
    assert pretrain.main([*arguments, *BY_IMAGENET]) == 130
    monkeypatch.setattr(pretrain.report, "finish", original)
    caplog.clear()
    caplog.set_level(logging.WARNING)
    assert pretrain.main([*arguments, "--resume"]) == 0
    assert [said for said in caplog.messages if "normalised" in said] == []  # that is about numbers by hand
    (said,) = (said for said in caplog.messages if "This run began with" in said)
    assert "began with mean 0.485 0.456 0.406 and std 0.229 0.224 0.225, and keeps it; the pretrained" in said
    assert "type --overwrite" in said
    assert (whole / "model.safetensors").read_bytes() == (tmp_path / "out" / "model.safetensors").read_bytes()
    assert len(read_rows(tmp_path / "out" / "metrics.jsonl")) == 6
    # A run of another backbone has no say.
    settings = Recipe(backbone="tf_efficientnet_lite0")
    begun = Recipe(mean=IMAGENET_DEFAULT_MEAN, std=IMAGENET_DEFAULT_STD)
    assert resolve_normalisation(settings, named=settings, begun=begun).normalisation == HALF
    # One that repeats its numbers by hand was warned at its start.
    caplog.clear()
    begun = settings.replace(mean=IMAGENET_DEFAULT_MEAN, std=IMAGENET_DEFAULT_STD)
    assert resolve_normalisation(begun, named=begun, begun=begun) == begun
    assert not caplog.messages


@pytest.mark.parametrize(("init", "warned"), [("random", True), ("file", False)])
def test_frozen_statistics_of_random_weights(
    init: str, warned: bool, small: Arguments, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "i.safetensors"
    safetensors.torch.save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), file)
    more = ("--batch-norm", "frozen", "--epochs", "1", "--init", str(file) if init == "file" else init)
    assert pretrain.main(small(*more)) == 0
    assert warned == any("--batch-norm frozen with --init random: the statistics" in said for said in caplog.messages)
