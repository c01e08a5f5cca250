"""Items made one ahead."""

import threading

import pytest
import torch

from tabzoo.training.ahead import one_ahead

CPU = torch.device("cpu")


def test_order_and_how_far_ahead() -> None:
    made: list[int] = []
    second = threading.Event()

    def make(key: int) -> int:
        made.append(key)
        if key == 1:
            second.set()
        return 10 * key

    items = one_ahead(make, range(5), CPU)
    assert next(items) == 0
    assert second.wait(10)  # the next one is made without being asked for
    assert made == [0, 1]
    assert list(items) == [10, 20, 30, 40]
    assert list(one_ahead(make, [], CPU)) == []


def test_an_error_comes_where_its_item_would_and_closing_ends_the_thread() -> None:
    def make(key: int) -> int:
        if key == 2:
            raise ValueError("no third one")
        return key

    items = one_ahead(make, range(5), CPU)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ValueError, match="no third one"):
        next(items)
    before = threading.active_count()
    items = one_ahead(make, range(2), CPU)
    next(items)
    items.close()
    assert threading.active_count() == before
