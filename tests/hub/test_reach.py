"""Whether a Hub file can be had, found out quickly."""

import http.server
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from tabzoo.errors import WeightsError
from tabzoo.hub.reach import REACH_SECONDS, local_copy


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[http.server.HTTPServer]:
    """A server on this machine that answers everything with 404, as good a sign of life as any."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


def test_a_hub_that_answers_leaves_fetching_to_the_library(hub: http.server.HTTPServer) -> None:
    assert local_copy("org/name", ["model.safetensors"]) is None


def test_nothing_there_and_nothing_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nothing listens
    start = time.perf_counter()
    with pytest.raises(
        WeightsError, match=r"127\.0\.0\.1:9 does not answer .* no copy of org/name \(model\.safetensors\)"
    ):
        local_copy("org/name", ["model.safetensors"])
    assert time.perf_counter() - start < REACH_SECONDS + 2


def test_offline_mode_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        local_copy("org/name", ["model.safetensors"])


def test_a_cached_copy_serves_without_the_hub(tmp_path: Path) -> None:
    commit = "a" * 40
    repository = tmp_path / "hub" / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    file = repository / "snapshots" / commit / "pytorch_model.bin"
    file.write_bytes(b"weights")
    # In a process of its own: huggingface_hub reads HF_HOME when it is imported.
    code = "from tabzoo.hub.reach import local_copy; print(local_copy('org/name', ['model.safetensors', 'pytorch_model.bin']))"
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PATH": ""}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()) == file
