"""Shared by the tests of detectors."""

from collections.abc import Callable, Iterable

import pytest
from torch import Tensor

from tabzoo.benchmark.methods import ImageBatches


class Batches(list[Tensor]):
    """Batches as methods take them: the length is the number of images."""

    def __len__(self) -> int:
        return sum(len(batch) for batch in self)


@pytest.fixture(scope="session")
def batches() -> Callable[[Iterable[Tensor]], ImageBatches]:
    return Batches
