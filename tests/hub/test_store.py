"""The local store: names that work without any Hub."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from small import contents

import tabzoo
from tabzoo.errors import InputError, WeightsError
from tabzoo.hub import registry, store
from tabzoo.hub.files import Digest
from tabzoo.hub.load import install


@pytest.fixture
def own(make_folder: Callable[..., Path]) -> Path:
    """A run's output folder, with the other files that a run keeps."""
    folder = make_folder("test_resnet.run_7", seed=7)
    (folder / "checkpoints").mkdir()
    (folder / "run.json").write_text("{}")
    return folder


def test_an_installed_name_loads_in_every_way(own: Path, home: Path) -> None:
    entry = install("test_resnet.my_factory", own)
    assert sorted(contents(entry.folder.path)) == [
        *("README.md", "config.json", "installed.json", "model.safetensors", "tabzoo.json"),
    ]
    registry.register()
    expected = timm.create_model(f"local-dir:{own}", pretrained=True).state_dict()
    for model in (
        timm.create_model("test_resnet.my_factory", pretrained=True),
        timm.create_model("test_resnet", pretrained=True, pretrained_cfg="my_factory"),
        timm.create_model("test_resnet.my_factory", pretrained=True, num_classes=4),
        tabzoo.create_model("test_resnet.my_factory"),
    ):
        state = model.state_dict()
        assert all(torch.equal(state[key], value) for key, value in expected.items())
    assert "test_resnet.my_factory" in tabzoo.list_models()
    assert timm.list_models("test_resnet.my_*", pretrained=True) == ["test_resnet.my_factory"]
    assert timm.get_pretrained_cfg("test_resnet.my_factory").interpolation == "lanczos"
    assert tabzoo.download("test_resnet.my_factory", home / "folder") == home / "folder"


def test_a_name_of_the_table_can_be_installed_and_uninstalled(make_folder: Callable[..., Path]) -> None:
    folder = make_folder("resnet18.mine")
    install("resnet18.tab_mvtec", folder)
    registry.register()
    model = timm.create_model("resnet18.tab_mvtec", pretrained=True, features_only=True)
    assert torch.equal(model.conv1.weight, timm.create_model(f"local-dir:{folder}", pretrained=True).conv1.weight)
    assert timm.is_model_pretrained("resnet18.tab_mvtec")
    store.uninstall("resnet18.tab_mvtec")
    registry.register()
    assert not timm.is_model_pretrained("resnet18.tab_mvtec")
    with pytest.raises(WeightsError, match="not published yet"):
        timm.create_model("resnet18.tab_mvtec", pretrained=True)


def test_the_authors_checkpoint_is_converted_on_the_way(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet18()
    torch.save(theirs.state_dict(), tmp_path / "checkpoint.pth")
    entry = install("resnet18.tab_mvtec", tmp_path / "checkpoint.pth")
    assert entry.origin["from"] == str(tmp_path / "checkpoint.pth")
    assert entry.folder.record is not None
    assert entry.folder.record.license == "cc-by-nc-sa-4.0"
    assert torch.equal(tabzoo.create_model("resnet18.tab_mvtec").state_dict()["conv1.weight"], theirs.conv1.weight)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18", "is not a valid name: expected ARCHITECTURE.TAG"),
        ("resnet18.My Factory", "is not a valid name"),
        ("../resnet18.x", "is not a valid name"),
        ("resnet18.a.b", "is not a valid name"),
        ("resnet81.mine", r"has no architecture resnet81\. Did you mean 'resnet"),
        ("resnet18.gravity_vit", "cannot contain 'vit'"),
        ("resnet18.a1_in1k", "timm already has weights of this name"),
        ("resnet18.mine", "contains weights of test_resnet"),
    ],
)
def test_invalid_names(name: str, message: str, own: Path, home: Path) -> None:
    with pytest.raises(InputError, match=message):
        install(name, own)
    assert not home.exists() or list((home / "weights").iterdir()) == []


def test_weights_that_do_not_load_are_not_installed(own: Path, home: Path) -> None:
    """Even where the record is right: a tensor of the architecture is missing."""
    tensors = load_file(own / "model.safetensors")
    del tensors["layer1.0.conv1.weight"]
    save_file(tensors, own / "model.safetensors")
    record = json.loads((own / "tabzoo.json").read_text())
    record["weights"] |= Digest.of(own / "model.safetensors")._asdict()
    (own / "tabzoo.json").write_text(json.dumps(record))
    with pytest.raises(WeightsError, match="does not fit test_resnet"):
        install("test_resnet.mine", own)
    assert list((home / "weights").iterdir()) == []


