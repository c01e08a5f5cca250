"""Files decoded into the rows of an array, in this process or in several; one that dies costs no more than its file."""

import logging
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing import connection, get_all_start_methods, get_context, parent_process
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from tabzoo.data.images import Facts, Resampling, read_image, read_mask
from tabzoo.data.samples import Bytes
from tabzoo.errors import ImageError

__all__ = ["ROW", "Failures", "Hashes", "Kind", "Outcome", "Pool", "Rows", "Target", "decode_all", "decode_chunk"]

logger = logging.getLogger(__name__)

# Seconds that starting processes takes, mostly to import torch: less work than this is done sooner without them.
_POOL_START = 8.0
_SAVE_EVERY = 60.0
_CHUNK = 16

Kind: TypeAlias = Literal["image", "mask"]
Failures: TypeAlias = dict[int, str]
"""Row to the reason why its file can't be read."""
Hashes: TypeAlias = NDArray[np.uint64]
"""Of each file's bytes, the first 16 hex digits of its SHA-256; 0 where it can't be read, or is not decoded yet, [N].

The bytes and not the pixels: these depend on Pillow's version, on how its JPEG decoder was built and on the size asked for,
so that the hashes of one machine would mean nothing on another. An image that was saved anew has another hash.
"""
ROW = np.dtype([("hash", np.uint64), ("levels", np.float32, 5)])
Rows: TypeAlias = NDArray[np.void]
"""What is known of each file, of type `ROW`, [N]: its hash, and `images.Levels`, zeros for images of 8 bits."""
_Job: TypeAlias = tuple[int, bytes]


class Outcome(NamedTuple):
    """Of some files: `rows`, number to the row of a decoded one, and `failures`."""

    rows: dict[int, tuple[int, tuple[float, ...]]]
    failures: Failures


@dataclass(frozen=True)
class Target:
    """How files are decoded and where to; small, since it travels with every task."""

    root: bytes
    kind: Kind
    size: int
    resampling: Resampling = "lanczos"  # Of images; masks are resized to the nearest pixel.
    white_level: float | None = None  # Of images; see `images.read_image`.
    file: str | None = None  # None: only find out whether the files can be read.
    offset: int = 0  # Of the first row in the file.

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Of one decoded file."""
        return (self.size, self.size, 3) if self.kind == "image" else (self.size, self.size)

    def decode(self, path: bytes, facts: Facts | None = None) -> NDArray[np.uint8]:
        """The file's pixels, uint8 of shape `row_shape`."""
        file = os.fsdecode(os.path.join(self.root, path))
        if self.kind == "mask":
            return read_mask(file, size=self.size, facts=facts)
        return read_image(file, size=self.size, resampling=self.resampling, white_level=self.white_level, facts=facts)

    def write(self, row: int, pixels: NDArray[np.uint8]) -> None:
        """Writes a row, and does not map it: a full disk is an error here, but ends a process that writes to a map."""
        if self.file is not None:
            with open(self.file, "r+b") as file:
                file.seek(self.offset + row * pixels.size)
                file.write(np.ascontiguousarray(pixels).data)


def decode_chunk(target: Target, jobs: Sequence[_Job]) -> Outcome:
    """Decodes files into their rows; also called in worker processes."""
    outcome = Outcome({}, {})
    for row, path in jobs:
        facts = Facts()
        try:
            target.write(row, target.decode(path, facts))
        except ImageError as error:
            outcome.failures[row] = error.reason
        else:
            outcome.rows[row] = int(facts.sha256.hexdigest()[:16], 16) or 1, facts.levels or (0, 0, 0, 0, 0)
    return outcome


