"""Mixed precision by device, and the warning about shared cores."""

import logging
import os

import pytest
import torch

from tabzoo import compute
from tabzoo.compute import CoreWatch, choose_amp, deterministic, seeded
from tabzoo.system import ProcessUse

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def cpu_with(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """A CPU with some capabilities, as torch reports them."""
    return lambda **found: monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)


@pytest.mark.parametrize(
    ("found", "amp"),
    [
        ({"avx2": True, "avx512_bf16": True}, "bf16"),
        ({"avx512_f": True, "amx_bf16": True}, "bf16"),
        ({"architecture": "arm64", "bf16": True}, "bf16"),
        ({"avx2": True, "avx512_f": True, "avx512_vnni": True, "avx512_bf16": False, "amx_bf16": False}, "off"),
        ({"avx2": True}, "off"),
        ({"architecture": "arm64", "bf16": False, "neon": True}, "off"),
    ],
)
def test_auto_on_cpus(cpu_with, found: dict[str, object], amp: str) -> None:  # type: ignore[no-untyped-def]
    cpu_with(**found)
    choice = choose_amp("auto", CPU)
    assert choice.amp == amp
    no = "no " if amp == "off" else ""
    assert choice.reason == f"amp auto: {amp}, because this CPU has {no}bfloat16 instructions."


@pytest.mark.parametrize(("capability", "amp"), [((7, 0), "off"), ((7, 5), "off"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_auto_on_gpus(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], amp: str) -> None:
    """torch emulates bfloat16 on V100 (7.0) and T4 (7.5), and says that it is supported there."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    choice = choose_amp("auto", CUDA)
    assert choice.amp == amp
    assert f"(CUDA capability {capability[0]}.{capability[1]})" in choice.reason


def test_older_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    asked = {"_is_avx512_bf16_supported": False, "_is_amx_tile_supported": False}
    monkeypatch.setattr(compute.platform, "machine", lambda: "x86_64")
    for name in asked:
        monkeypatch.setattr(torch.cpu, name, lambda name=name: asked[name], raising=False)
    assert choose_amp("auto", CPU).amp == "off"
    for name in asked:
        asked[name] = True
        assert choose_amp("auto", CPU).amp == "bf16"
        asked[name] = False
    for name in asked:  # too old to tell: the safe choice
        monkeypatch.delattr(torch.cpu, name)
    assert choose_amp("auto", CPU).amp == "off"


def test_a_given_value_is_kept_and_slow_bf16_is_warned_of(cpu_with, caplog: pytest.LogCaptureFixture) -> None:  # type: ignore[no-untyped-def]
    cpu_with(avx2=True)
    assert [choose_amp(amp, CPU) for amp in ("off", "fp16")] == [("off", ""), ("fp16", "")]
    assert caplog.text == ""
    assert choose_amp("bf16", CPU) == ("bf16", "")
    assert "this CPU has no bfloat16 instructions" in caplog.text
    assert "--amp auto or --amp off" in caplog.text
    caplog.clear()
    cpu_with(avx512_bf16=True)
    assert choose_amp("bf16", CPU) == ("bf16", "")
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("interruptions", "device", "threads_set", "warned"),
    [(5000, CPU, False, True), (100, CPU, False, False), (5000, CPU, True, False), (5000, CUDA, False, False)],
)
def test_shared_cores_are_warned_of_once(
    interruptions: int,
    device: torch.device,
    threads_set: bool,
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """20 s of CPU time in two threads, with 250 or 5 interruptions a second."""
    caplog.set_level(logging.WARNING)
    used = [ProcessUse(70, 4.0, 0)]
    monkeypatch.setattr(compute, "process_use", lambda: used[-1])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS")
    if threads_set:
        monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "2")
    watch = CoreWatch(device)
    used.append(ProcessUse(70, 5.0, 0))  # too short to tell
    watch.check()
    assert caplog.text == ""
    used.append(ProcessUse(70 + interruptions, 24.0, 0))
    for _ in range(3):
        watch.check()
    assert caplog.text.count("OMP_NUM_THREADS=1") == warned


def test_new_weights_come_from_the_seed_alone() -> None:
    before = torch.get_rng_state()
    drawn = []
    for seed in (0, 0, 1):
        with seeded(seed):
            drawn.append(torch.nn.Linear(2, 2).weight)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    deterministic()
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
