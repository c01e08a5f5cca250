"""Learning rates against their formulas and torch's own scheduler; when weights are updated in one kernel."""

import math
from typing import Any

import pytest
import timm.optim
import torch
from torch import nn

from tabzoo.training.optimizer import build_optimizer, learning_rate_schedule
from tabzoo.training.recipe import Recipe


def rates(kind: str, **sizes: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = learning_rate_schedule(optimizer, kind, **sizes)  # type: ignore[arg-type]
    values = []
    for _ in range(int(sizes["steps_per_epoch"] * sizes["epochs"])):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return values


def test_constant() -> None:
    assert rates("constant", steps_per_epoch=3, epochs=2) == [2.0] * 6


def test_cosine_falls_to_zero_over_the_run() -> None:
    expected = [1 + math.cos(math.pi * step / 8) for step in range(8)]
    assert rates("cosine", steps_per_epoch=4, epochs=2) == pytest.approx(expected)


def test_warm_up() -> None:
    values = rates("cosine", steps_per_epoch=4, epochs=3, warmup_epochs=1)
    assert values[:4] == pytest.approx([0.4, 0.8, 1.2, 1.6])
    assert values[4:] == pytest.approx([1 + math.cos(math.pi * step / 8) for step in range(8)])


@pytest.mark.parametrize("kind", ["constant", "cosine_authors"])
def test_warm_up_of_half_an_epoch_with_any_kind(kind: str) -> None:
    assert rates(kind, steps_per_epoch=5, epochs=1, warmup_epochs=0.5) == pytest.approx([2 / 3, 4 / 3, 2, 2, 2])


def test_a_resumed_run_goes_on_where_it_stopped() -> None:
    sizes = {"steps_per_epoch": 4, "epochs": 3, "warmup_epochs": 1}
    whole = rates("cosine", **sizes)
    for done in (1, 4, 7):
        first, second = (torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0) for _ in range(2))
        schedule = learning_rate_schedule(first, "cosine", **sizes)  # type: ignore[arg-type]
        for _ in range(done):
            first.step()
            schedule.step()
        second.load_state_dict(first.state_dict())  # a checkpoint holds this and the number of steps
        schedule = learning_rate_schedule(second, "cosine", **sizes, step=done)  # type: ignore[arg-type]
        values = []
        for _ in range(done, 12):
            values.append(second.param_groups[0]["lr"])
            second.step()
            schedule.step()
        assert values == pytest.approx(whole[done:])


def test_the_authors_cosine_is_torchs_stepped_once_an_epoch() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5, eta_min=0)
    expected = []
    for _ in range(12):
        expected += [optimizer.param_groups[0]["lr"]] * 5
        optimizer.step()
        theirs.step()
    assert rates("cosine_authors", steps_per_epoch=5, epochs=12) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("device", "amp", "name", "fused"),
    [
        ("cuda", "bf16", "sgd", True),
        ("cuda", "off", "adamw", True),
        ("cuda", "fp16", "sgd", False),  # torch's fused SGD and an overflow in the first step: momentum from anywhere
        ("cuda", "bf16", "lamb", False),  # has no such form
        ("cpu", "bf16", "sgd", False),
    ],
)
def test_one_kernel_for_all_weights_where_that_is_safe(
    device: str, amp: Any, name: str, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(timm.optim, "create_optimizer_v2", lambda *_, **options: given.update(options))
    build_optimizer(Recipe(optimizer=name, amp=amp), nn.Linear(2, 2), torch.device(device))
    assert given.get("fused", False) is fused


def test_momentum_after_an_overflow_in_the_first_step() -> None:
    """What our optimizer does in float16: the step whose gradients overflow leaves no trace."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.ones_(layer.weight)
    optimizer = build_optimizer(Recipe(amp="fp16", lr=1e-4), layer, torch.device("cpu"))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100)
    for factor in (1e30, 1.0):
        optimizer.zero_grad()
        scaler.scale(layer(torch.ones(1, 1)).sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
    assert layer.weight.item() == pytest.approx(1 - 1e-4)
