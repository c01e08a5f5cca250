"""Who is building an entry of the cache: locks, which the system frees when their holder dies, tell remains from work."""

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows has no such locks: as on a file system without them.
    fcntl = None  # type: ignore[assignment]

__all__ = ["lock", "remove_remains"]

logger = logging.getLogger(__name__)


@contextmanager
def lock(final: Path) -> Iterator[bool]:
    """Holds the lock of an entry, after another process that holds it has finished or died; false if it can't be had.

    Its file stays, for a lock on a removed file would keep nobody out.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open(final.with_name(f".{final.name}.lock"), "w"))
            try:
                _flock(file)
            except BlockingIOError:
                logger.warning("another process is building %s; waiting for it", final.name)
                _flock(file, wait=True)
            locked = True
        except OSError as error:  # No locks on this file system, or another user's file.
            logger.debug("no lock for %s: %s", final, error)
            locked = False
        yield locked


def _flock(file: IO[str], *, wait: bool = False) -> None:
    """Raises BlockingIOError when another holds it, another OSError when there are no locks."""
    if fcntl is None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    fcntl.flock(file.fileno(), fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def remove_remains(cache_dir: Path) -> None:
    """Removes what killed builds of other entries have left."""
    for folder in cache_dir.glob(".*.tmp"):
        # No such file, held, or no locks here: not ours to remove.
        with suppress(OSError), open(folder.with_suffix(".lock"), "r+") as file:
            _flock(file)
            logger.info("removing the remains of a cache build that was killed: %s", folder)
            shutil.rmtree(folder, ignore_errors=True)
