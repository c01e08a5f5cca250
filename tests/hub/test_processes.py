"""Several processes: they share one cache, and a new one finds the store, the cache and the Hub's variables."""

import json
import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from safetensors.torch import load_file
from server import Fault, HubServer
from small import contents

import tabzoo
from tabzoo.errors import WeightsError
from tabzoo.hub.load import install

OWN = "test_resnet.my_line"

# Importing torch takes seconds, so one new process answers for all tests. It imports timm before tabzoo.
NEW_PROCESS = """
import json, sys, timm

def known():
    return timm.list_models(pretrained=True), timm.list_models("resnet18*"), str(timm.get_pretrained_cfg("resnet18"))

report = {"before": known()}
import tabzoo
heavy = {"open_clip", "matplotlib", "sklearn", "tyro", "tabzoo.training"}
report |= {"after": known(), "heavy": sorted(heavy & set(sys.modules))}
from tabzoo.cli import main
from tabzoo.hub.remote import local_copy
own = timm.create_model(sys.argv[1], pretrained=True)
cached = tabzoo.create_model("hf-hub:org/name")
report |= {name: model.conv1[0].weight.tolist() for name, model in (("own", own), ("cached", cached))}
report |= {"copy": str(local_copy("org/name", ["model.safetensors"]))}
json.dump(report, open(sys.argv[2], "w"))
sys.exit(main(["list"]))  # Nobody reads what it prints.
"""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, small_folder: Path) -> Iterator[tuple[HubServer, Path]]:
    """A Hub, and the HF_HOME that two processes have filled from it at the same time."""
    hf_home = tmp_path_factory.mktemp("hf")
    fork = multiprocessing.get_context("fork")
    start = fork.Barrier(2)

    def load() -> None:
        start.wait(60)
        with suppress(WeightsError):  # Older releases of huggingface_hub continue only in the next call.
            tabzoo.create_model("hf-hub:org/name")
        tabzoo.create_model("hf-hub:org/name")

    with HubServer().running() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", server.endpoint)
        patch.setattr(constants, "HF_HUB_CACHE", str(hf_home / "hub"))
        server.commit("org/name", contents(small_folder))
        server.faults = [Fault("GET /blobs", cut=1000, times=1)]
        children = [fork.Process(target=load) for _ in range(2)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0, 0]
        yield server, hf_home


@pytest.fixture(scope="module")
def own(make_folder: Callable[..., Path]) -> Path:
    return make_folder(OWN, seed=7)


@pytest.fixture(scope="module")
def report(filled: tuple[HubServer, Path], own: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a new process reports about timm, a store with broken entries, and the Hub's cache without the Hub."""
    server, hf_home = filled
    folder = tmp_path_factory.mktemp("new_process")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TABZOO_HOME", str(folder / "home"))
        install(OWN, own)
        for broken in ("broken", "test_resnet.a1_in1k"):
            (folder / "home" / "weights" / broken).mkdir()
        patch.setenv("HF_ENDPOINT", server.endpoint)
        patch.setenv("HF_HOME", str(hf_home))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.delenv("HF_HUB_CACHE", raising=False)
        asked = len(server.requests)
        # Not all warnings: some releases of timm bring deprecations of torch's own.
        command = [sys.executable, "-W", "error::UserWarning", "-c", NEW_PROCESS, OWN, str(folder / "report.json")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    code = process.wait()
    assert (folder / "report.json").exists(), errors
    facts: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return facts | {"errors": errors, "code": code, "requests": len(server.requests) - asked}


def test_two_processes_fill_one_cache(filled: tuple[HubServer, Path], small_folder: Path) -> None:
    (blob,) = [path for path in (filled[1] / "hub").rglob("blobs/*") if path.stat().st_size > 10**6]
    assert blob.read_bytes() == (small_folder / "model.safetensors").read_bytes()


def first_weight(folder: Path) -> list[Any]:
    values: list[Any] = load_file(folder / "model.safetensors")["conv1.0.weight"].tolist()
    return values


def test_a_new_process_reads_the_hubs_variables(
    report: dict[str, Any], filled: tuple[HubServer, Path], small_folder: Path
) -> None:
    """HF_HOME and HF_HUB_OFFLINE, which huggingface_hub reads once, when it is imported."""
    assert report["cached"] == first_weight(small_folder)
    assert Path(report["copy"]).is_relative_to(filled[1])
    assert report["requests"] == 0


def test_a_new_process_knows_the_name_whatever_else_is_in_the_store(report: dict[str, Any], own: Path) -> None:
    assert report["own"] == first_weight(own)
    assert report["errors"].count("the local store's entry broken can't be used") == 1


def test_timms_own_models_are_unchanged(report: dict[str, Any]) -> None:
    (pretrained, models, config), (pretrained_after, *after) = report["before"], report["after"]
    assert [name for name in pretrained_after if name != OWN] == pretrained
    assert OWN in pretrained_after
    assert after == [models, config]
    assert "tag='a1_in1k'" in config


def test_import_loads_nothing_heavy(report: dict[str, Any]) -> None:
    assert report["heavy"] == []


def test_output_that_nobody_reads_is_not_an_error(report: dict[str, Any]) -> None:
    assert report["code"] == 1
    assert "Error" not in report["errors"]
