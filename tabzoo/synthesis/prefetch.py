"""Makes the next item while the current one is in use: in a thread, and on a GPU in a CUDA stream of its own.

Reading pixels, copying them to the device and the many small kernels of a synthesis then run in the gaps of the
training step. Neither side waits for the device: CUDA events order the two streams.
"""

import logging
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

__all__ = ["prefetch"]

K = TypeVar("K")
T = TypeVar("T")

Event = torch.cuda.Event

_WATCHED = 200  # items
_log = logging.getLogger(__name__)


def prefetch(make: Callable[[K], T], keys: Iterable[K], device: torch.device) -> Generator[T, None, None]:
    """Yields `make(key)` for each key, in order, and makes the next item while the caller uses this one.

    `make` may reuse an item's buffers for the second item after it: two sets of buffers, used alternately, are enough.

    Args:
        make: Makes an item on the current stream of the device. One other thread calls it, for one key at a time.
        keys: What to make.
        device: Device of the items.
    """
    side_stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    with ThreadPoolExecutor(1, initializer=_enter, initargs=(side_stream,)) as thread:
        coming: Future[tuple[T, Event | None]] | None = None
        watch = _IdleWatch()
        for key in keys:
            # The caller has asked for the next item, so it has queued all its work on the item before the one that is
            # coming. Once the device reaches this event, that item's buffers are free for the item submitted here.
            buffers_free = torch.cuda.current_stream(device).record_event() if side_stream else None
            following = thread.submit(_make, make, key, side_stream, buffers_free)
            if coming is not None:
                yield _ready(coming, device, watch)
            coming = following
        if coming is not None:
            yield _ready(coming, device, watch)


def _enter(side_stream: torch.cuda.Stream | None) -> None:
    """Sets the thread's device. It starts on GPU 0, where each process of a run would open a context of some 100 MB."""
    if side_stream is not None:
        torch.cuda.set_device(side_stream.device)


def _make(
    make: Callable[[K], T], key: K, side_stream: torch.cuda.Stream | None, buffers_free: Event | None
) -> tuple[T, Event | None]:
    """An item, and on a GPU the event that says when the device has made it."""
    if side_stream is None or buffers_free is None:
        return make(key), None
    with torch.cuda.stream(side_stream):
        side_stream.wait_event(buffers_free)
        return make(key), side_stream.record_event()


def _ready(coming: "Future[tuple[T, Event | None]]", device: torch.device, watch: "_IdleWatch") -> T:
    """Waits for the thread, not for the device: the caller's stream waits for the item on the device instead."""
    item, done = coming.result()
    if done is not None:
        stream = torch.cuda.current_stream(device)
        watch.see(idle=stream.query())
        stream.wait_event(done)
    return item


class _IdleWatch:
    """Warns once if the device often has no work left when the next item comes: then making items limits the rate.

    One thread makes them, and shares Python's interpreter lock with the loop that uses them.
    """

    def __init__(self) -> None:
        self._seen = self._idle = 0

    def see(self, *, idle: bool) -> None:
        self._seen, self._idle = self._seen + 1, self._idle + idle
        if self._seen == _WATCHED and self._idle > _WATCHED // 3:
            _log.warning(
                "The GPU waited for its images before %d of %d steps. Faster are --cache device, and --synthesis nsa or mask.",
                *(self._idle, self._seen),
            )
