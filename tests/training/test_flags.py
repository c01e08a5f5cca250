"""Every flag of pre-training with a value that can't work: refused in one line, before texts are encoded or images decoded."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tabzoo.training import pretrain

NO_GPU = not torch.cuda.is_available()

# Flags, and what the message holds: the flag, the value, the bound or the nearest name.
REFUSED = [
    ("--mean nan 0 0", "--mean: (nan, 0.0, 0.0) given, expected numbers from 0 to 1"),
    ("--mean 123 116 103", "--mean: (123.0, 116.0, 103.0) given, expected numbers from 0 to 1"),
    ("--mean 0.5 0.5", "--mean"),
    ("--std inf 1 1", "--std: (inf, 1.0, 1.0) given, expected numbers above 0"),
    ("--std 0 1 1", "--std: (0.0, 1.0, 1.0) given, expected numbers above 0"),
    ("--std nan 1 1", "--std: (nan, 1.0, 1.0) given, expected numbers above 0"),
    ("--std 1e-45 1 1", "--std: (1e-45, 1.0, 1.0) given, expected numbers above 0"),
    (f"--seed {2**70}", f"--seed: {2**70} given, expected at most 4294967295"),
    ("--seed -1", "--seed: -1 given, expected at least 0"),
    ("--seed 1.5", "--seed"),
    ("--init nofile.pt", "--init nofile.pt: neither 'pretrained', 'random' nor an existing file"),
    ("--init pretraned", "Did you mean 'pretrained'?"),
    ("--init .", "--init .: neither"),
    ("--backbone resnet19", "--backbone 'resnet19': timm has no such model. Did you mean 'resnet18'?"),
    ("--backbone resnet18.tv_in2k", "--backbone resnet18.tv_in2k: timm has no such weights"),
    ("--backbone ''", "--backbone '': timm has no such model"),
    ("--backbone local-dir:/nowhere", "--backbone local-dir:/nowhere: its pretrained configuration"),
    ("--backbone mobilenetv3_small_100", "--projection linear"),
    ("--backbone test_vit --resize 48 --crop 33", "--backbone test_vit: does not take images of 33 x 33 px (--crop)"),
    ("--cache-dir /dev/null", "--cache-dir /dev/null: can't be written into"),
    ("--cache-dir /dev/null/new", "--cache-dir /dev/null/new: can't be written into"),
    ("--cache-dir ''", "--cache-dir: '' given, expected a folder"),
    ("--cache dsk", "--cache: 'dsk' given, expected disk, ram, device, off"),
    ("--micro-batch 1", "--micro-batch 1: batch-norm, which test_resnet has, needs at least two images"),
    ("--micro-batch -1", "--micro-batch: -1 given, expected at least 0"),
    ("--micro-batch 10000000000", "--micro-batch: 10000000000 given, expected at most 1000000000"),
    ("--crop 7", "--synthesis nsa with --crop 7: nsa: images of height 7 are too small"),
    ("--synthesis cutpaste --cutpaste-variant scar --crop 7", "--crop 7: cutpaste: images of 7 x 7 are too small"),
    ("--synthesis mix --crop 7", "--synthesis mix with --crop 7"),
    ("--crop 0", "--crop: 0 given, expected at least 1"),
    ("--crop 41", "--crop: 41 given, but images are resized to 40"),
    ("--resize 10", "--crop: 32 given, but images are resized to 10"),
    ("--resize 1000000", "--resize: 1000000 given, expected at most 16384"),
    ("--text-pretrained untrained --text-model ViT-B-61", "--text-model 'ViT-B-61': open_clip has no such model. Did"),
    ("--text-pretrained untraned", "Did you mean 'untrained'?"),
    ("--text-pretrained laion400m_e23", "--text-pretrained laion400m_e23: neither a file nor weights of ViT-B-16"),
    ("--text-pretrained nofile.pt", "--text-pretrained nofile.pt: neither a file nor weights of ViT-B-16"),
    ("--text-pretrained nofile.safetensors", "--text-pretrained nofile.safetensors: no such file"),
    *([("--device cuda", "--device cuda: torch finds no CUDA device")] if NO_GPU else []),
    ("--device gpu", "--device: 'gpu' given, expected auto, cpu, cuda"),
    ("--workers -1", "--workers: -1 given, expected at least 0"),
    ("--workers 100000", "--workers: 100000 given, expected at most 4096"),
    ("--prompts tabb", "--prompts tabb: neither a built-in set (tab, authors) nor an existing YAML file. Did you mean"),
    ("--optimizer adamm", "--optimizer adamm: expected sgd or the name of an optimizer of timm. Did you mean 'adam'"),
    ("--optimizer adahessian", "--optimizer adahessian: does not work here"),
    *([("--optimizer fusedadam", "--optimizer fusedadam: does not work here")] if NO_GPU else []),
    ("--class-names nut rod", "--class-names: no class 'nut'; there are 3 classes"),
    ("--class-names hex_nut ' '", "--class-names: no words for class 'hex_nut'"),
    ("--class-names hex_nut", "--class-names"),
    ("--epochs 0", "--epochs: 0 given, expected at least 1"),
    ("--epochs 1e3", "--epochs"),
    ("--epochs 10000000000", "--epochs: 10000000000 given, expected at most"),
    ("--repeats 0", "--repeats: 0 given, expected at least 1"),
    ("--repeats 1000000000", "--repeats: 1000000000 given, expected at most 10000"),
    ("--repeats 10000", "--repeats 10000: with 48 images, an epoch would be longer than 400,000"),
    ("--batch-size 1", "--batch-size: 1 given, expected at least 2"),
    ("--lr nan", "--lr: nan given, expected at least 0"),
    ("--lr 1e400", "--lr: inf given, expected at most 10000"),
    ("--momentum 1.5", "--momentum: 1.5 given, expected at most 1"),
    ("--weight-decay -1", "--weight-decay: -1.0 given, expected at least 0"),
    ("--warmup-epochs nan", "--warmup-epochs: nan given"),
    ("--warmup-epochs 3", "--warmup-epochs: 3.0 given, more than epochs (2)"),
    ("--temperature 1e39", "--temperature: 1e+39 given, expected a factor above 0, at most 10000"),
    ("--val-share 1", "--val-share: 1.0 given, expected a fraction from 0 to below 1"),
    ("--save-every 0", "--save-every: 0 given, expected at least 1"),
    ("--log-every -5", "--log-every: -5 given, expected at least 1"),
    ("--nsa-gamma-shape inf", "--nsa-gamma-shape inf: expected above 0, at most 1000"),
    ("--nsa-gamma-scale inf", "--nsa-gamma-scale inf: expected above 0, at most 10"),
    ("--nsa-gamma-lower nan", "--nsa-gamma-lower nan: expected 0 to below 0.5"),
    ("--nsa-width-min 0", "--nsa-width-min 0.0: expected above 0 and below 0.5"),
    ("--nsa-width-max 0.6", "--nsa-width-max 0.6: expected --nsa-width-min (0.05) to below 0.5"),
    ("--synthesis mix --nsa-resize-max 0.1", "--nsa-resize-max 0.1: expected at least --nsa-resize-min (0.7)"),
    ("--nsa-resize-min 1e-30", "--nsa-resize-min 1e-30: expected a factor above 0"),
    ("--nsa-resize-max inf", "--nsa-resize-max inf: expected at least --nsa-resize-min (0.7), at most 100"),
    ("--nsa-resize-std inf", "--nsa-resize-std inf: expected 0 to 100"),
    ("--nsa-num-patches 1000000", "--nsa-num-patches 1000000: expected 1 to 64"),
    ("--nsa-mode slow", "--nsa-mode: 'slow' given, expected exact, fast"),
    ("--nsa-background black", "--nsa-background"),
    ("--nsa-blend mixd", "--nsa-blend: 'mixd' given, expected mix, normal, mixed"),
    ("--perlin-threshold 2", "--perlin-threshold 2.0: expected above 0 and below 1"),  # also when another way is chosen
    ("--synthesis perlin --perlin-textures nowhere", "--perlin-textures nowhere: no such folder"),
    ("--perlin-beta-max nan", "--perlin-beta-max nan: expected 0 to below 1"),
    ("--mask-block 0", "--mask-block 0: expected at least 1"),
    ("--synthesis mask --mask-num-blocks 5", "--synthesis mask with --crop 32: mask: num_blocks is 5, but images of"),
    ("--perlin-textures .", "--perlin-textures: only --synthesis perlin uses textures; got --synthesis nsa"),
    ("--mix-weights nsa 1", "--mix-weights: only --synthesis mix uses weights; got --synthesis nsa"),
    (
        "--synthesis mix --mix-weights nso 1",
        "--mix-weights: 'nso' given, expected nsa, cutpaste, perlin, mask. Did you",
    ),
    ("--synthesis mix --mix-weights nsa 0", "--mix-weights: {'nsa': 0.0} given, expected numbers of at least 0"),
    ("--synthesis mix --mix-weights nsa -1", "--mix-weights: {'nsa': -1.0} given, expected numbers of at least 0"),
    ("--synthesis mix --mix-weights nsa inf", "--mix-weights: {'nsa': inf} given, expected numbers of at least 0"),
    ("--layout mvtek", "Did you mean 'mvtec'?"),
    ("--license 'a: b'", "--license: 'a: b' given, expected an SPDX identifier"),
    ("--data nowhere", "no such folder: nowhere"),
    ("--output ''", "--output: '' given, expected a folder"),
    ("--schedule cosin", "--schedule: 'cosin' given, expected constant, cosine, cosine_authors"),
    ("--epoch 3", "--epochs"),
]


@pytest.mark.parametrize(("flags", "message"), REFUSED)
def test_a_value_that_can_not_work_is_refused_before_anything_is_computed(
    flags: str,
    message: str,
    small: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def computed(*_: object, **__: object) -> None:
        raise AssertionError("texts were encoded, or images decoded")

    for name in ("training.setup.obtain_text_features", "training.clip._load_tower", "training.setup.open_images"):
        monkeypatch.setattr(f"tabzoo.{name}", computed)
    monkeypatch.setattr("tabzoo.training.setup._LONGEST_EPOCH", 400_000)
    try:
        code = pretrain.main(small(*shlex.split(flags)))
    except SystemExit as ended:  # tyro's own refusals
        code = int(ended.code or 0)
    shown = capsys.readouterr()
    assert code == 2
    assert message in " ".join((shown.out + shown.err).replace("│", " ").split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "x"}, "RANK x, WORLD_SIZE 1, LOCAL_RANK 0 in the environment: expected numbers"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK -1 in the environment"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE 0, LOCAL_RANK 0 in the environment"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2 in the environment, without a valid RANK"),
        ({"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}, "without a valid RANK"),
    ],
)
def test_variables_of_torchrun_that_make_no_sense(
    variables: dict[str, str],
    message: str,
    small: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert pretrain.main(small()) == 2
    assert message in capsys.readouterr().err


def test_a_wrong_flag_is_found_before_the_toy_factory_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tabzoo.training.quickstart.make_toy_factory", lambda *_, **__: pytest.fail("it was drawn"))
    for flags in ("--backbone resnet19", "--text-model ViT-B-61", "--crop 7", "--cache-dir /dev/null"):
        assert pretrain.main(["--recipe", "quickstart", "--output", str(tmp_path / "out"), *flags.split()]) == 2
        assert flags.split()[0] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
