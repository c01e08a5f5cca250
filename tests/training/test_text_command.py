"""`tabzoo text`: text features without photos, which pre-training takes without a text tower."""

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tabzoo import cli
from tabzoo.training import pretrain
from tabzoo.training.prompts import load_prompts
from tabzoo.training.text import load_text_features, obtain_text_features

Output = pytest.CaptureFixture[str]


@pytest.fixture
def few(tmp_path: Path) -> Path:
    path = tmp_path / "few.yaml"
    path.write_text("normal: ['good {c}']\nabnormal: ['bad {c}']\ntemplates: ['a photo of a {s}.']\n")
    return path


@pytest.fixture
def make(few: Path, tmp_path: Path) -> Callable[..., int]:
    """The command with open_clip's smallest tower, untrained, and one sentence a state."""

    def run(*names: str, output: Path = tmp_path / "texts.safetensors", more: tuple[str, ...] = ()) -> int:
        tower = ["--text-model", "ViT-S-16-alt", "--text-pretrained", "untrained", "--prompts", str(few)]
        return cli.main(["text", "--class-names", *names, "--output", str(output), *tower, *more])

    return run


def test_pretraining_takes_the_file_without_a_tower(
    make: Callable[..., int],
    few: Path,
    small: Callable[..., list[str]],
    tmp_path: Path,
    capsys: Output,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Products as words or as folders' names, in any order; more of them than the images have."""
    file = tmp_path / "texts.safetensors"
    words = {"brushed_steel": "brushed steel", "capsule": "capsule", "hex_nut": "hex nut"}
    assert make("hex_nut", "zipper", "capsule", "brushed steel") == 0
    assert f"--text-pretrained {file} --text-model ViT-S-16-alt --prompts {few}" in capsys.readouterr().out
    options = {"text_model": "ViT-S-16-alt", "prompts": load_prompts(str(few)), "device": torch.device("cpu")}
    alone = obtain_text_features(words, text_pretrained="untrained", **options)
    monkeypatch.setattr("tabzoo.training.clip._load_tower", lambda *_: pytest.fail("the tower was loaded"))
    flags = ("--text-pretrained", str(file), "--text-model", "ViT-S-16-alt", "--prompts", str(few))
    assert pretrain.main(small(*flags, "--projection", "linear", "--epochs", "1")) == 0
    used = safetensors.torch.load_file(tmp_path / "out" / "text_features.safetensors")
    torch.testing.assert_close(used["normal"], alone.normal)
    torch.testing.assert_close(used["abnormal"], alone.abnormal)
    capsys.readouterr()
    other = small(
        *flags, "--projection", "linear", "--output", str(tmp_path / "other"), "--class-names", "capsule", "pill"
    )
    assert pretrain.main(other) == 2
    said = capsys.readouterr().err
    assert (
        "does not fit this run: it calls class capsule 'capsule', this run 'pill'. Type --class-names capsule" in said
    )


def test_a_product_that_the_file_lacks(
    make: Callable[..., int], few: Path, small: Callable[..., list[str]], tmp_path: Path, capsys: Output
) -> None:
    assert make("hex nut", "capsule") == 0
    flags = (
        "--text-pretrained",
        str(tmp_path / "texts.safetensors"),
        "--text-model",
        "ViT-S-16-alt",
        "--prompts",
        str(few),
    )
    assert pretrain.main(small(*flags, "--projection", "linear")) == 2
    said = capsys.readouterr().err
    assert (
        "no features for brushed_steel ('brushed steel'); it holds hex nut, capsule. Make them again with `tabzoo text"
        in said
    )


def test_names_are_read_as_typed_and_as_folders(make: Callable[..., int], tmp_path: Path) -> None:
    assert make("pcb1", "PCB strip", "zipper", "zipper") == 0
    features = load_text_features(tmp_path / "texts.safetensors")
    assert features is not None
    assert list(features.words) == ["printed circuit board 1", "pcb1", "pcb strip", "PCB strip", "zipper"]
    assert features.normal.shape == features.abnormal.shape == (5, 256)
    assert len(features.normal.unique(dim=0)) >= 4


@pytest.mark.parametrize(
    ("names", "output", "message"),
    [
        (["nut"], "texts.pt", "texts.pt: expected a name that ends with .safetensors"),
        (["nut"], "there.safetensors", "there.safetensors: already exists. Name a new file"),
        ([" "], "texts.safetensors", "--class-names: '' given, expected words such as"),
        (["x" * 201], "texts.safetensors", "has 201 characters, expected a few words"),
        (["nut"], "there.safetensors/texts.safetensors", "its folder can't be made"),
    ],
)
def test_mistakes(
    names: list[str], output: str, message: str, make: Callable[..., int], tmp_path: Path, capsys: Output
) -> None:
    (tmp_path / "there.safetensors").write_text("mine")
    assert make(*names, output=tmp_path / output) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "there.safetensors").read_text() == "mine"
    assert not (tmp_path / "texts.safetensors").exists()


def test_advice_fits_this_command(
    make: Callable[..., int], tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two names for one product are allowed here. The message about a name without words advises no flag of other commands."""
    assert make("metal_nut", "metal nut", "01") == 0
    said = capsys.readouterr()
    assert "share the words" not in said.out + said.err
    assert "--class-names: '01' has no word that says what the product is" in said.out + said.err
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    more = ("--text-model", "ViT-B-16", "--text-pretrained", "laion400m_e32")
    assert make("nut", output=tmp_path / "other.safetensors", more=more) == 2
    error = capsys.readouterr().err
    assert "Type this command on a machine with a network, and copy the file" in error
    assert "Alternatives" not in error


def test_a_model_that_does_not_exist_is_named(make: Callable[..., int], capsys: Output) -> None:
    assert make("nut", more=("--text-model", "ViT-S-61-alt")) == 2
    assert "--text-model 'ViT-S-61-alt': open_clip has no such model. Did you mean" in capsys.readouterr().err
