"""A Hub on this machine."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from server import HubServer
from small import SMALL, contents

from tabzoo.hub import registry, table
from tabzoo.hub.record import read_record


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A Hub on this machine in place of the real one, and an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    monkeypatch.delenv("TABZOO_HUB_ORG", raising=False)
    with HubServer().running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


@pytest.fixture(autouse=True)
def _empty_store(home: Path) -> None:
    """Every test has a local store of its own."""


@pytest.fixture(scope="session")
def small_folder(make_folder: Callable[..., Path]) -> Path:
    """A weights folder that nobody changes."""
    return make_folder(f"{SMALL}.tab_here")


@pytest.fixture
def publish(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., table.Weights]:
    """Puts a folder on the Hub of the tests, and its weights into the table."""

    def put(folder: Path, **changes: bytes) -> table.Weights:
        record = read_record(folder / "tabzoo.json")
        files = contents(folder) | {name.replace("_", "."): content for name, content in changes.items()}
        repository = f"tabzoo-tests/{record.name}"
        release = table.Release(repository=repository, commit=hub.commit(repository, files), **record.digest._asdict())
        first = table.WEIGHTS[0]
        weights = dataclasses.replace(first, name=record.name, license=record.license, release=release)
        monkeypatch.setattr(table, "WEIGHTS", (*table.WEIGHTS, weights))
        registry.register()
        return weights

    return put
