"""On a GPU nothing waits for the device: checked without one, by running on tensors that have no values."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from tabzoo.training.synthesis import SYNTHESES, Params
from tabzoo.training.synthesis.perlin import _ramps
from tabzoo.training.synthesis.poisson import sine_tables


@pytest.fixture(autouse=True)
def _no_tables_without_values() -> Iterator[None]:
    yield
    for table in (sine_tables, _ramps):
        table.cache_clear()


def valueless(params: Any) -> Any:
    """The same parameters on a GPU that need not be there."""
    if isinstance(params, torch.Tensor):
        return torch.empty(params.shape, dtype=params.dtype, device="cuda")
    if isinstance(params, tuple):
        return tuple(map(valueless, params))
    return type(params)(**{f.name: valueless(getattr(params, f.name)) for f in dataclasses.fields(params)})


@pytest.mark.parametrize("name", ["nsa", "cutpaste", "perlin", "mask", "mix"])
def test_applying_a_synthesis_asks_for_no_value(name: str) -> None:
    method: Any = SYNTHESES[name](torch.tensor([0, 0, 1, 1]), 64, 64, None)  # type: ignore[index]
    drawn: Params = method.draw(0, 0, torch.arange(4))
    with FakeTensorMode():
        images = torch.empty(4, 3, 64, 64, dtype=torch.uint8, device="cuda")
        made = method.apply(images, images.clone(), valueless(drawn))
    assert made.abnormal.device.type == "cuda"
    assert made.mask.shape == (4, 1, 64, 64)


def test_asking_for_a_value_would_be_seen() -> None:
    with FakeTensorMode():
        tensor = torch.ones(3, device="cuda")
        with pytest.raises(DataDependentOutputException):
            tensor.sum().item()
        with pytest.raises(DynamicOutputShapeException):
            tensor.nonzero()
