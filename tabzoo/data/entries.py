"""Entries of the cache: decoded once, fingerprinted, whole or not there.

An entry is a folder:

    NAME-SIZE-FINGERPRINT/
      pixels.npy    [N, S, S, 3] images or [N, S, S] masks, a row for every file, zeros where a file can't be read
      paths.npy, stats.npy (size in bytes, modification and change time in ns, inode)
      rows.npy      the hash and the levels of each file, see `decoding.ROW`; zeros where it can't be read
      index.json    how the files were decoded, and the unreadable ones with their reasons

An entry never changes: other files are another entry, which copies the rows that an earlier one has.

It grows in `.NAME-SIZE-FINGERPRINT.tmp`, is flushed to the disk and renamed. Every minute, after a flush, the rows that
are done are noted in `rows.npy`: there the next build goes on after a killed one. A builder holds the lock of its
entry, so that others wait for it, and remains are told from work. Where the file system has no locks, each builds in a
folder of its own and the first to finish wins: they are equal.
"""

import errno
import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tabzoo.data.decoding import ROW, Failures, Hashes, Rows, Target, decode_all
from tabzoo.data.files import Files
from tabzoo.data.locks import lock, remove_remains
from tabzoo.data.samples import Bytes
from tabzoo.errors import ImageError, InputError

__all__ = ["Entry", "open_entry"]

logger = logging.getLogger(__name__)

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Entry(NamedTuple):
    """What is known of the files; `pixels` is None where nothing is stored, `reasons` is path to reason."""

    reasons: dict[str, str]
    paths: Bytes
    stats: NDArray[np.int64]
    rows: Rows
    pixels: NDArray[np.uint8] | None

    @property
    def hashes(self) -> Hashes:
        """Of the files, [N]."""
        return np.asarray(self.rows["hash"])

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Which files can be read, [N]."""
        return np.asarray(self.hashes != 0)


def open_entry(files: Files, cache_dir: Path, *, stored: bool, workers: int, progress: bool) -> Entry:
    """The entry of these files, built if it is not there.

    Args:
        files: The files.
        cache_dir: Where entries are.
        stored: Whether to build one; else the files are only checked, unless there is one.
        workers: Number of processes.
        progress: Show a progress bar.

    Raises:
        InputError: The folder can't be written or is full.
    """
    final = cache_dir / files.folder_name
    entry = _load_current(final, files)
    if entry is None and not stored:
        rows = np.zeros(len(files.paths), ROW)
        failures = decode_all(files.target, files.paths, rows, workers=workers, progress=progress)
        return Entry(_by_path(files, failures), files.paths, files.stats, rows, None)
    if entry is None:
        with _clear_errors(cache_dir, files.num_bytes):
            cache_dir.mkdir(parents=True, exist_ok=True)
            with lock(final) as locked:
                # Another process may just have built it.
                if _load_current(final, files) is None:
                    _build(final, files, locked=locked, workers=workers, progress=progress)
        entry = _load(final, files)
    if entry is None:
        raise InputError(f"{final}: the cache entry is gone just after it was built; is another program deleting it?")
    return entry


def _load_current(final: Path, files: Files) -> Entry | None:
    """The entry, unless a file that could not be read now can: its permissions may be repaired, with the same mtime."""
    entry = _load(final, files)
    if entry is not None:
        for path in files.paths[~entry.readable].tolist():
            with suppress(ImageError):
                files.target.decode(path)
                return None
    return entry


def _load(folder: Path, files: Files) -> Entry | None:
    """Maps an entry; None if there is none, if it is damaged, or if its files were decoded otherwise than these."""
    try:
        index = json.loads((folder / "index.json").read_bytes())
        arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("paths", "stats", "rows", "pixels")]
        count = len(arrays[0])
        shapes = [(count,), (count, 4), (count,), (count, *files.target.row_shape)]
        if index["settings"] == files.settings and [array.shape for array in arrays] == shapes:
            return Entry(index["unreadable"], *arrays)
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        logger.debug("%s: %s", folder, error)
    return None


def _by_path(files: Files, failures: Failures) -> dict[str, str]:
    return {os.fsdecode(bytes(files.paths[row])): failures[row] for row in sorted(failures)}


def _build(final: Path, files: Files, *, locked: bool, workers: int, progress: bool) -> None:
    outdated = final.is_dir()  # Or it would not be built.
    if outdated and _load(final, files) is None:
        logger.warning("%s: this cache entry is damaged and is built again", final)
    remove_remains(final.parent)
    folder = final.with_name(f".{final.name}{'' if locked else '.' + secrets.token_hex(6)}.tmp")
    try:
        folder.mkdir(exist_ok=True)
        logger.info("decoding %s %ss into %s", f"{len(files.paths):,}", files.target.kind, final)
        done_path = folder / "rows.npy"  # Written only after the pixels that it names, and never in part.
        rows = np.load(done_path) if done_path.exists() else np.zeros(len(files.paths), ROW)
        target = _reserve(folder / "pixels.npy", files, there=done_path.exists())
        _copy_known_rows(final.parent, files, target, rows)
        save = partial(_save_rows, folder, rows)
        failures = decode_all(target, files.paths, rows, workers=workers, progress=progress, save=save)
        save()
        _save_index(folder, files, failures)
        _publish(folder, final, outdated=outdated)
    except BaseException as error:
        if isinstance(error, Exception) or not locked:  # After Ctrl-C the next build goes on there, if it can tell it.
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _reserve(path: Path, files: Files, *, there: bool) -> Target:
    """The array's file in its full size, if there is room: a full disk shows now and not after an hour."""
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
    """Copies the rows that other entries have of the same unchanged files."""
    for other in sorted(cache_dir.glob(f"[!.]*-{files.target.size}-*")):
        entry = None if rows["hash"].all() else _load(other, files)
        if entry is not None and entry.pixels is not None:
            _, new, old = np.intersect1d(files.paths, entry.paths, return_indices=True)
            same = (rows["hash"][new] == 0) & (entry.stats[old] == files.stats[new]).all(1)
            for row, old_row in zip(new[same].tolist(), old[same].tolist(), strict=True):
                target.write(row, entry.pixels[old_row])
            rows[new[same]] = entry.rows[old[same]]


def _save_index(folder: Path, files: Files, failures: Failures) -> None:
    np.save(folder / "paths.npy", files.paths)
    np.save(folder / "stats.npy", files.stats)
    index = {"settings": files.settings, "unreadable": _by_path(files, failures)}
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n")


def _save_rows(folder: Path, rows: Rows) -> None:
    """Only after their pixels: what it names must be on the disk, whatever happens next."""
    _flush(folder / "pixels.npy")
    np.save(folder / "rows.new.npy", rows)
    _flush(folder / "rows.new.npy")
    os.replace(folder / "rows.new.npy", folder / "rows.npy")


def _publish(folder: Path, final: Path, *, outdated: bool) -> None:
    """Gives a finished entry its name; if that is taken and not outdated, another builder's entry is as good."""
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
                f"{cache_dir}: can't write the cache there: {error}; name another folder with --cache-dir, "
                "or use --cache off"
            ) from error
        free = shutil.disk_usage(cache_dir).free if cache_dir.is_dir() else 0
        raise InputError(
            f"{cache_dir}: no room for the cache: it needs {needed:,} bytes ({needed / 1e9:.1f} GB), free are {free:,}; "
            "name a folder with more room with --cache-dir, or use --cache off"
        ) from error
