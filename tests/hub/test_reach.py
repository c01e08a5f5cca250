"""Whether a Hub file can be had, found out quickly."""

import threading
from pathlib import Path

import pytest
from huggingface_hub import constants
from server import Fault, HubServer

from tabzoo.errors import WeightsError
from tabzoo.hub import reach
from tabzoo.hub.reach import local_copy

FILES = ["model.safetensors", "pytorch_model.bin"]


def test_a_hub_that_answers_leaves_fetching_to_the_library(hub: HubServer) -> None:
    assert local_copy("org/name", FILES) is None  # it answers 404, as good a sign of life as any
    assert len(hub.requests) == 1


def test_a_hub_that_is_silent_is_asked_once(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "REACH_SECONDS", 0.3)
    silence = threading.Event()
    hub.faults = [Fault("HEAD", silence=silence)]
    with pytest.raises(WeightsError, match=r"does not answer \((no answer within 0\.3 s|.*timed? ?out.*)"):
        local_copy("org/name", FILES)
    silence.set()
    assert len(hub.requests) == 1


def test_nothing_there_and_nothing_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nothing listens
    with pytest.raises(
        WeightsError, match=r"127\.0\.0\.1:9 does not answer .* no copy of org/name \(model\.safetensors or pytorch"
    ):
        local_copy("org/name", FILES)


def test_offline_mode_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        local_copy("org/name", FILES)


def test_a_cached_copy_serves_without_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    commit = "a" * 40
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / commit
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    snapshot.mkdir(parents=True)
    for file in reversed(FILES):  # at the end both are there, and the preferred one is taken
        (snapshot / file).write_bytes(b"weights")
        assert local_copy("org/name", FILES) == snapshot / file
