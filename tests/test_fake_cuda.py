"""Nothing makes the host wait for a GPU, and no devices are mixed: checked without a GPU, on fake tensors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from fake_cuda import BUILT, CUDA, UNORDERED, Record, backward, fake_cuda, in_a_child
from fake_step import FakeStep
from torch import Tensor

from tabzoo.signals import StopRequest
from tabzoo.synthesis import SYNTHESES
from tabzoo.synthesis.pairs import PairMaker
from tabzoo.training import loop
from tabzoo.training.recipe import Recipe

pytestmark = pytest.mark.skipif(not BUILT, reason="torch is built without CUDA, whose tensors could be fake")

SMALL = Recipe(
    **{"backbone": "test_resnet", "init": "random", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    **{"resize": 48, "crop": 40, "batch_size": 12, "epochs": 9, "channels_last": True, "amp": "off"},
)


def waits_of(call: Callable[[], object], record: Record) -> dict[str, int]:
    """What the second call waits for; the first one makes tables and buffers."""
    call()
    record.reset()
    call()
    return dict(record.waits)


# --- Training. A step of every synthesis, with every precision and every head.

STEPS: dict[str, dict[str, Any]] = {
    "nsa": {"nsa_num_patches": 2},
    "cutpaste": {"amp": "bf16", "projection": "linear", "objective": "joint", "optimizer": "adamw"},
    "perlin": {"amp": "fp16", "projection": "residual", "micro_batch": 5, "reduction": "sum"},
    "mask": {"amp": "bf16", "projection": "residual", "learn_temperature": True, "channels_last": False},
    "mix": {"amp": "fp16", "projection": "linear", "cutpaste_variant": "union", "batch_norm": "frozen"},
}


def test_the_steps_cover_everything() -> None:
    assert set(STEPS) == set(SYNTHESES)
    assert {changes.get("amp", "off") for changes in STEPS.values()} == {"off", "bf16", "fp16"}
    assert {changes.get("projection", "none") for changes in STEPS.values()} == {"none", "linear", "residual"}


RANKING = {"synthesis": "mix", "objective": "ranking", "batch_norm": "frozen", "amp": "bf16"}


@pytest.mark.parametrize(
    "changes", [*({"synthesis": name, **STEPS[name]} for name in STEPS), RANKING], ids=[*STEPS, "ranking"]
)
def test_a_training_step_never_waits(changes: dict[str, Any]) -> None:
    def check() -> None:
        with fake_cuda() as record:
            step = FakeStep(SMALL.replace(**changes))
            waits = waits_of(step, record)
            # Synthesis adds two numbers at most to each zero, so their order does not matter.
            assert UNORDERED & record.launches.keys() <= {"scatter_add_"}
            if (
                step.run.recipe.amp == "fp16"
            ):  # torch's scaler reads whether a gradient was infinite, and skips the step then
                assert [line.split()[-1] for line in waits] == ["state.scaler.step(state.optimizer)"]
                waits = {}
            assert waits == {}
            weights = list(step.state.objective.parameters())
            assert {weight.device for weight in weights} == {CUDA}
            assert all((weight.grad is None) != weight.requires_grad for weight in weights)

    in_a_child(check)


def test_a_run_waits_only_for_the_rows_of_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six steps, and a row after every third."""
    stream = PairMaker.stream
    monkeypatch.setattr(PairMaker, "stream", lambda *args: stream(*args, prefetched=False))  # no streams of a GPU
    monkeypatch.setattr(loop, "save_state", lambda *_: None)

    def check() -> None:
        with fake_cuda() as record:
            step = FakeStep(SMALL.replace(epochs=6, log_every=3), tmp_path)
            step()
            step.state.step = 0
            record.reset()
            loop.train(step.run, step.state, StopRequest())
            assert step.state.step == 6
            assert record.waits.total() > 0
            copies = {line: count for line, count in record.waits.items() if line.startswith("a copy")}
            assert list(copies.values()) == [2]
            assert all("ranks.py" in line for line in copies), copies
            assert all("log.py" in line for line in record.waits if line not in copies), record.waits

    in_a_child(check)


# The detectors: detectors/test_on_a_fake_gpu.py.


# --- The fake GPU itself: it notices what a GPU would wait for, and computes gradients and sizes as torch does.

