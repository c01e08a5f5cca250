"""Entries of the cache: decoded images on the disk, found by a fingerprint, either complete or absent.

An entry is a folder:

    NAME-SIZE-FINGERPRINT/
      pixels.npy    [N, S, S, 3] images or [N, S, S] masks, a row for every file, zeros where a file can't be read
      paths.npy, stats.npy (size in bytes, modification and change time in ns, inode)
      rows.npy      the hash and the levels of each file, see `decoding.ROW`; zeros where it can't be read
      index.json    how the files were decoded, and the unreadable ones with their reasons

The fingerprint covers the list of files with their identities, how they are decoded, and Pillow's version. Size and
modification time alone do not identify a file: two files that `mv` swaps may have the same. So the inode and the time of
its last change count too. A copy, another mount or a `chmod` changes these but not the pixels; then the files are decoded
once more, which costs time and is never wrong.

An entry never changes. Other files make another entry, which copies the rows that it shares with earlier ones.

It is built in `.NAME-SIZE-FINGERPRINT.tmp`, flushed to the disk and renamed. Every minute, after a flush, the finished
rows are noted in `rows.npy`, where the next build continues after a kill. A builder holds the lock of its entry: others
wait for it, and what a killed build left behind can be told from a build in progress. On a file system without locks,
each process builds in a folder of its own, and the first to finish wins: the results are equal.
"""

import errno
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from stat import S_ISDIR
from typing import Any, NamedTuple

import filelock
import numpy as np
import PIL
from numpy.typing import NDArray

from tabzoo.data.decoding import ROW, Failures, Hashes, Kind, Rows, Target, decode_all
from tabzoo.data.images import Resampling, files_of_mask
from tabzoo.data.samples import Bytes
from tabzoo.errors import ImageError, InputError
from tabzoo.locks import lock
from tabzoo.system import folder_size, open_no_link

__all__ = ["Entry", "Files", "Stored", "delete_entry", "open_entry", "stored_entries"]

logger = logging.getLogger(__name__)

# Increase it when the files of an entry change, or what `images.py` makes of an image.
_FORMAT = 4

_NAMED = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*-[0-9]+-[0-9a-f]{24}")
_LARGEST = 2**63 - 1
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, eq=False)
class Files:
    """The files of one entry as they are on the disk, and how they are decoded."""

    target: Target
    paths: Bytes
    stats: NDArray[np.int64]  # [N, 4]: size in bytes, modification and change time in ns, inode; -1 for a missing file

    @classmethod
    def listed(
        cls,
        root: Path,
        paths: Bytes,
        kind: Kind,
        size: int,
        resampling: Resampling,
        white_level: float | None = None,
    ) -> "Files":
        """Looks at the files now."""
        target = Target(os.fsencode(root), kind, size, resampling, white_level)
        return cls(target, paths, _stats(target.root, paths))

    @property
    def num_bytes(self) -> int:
        """Size of the pixels of all files."""
        return len(self.paths) * int(np.prod(self.target.row_shape))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Everything but the file itself that decides its pixels."""
        white_level = self.target.white_level if self.target.kind == "image" else None
        return {
            "format": _FORMAT,
            **({} if white_level is None else {"white_level": float(white_level)}),
            "kind": self.target.kind,
            "size": self.target.size,
            "resize": self.target.resampling if self.target.kind == "image" else "nearest",
            "pillow": PIL.__version__,
            # The real path: one folder under two names has one entry, two folders with equal file lists have two.
            "root": os.path.realpath(os.fsdecode(self.target.root)),
        }

    @cached_property
    def folder_name(self) -> str:
        """Name of the entry's folder, with the fingerprint in it."""
        digest = hashlib.sha256(json.dumps([self.settings, len(self.paths)], sort_keys=True).encode())
        # Joined, because the width of the array depends on the longest path.
        digest.update(b"\0".join(self.paths.tolist()) + b"\0")
        digest.update(np.ascontiguousarray(self.stats).tobytes())
        name = re.sub(r"[^A-Za-z0-9.-]+", "_", os.path.basename(self.settings["root"]))[:40].lstrip(".")
        what = "" if self.target.kind == "image" else "-masks"
        return f"{name or 'data'}{what}-{self.target.size}-{digest.hexdigest()[:24]}"


def _stats(root: bytes, paths: Bytes) -> NDArray[np.int64]:
    def stat(path: bytes) -> tuple[int, int, int, int]:
        try:
            status = os.stat(os.path.join(root, path))
            if S_ISDIR(status.st_mode):  # several masks of one image
                return of_several([os.stat(file) for file in files_of_mask(os.fsdecode(os.path.join(root, path)))])
        except OSError:
            return -1, -1, -1, -1
        # Some file systems use all 64 bits of an inode's number.
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & _LARGEST

    def of_several(all_: list[os.stat_result]) -> tuple[int, int, int, int]:
        each = repr([(one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino) for one in all_])
        digest = int.from_bytes(hashlib.sha256(each.encode()).digest()[:8], "big") & _LARGEST
        return sum(one.st_size for one in all_), digest, digest, digest

    return np.fromiter(map(stat, paths.tolist()), np.dtype((np.int64, 4)), len(paths))


