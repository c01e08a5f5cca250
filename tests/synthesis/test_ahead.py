"""Items made one ahead."""

import threading

import pytest
import torch

from tabzoo.synthesis.ahead import one_ahead

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


def test_an_error_comes_where_its_item_would() -> None:
    def make(key: int) -> int:
        if key == 2:
            raise ValueError("no third one")
        return key

    items = one_ahead(make, range(5), CPU)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ValueError, match="no third one"):
        next(items)


def test_items_are_made_one_at_a_time_by_a_thread_that_closing_ends() -> None:
    threads = set()
    began = threading.Event()

    def make(key: int) -> int:
        threads.add(threading.current_thread())
        if key == 0:
            assert not began.wait(0.1)  # the second item's turn comes after this one's
        else:
            began.set()
        return key

    items = one_ahead(make, range(5), CPU)
    assert [next(items), next(items)] == [0, 1]
    (thread,) = threads
    assert thread is not threading.current_thread()
    items.close()
    assert not thread.is_alive()
