"""A Hub on this machine, and small weights folders for it."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from server import HubServer

from tabzoo import models
from tabzoo.folder import timm_config, write_folder
from tabzoo.hub.folders import read_record

SMALL = "test_resnet"
"""timm's smallest ResNet, 0.4 M parameters, with the names of tensors that its siblings have."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A Hub on this machine in place of the real one, and an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    monkeypatch.delenv("TABZOO_HUB_ORG", raising=False)
    with HubServer().running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty local store."""
    monkeypatch.setenv("TABZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def make_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a weights folder, as a run leaves it, with random weights of a timm architecture."""

    def make(name: str = "resnet18.tab_mvtec", *, seed: int = 0, license: str = "cc-by-nc-sa-4.0") -> Path:
        torch.manual_seed(seed)
        model = timm.create_model(name.split(".")[0], num_classes=0)
        # Statistics that differ from those of a fresh model.
        model.train()(torch.rand(4, 3, 64, 64))
        folder = tmp_path_factory.mktemp("weights") / name
        folder.mkdir()
        config = timm_config(model, license=license, description="random weights")
        write_folder(folder, model.state_dict(), config, name=name, provenance={}, made_by="made by a test.", facts="")
        return folder

    return make


@pytest.fixture(scope="session")
def small_folder(make_folder: Callable[..., Path]) -> Path:
    """A weights folder that nobody changes."""
    return make_folder(f"{SMALL}.tab_here")


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def publish(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., models.Weights]:
    """Puts a folder on the Hub of the tests, and its weights into the table."""

    def put(folder: Path, **changes: bytes) -> models.Weights:
        record = read_record(folder / "tabzoo.json")
        files = contents(folder) | {name.replace("_", "."): content for name, content in changes.items()}
        repository = f"tabzoo-tests/{record.name}"
        release = models.Release(repository=repository, commit=hub.commit(repository, files), **record.digest._asdict())
        first = models.WEIGHTS[0]
        weights = dataclasses.replace(first, name=record.name, license=record.license, release=release)
        monkeypatch.setattr(models, "WEIGHTS", (*models.WEIGHTS, weights))
        models.register()
        return weights

    return put
