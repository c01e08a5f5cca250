"""Shared by the tests of detectors."""

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor

from tabzoo.benchmark.methods import ImageBatches


class Batches(list[Tensor]):
    """Batches as methods take them: the length is the number of images."""

    def __len__(self) -> int:
        return sum(len(batch) for batch in self)

    def take(self, rows: Tensor) -> Tensor:
        return torch.cat(self)[rows]


@pytest.fixture(scope="session")
def batches() -> Callable[[Iterable[Tensor]], ImageBatches]:
    return Batches
