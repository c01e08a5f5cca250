"""Who is building an entry of the cache: locks, which the system frees when their holder dies, tell remains from work."""

import errno
import logging
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from tabzoo.system import lock_file, open_no_link

__all__ = ["hold", "lock", "remove_remains"]

# Of a file system or a platform without locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)

logger = logging.getLogger(__name__)


@contextmanager
def lock(final: Path) -> Iterator[bool]:
    """Holds the lock of an entry, after another process that holds it has finished or died; false if it can't be had.

    Its file stays, for a lock on a removed file would keep nobody out.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_no_link(final.with_name(f".{final.name}.lock"), create=True))
            try:
                lock_file(file)
            except BlockingIOError:
                logger.warning("another process is building %s; waiting for it", final.name)
                lock_file(file, wait=True)
            locked = True
        except OSError as error:  # No locks on this file system, or another user's file.
            logger.debug("no lock for %s: %s", final, error)
            locked = False
        yield locked


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Holds a lock file for as long as this process works on what it is about; it is removed at the end.

    Where the file system or the platform has no locks, nobody is kept out.

    Raises:
        BlockingIOError: Another process holds it; the text names that process.
        OSError: It can't be opened: a link, or another user's.
    """
    with ExitStack() as stack:
        while True:
            try:
                file = stack.enter_context(open_no_link(path, create=True))
                lock_file(file)
            except BlockingIOError:
                raise BlockingIOError(file.read(200).strip() or "another process") from None
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                logger.debug("no lock in %s: %s", path, error)
                stack.callback(_remove, path)
                break
            if _is_at(path, file):  # else its holder has removed it since it was opened
                stack.callback(_remove, path)
                file.truncate()
                file.write(f"process {os.getpid()} on {platform.node()}")
                file.flush()
                break
        yield


def _remove(path: Path) -> None:
    with suppress(OSError):  # Windows keeps a file that is open; it is in nobody's way
        path.unlink()


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def remove_remains(cache_dir: Path) -> None:
    """Removes what killed builds of other entries have left."""
    for folder in cache_dir.glob(".*.tmp"):
        # No such file, a link, held, or no locks here: not ours to remove.
        with suppress(OSError), open_no_link(folder.with_suffix(".lock"), create=False) as file:
            lock_file(file)
            logger.info("removing the remains of a cache build that was killed: %s", folder)
            shutil.rmtree(folder, ignore_errors=True)