class Entry(NamedTuple):
    """What is known about some files.

    Attributes:
        files: The files.
        unreadable: Path, as text, to the reason why the file can't be read.
        rows: Hash and levels of each file, [N].
        pixels: The decoded files, uint8 [N, ...]; None if they are not stored.
    """

    files: Files
    unreadable: dict[str, str]
    rows: Rows
    pixels: NDArray[np.uint8] | None

    @property
    def hashes(self) -> Hashes:
        """Hash of each file, [N]."""
        return np.asarray(self.rows["hash"])

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Which files can be read, [N]."""
        return np.asarray(self.hashes != 0)


def open_entry(files: Files, cache_dir: Path, *, stored: bool, workers: int, progress: bool) -> Entry:
    """Returns the entry of these files; builds it if there is none.

    Args:
        files: The files.
        cache_dir: Folder of the entries.
        stored: Whether to store the pixels. If not, and the cache has no entry, the files are only checked.
        workers: Number of processes.
        progress: Show progress, if a command runs.

    Raises:
        InputError: The folder can't be written or is full.
    """
    final = cache_dir / files.folder_name
    entry = _load_current(final, files)
    if entry is None and not stored:
        rows = np.zeros(len(files.paths), ROW)
        failures = decode_all(files.target, files.paths, rows, workers=workers, progress=progress)
        return Entry(files, _by_path(files, failures), rows, None)
    if entry is None:
        with _clear_errors(cache_dir, files.num_bytes):
            cache_dir.mkdir(parents=True, exist_ok=True)
            with lock(final) as locked:
                # Another process may just have built it.
                if _load_current(final, files) is None:
                    _build(final, files, locked=locked, workers=workers, progress=progress)
        entry = _load(final, files)
    with suppress(OSError):  # a cache that can only be read
        os.utime(final / "index.json")  # when it was last used
    if entry is None:
        raise InputError(
            f"{final}: the cache entry disappeared right after it was built; does another program delete it?"
        )
    return entry


class Stored(NamedTuple):
    """An entry on the disk.

    Attributes:
        folder: Where it is.
        root: Folder of the files that were decoded; None if the entry is damaged.
        num_files: How many.
        num_bytes: That the entry takes.
        used: When it was last used, in seconds since 1970.
    """

    folder: Path
    root: Path | None
    num_files: int
    num_bytes: int
    used: float


def stored_entries(cache_dir: Path) -> list[Stored]:
    """The entries of a cache, those first that were not used for the longest time."""
    return sorted(map(_look_at, filter(_is_entry, cache_dir.glob("*/"))), key=lambda entry: entry.used)


def _is_entry(folder: Path) -> bool:
    return _NAMED.fullmatch(folder.name) is not None and not folder.is_symlink()


def _look_at(folder: Path) -> Stored:
    try:
        root: Path | None = Path(json.loads((folder / "index.json").read_bytes())["settings"]["root"])
        count = len(np.load(folder / "paths.npy", mmap_mode="r"))
        used = (folder / "index.json").stat().st_mtime
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        root, count, used = None, 0, 0.0
    return Stored(folder, root, count, folder_size(folder), used)


def delete_entry(folder: Path) -> None:
    """Deletes an entry, once no other process builds it. A process that has it open keeps its pixels until it ends.

    Raises:
        InputError: It can't be deleted.
    """
    with lock(folder):
        try:
            (folder / "index.json").unlink(missing_ok=True)  # from here on it is incomplete, whatever happens next
            shutil.rmtree(folder)
        except OSError as error:
            raise InputError(f"{folder}: can't be deleted: {error.strerror or error}") from error


def _load_current(final: Path, files: Files) -> Entry | None:
    """Loads the entry, unless a file that it lists as unreadable can be read now, as after a change of permissions."""
    entry = _load(final, files)
    if entry is not None:
        for path in files.paths[~entry.readable].tolist():
            with suppress(ImageError):
                files.target.decode(path)
                return None
    return entry


def _load(folder: Path, files: Files) -> Entry | None:
    """Maps an entry; None if there is none, if it is damaged, or if its files were decoded in another way than these."""
    try:
        index = json.loads((folder / "index.json").read_bytes())
        arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("paths", "stats", "rows", "pixels")]
        count = len(arrays[0])
        shapes = [(count,), (count, 4), (count,), (count, *files.target.row_shape)]
        if index["settings"] == files.settings and [array.shape for array in arrays] == shapes:
            paths, stats, rows, pixels = arrays
            return Entry(replace(files, paths=paths, stats=stats), index["unreadable"], rows, pixels)
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        logger.debug("%s: %s", folder, error)
    return None


def _by_path(files: Files, failures: Failures) -> dict[str, str]:
    return {os.fsdecode(bytes(files.paths[row])): failures[row] for row in sorted(failures)}


def _build(final: Path, files: Files, *, locked: bool, workers: int, progress: bool) -> None:
    outdated = final.is_dir()  # A current entry is not built.
    if outdated and _load(final, files) is None:
        logger.warning("%s: this cache entry is damaged; building it again", final)
    _remove_remains(final.parent)
    folder = final.with_name(f".{final.name}{'' if locked else '.' + secrets.token_hex(6)}.tmp")
    try:
        folder.mkdir(exist_ok=True)
        logger.info("decoding %s %ss into %s", f"{len(files.paths):,}", files.target.kind, final)
        done_path = folder / "rows.npy"  # Written after the pixels that it lists, and atomically.
        rows = np.load(done_path) if done_path.exists() else np.zeros(len(files.paths), ROW)
        target = _reserve(folder / "pixels.npy", files, there=done_path.exists())
        _copy_known_rows(final.parent, files, target, rows)
        save = partial(_save_rows, folder, rows)
        failures = decode_all(target, files.paths, rows, workers=workers, progress=progress, save=save)
        save()
        _save_index(folder, files, failures)
        _publish(folder, final, outdated=outdated)
    except BaseException as error:
        # After Ctrl-C, the next build continues in the folder, which it knows by its name if that build held the lock.
        if isinstance(error, Exception) or not locked:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _remove_remains(cache_dir: Path) -> None:
    """Removes what killed builds of other entries left behind."""
    for folder in cache_dir.glob(".*.tmp"):
        # Without its lock file, or with one that is a link, held, or on a file system without locks, it is not ours.
        with suppress(OSError), open_no_link(folder.with_suffix(".lock"), create=False) as file:
            if filelock.lock_descriptor(file.fileno(), blocking=False):
                logger.info("removing what a killed cache build left behind: %s", folder)
                shutil.rmtree(folder, ignore_errors=True)


def _reserve(path: Path, files: Files, *, there: bool) -> Target:
    """Makes the array's file in its full size, so that a full disk is an error now and not after an hour."""
    if not there and shutil.disk_usage(path.parent).free < files.num_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    path.touch()
    with open(path, "r+b") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(files.paths), *files.target.row_shape)}
        np.lib.format.write_array_header_1_0(file, header)
        offset = file.tell()
        file.truncate(offset + files.num_bytes)
    return replace(files.target, file=str(path), offset=offset)


