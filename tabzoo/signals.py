"""Ctrl-C, SIGTERM and SIGHUP as a request to stop after the current step, so that complete steps are saved.

Also: a reader of the output that goes away, as with `| head`, does not end the run.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from types import FrameType
from typing import IO, Any, cast

from tabzoo.system import hang_up, stop_signals

__all__ = ["StopRequest", "output_may_be_unread", "stop_requests"]


@dataclass
class StopRequest:
    """Whether a stop was asked for.

    Attributes:
        signal: Number of the signal that asked, 0 as long as none did.
    """

    signal: int = 0


@contextmanager
def stop_requests(*, patience: float | None = None, last_words: str = "") -> Iterator[StopRequest]:
    """Within it, SIGINT, SIGTERM and SIGHUP are only noted; a second one acts at once, as usual.

    Signals that the process ignores, as under nohup, stay ignored. After SIGHUP the terminal is gone: writing to it would be
    an error, so output is dropped.

    Args:
        patience: Seconds from SIGTERM after which the process ends, with code 143, if it is still in here; None for no
            limit. A process whose peer has died may wait for it inside a GPU's collective, where Python runs no handler.
        last_words: What is then written to stderr.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # Python delivers signals to the main thread alone
        return
    before = {number: signal.getsignal(number) for number in stop_signals()}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def note(number: int, _: FrameType | None) -> None:
        request.signal = number
        signal.signal(number, before[number])
        if number == hang_up():
            for descriptor in terminals:
                _to_nowhere(descriptor)

    for number in before:
        signal.signal(number, note)
    try:
        with nullcontext() if patience is None else _ended_after(patience, last_words):
            yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _ended_after(patience: float, last_words: str) -> Iterator[None]:
    # The system writes each signal's number into a socket even while the main thread is held up outside Python.
    heard, told = socket.socketpair()
    told.setblocking(False)
    done = threading.Event()

    def watch() -> None:
        while number := heard.recv(1):
            if number[0] == signal.SIGTERM and not done.wait(patience):
                os.write(2, f"{last_words}\n".encode())
                os._exit(128 + signal.SIGTERM)

    before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        signal.set_wakeup_fd(before)
        told.close()  # ends the watcher
        watcher.join()
        heard.close()


@contextmanager
def output_may_be_unread() -> Iterator[None]:
    """Within it, output that nobody reads any more, as with `| head`, is dropped without an error."""
    streams = [cast(IO[str], _Unread(stream)) for stream in (sys.stdout, sys.stderr)]
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        yield


class _Unread:
    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            _to_nowhere(self._stream.fileno())
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            _to_nowhere(self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
