"""Lock files: one process at a time works on a folder. The system frees a lock when its holder ends, even if killed."""

import errno
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import filelock

from tabzoo.system import open_no_link

__all__ = ["hold", "lock"]

# Errors of a file system or a platform without locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)

logger = logging.getLogger(__name__)


@contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Holds the lock of a path; waits while another process holds it, and says so.

    The lock file `.NAME.lock` is next to the path. It stays there, because a lock on a removed file keeps nobody out.

    Yields:
        Whether the lock is held. False on a file system without locks, and if the lock file is a link or another user's.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_no_link(path.with_name(f".{path.name}.lock"), create=True))
            if not filelock.lock_descriptor(file.fileno(), blocking=False):
                logger.warning("waiting for another process that is using %s", path)
                filelock.lock_descriptor(file.fileno())
            locked = True
        except OSError as error:
            logger.debug("no lock for %s: %s", path, error)
            locked = False
        yield locked


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Holds a lock file, which names this process, and removes it at the end.

    On a file system or a platform without locks, it keeps no other process out.

    Raises:
        BlockingIOError: Another process holds it; the text names that process.
        OSError: The file can't be opened, because it is a link or another user's.
    """
    with ExitStack() as stack:
        while True:
            file = stack.enter_context(open_no_link(path, create=True))
            try:
                locked = filelock.lock_descriptor(file.fileno(), blocking=False)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                logger.debug("no lock in %s: %s", path, error)
                stack.callback(_remove, path)
                break
            if not locked:
                file.seek(1)
                raise BlockingIOError(file.read(200).strip() or "another process")
            if _is_at(path, file):  # else its holder removed it after it was opened here
                stack.callback(_remove, path)
                file.truncate()
                # Windows locks the first byte against reading as well, so the text begins after it.
                file.write(f" process {os.getpid()} on {platform.node()}")
                file.flush()
                break
        yield


def _remove(path: Path) -> None:
    with suppress(OSError):  # Windows keeps a file that is open, which does no harm
        path.unlink()


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False
