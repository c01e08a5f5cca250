"""A first signal is noted, a second one acts, and afterwards all is as before."""

import signal
import threading

import pytest

from tabzoo.training.signals import StopRequest, stop_requests


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_is_noted_and_the_second_acts(number: signal.Signals) -> None:
    received: list[int] = []
    before = signal.signal(number, lambda number, _: received.append(number))
    try:
        with stop_requests() as stop:
            assert stop.signal == 0
            signal.raise_signal(number)
            assert (stop.signal, received) == (number, [])
            signal.raise_signal(number)
            assert received == [number]
        signal.raise_signal(number)
        assert received == [number, number]
        with stop_requests() as stop:  # left without a signal
            pass
        signal.raise_signal(number)
        assert (stop.signal, len(received)) == (0, 3)
    finally:
        signal.signal(number, before)


def test_another_thread_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[StopRequest] = []

    def run() -> None:
        with stop_requests() as stop:
            assert signal.getsignal(signal.SIGINT) is before
            seen.append(stop)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert [stop.signal for stop in seen] == [0]
