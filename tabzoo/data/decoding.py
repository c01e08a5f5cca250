"""Decodes files into the rows of an array, in this process or in several. If one dies, only its file is lost."""

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

from tabzoo.data.images import Facts, Resampling, read_image, read_mask
from tabzoo.data.samples import Bytes
from tabzoo.errors import ImageError
from tabzoo.progress import Progress

__all__ = ["ROW", "Failures", "Hashes", "Kind", "Outcome", "Pool", "Rows", "Target", "decode_all", "decode_chunk"]

logger = logging.getLogger(__name__)

# Seconds that starting processes takes, mostly to import torch. Less work than this is faster without them.
_POOL_START = 8.0
_SAVE_EVERY = 60.0
_CHUNK = 16

Kind: TypeAlias = Literal["image", "mask"]
Failures: TypeAlias = dict[int, str]
"""Row to the reason why its file can't be read."""
Hashes: TypeAlias = NDArray[np.uint64]
"""The first 16 hex digits of the SHA-256 of each file; 0 where it can't be read, or is not decoded yet, [N].

Of the file and not of the pixels, which depend on Pillow's version, on its JPEG decoder and on the size: hashes of one
machine would mean nothing on another. An image that is saved again has another hash.
"""
ROW = np.dtype([("hash", np.uint64), ("levels", np.float32, 5)])
Rows: TypeAlias = NDArray[np.void]
"""What is known about each file, of type `ROW`, [N]: its hash, and `images.Levels`, zeros for images of 8 bits."""
_Job: TypeAlias = tuple[int, bytes]


class Outcome(NamedTuple):
    """The result for some files.

    Attributes:
        rows: Row of a decoded file to its hash and levels.
        failures: Row of another file to the reason.
    """

    rows: dict[int, tuple[int, tuple[float, ...]]]
    failures: Failures


@dataclass(frozen=True)
class Target:
    """How files are decoded, and where the pixels go. It is small, because each task of a process contains it."""

    root: bytes
    kind: Kind
    size: int
    resampling: Resampling = "lanczos"  # of images; masks are resized to the nearest pixel
    white_level: float | None = None  # of images; see `images.read_image`
    file: str | None = None  # None: only find out whether the files can be read
    offset: int = 0  # of the first row in the file

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one decoded file."""
        return (self.size, self.size, 3) if self.kind == "image" else (self.size, self.size)

    def decode(self, path: bytes, facts: Facts | None = None) -> NDArray[np.uint8]:
        """The file's pixels, uint8 of shape `row_shape`."""
        file = os.fsdecode(os.path.join(self.root, path))
        if self.kind == "mask":
            return read_mask(file, size=self.size, facts=facts)
        return read_image(file, size=self.size, resampling=self.resampling, white_level=self.white_level, facts=facts)

    def write(self, row: int, pixels: NDArray[np.uint8]) -> None:
        """Writes a row, not through a memory map: there, a full disk would end the process and not be an error."""
        if self.file is not None:
            with open(self.file, "r+b") as file:
                file.seek(self.offset + row * pixels.size)
                file.write(np.ascontiguousarray(pixels).data)


def decode_chunk(target: Target, jobs: Sequence[_Job]) -> Outcome:
    """Decodes files into their rows, here or in a worker process."""
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
    """Decodes all files that are not decoded yet; returns those that can't be read.

    Args:
        target: Where the pixels go.
        paths: All files, [N].
        known: What is known about the files, 0 for those to decode; filled in, [N].
        workers: Number of processes.
        progress: Show progress, if a command runs.
        save: Called about once a minute, to save the rows so far.
    """
    failures: Failures = {}
    rows = np.flatnonzero(known["hash"] == 0).tolist()
    chunks = ([(row, bytes(paths[row])) for row in rows[i : i + _CHUNK]] for i in range(0, len(rows), _CHUNK))
    saved_time = time.monotonic()
    verb = "decoding" if target.file else "checking"
    with Progress(len(rows), f"{verb} {target.kind}s", unit="img", kept=True, show=progress) as bar:
        for decoded, failed in _decode_chunks(target, chunks, len(rows), workers):
            failures |= failed
            known[list(decoded)] = np.array(list(decoded.values()), ROW)
            bar.update(len(decoded) + len(failed))
            if save is not None and time.monotonic() - saved_time > _SAVE_EVERY:
                save()
                saved_time = time.monotonic()
    return failures


def _decode_chunks(target: Target, chunks: Iterator[list[_Job]], count: int, workers: int) -> Iterator[Outcome]:
    """Starts in this process, and continues in several when that is certainly faster."""
    start_time, num_done = time.monotonic(), 0
    for jobs in chunks:
        yield decode_chunk(target, jobs)
        num_done += len(jobs)
        left = (time.monotonic() - start_time) * (count / num_done - 1)
        if workers > 1 and left * (1 - 1 / workers) > _POOL_START:
            yield from _in_processes(target, chunks, workers)


def _in_processes(target: Target, chunks: Iterator[list[_Job]], workers: int) -> Iterator[Outcome]:
    """Decodes in worker processes, in any order; with half as many after one of them has died."""
    pending: dict[Future[Outcome], list[_Job]] = {}
    pool = Pool(workers)
    try:
        while True:
            # A bounded queue, because a million waiting paths would be a million objects.
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
                logger.warning("a decoding process died; continuing with %d", workers)
                lost = list(chain.from_iterable(pending.values()))
                pending.clear()
                yield _decode_apart(target, lost)
                pool = Pool(workers)
    finally:
        pool.close()


def _decode_apart(target: Target, jobs: list[_Job]) -> Outcome:
    """Decodes in one separate process, and halves the jobs until the file that kills it is alone."""
    with closing(Pool(1)) as pool:
        try:
            pool.submit(os.getpid).result()
        except BrokenProcessPool:  # Not because of a file: no process can start.
            return decode_chunk(target, jobs)
        try:
            return Outcome(*pool.submit(decode_chunk, target, jobs).result())
        except BrokenProcessPool:
            if len(jobs) == 1:
                reason = "the process that decoded it died: not enough memory, or the file crashes the decoder"
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
            context.set_forkserver_preload([__name__])  # Imported once and not by each worker.
        self._executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Like the executor's. If no process can start, the future raises `BrokenProcessPool`."""
        # Otherwise each worker imports the main script, and runs it if it has no `if __name__ == "__main__"`.
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; only the parent reports it.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