FAULTS: dict[str, Callable[[Tensor], object]] = {
    "a value is read": lambda x: x.sum().item(),
    "a truth value is read": lambda x: bool(x.sum() > 0),
    "an index on the CPU": lambda x: x[torch.tensor([0, 1])],
    "a list as an index": lambda x: x[[0, 1]],
    "a constant": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "a constant of the same type": lambda x: x.new_tensor([1.0, 2.0]),
    "a copy from memory that is not pinned": lambda x: torch.ones(3).to(x.device, non_blocking=True),
    "a copy that waits": lambda x: torch.ones(3).pin_memory().to(x.device),
    "a copy in place": lambda x: x.copy_(torch.ones(3)),
    "a copy to the CPU": lambda x: x.cpu(),
}
FREE: dict[str, Callable[[Tensor], object]] = {
    "a number": lambda x: torch.where(x > 0, 0.5, x) * torch.tensor(2.0),
    "a copy from pinned memory": lambda x: torch.ones(3).pin_memory().to(x.device, non_blocking=True),
    "values on the CPU": lambda _: torch.arange(3).nonzero().tolist(),
    "drawn on the device": lambda x: torch.zeros_like(x).uniform_() + torch.arange(3, device=x.device),
}


def test_a_fault_in_a_step_is_noticed() -> None:
    """It is made in the step itself, once for the normal and once for the abnormal images."""
    normalise, in_one = PairMaker.normalise, loop.in_one

    def check() -> None:
        with fake_cuda() as record, pytest.MonkeyPatch.context() as patch:
            step = FakeStep(SMALL)
            step()
            for name in ("a value is read", "an index on the CPU", "a constant"):

                def in_synthesis(maker: PairMaker, pixels: Tensor, out: Tensor, fault: Any = FAULTS[name]) -> None:
                    fault(out.view(-1)[:3])
                    normalise(maker, pixels, out)

                def in_training(outcomes: list[Any], fault: Any = FAULTS[name]) -> Tensor:
                    for outcome in outcomes:
                        fault(outcome.loss.detach().expand(3))
                    return in_one(outcomes)

                for owner, attribute, faulty in (
                    (PairMaker, "normalise", in_synthesis),
                    (loop, "in_one", in_training),
                ):
                    with patch.context() as once:
                        once.setattr(owner, attribute, faulty)
                        record.reset()
                        step()
                        assert record.waits.total() == 2, (name, attribute)

    in_a_child(check)


def test_what_waits_and_what_does_not() -> None:
    def check() -> None:
        with fake_cuda() as record:
            x = torch.ones(3, device=CUDA)
            for name, fault in FAULTS.items():
                record.reset()
                fault(x)
                assert record.waits.total() == 1, name
            for name, call in FREE.items():
                record.reset()
                call(x)
                assert not record.waits, name
            with pytest.raises(RuntimeError, match="devices"):
                x + torch.ones(3)

    in_a_child(check)


def test_gradients_are_torchs() -> None:
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = timm.create_model("test_resnet", num_classes=5)
    expected, weight = [], torch.ones(3, requires_grad=True)

    def loss() -> Tensor:
        return (model(images).double().square().mean() * weight).sum() + weight.prod()

    for run in (torch.Tensor.backward, backward):
        model.zero_grad()
        weight.grad = None
        run(loss())
        expected.append([parameter.grad for parameter in (*model.parameters(), weight)])
    for ours, torchs in zip(*expected, strict=True):
        torch.testing.assert_close(ours, torchs)


def test_launches_bytes_and_memory() -> None:
    def check() -> None:
        with fake_cuda() as record:
            x = torch.empty(256, 256, device=CUDA)
            assert (record.memory, record.launches.total()) == (1 << 18, 0)
            y = x.t() @ x
            y[:, 0].mul_(2)
            assert dict(record.launches) == {"mm": 1, "mul_": 1}
            assert record.flops == 2 * 256**3
            assert record.bytes == 3 * (1 << 18) + 2 * 4 * 256
            assert record.memory == record.peak == 2 << 18
            del y
            assert (record.memory, record.peak) == (1 << 18, 2 << 18)
            weight = torch.nn.Parameter(torch.empty(256, 256, device=CUDA))
            (weight @ x).sigmoid().sum().backward()
            assert weight.grad is not None
            assert record.memory == 3 << 18  # nothing that was saved for the backward pass is left
            rows = torch.zeros(5, dtype=torch.int64, device=CUDA)
            record.reset()
            x.index_select(0, rows)
            assert record.bytes == 2 * 5 * 1024 + 5 * 8  # of x only what is taken

    in_a_child(check)
