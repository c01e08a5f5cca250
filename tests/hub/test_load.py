"""Loading: where weights may come from, and the check that all of them are loaded."""

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from server import Fault, HubServer
from small import SMALL, contents
from torch import Tensor, nn

import tabzoo
from tabzoo.errors import InputError, WeightsError
from tabzoo.hub import table
from tabzoo.hub.folder import read_folder
from tabzoo.hub.load import build
from tabzoo.hub.table import Weights


def holds(model: nn.Module, folder: Path) -> bool:
    """Whether each tensor of the model that the file names is the file's."""
    file, state = load_file(folder / "model.safetensors"), model.state_dict()
    shared = state.keys() & file.keys()
    return len(shared) > 40 and all(torch.equal(state[key], file[key]) for key in shared)


def test_a_published_name(
    hub: HubServer, small_folder: Path, publish: Callable[..., Weights], caplog: pytest.LogCaptureFixture
) -> None:
    weights = publish(small_folder)
    assert weights.release is not None
    caplog.set_level(logging.INFO, "tabzoo")
    assert holds(tabzoo.create_model(weights.name), small_folder)
    assert hub.count("config.json") == hub.count("tabzoo.json") == 0  # the table knows all of it
    (line,) = caplog.messages
    for part in (weights.name, weights.release.commit, weights.release.sha256, weights.license):
        assert part in line
    asked = len(hub.requests)
    model = timm.create_model(weights.name, pretrained=True)  # plain timm, warm
    assert holds(model, small_folder)
    assert len(hub.requests) == asked
    assert timm.list_models("*.tab_here", pretrained=True) == [weights.name]
    assert timm.is_model_pretrained(weights.name)
    assert timm.get_pretrained_cfg(weights.name).hf_hub_id == f"{weights.release.repository}@{weights.release.commit}"


@pytest.mark.parametrize("options", [{}, {"num_classes": 10}, {"features_only": True}, {"in_chans": 1}])
def test_plain_timm_is_verified_too(
    options: dict[str, Any], hub: HubServer, small_folder: Path, publish: Callable[..., Weights]
) -> None:
    weights = publish(small_folder)
    hub.faults = [Fault("GET /blobs", body=lambda content: content[:-1] + bytes([content[-1] ^ 1]))]
    with pytest.raises(WeightsError, match="was downloaded twice with a wrong checksum"):
        timm.create_model(weights.name, pretrained=True, **options)
    hub.faults = [Fault("HEAD", status=403)]
    with pytest.raises(WeightsError, match=r"model\.safetensors can't be fetched: .*answers .*403"):
        timm.create_model(weights.name, pretrained=True, **options)
    hub.faults = []
    assert isinstance(timm.create_model(weights.name, pretrained=True, **options), nn.Module)


def test_folders_and_files_in_every_spelling(small_folder: Path) -> None:
    for source in (
        small_folder,
        str(small_folder),
        f"local-dir:{small_folder}",
        small_folder / "model.safetensors",
        str(small_folder / "model.safetensors"),
    ):
        assert holds(tabzoo.create_model(source), small_folder)


def test_a_folder_of_timms_own(tmp_path: Path) -> None:
    model = timm.create_model(SMALL, num_classes=0)
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    assert holds(tabzoo.create_model(tmp_path), tmp_path)


def test_a_repository_by_its_address(
    hub: HubServer, small_folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "tabzoo")
    commit = hub.commit("org/name", contents(small_folder))
    assert holds(tabzoo.create_model(f"hf-hub:org/name@{commit}"), small_folder)
    asked = len(hub.requests)
    assert holds(tabzoo.create_model(f"hf-hub:org/name@{commit}", num_classes=3), small_folder)
    assert len(hub.requests) == asked
    hub.commit("org/name", {"nothing": b""})
    hub.repositories["org/name"].refs["v1"] = commit
    assert holds(tabzoo.create_model("hf-hub:org/name@v1"), small_folder)
    assert all(f"org/name@{commit}" in line for line in caplog.messages)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert holds(tabzoo.create_model("hf-hub:org/name@v1"), small_folder)  # without a network, the commit it was


