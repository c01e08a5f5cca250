"""A Hub on this machine, and small weights folders for it."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from server import HubServer


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub on this machine in place of the real one."""
    with HubServer().running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty local store."""
    monkeypatch.setenv("TABZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def make_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a weights folder, as a run leaves it, with random weights of a timm architecture."""

    def make(name: str = "resnet18.tab_mvtec", *, seed: int = 0, license: str = "cc-by-nc-sa-4.0") -> Path:
        torch.manual_seed(seed)
        architecture = name.split(".")[0]
        model = timm.create_model(architecture, num_classes=0)
        folder = tmp_path_factory.mktemp("weights") / name
        folder.mkdir()
        save_file(model.state_dict(), str(folder / "model.safetensors"), metadata={"format": "pt"})
        pretrained_cfg = {
            **{"architecture": architecture, "input_size": [3, 224, 224], "num_classes": 0, "pool_size": [7, 7]},
            **{"crop_pct": 0.875, "crop_mode": "squash", "interpolation": "lanczos", "license": license},
            **{"first_conv": "conv1", "classifier": "fc"},
        }
        config = {"architecture": architecture, "num_classes": 0, "pretrained_cfg": pretrained_cfg}
        (folder / "config.json").write_text(json.dumps(config))
        content = (folder / "model.safetensors").read_bytes()
        weights = {"file": "model.safetensors", "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        record = {"name": name, "weights": weights, "license": license, "recipe": {"name": "a test's"}}
        (folder / "tabzoo.json").write_text(json.dumps(record))
        (folder / "README.md").write_text(f"# {name}\n")
        return folder

    return make
