"""Ctrl-C and SIGTERM as a request to stop after the current step, so that what is saved is a whole step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

__all__ = ["StopRequest", "stop_requests"]


@dataclass
class StopRequest:
    """Whether a stop was asked for.

    Attributes:
        signal: Number of the signal that asked, 0 as long as none did.
    """

    signal: int = 0


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Within it SIGINT and SIGTERM are only noted; a second one acts at once, as it would outside."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # Python delivers signals to the main thread alone
        return
    before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _: FrameType | None) -> None:
        request.signal = number
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
