"""What holds between processes: one cache for all of them, and the variables of huggingface_hub, which it reads once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from server import Fault, HubServer
from small import contents


@pytest.mark.slow
def test_two_processes_fill_one_cache_and_a_third_uses_it_offline(
    hub: HubServer, small_folder: Path, tmp_path: Path
) -> None:
    commit = hub.commit("org/name", contents(small_folder))
    code = f"import tabzoo; print(float(tabzoo.create_model('hf-hub:org/name@{commit}').conv1[0].weight.sum()))"
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    environment.pop("HF_HUB_CACHE", None)

    def start(**more: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", code],
            env={**environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def result(process: "subprocess.Popen[str]") -> str:
        out, errors = process.communicate()
        assert process.returncode == 0, errors
        return out

    hub.faults = [Fault("GET /blobs", cut=1000, times=1)]
    first, second = [result(process) for process in [start(), start()]]
    assert first == second
    asked = len(hub.requests)
    assert result(start(HF_HUB_OFFLINE="1")) == first
    assert len(hub.requests) == asked
    (blob,) = [path for path in (tmp_path / "hf").rglob("blobs/*") if path.stat().st_size > 10**6]
    assert blob.read_bytes() == (small_folder / "model.safetensors").read_bytes()
