"""Checkpoints of the authors' kind to weights folders."""

import argparse
import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor

from tabzoo.errors import InputError
from tabzoo.hub.__main__ import main
from tabzoo.hub.convert import ARCHITECTURES, convert
from tabzoo.hub.folder import verify
from tabzoo.hub.load import install

NAME = "resnet18.tab_mvtec"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def theirs() -> torchvision.models.ResNet:
    """A ResNet-18 of torchvision with batch-norm statistics of its own."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18()
    model.train()(torch.rand(4, 3, 64, 64))
    return model.eval()


@pytest.fixture
def saved(theirs: torchvision.models.ResNet, tmp_path: Path) -> Callable[..., Path]:
    """Saves what a function makes of the state dict."""

    def save(change: Callable[[State], object] = dict) -> Path:
        torch.save(change(theirs.state_dict()), tmp_path / "checkpoint.pt")
        return tmp_path / "checkpoint.pt"

    return save


def _attention(state: State) -> State:
    more = {
        "layer1.0.ca.sharedMLP.0.weight": torch.rand(4, 64, 1, 1),
        "layer1.0.sa.conv.weight": torch.rand(1, 2, 7, 7),
    }
    return {**state, **more, "sa.conv1.weight": torch.rand(1, 2, 7, 7)}


def _heads(state: State) -> dict[str, Any]:
    heads = {"normal_image_projection_head.fc.weight": torch.rand(512, 512), "logit_scale": torch.tensor(2.7)}
    return {"epoch": 100, "state_dict": {f"module.backbone.{key}": value for key, value in state.items()} | heads}


def _old(state: State) -> State:
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def test_features_are_those_of_torchvision(
    theirs: torchvision.models.ResNet, saved: Callable[..., Path], tmp_path: Path
) -> None:
    folder = convert(saved(), tmp_path / "out", name=NAME)
    image = torch.randn(2, 3, 32, 32)
    ours = timm.create_model(f"local-dir:{folder}", pretrained=True, features_only=True).eval()(image)
    hidden = [theirs.relu(theirs.bn1(theirs.conv1(image)))]
    hidden.append(theirs.layer1(theirs.maxpool(hidden[0])))
    for layer in (theirs.layer2, theirs.layer3, theirs.layer4):
        hidden.append(layer(hidden[-1]))
    for map_, expected in zip(ours, hidden, strict=True):
        torch.testing.assert_close(map_, expected, rtol=1e-6, atol=1e-6)
    embedding = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()(image)
    torch.testing.assert_close(embedding, theirs.avgpool(hidden[-1]).flatten(1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [_heads, _attention, _old, lambda state: {f"module.{key}": value for key, value in state.items()}],
    ids=["nested", "attention", "old", "prefix"],
)
def test_every_form_gives_the_same_tensors(
    theirs: torchvision.models.ResNet, saved: Callable[..., Path], tmp_path: Path, change: Callable[[State], object]
) -> None:
    found = load_file(convert(saved(change), tmp_path / "out", name=NAME) / "model.safetensors")
    expected = {key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    if change is _old:  # Such checkpoints lack the counter, which inference does not use.
        expected |= {key: torch.tensor(0) for key in expected if key.endswith("num_batches_tracked")}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_the_larger_resnets_have_the_same_names_and_blocks() -> None:
    """Without weights of 100 MB: shapes on the meta device, and the features of one bottleneck with a stride."""
    for architecture in ("resnet50", "wide_resnet50_2"):
        assert architecture in ARCHITECTURES
        with torch.device("meta"):
            theirs = torchvision.models.get_model(architecture)
            ours = timm.create_model(architecture, num_classes=0)
        shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in (theirs, ours)]
        assert {key: shape for key, shape in shapes[0].items() if not key.startswith("fc.")} == shapes[1]
        their_block, our_block = (model.layer2[0].to_empty(device="cpu").eval() for model in (theirs, ours))
        torch.manual_seed(0)
        state = {key: torch.rand_like(value.float()) * 0.1 for key, value in their_block.state_dict().items()}
        their_block.load_state_dict(state)
        our_block.load_state_dict(state)
        image = torch.randn(1, 256, 8, 8)
        torch.testing.assert_close(our_block(image), their_block(image), rtol=1e-6, atol=1e-6)


def test_the_record_says_where_the_weights_come_from(
    saved: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = saved(_attention)
    folder = convert(checkpoint, tmp_path / "out", name=NAME)
    _, digest, read = verify(folder)
    assert read is not None
    record = read.record
    assert record is not None
    assert (record.name, record.license, record.digest) == (NAME, "cc-by-nc-sa-4.0", digest)
    content = checkpoint.read_bytes()
    source = record.content["converted_from"]
    left_out = source.pop("left_out")
    assert source == {"file": "checkpoint.pt", "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    assert left_out == [
        *("fc.bias", "fc.weight", "layer1.0.ca.sharedMLP.0.weight", "layer1.0.sa.conv.weight", "sa.conv1.weight")
    ]
    assert "left out the tensors of attention modules (layer1.0.ca.sharedMLP.0.weight, " in caplog.text
    for file in ("README.md", "config.json", "tabzoo.json"):
        assert str(tmp_path) not in (folder / file).read_text()
    assert source["sha256"] in (folder / "README.md").read_text()
    config = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    assert (config["crop_pct"], config["crop_mode"], config["interpolation"]) == (0.875, "squash", "lanczos")
    assert (config["input_size"], config["pool_size"]) == ([3, 224, 224], [7, 7])


def test_other_number_types_become_single_precision(saved: Callable[..., Path], tmp_path: Path) -> None:
    half = saved(
        lambda state: {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    )
    tensors = load_file(convert(half, tmp_path / "out", name=NAME) / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32, torch.int64}


def _without(key: str) -> Callable[[State], State]:
    return lambda state: {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_without("layer3.1.bn2.weight"), "1 missing: layer3.1.bn2.weight"),
        (lambda state: state | {"layer1.2.conv1.weight": torch.ones(1)}, "1 unknown: layer1.2.conv1.weight"),
        (lambda state: state | {"conv1.weight": torch.ones(64, 1, 7, 7)}, "1 of another shape: conv1.weight"),
        (lambda state: state | {"bn1.bias": torch.full((64,), torch.nan)}, "1 not numbers: bn1.bias"),
        (lambda state: state | {"bn1.bias": torch.ones(64, dtype=torch.int64)}, "1 not numbers: bn1.bias"),
        (lambda state: state | {"bn1.bias": torch.ones(64, device="meta")}, "1 not numbers: bn1.bias"),
        (lambda _: torchvision.models.resnet34().state_dict(), r"unknown: layer1\.2\.bn1\.bias"),
        (lambda _: {"weight": torch.ones(2)}, "expected one ResNet .* found the names weight"),
        (lambda _: [1, 2], "found the names none"),
        (
            lambda state: state | {"bn1.bias": torch.full((64,), 1e300, dtype=torch.float64)},
            "1 too large for single precision: bn1.bias",
        ),
        (
            lambda state: state | {"bn1.num_batches_tracked": torch.tensor(1j)},
            r"1 not numbers: bn1\.num_batches_tracked",
        ),
        (
            lambda _: torch.nn.Linear(2, 2),
            r"it contains torch\.nn\.modules\.linear\.Linear\..* or model\.state_dict\(\)",
        ),
        (
            lambda _: {"state_dict": {}, "args": argparse.Namespace(lr=1)},
            r"it contains argparse\.Namespace\. If you trust the file, save only its tensors",
        ),
        (lambda _: {"state_dict": {}, "best": np.float64(0.9)}, r"it contains numpy[^\x1b]*save only its tensors"),
    ],
)
def test_files_without_a_matching_resnet_are_refused_with_the_keys(
    saved: Callable[..., Path], tmp_path: Path, change: Callable[[State], object], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        convert(saved(change), tmp_path / "out", name=NAME)
    assert not (tmp_path / "out").exists()


def _ema(state: State) -> dict[str, object]:
    ema = {f"module.{key}": value + 1 for key, value in state.items()}
    return {"epoch": 3, "state_dict": state, "state_dict_ema": ema, "model": {"teacher": state, "student": state}}


def test_one_of_several_state_dicts_is_chosen(
    theirs: torchvision.models.ResNet, saved: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint = saved(_ema)
    listed = r"contains 4 ResNets: model\.student, model\.teacher, state_dict, state_dict_ema\.module\. Choose one with --state"
    with pytest.raises(InputError, match=listed):
        convert(checkpoint, tmp_path / "out", name=NAME)
    for wrong, found in (
        (
            "state",
            r"contains no ResNet under 'state'; expected one of model\.student, .*such as --state-dict model\.student",
        ),
        ("model", r"contains 2 ResNets under model: model\.student, model\.teacher\. Choose"),
    ):
        with pytest.raises(InputError, match=found):
            convert(checkpoint, tmp_path / "out", name=NAME, state_dict=wrong)
    assert list(tmp_path.iterdir()) == [checkpoint]
    for choice, more in (("state_dict", 0), ("state_dict_ema.module.", 1)):
        folder = convert(checkpoint, tmp_path / choice, name=NAME, state_dict=choice)
        assert torch.equal(load_file(folder / "model.safetensors")["conv1.weight"], theirs.conv1.weight + more)
        assert json.loads((folder / "tabzoo.json").read_text())["converted_from"]["state_dict"] == choice
    entry = install("resnet18.ema", checkpoint, state_dict="state_dict_ema")
    assert torch.equal(load_file(entry.folder.weights)["conv1.weight"], theirs.conv1.weight + 1)
    with pytest.raises(InputError, match="--state-dict can't choose"):
        install("resnet18.more", entry.folder.path, state_dict="state_dict_ema")


def test_a_resnet_beside_another_below_it(
    theirs: torchvision.models.ResNet, saved: Callable[..., Path], tmp_path: Path
) -> None:
    """The one at the top has no prefix to name it by."""
    checkpoint = saved(lambda state: {**state, "ema": {key: value + 1 for key, value in state.items()}})
    with pytest.raises(InputError, match="contains 2 ResNets: '', ema"):
        convert(checkpoint, tmp_path / "out", name=NAME)
    for choice, more in (("", 0), ("ema", 1)):
        folder = convert(checkpoint, tmp_path / f"out{choice}", name=NAME, state_dict=choice)
        assert torch.equal(load_file(folder / "model.safetensors")["conv1.weight"], theirs.conv1.weight + more)


def _nested(state: State) -> dict[str, object]:
    """2 ** 40 paths to one tensor."""
    table: dict[str, object] = {"weight": torch.ones(1)}
    for _ in range(40):
        table = {"x": table, "y": table}
    return {"state_dict": state, "more": table}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        # 10 ** 13 elements, 4 bytes of storage
        (lambda state: {**state, "bn1.bias": torch.ones(1).expand(10**13)}, r"1 of another shape: bn1\.bias"),
        (
            lambda _: dict.fromkeys("abc", dict.fromkeys(range(10**5))),
            "more than 200,000 entries",
        ),
        (lambda _: {"x" * 10**6: torch.ones(1)}, "a name of 1,000,000 characters"),
    ],
)
def test_small_files_that_hold_too_much_are_refused(
    change: Callable[[State], object], reason: str, saved: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        convert(saved(change), tmp_path / "out", name=NAME)
    assert len(str(caught.value)) < 1000


def test_a_compressed_file_does_not_fill_the_memory(saved: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = saved(lambda state: {"more": torch.zeros(10**6)})
    with zipfile.ZipFile(checkpoint) as plain, zipfile.ZipFile(tmp_path / "packed.pt", "w") as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry), zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match=r"packed\.pt: [\d,]+ bytes that unpack to 4,0\d\d,\d\d\d"):
        convert(tmp_path / "packed.pt", tmp_path / "out", name=NAME)


def test_nested_dicts_are_searched_to_a_limited_depth(saved: Callable[..., Path], tmp_path: Path) -> None:
    assert verify(convert(saved(_nested), tmp_path / "out", name=NAME)).folder


def test_files_folders_and_names_that_cannot_be_used(saved: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = saved()
    (tmp_path / "text.pt").write_text("no checkpoint")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").write_text("mine")
    out = tmp_path / "out"
    for arguments, reason in (
        ((tmp_path / "none.pt", out, NAME), "no such file; expected"),
        ((tmp_path / "text.pt", out, NAME), "can't be read as tensors"),
        ((checkpoint, tmp_path / "used", NAME), "Name a folder that is new or empty"),
        ((checkpoint, checkpoint, NAME), "Name a folder that is new or empty"),
        ((checkpoint, out, "resnet34.tab"), "only checkpoints of resnet18, resnet50, wide_resnet50_2 can be converted"),
        ((checkpoint, out, "resnet18"), "expected ARCHITECTURE.TAG"),
        ((checkpoint, out, "resnet18.vital"), "cannot contain 'vit'"),
    ):
        with pytest.raises(InputError, match=reason):
            convert(arguments[0], arguments[1], name=arguments[2])
    for license in ("", " ", "mit\nno", "mit: no", "cc_by", "\u03a9", "x" * 201):
        with pytest.raises(InputError, match="--license '.*': expected an SPDX identifier"):
            convert(checkpoint, out, name=NAME, license=license)
    assert checkpoint.is_file()
    assert [entry.name for entry in (tmp_path / "used").iterdir()] == ["thesis.txt"]


def test_torchs_advice_to_execute_code_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no checkpoint")
    with pytest.raises(InputError) as caught:
        convert(tmp_path / "text.pt", tmp_path / "out", name=NAME)
    assert "weights_only" not in str(caught.value)
    assert str(caught.value).endswith("Weights only load failed. Expected a state dict saved by torch.save.")


def test_command_line(saved: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    arguments = ["convert", str(saved()), "--to", out, "--name"]
    assert main([*arguments, NAME, "--arch", "resnet50"]) == 2
    assert "two architectures" in capsys.readouterr().err
    assert main([*arguments, "tab_mine", "--arch", "resnet18", "--license", "mit"]) == 0
    assert f"tabzoo install resnet18.tab_mine {out}" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "tabzoo.json").read_text())
    assert (record["name"], record["license"]) == ("resnet18.tab_mine", "mit")
