"""No synthesis makes the host wait for a GPU: checked without one, on fake tensors that have no values."""

import dataclasses
from typing import Any

import pytest
import torch
from fake_cuda import in_a_child
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from tabzoo.synthesis import SYNTHESES, Mix


def valueless(params: Any) -> Any:
    """The same parameters on a fake GPU."""
    if isinstance(params, torch.Tensor):
        return torch.empty(params.shape, dtype=params.dtype, device="cuda")
    if isinstance(params, tuple):
        return tuple(map(valueless, params))
    return type(params)(**{f.name: valueless(getattr(params, f.name)) for f in dataclasses.fields(params)})


def test_apply_reads_no_value_of_a_tensor() -> None:
    """A mix applies every method to the whole batch."""
    method = Mix(torch.tensor([0, 0, 1, 1]), 64, 64)
    drawn = method.draw(0, 0, torch.arange(4))
    assert len(drawn.methods) == len(SYNTHESES) - 1

    def check() -> None:
        with FakeTensorMode():
            images = torch.empty(4, 3, 64, 64, dtype=torch.uint8, device="cuda")
            made = method.apply(images, images.clone(), valueless(drawn))
        assert made.abnormal.device.type == "cuda"
        assert made.mask.shape == (4, 1, 64, 64)

    in_a_child(check)


def test_reading_a_value_is_detected() -> None:
    def check() -> None:
        with FakeTensorMode():
            tensor = torch.ones(3, device="cuda")
            with pytest.raises(DataDependentOutputException):
                tensor.sum().item()
            with pytest.raises(DynamicOutputShapeException):
                tensor.nonzero()

    in_a_child(check)
