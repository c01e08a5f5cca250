"""How a step is divided among processes and into parts."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from tabzoo.training.ranks import Ranks
from tabzoo.training.recipe import Recipe
from tabzoo.training.run import Run


def make_run(*, images: int, batch_size: int, micro_batch: int, size: int) -> Run:
    pairs = SimpleNamespace(class_ids=torch.zeros(images, dtype=torch.long))
    nothing: Any = None
    return Run(
        recipe=Recipe(batch_size=batch_size, micro_batch=micro_batch),
        folder=Path(),
        device=torch.device("cpu"),
        samples=nothing,
        hashes=nothing,
        text=nothing,
        pairs=cast(Any, pairs),
        ranks=Ranks(size=size),
    )


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("batch_size", [16, 17, 100, 101, 103])
@pytest.mark.parametrize("micro_batch", [0, 1, 2, 3, 6, 50])
def test_all_processes_take_as_many_passes(size: int, batch_size: int, micro_batch: int) -> None:
    """Else those with fewer would not come to the last synchronised batch-norm of the others, which wait for ever."""
    run = make_run(images=200, batch_size=batch_size, micro_batch=micro_batch, size=size)
    shares = [len(part) for part in torch.arange(batch_size).tensor_split(size)]
    parts = [[len(part) for part in torch.arange(share).tensor_split(run.passes)] for share in shares]
    assert all(len(of_one) == run.passes for of_one in parts)
    sizes = [length for of_one in parts for length in of_one]
    assert min(sizes) >= min(2, micro_batch or 2)  # batch-norm can't work on one image
    if micro_batch >= 3 or micro_batch == 0:
        assert max(sizes) <= (micro_batch or max(shares))


def test_parts_follow_the_largest_share() -> None:
    assert make_run(images=100, batch_size=100, micro_batch=6, size=8).passes == 3  # shares of 13 and of 12