def test_weights_of_an_organisation_come_with_a_warning(
    hub: HubServer, small_folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.commit("acme/test_resnet.tab_ours", contents(small_folder))
    assert holds(tabzoo.create_model("test_resnet.tab_ours", organisation="acme"), small_folder)
    assert "only if you trust it" in caplog.text
    assert f"acme/test_resnet.tab_ours@{commit}" in caplog.text
    monkeypatch.setenv("TABZOO_HUB_ORG", "acme")
    assert holds(tabzoo.create_model("test_resnet.tab_ours"), small_folder)
    with pytest.raises(WeightsError, match=r"acme/resnet18\.tab_mvtec@main: tabzoo\.json can't be fetched"):
        timm.create_model("resnet18.tab_mvtec", pretrained=True)
    hub.commit("acme/resnet18.tab_mvtec", contents(small_folder))
    with pytest.raises(WeightsError, match="contains weights of test_resnet, not of resnet18.tab_mvtec"):
        tabzoo.create_model("resnet18.tab_mvtec")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("resnet18.tab_mvtek", r"neither weights of tabzoo \(.*Did you mean 'resnet18\.tab_mvtec'\?"),
        ("/no/such/folder", "nor a weights folder"),
        ("local-dir:/no/such", r"expected a folder with model\.safetensors.*the folder does not exist"),
        ("hf-hub:name", "expected hf-hub:ORG/NAME@COMMIT"),
        ("hf-hub:../../x@main", "expected hf-hub:ORG/NAME@COMMIT"),
        ("resnet18.tv_in1k", r"timm's own weights are loaded by timm\.create_model"),
    ],
)
def test_sources_that_do_not_exist(source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tabzoo.create_model(source)


def test_without_weights_it_is_timms(small_folder: Path) -> None:
    assert isinstance(tabzoo.create_model("resnet18.tab_mvtec", pretrained=False, in_chans=1), nn.Module)


@pytest.mark.parametrize("feature_cls", [None, "dict", "hook", "getter", "fx"])
def test_features_only_has_the_files_weights(feature_cls: str | None, small_folder: Path) -> None:
    kind = {"feature_cls": feature_cls} if feature_cls else {}
    maps = tabzoo.create_model(small_folder, features_only=True, out_indices=(1, 2), **kind).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        found = maps(image)
        found = list(found.values()) if isinstance(found, dict) else found
        whole = tabzoo.create_model(small_folder).eval().forward_intermediates(image, indices=[1, 2])[1]
    for one, other in zip(found, whole, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "options", [{}, {"num_classes": 10}, {"features_only": True}, {"features_only": True, "in_chans": 1}]
)
@pytest.mark.parametrize("change", ["missing", "prefixed", "renamed", "more", "surplus", "shape"])
def test_a_tensor_that_is_not_loaded_is_an_error(
    change: str, options: dict[str, Any], small_folder: Path, tmp_path: Path
) -> None:
    state = load_file(small_folder / "model.safetensors")
    changed: dict[str, Tensor] = {
        "missing": {key: value for key, value in state.items() if not key.startswith("layer1.0.conv1")},
        "prefixed": {f"backbone.{key}": value for key, value in state.items()},
        "renamed": {key.replace("layer2", "layer_2"): value for key, value in state.items()},
        "more": {**state, "fc.weight": torch.zeros(3, 3)},
        "surplus": {**state, "layer5.0.conv1.weight": torch.zeros(3, 3)},
        "shape": {key: value[:1] if key == "layer1.0.conv1.weight" else value for key, value in state.items()},
    }[change]
    (tmp_path / "config.json").write_bytes((small_folder / "config.json").read_bytes())
    save_file(changed, tmp_path / "model.safetensors")
    with pytest.raises(
        WeightsError, match=r"model\.safetensors: (does not fit|some tensors were not loaded into) test_resnet"
    ):
        tabzoo.create_model(tmp_path, **options)


def test_a_model_that_differs_from_its_file_is_an_error(small_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = read_folder(small_folder)
    tensors = load_file(folder.weights)
    build(folder.config, folder.weights, tensors)
    make, changed = timm.create_model, "layer3.0.conv1.weight"

    def bent(*arguments: Any, **options: Any) -> nn.Module:
        model = make(*arguments, **options)
        with torch.no_grad():
            model.get_parameter(changed).view(-1)[0] += 1
        return model

    monkeypatch.setattr(timm, "create_model", bent)
    with pytest.raises(WeightsError, match=r"1 tensors differ \(layer3\.0\.conv1\.weight\)"):
        build(folder.config, folder.weights, tensors)
    changed = "conv1.0.weight"  # seen through the change of channels too
    with pytest.raises(WeightsError, match="1 tensors differ"):
        build(folder.config, folder.weights, tensors, in_chans=1)


def test_half_precision_loads(small_folder: Path, tmp_path: Path) -> None:
    state = load_file(small_folder / "model.safetensors")
    save_file(
        {key: value.half() if value.is_floating_point() else value for key, value in state.items()},
        tmp_path / "model.safetensors",
    )
    (tmp_path / "config.json").write_bytes((small_folder / "config.json").read_bytes())
    loaded = tabzoo.create_model(tmp_path, in_chans=4).state_dict()["layer1.0.conv1.weight"]
    assert torch.equal(loaded, state["layer1.0.conv1.weight"].half().float())


def test_grey_images_have_the_features_of_three_equal_channels(make_folder: Callable[..., Path]) -> None:
    folder = make_folder("resnet18.tab_grey")
    grey = torch.randn(2, 1, 96, 96)  # normalised
    with torch.no_grad():
        one = tabzoo.create_model(folder, features_only=True, in_chans=1).eval()(grey)
        three = tabzoo.create_model(folder, features_only=True).eval()(grey.expand(-1, 3, -1, -1))
    for found, expected in zip(one, three, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_download_is_a_folder_for_a_machine_without_network(
    hub: HubServer, small_folder: Path, publish: Callable[..., Weights], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = publish(small_folder)
    folder = tabzoo.download(weights.name, tmp_path / "deep" / "folder")
    assert contents(folder) == contents(small_folder)
    assert not any(path.is_symlink() for path in folder.iterdir())
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert holds(timm.create_model(f"local-dir:{folder}", pretrained=True), small_folder)
    with pytest.raises(InputError, match="Name a folder that is new or empty"):
        tabzoo.download(folder, folder)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["folder"]


def test_a_published_repository_whose_record_is_of_other_weights(
    hub: HubServer, small_folder: Path, publish: Callable[..., Weights], tmp_path: Path
) -> None:
    record = json.loads((small_folder / "tabzoo.json").read_text())
    record["weights"]["size"] += 1
    weights = publish(small_folder, tabzoo_json=json.dumps(record).encode())
    tabzoo.create_model(weights.name)  # the table knows what the weights are
    with pytest.raises(WeightsError, match="the Hub announces|does not describe the weights that tabzoo knows"):
        tabzoo.download(weights.name, tmp_path / "folder")
    assert list(tmp_path.glob("folder*")) == []


def test_releases_are_pinned() -> None:
    for changes in ({"commit": "main"}, {"sha256": "0" * 63}):
        good = {"repository": "org/name", "commit": "0" * 40, "sha256": "0" * 64, "size": 1}
        with pytest.raises(ValueError, match="expected 40 hexadecimal digits"):
            table.Release(**(good | changes))  # type: ignore[arg-type]
    assert not any(weights.published for weights in table.WEIGHTS if weights.name.startswith("resnet18.tab_"))
    assert dataclasses.asdict(table.WEIGHTS[0])["release"] is None


def test_a_model_keeps_no_second_copy_of_its_weights(small_folder: Path) -> None:
    for options in ({}, {"features_only": True}, {"features_only": True, "feature_cls": "hook"}):
        model = tabzoo.create_model(small_folder, **options)  # type: ignore[arg-type]
        configs = [module.pretrained_cfg for module in model.modules() if hasattr(module, "pretrained_cfg")]
        assert configs
        assert {config["file"] for config in configs} == {str(small_folder / "model.safetensors")}
        assert not any("state_dict" in config for config in configs)
