"""A first signal is noted, a second one acts, and afterwards all is as before."""

import ctypes
import os
import pty
import signal
import threading
import time
from contextlib import suppress

import pytest

from tabzoo.signals import StopRequest, stop_requests


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
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


def test_what_is_ignored_stays_ignored() -> None:
    """As nohup does with SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.signal == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_after_a_cut_connection_nothing_is_written_to_the_terminal() -> None:
    """In a process of its own, on a terminal of its own that then goes away."""
    process, terminal = pty.fork()
    if process == 0:
        code = 1
        with suppress(BaseException), stop_requests() as stop:
            os.write(1, b".")
            while not stop.signal:
                time.sleep(0.01)
            os.write(1, b"Stopped")  # an error on a terminal that is gone
            code = int(stop.signal != signal.SIGHUP)
        os._exit(code)
    assert os.read(terminal, 1) == b"."
    os.close(terminal)  # sends SIGHUP
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


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


def test_a_process_that_is_held_up_ends_and_says_why() -> None:
    """One whose main thread waits for a peer that is gone, outside Python: its handlers never run."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        with suppress(BaseException):
            os.dup2(writing, 2)
            with stop_requests(patience=0.2, last_words="another process is gone"):
                os.write(writing, b".")
                while True:
                    ctypes.CDLL(None).usleep(100_000_000)
        os._exit(1)
    assert os.read(reading, 1) == b"."
    os.kill(process, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 128 + signal.SIGTERM
    assert os.read(reading, 100) == b"another process is gone\n"
    os.close(reading)
    os.close(writing)


def test_a_process_that_comes_to_its_end_in_time_is_left_alone() -> None:
    with stop_requests(patience=0.05) as stop:
        signal.raise_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert stop.signal == signal.SIGTERM
    assert signal.set_wakeup_fd(-1) == -1