def decode_all(
    target: Target,
    paths: Bytes,
    known: Rows,
    *,
    workers: int,
    progress: bool,
    save: Callable[[], None] | None = None,
) -> Failures:
    """Decodes all rows that are not done.

    Args:
        target: Where to.
        paths: All files, [N].
        known: Of the rows that are done, the other ones 0; gains those that are decoded, [N].
        workers: Number of processes.
        progress: Show a progress bar.
        save: Called every now and then, to keep what is done so far.
    """
    failures: Failures = {}
    rows = np.flatnonzero(known["hash"] == 0).tolist()
    chunks = ([(row, bytes(paths[row])) for row in rows[i : i + _CHUNK]] for i in range(0, len(rows), _CHUNK))
    saved_time = time.monotonic()
    verb = "decoding" if target.file else "checking"
    with tqdm(total=len(rows), desc=f"{verb} {target.kind}s", unit="img", disable=not (progress and rows)) as bar:
        for decoded, failed in _decode_chunks(target, chunks, len(rows), workers):
            failures |= failed
            known[list(decoded)] = np.array(list(decoded.values()), ROW)
            bar.update(len(decoded) + len(failed))
            if save is not None and time.monotonic() - saved_time > _SAVE_EVERY:
                save()
                saved_time = time.monotonic()
    return failures


def _decode_chunks(target: Target, chunks: Iterator[list[_Job]], count: int, workers: int) -> Iterator[Outcome]:
    """Here at first, and in processes once that is sure to pay."""
    start_time, num_done = time.monotonic(), 0
    for jobs in chunks:
        yield decode_chunk(target, jobs)
        num_done += len(jobs)
        left = (time.monotonic() - start_time) * (count / num_done - 1)
        if workers > 1 and left * (1 - 1 / workers) > _POOL_START:
            yield from _in_processes(target, chunks, workers)


def _in_processes(target: Target, chunks: Iterator[list[_Job]], workers: int) -> Iterator[Outcome]:
    """In worker processes, in any order. After one has died goes on with half as many."""
    pending: dict[Future[Outcome], list[_Job]] = {}
    pool = Pool(workers)
    try:
        while True:
            # A bounded queue: a million paths in flight would be as many objects.
            for jobs in islice(chunks, 4 * workers - len(pending)):
                pending[pool.submit(decode_chunk, target, jobs)] = jobs
            if not pending:
                return
            try:
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    outcome = future.result()
                    del pending[future]
                    yield outcome
            except BrokenProcessPool:
                pool.close()
                workers = max(1, workers // 2)
                logger.warning("a decoding process died; going on with %d", workers)
                lost = list(chain.from_iterable(pending.values()))
                pending.clear()
                yield _decode_apart(target, lost)
                pool = Pool(workers)
    finally:
        pool.close()


def _decode_apart(target: Target, jobs: list[_Job]) -> Outcome:
    """Decodes in one process of its own, and halves the jobs until a file that kills its process is alone."""
    with closing(Pool(1)) as pool:
        try:
            pool.submit(os.getpid).result()
        except BrokenProcessPool:  # It is not a file: there are no processes to be had.
            return decode_chunk(target, jobs)
        try:
            return Outcome(*pool.submit(decode_chunk, target, jobs).result())
        except BrokenProcessPool:
            if len(jobs) == 1:
                reason = "the process that decoded it died: out of memory, or the file breaks the decoder"
                return Outcome({}, {jobs[0][0]: reason})
    half = len(jobs) // 2
    one, other = _decode_apart(target, jobs[:half]), _decode_apart(target, jobs[half:])
    return Outcome(one.rows | other.rows, one.failures | other.failures)


class Pool:
    """Worker processes that import nothing of the caller's script and end when this process does."""

    def __init__(self, workers: int) -> None:
        method = "forkserver" if "forkserver" in get_all_start_methods() else "spawn"
        context = get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload([__name__])  # Imported once, not by each worker.
        self._executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Like the executor's; whatever keeps a process from starting is a broken pool, told by the future."""
        # Each worker would import the main script, and run it if it has no `if __name__ == "__main__"`.
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            return self._executor.submit(function, *arguments)
        except (OSError, EOFError, AssertionError, BrokenProcessPool) as error:
            broken: Future[Any] = Future()
            broken.set_exception(BrokenProcessPool(f"can't start a process: {error}"))
            return broken
        finally:
            sys.modules["__main__"] = main

    def close(self) -> None:
        """Ends the processes."""
        self._executor.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent alone reports it.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