def test_what_can_not_be_installed_leaves_nothing(own: Path, home: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        install("test_resnet.mine", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"model\.safetensors is missing"):
        install("test_resnet.mine", tmp_path / "empty")
    content = bytearray((own / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (own / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="wrong checksum"):
        install("test_resnet.mine", own)
    assert list((home / "weights").iterdir()) == []


def test_installing_twice_asks_to_uninstall(own: Path) -> None:
    install("test_resnet.twice", own)
    with pytest.raises(InputError, match="`tabzoo uninstall test_resnet.twice` first"):
        install("test_resnet.twice", own)


def test_uninstalling(own: Path, home: Path) -> None:
    (home / "weights").mkdir(parents=True)
    (home / "kept").write_text("")
    for name in ("../kept", "..", "test_resnet.none"):
        with pytest.raises(InputError, match="is not installed"):
            store.uninstall(name)
    install("test_resnet.gone", own)
    store.uninstall("test_resnet.gone")
    assert store.find("test_resnet.gone") is None
    assert (home / "kept").exists()


def test_damaged_weights_are_an_error_at_loading(own: Path) -> None:
    entry = install("test_resnet.rotten", own)
    registry.register()
    content = bytearray(entry.folder.weights.read_bytes())
    content[-1] ^= 1
    entry.folder.weights.write_bytes(content)
    for load in (tabzoo.create_model, lambda name: timm.create_model(name, pretrained=True)):
        with pytest.raises(WeightsError, match="SHA-256"):
            load("test_resnet.rotten")


def _broken(kind: str, path: Path) -> None:
    if kind == "empty":
        path.mkdir()
    elif kind == "a file":
        path.write_text("")
    elif kind == "a link to nowhere":
        path.symlink_to("nowhere")
    else:
        (path / "config.json").write_text("{")


@pytest.mark.parametrize("kind", ["empty", "a file", "a link to nowhere", "bent"])
def test_a_broken_entry_warns_once_and_can_be_removed(
    kind: str, own: Path, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"test_resnet.broken_{kind.replace(' ', '_')}"
    install(name if kind == "bent" else "test_resnet.complete", own)
    _broken(kind, home / "weights" / name)
    caplog.set_level(logging.WARNING, "tabzoo")
    for _ in range(2):
        registry.register()
    assert [name in message and f"`tabzoo uninstall {name}`" in message for message in caplog.messages] == [True]
    store.uninstall(name)
    assert name not in os.listdir(home / "weights")


def test_a_broken_entry_is_named_when_its_weights_are_asked_for(home: Path) -> None:
    for name in ("resnet18.tab_mvtec", "resnet18.my_factory"):
        (home / "weights" / name).mkdir(parents=True)
        with pytest.raises(WeightsError, match=f"Type `tabzoo uninstall {name}`, then install it again"):
            tabzoo.create_model(name)
    with pytest.raises(WeightsError, match="Type `tabzoo uninstall resnet18.tab_mvtec`, then install it again"):
        timm.create_model("resnet18.tab_mvtec", pretrained=True)


def test_the_stores_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TABZOO_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert store.home() == tmp_path / "tabzoo"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.home() == tmp_path / ".local/share/tabzoo"
    assert list(store.installed()) == []


def test_a_store_that_can_not_be_read_warns(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    home.mkdir()
    (home / "weights").write_text("a file")
    registry.register()
    assert "can't be read: Not a directory" in caplog.text


def test_names_that_timm_has_by_now_are_left_to_it(own: Path, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = timm.get_pretrained_cfg("test_resnet.r160_in1k")
    path = install("test_resnet.stand_in", own).folder.path
    path.rename(path.with_name("test_resnet.r160_in1k"))
    registry.register()
    assert timm.get_pretrained_cfg("test_resnet.r160_in1k") == before
    assert "timm now has weights of this name" in caplog.text


def test_the_record_of_an_entry_says_where_it_came_from(own: Path) -> None:
    entry = install("test_resnet.recorded", own)
    assert entry.origin["from"] == str(own)
    assert json.loads((entry.folder.path / "installed.json").read_text())["installed"].startswith("20")
