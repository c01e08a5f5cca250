"""A name is resolved once in a process, and its file hashed once, until something changes."""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file

import tabzoo
from tabzoo.errors import InputError, WeightsError
from tabzoo.hub import files, registry, store
from tabzoo.hub.load import install
from tabzoo.hub.store import Entry

NAME = "test_resnet.counted"


@pytest.fixture
def entry(make_folder: Callable[..., Path]) -> Entry:
    """Installed weights, which no test has read in this process."""
    entry = install(NAME, make_folder(NAME, seed=11))
    registry.register()
    os.utime(entry.folder.weights, ns=(0, 0))
    time.sleep(0.05)  # a file that changed a moment ago is hashed again
    return entry


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes each reading of an entry's record and configuration, and each hashing of a file."""
    done: list[str] = []

    def noting(what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **options: Any) -> Any:
            if what != "hash" or not arguments or not isinstance(arguments[0], bytes) or len(arguments[0]) > 10**6:
                done.append(what)
            return call(*arguments, **options)

        return noted

    monkeypatch.setattr(hashlib, "file_digest", noting("hash", hashlib.file_digest))
    monkeypatch.setattr(hashlib, "sha256", noting("hash", hashlib.sha256))
    monkeypatch.setattr(store, "read_folder", noting("folder", store.read_folder))
    return done


def plain_timm(name: str) -> torch.nn.Module:
    model: torch.nn.Module = timm.create_model(name, pretrained=True)
    return model


@pytest.mark.parametrize("first", [plain_timm, tabzoo.create_model])
def test_a_name_is_resolved_and_hashed_once(
    first: Callable[[str], torch.nn.Module], entry: Entry, work: list[str]
) -> None:
    saved = load_file(entry.folder.weights)
    for load in (first, plain_timm, tabzoo.create_model, plain_timm):
        model = load(NAME)
        assert all(torch.equal(value, saved[key]) for key, value in model.state_dict().items())
    assert sorted(work) == ["folder", "hash"]


@pytest.mark.parametrize("load", [plain_timm, tabzoo.create_model])
def test_a_replaced_file_is_noticed(load: Callable[[str], torch.nn.Module], entry: Entry) -> None:
    load(NAME)
    weights = entry.folder.weights
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(weights, ns=(0, 0))  # size and time are as before
    with pytest.raises(WeightsError, match=rf"SHA-256 .* Type `tabzoo uninstall {NAME}`"):
        load(NAME)


@pytest.mark.parametrize("load", [plain_timm, tabzoo.create_model])
def test_a_changed_store_is_noticed(
    load: Callable[[str], torch.nn.Module], entry: Entry, make_folder: Callable[..., Path]
) -> None:
    before = load(NAME).state_dict()["conv1.0.weight"]
    record = entry.folder.path / "tabzoo.json"
    content = record.read_text()
    record.write_text("{")
    with pytest.raises(WeightsError, match="not JSON"):
        load(NAME)
    record.write_text(content)
    assert torch.equal(load(NAME).state_dict()["conv1.0.weight"], before)
    store.uninstall(NAME)
    with pytest.raises((InputError, WeightsError), match="neither weights of tabzoo"):
        load(NAME)
    other = make_folder(NAME, seed=12)
    install(NAME, other)
    found = load(NAME).state_dict()["conv1.0.weight"]
    assert torch.equal(found, load_file(other / "model.safetensors")["conv1.0.weight"])
    assert not torch.equal(found, before)


def test_a_file_that_just_changed_is_hashed_again(tmp_path: Path, work: list[str]) -> None:
    path = tmp_path / "file"
    for _ in range(2):
        path.write_bytes(b"content")
        files.Digest.of(path)
    assert len(work) == 2
