"""One item made ahead of the one in use: in a thread, and on a GPU in a stream of its own.

Reading pixels, copying them to the device and the many small kernels of a synthesis then fill the gaps of the training
step, which never waits for them, and nothing here waits for the device.
"""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

__all__ = ["one_ahead"]

K = TypeVar("K")
T = TypeVar("T")

Event = torch.cuda.Event


def one_ahead(make: Callable[[K], T], keys: Iterable[K], device: torch.device) -> Generator[T, None, None]:
    """Yields `make(key)` for each key, in order; while one is in use, the next one is made.

    Buffers are reused two items later, so two sets, used in turn, are enough.

    Args:
        make: Makes an item, on the current stream of the device; called in one other thread, never twice at a time.
        keys: What to make.
        device: Where the items lie.
    """
    lane = torch.cuda.Stream(device) if device.type == "cuda" else None
    with ThreadPoolExecutor(1) as thread:
        coming: Future[tuple[T, Event | None]] | None = None
        for key in keys:
            # Recorded when the item before the last one is used no more: its buffers are free from here on.
            free = torch.cuda.current_stream(device).record_event() if lane else None
            following = thread.submit(_made, make, key, lane, free)
            if coming is not None:
                yield _ready(coming, device)
            coming = following
        if coming is not None:
            yield _ready(coming, device)


def _made(make: Callable[[K], T], key: K, lane: torch.cuda.Stream | None, free: Event | None) -> tuple[T, Event | None]:
    if lane is None or free is None:
        return make(key), None
    with torch.cuda.stream(lane):
        lane.wait_event(free)
        return make(key), lane.record_event()


def _ready(coming: "Future[tuple[T, Event | None]]", device: torch.device) -> T:
    made, done = coming.result()
    if done is not None:
        torch.cuda.current_stream(device).wait_event(done)
    return made
