"""Prefetched items: their order, their errors, their thread."""

import contextlib
import threading

import pytest
import torch

from tabzoo.synthesis.prefetch import _IdleWatch, prefetch

CPU = torch.device("cpu")


def test_order_and_that_one_item_is_prefetched() -> None:
    made: list[int] = []
    second = threading.Event()

    def make(key: int) -> int:
        made.append(key)
        if key == 1:
            second.set()
        return 10 * key

    items = prefetch(make, range(5), CPU)
    assert next(items) == 0
    assert second.wait(10)  # nobody has asked for it
    assert made == [0, 1]
    assert list(items) == [10, 20, 30, 40]
    assert list(prefetch(make, [], CPU)) == []


def test_an_error_is_raised_in_place_of_its_item() -> None:
    def make(key: int) -> int:
        if key == 2:
            raise ValueError("no third one")
        return key

    items = prefetch(make, range(5), CPU)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ValueError, match="no third one"):
        next(items)


def test_one_thread_makes_items_one_by_one_and_ends_on_close() -> None:
    threads = set()
    began = threading.Event()

    def make(key: int) -> int:
        threads.add(threading.current_thread())
        if key == 0:
            assert not began.wait(0.1)  # the second item waits for this one
        else:
            began.set()
        return key

    items = prefetch(make, range(5), CPU)
    assert [next(items), next(items)] == [0, 1]
    (thread,) = threads
    assert thread is not threading.current_thread()
    items.close()
    assert not thread.is_alive()


def test_the_thread_sets_the_device_of_its_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread starts on GPU 0, where each of several processes would open a context."""
    here, gpu = threading.current_thread(), torch.device("cuda", 3)
    calls: list[tuple[str, object, bool]] = []  # what, on which device, in the caller's thread

    class Stream:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def wait_event(self, event: object) -> None:
            calls.append(("wait", self.device, threading.current_thread() is here))

        def record_event(self) -> str:
            return "event"

        def query(self) -> bool:
            return False

    def set_device(device: torch.device) -> None:
        calls.append(("set", device, threading.current_thread() is here))

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "set_device", set_device)
    assert list(prefetch(lambda key: key, [1, 2], gpu)) == [1, 2]
    assert calls[0] == ("set", gpu, False)
    assert [call for call in calls if call[0] == "set"] == calls[:1]
    assert ("wait", gpu, False) in calls


@pytest.mark.parametrize(("every", "warns"), [(1, True), (2, True), (4, False)])
def test_a_device_that_often_waits_is_a_warning(every: int, warns: bool, caplog: pytest.LogCaptureFixture) -> None:
    watch = _IdleWatch()
    for number in range(600):
        watch.see(idle=number % every == 0)
    assert caplog.text.count("The GPU waited for its images before") == int(warns)
