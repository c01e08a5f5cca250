"""A request to stop ends a trial at once, except in training, which completes its step and saves it first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from tabzoo.system import stop_signals

__all__ = ["StoppedError", "stoppable"]


class StoppedError(BaseException):
    """The trial was asked to stop.

    Args:
        number: Of the signal.
    """

    # No Exception: nothing on the way may take it for an error that it can handle.

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def stoppable() -> Iterator[None]:
    """Within it, SIGINT, SIGTERM and SIGHUP raise `StoppedError`. Signals that the process ignores stay ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread alone
        return

    def stop(number: int, _: FrameType | None) -> NoReturn:
        raise StoppedError(number)

    before = {number: signal.getsignal(number) for number in stop_signals()}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