def _copy_known_rows(cache_dir: Path, files: Files, target: Target, rows: Rows) -> None:
    """Copies the rows of files that other entries hold unchanged."""
    for other in sorted(cache_dir.glob(f"[!.]*-{files.target.size}-*")):
        entry = None if rows["hash"].all() else _load(other, files)
        if entry is not None and entry.pixels is not None:
            _, new, old = np.intersect1d(files.paths, entry.files.paths, return_indices=True)
            same = (rows["hash"][new] == 0) & (entry.files.stats[old] == files.stats[new]).all(1)
            for row, old_row in zip(new[same].tolist(), old[same].tolist(), strict=True):
                target.write(row, entry.pixels[old_row])
            rows[new[same]] = entry.rows[old[same]]


def _save_index(folder: Path, files: Files, failures: Failures) -> None:
    np.save(folder / "paths.npy", files.paths)
    np.save(folder / "stats.npy", files.stats)
    index = {"settings": files.settings, "unreadable": _by_path(files, failures)}
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n")


def _save_rows(folder: Path, rows: Rows) -> None:
    """Notes the finished rows, after a flush: the pixels that they list must be on the disk, whatever happens next."""
    _flush(folder / "pixels.npy")
    np.save(folder / "rows.new.npy", rows)
    _flush(folder / "rows.new.npy")
    os.replace(folder / "rows.new.npy", folder / "rows.npy")


def _publish(folder: Path, final: Path, *, outdated: bool) -> None:
    """Gives a finished entry its name. If another process has published an equal entry meanwhile, that one stays."""
    for path in folder.iterdir():
        _flush(path)
    if outdated:
        shutil.rmtree(final, ignore_errors=True)
    try:
        os.rename(folder, final)
    except OSError:
        if not final.is_dir():
            raise
        shutil.rmtree(folder, ignore_errors=True)


def _flush(path: Path) -> None:
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


@contextmanager
def _clear_errors(cache_dir: Path, needed: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise InputError(
                f"{cache_dir}: can't write the cache to this folder: {error}; choose another one with --cache-dir, or use "
                "--cache off"
            ) from error
        free = shutil.disk_usage(cache_dir).free if cache_dir.is_dir() else 0
        raise InputError(
            f"{cache_dir}: not enough space for the cache: it needs {needed:,} bytes ({needed / 1e9:.1f} GB), and {free:,} "
            "bytes are free; choose a folder on another disk with --cache-dir, or use --cache off"
        ) from error
