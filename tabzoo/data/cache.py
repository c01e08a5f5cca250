"""Every image decoded once in its life: a memory-mapped uint8 array and an index, made by several processes.

A cache entry is a folder:

    NAME-SIZE-FINGERPRINT/
      pixels.npy    [N, S, S, 3] images or [N, S, S] masks, a row for every file, zeros where a file can't be read
      paths.npy, file_sizes.npy, mtimes_ns.npy, readable.npy; of images also class_ids.npy, split.npy, defect_ids.npy,
                    masks.npy
      index.json    settings, names of classes and defects, unreadable files with their reasons

The fingerprint covers the file list with sizes and modification times, the labels, how files are decoded, and Pillow's
version. So an entry never changes: other files are another entry, which copies the rows that an earlier one has.

It is written under a temporary name, flushed to the disk and renamed, hence it is whole or it is not there. While it is
written, `readable.npy` is renewed every minute, after a flush, with the rows that are done: what a killed build leaves
is where the next one takes these rows from, before it is removed. A builder holds a lock in its temporary folder, so
remains are told from work. A second lock makes processes that need the same entry wait for the first. Where the file
system has no locks, each builds its own and the first to finish wins: they are equal.
"""

import errno
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import connection, get_all_start_methods, get_context, parent_process
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from tabzoo.data.images import read_image, read_mask
from tabzoo.data.layouts import Samples
from tabzoo.errors import ImageError, InputError

try:
    import fcntl
except ImportError:  # Windows has no such locks: as on a file system without them.
    fcntl = None  # type: ignore[assignment]

__all__ = ["CACHE_MODES", "CacheMode", "Images", "default_cache_dir", "open_images"]

logger = logging.getLogger(__name__)

CacheMode: TypeAlias = Literal["disk", "ram", "device", "off"]
CACHE_MODES: tuple[CacheMode, ...] = get_args(CacheMode)
Index: TypeAlias = Tensor | NDArray[np.integer] | Sequence[int]

# Part of every fingerprint: to be raised when an entry's files change, or what `images.py` makes of an image.
_FORMAT = 1
_MAX_NAMED = 200


# --------------------------------------------------------------------------------------------------------------- public


class Images:
    """Batches of uint8 images. The values are the same in every mode and with any number of workers.

    Attributes:
        samples: What was asked for, without unreadable files.
        unreadable: Path, as text, to reason.
    """

    def __init__(
        self, samples: Samples, unreadable: dict[str, str], images: "_Source", masks: "_Source", mask_rows: Index
    ) -> None:
        self.samples = samples
        self.unreadable = unreadable
        self._images = images
        self._masks = masks
        self._mask_rows = np.asarray(mask_rows)

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, index: Index, *, out: Tensor | None = None) -> Tensor:
        """Images of the samples with these indices, uint8 [B, size, size, 3] on the device.

        Args:
            index: Indices of samples, in any order.
            out: A tensor of that shape on the device to write into, contiguous; a fresh one costs as much as the copy.
        """
        return self._images.read(index, out)

    def masks(self, index: Index) -> Tensor:
        """Defect masks of these samples, 0 and 1, uint8 [B, size, size] on the device; zeros where there is no mask.

        Raises:
            RuntimeError: The images were opened without `masks=True`.
        """
        if len(self._mask_rows) != len(self.samples):
            raise RuntimeError("no masks here: call open_images(..., masks=True)")
        rows = self._mask_rows[_as_numpy(index)]
        known = rows >= 0
        masks = self._masks.read(np.where(known, rows, 0)) if known.any() else self._masks.zeros(len(rows))
        return masks * torch.from_numpy(known).to(masks.device, torch.uint8)[:, None, None]

    def close(self) -> None:
        """Ends worker processes."""
        self._images.close()
        self._masks.close()

    def __enter__(self) -> "Images":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def default_cache_dir() -> Path:
    """`$TABZOO_CACHE`, or tabzoo's folder in the user's cache folder; there, `images`."""
    folder = os.environ.get("TABZOO_CACHE")
    if not folder:
        folder = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "tabzoo")
    return Path(folder) / "images"


def open_images(
    samples: Samples,
    *,
    size: int = 256,
    mode: CacheMode = "disk",
    cache_dir: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    device: torch.device | str = "cpu",
    strict: bool = False,
    progress: bool = True,
    masks: bool = False,
) -> Images:
    """Images ready for batches, decoded now unless an earlier call has done so.

    Args:
        samples: Which files.
        size: Side of the square that each image is squashed to.
        mode: Where decoded images are kept: `disk`, a memory map; `ram`, the same read into memory; `device`, into the
            device's memory; `off`, nowhere: each batch is decoded anew. All files are decoded once even so, to know
            which can't be read; the verdict is kept in the cache folder if that can be written.
        cache_dir: Folder of the cache entries, by default `default_cache_dir()`.
        workers: Number of processes, by default one for each core; 0 and 1 decode in this process.
        device: Where batches go.
        strict: Unreadable files are an error; else each is left out with a warning.
        progress: Show a progress bar while decoding.
        masks: Also make `Images.masks` available.

    Raises:
        InputError: A bad argument; no room; nothing readable; with `strict`, anything unreadable.
    """
    _check_arguments(samples, size, mode, workers)
    workers = _num_cores() if workers is None else workers
    folder = Path(os.path.abspath(cache_dir)) if cache_dir is not None else default_cache_dir()
    device = torch.device(device)
    build = _Build(folder, mode != "off", workers, progress)
    image_files = _Files.of_images(samples, size)
    entry = _entry_of(image_files, build)
    _report(samples.root, entry.reasons, "image", strict=strict)
    rows = np.flatnonzero(entry.readable)
    if not len(rows):
        raise InputError(f"{samples.root}: none of {len(samples):,} images can be read")
    kept = samples if len(rows) == len(samples) else samples.select(rows)
    if len(np.unique(kept.class_ids)) < len(np.unique(samples.class_ids)):
        lost = set(samples.class_ids.tolist()) - set(kept.class_ids.tolist())
        logger.warning("no readable image is left of: %s", ", ".join(samples.classes[i] for i in sorted(lost)))
    images = _source(image_files, entry, rows, mode, device, workers)
    kept, mask_source, mask_rows = _open_masks(kept, size, build, mode, device, strict=strict, wanted=masks)
    return Images(kept, entry.reasons, images, mask_source, mask_rows)


def _open_masks(
    samples: Samples,
    size: int,
    build: "_Build",
    mode: CacheMode,
    device: torch.device,
    *,
    strict: bool,
    wanted: bool,
) -> tuple[Samples, "_Source", NDArray[np.int64]]:
    """The samples without unreadable masks, the masks, and each sample's row in them, -1 for none."""
    files = _Files.of_masks(samples, size)
    if not wanted or not len(files.paths):
        return samples, _Stored(np.zeros((1, size, size), np.uint8), device), np.full(len(samples) * wanted, -1)
    entry = _entry_of(files, build)
    _report(samples.root, entry.reasons, "mask", strict=strict)
    mask_rows = np.full(len(samples), -1)
    mask_rows[np.flatnonzero(samples.masks != b"")] = np.where(entry.readable, np.arange(len(files.paths)), -1)
    source = _source(files, entry, np.arange(len(files.paths)), mode, device, build.workers)
    if entry.reasons:
        samples = replace(samples, masks=np.where(mask_rows >= 0, samples.masks, b""))
    return samples, source, mask_rows


def _check_arguments(samples: Samples, size: int, mode: str, workers: int | None) -> None:
    if mode not in CACHE_MODES:
        raise InputError(f"unknown cache mode {mode!r}; accepted: {', '.join(CACHE_MODES)}")
    if size < 1:
        raise InputError(f"size {size}: expected the side of the resized images in pixels, at least 1")
    if workers is not None and workers < 0:
        raise InputError(f"workers {workers}: expected the number of processes, 0 or more")
    if not len(samples):
        raise InputError(f"{samples.root}: no images to open")


def _report(root: Path, reasons: dict[str, str], kind: str, *, strict: bool) -> None:
    """Names the unreadable files, as far as anyone would read on; all are in `Images.unreadable` and in index.json."""
    if not reasons:
        return
    lines = [f"{root / path}: {reason}" for path, reason in list(reasons.items())[:_MAX_NAMED]]
    if len(reasons) > _MAX_NAMED:
        lines.append(f"and {len(reasons) - _MAX_NAMED:,} more")
    if strict:
        listed = "".join(f"\n  {line}" for line in lines)
        raise InputError(f"{len(reasons):,} {kind}s can't be read (leave --strict away to go on without them):{listed}")
    for line in lines:
        logger.warning("left out: %s", line)
    logger.warning("left out %s unreadable %s files of %s", f"{len(reasons):,}", kind, root)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---------------------------------------------------------------------------------------------------------------- files


@dataclass(frozen=True)
class _Target:
    """How files are decoded and where to; small, since it travels with every task."""

    root: bytes
    kind: Literal["image", "mask"]
    size: int
    file: str | None = None  # None: only find out whether the files can be read.
    offset: int = 0  # Of the first row in the file.

    @property
    def row_shape(self) -> tuple[int, ...]:
        return (self.size, self.size, 3) if self.kind == "image" else (self.size, self.size)

    def decode(self, path: bytes) -> NDArray[np.uint8]:
        file = os.fsdecode(os.path.join(self.root, path))
        return (read_image if self.kind == "image" else read_mask)(file, size=self.size)


@dataclass(frozen=True, eq=False)
class _Files:
    """The files of one entry."""

    target: _Target
    paths: NDArray[np.bytes_]
    stats: NDArray[np.int64]  # [N, 2]: size in bytes, modification time in ns; -1 for a missing file.
    labels: dict[str, NDArray[Any]]
    names: dict[str, list[str]]
    _fingerprints: dict[bool, str] = field(default_factory=dict)

    @classmethod
    def of_images(cls, samples: Samples, size: int) -> "_Files":
        labels = {name: getattr(samples, name) for name in ("class_ids", "split", "defect_ids", "masks")}
        names = {"classes": list(samples.classes), "defects": list(samples.defects)}
        return cls(*_listed(samples, samples.paths, "image", size), labels, names)

    @classmethod
    def of_masks(cls, samples: Samples, size: int) -> "_Files":
        return cls(*_listed(samples, samples.masks[samples.masks != b""], "mask", size), {}, {})

    @property
    def num_bytes(self) -> int:
        return len(self.paths) * int(np.prod(self.target.row_shape))

    def settings(self, *, stored: bool) -> dict[str, Any]:
        """What decides the pixels of a given file."""
        return {
            "format": _FORMAT,
            "kind": self.target.kind,
            "size": self.target.size,
            "resize": "lanczos" if self.target.kind == "image" else "nearest",
            "pillow": PIL.__version__,
            "stored": stored,
            # The real path: one folder under two names has one entry, two folders with equal file lists have two.
            "root": os.path.realpath(os.fsdecode(self.target.root)),
        }

    def fingerprint(self, *, stored: bool) -> str:
        if stored in self._fingerprints:
            return self._fingerprints[stored]
        digest = hashlib.sha256(json.dumps([self.settings(stored=stored), self.names], sort_keys=True).encode())
        arrays = [self.paths, self.stats, *(self.labels[name] for name in sorted(self.labels))]
        for array in arrays:
            # Byte strings are joined, for the width of their array depends on the longest of them.
            content = b"\0".join(array.tolist()) if array.dtype.kind == "S" else np.ascontiguousarray(array).tobytes()
            digest.update(b"%d:" % len(content) + content)
        self._fingerprints[stored] = digest.hexdigest()
        return self._fingerprints[stored]

    def folder_name(self, *, stored: bool) -> str:
        name = re.sub(r"[^A-Za-z0-9.-]+", "_", os.path.basename(os.fsdecode(self.target.root)))[:40].lstrip(".")
        what = "" if self.target.kind == "image" else "-masks"
        return f"{name or 'data'}{what}-{self.target.size}-{self.fingerprint(stored=stored)[:24]}"


def _listed(
    samples: Samples, paths: NDArray[np.bytes_], kind: Literal["image", "mask"], size: int
) -> tuple[_Target, NDArray[np.bytes_], NDArray[np.int64]]:
    target = _Target(os.fsencode(samples.root), kind, size)
    return target, paths, _stats(target.root, paths)


def _stats(root: bytes, paths: NDArray[np.bytes_]) -> NDArray[np.int64]:
    def values() -> Iterator[int]:
        for path in paths.tolist():
            try:
                status = os.stat(os.path.join(root, path))
            except OSError:
                yield from (-1, -1)
            else:
                yield status.st_size
                yield status.st_mtime_ns

    return np.fromiter(values(), np.int64, 2 * len(paths)).reshape(-1, 2)


# -------------------------------------------------------------------------------------------------------------- entries


@dataclass(frozen=True, eq=False)
class _Entry:
    """An entry that is open."""

    pixels: NDArray[np.uint8] | None
    readable: NDArray[np.bool_]
    reasons: dict[str, str]


@dataclass(frozen=True)
class _Build:
    """How and where entries are built."""

    folder: Path
    stored: bool
    workers: int
    progress: bool


def _entry_of(files: _Files, build: _Build) -> _Entry:
    """The entry of these files, built if it is not there."""
    # Without storage the verdict of an entry with pixels is as good.
    for stored in (True, False) if not build.stored else (True,):
        entry = _load(build.folder / files.folder_name(stored=stored), files, stored=stored)
        if entry is not None and not _readable_now(files, entry):
            return entry
    if not build.stored:
        return _check_all(files, build)
    _make_folder(build.folder)
    final = build.folder / files.folder_name(stored=True)
    with _only_builder(build.folder / f".{final.name}.lock"):
        entry = _load(final, files, stored=True)
        if entry is not None and not _readable_now(files, entry):
            return entry  # Another process has just built it.
        if os.path.isdir(final) and entry is None:
            logger.warning("%s: this cache entry is damaged and is built again", final)
        _write(final, files, build)
    entry = _load(final, files, stored=True)
    if entry is None:
        raise InputError(f"{final}: the cache entry is gone just after it was built; is another program deleting it?")
    return entry


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise InputError(
            f"{folder}: can't write the cache there: {error.strerror}; name another folder with --cache-dir, "
            "or use --cache off"
        ) from error


def _load(final: Path, files: _Files, *, stored: bool) -> _Entry | None:
    """Opens an entry; None if there is none, or one that is damaged."""
    if not os.path.isdir(final):
        return None
    try:
        index = json.loads((final / "index.json").read_bytes())
        readable = np.load(final / "readable.npy")
        pixels = np.load(final / "pixels.npy", mmap_mode="r") if stored else None
        if index["fingerprint"] != files.fingerprint(stored=stored) or readable.shape != files.paths.shape:
            raise ValueError("made for other files")
        if pixels is not None and pixels.shape != (len(files.paths), *files.target.row_shape):
            raise ValueError(f"pixels of shape {pixels.shape}")
        return _Entry(pixels, readable, dict(index["unreadable"]))
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        logger.debug("%s: %s", final, error)
        return None


def _readable_now(files: _Files, entry: _Entry) -> bool:
    """Whether a file that could not be read now can: its permissions or its disk may be repaired, with the same mtime."""
    for path in files.paths[~entry.readable].tolist():
        with suppress(ImageError):
            files.target.decode(path)
            return True
    return False


def _write(final: Path, files: _Files, build: _Build) -> None:
    outdated = os.path.isdir(final)  # Or its entry would not be asked for.
    with _clear_disk_errors(build.folder, files.num_bytes), _temporary(final) as temporary:
        logger.info("decoding %s %ss into %s", f"{len(files.paths):,}", files.target.kind, final)
        target = _reserve(temporary / "pixels.npy", files)
        _save_index(temporary, files, {}, stored=True)
        done = _copy_known_rows(temporary, files, target)
        _remove_remains(build.folder)
        reasons = _decode_all(target, files, done, build, temporary)
        _save_readable(temporary, done)
        _save_index(temporary, files, _by_path(files, reasons), stored=True)
        _publish(temporary, final, outdated=outdated)


def _check_all(files: _Files, build: _Build) -> _Entry:
    """Which files can be read; the verdict is kept if it can be."""
    readable = np.zeros(len(files.paths), dtype=np.bool_)
    reasons = _by_path(files, _decode_all(files.target, files, readable, build))
    final = build.folder / files.folder_name(stored=False)
    try:
        build.folder.mkdir(parents=True, exist_ok=True)
        with _temporary(final) as temporary:
            _save_readable(temporary, readable)
            _save_index(temporary, files, reasons, stored=False)
            _publish(temporary, final, outdated=os.path.isdir(final))
    except OSError as error:  # No room or no permission: perhaps the reason to do without a cache.
        logger.info("%s: can't keep the list of unreadable files: %s", build.folder, error)
    return _Entry(None, readable, reasons)


def _by_path(files: _Files, reasons: dict[int, str]) -> dict[str, str]:
    return {os.fsdecode(bytes(files.paths[row])): reasons[row] for row in sorted(reasons)}


def _reserve(path: Path, files: _Files) -> _Target:
    """The array's file in its full size, so that a full disk shows now and not after an hour."""
    if shutil.disk_usage(path.parent).free < files.num_bytes:
        _remove_remains(path.parent.parent)
    if shutil.disk_usage(path.parent).free < files.num_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with open(path, "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(files.paths), *files.target.row_shape)}
        np.lib.format.write_array_header_1_0(file, header)
        offset = file.tell()
        file.flush()
        try:
            os.posix_fallocate(file.fileno(), 0, offset + files.num_bytes)
        except (AttributeError, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            file.truncate(offset + files.num_bytes)  # Not every system can reserve.
    return replace(files.target, file=str(path), offset=offset)


def _copy_known_rows(temporary: Path, files: _Files, target: _Target) -> NDArray[np.bool_]:
    """Copies the rows that another entry, or what a killed build has left, has of the same unchanged files.

    Returns:
        True for these rows, [N].
    """
    done = np.zeros(len(files.paths), dtype=np.bool_)
    wanted = files.settings(stored=True)
    for other in sorted(temporary.parent.glob(f"*-{files.target.size}-*")):
        if done.all() or other == temporary:
            continue
        try:
            if json.loads((other / "index.json").read_bytes())["settings"] != wanted:
                continue
            names = ("paths", "file_sizes", "mtimes_ns", "readable")
            paths, sizes, mtimes, readable = (np.load(other / f"{name}.npy") for name in names)
            pixels = np.load(other / "pixels.npy", mmap_mode="r")
            if pixels.shape != (len(paths), *files.target.row_shape):
                raise ValueError(f"pixels of shape {pixels.shape}")
            _, new, old = np.intersect1d(files.paths, paths, return_indices=True)
            same = readable[old] & ~done[new] & (np.stack([sizes, mtimes], 1)[old] == files.stats[new]).all(1)
            _copy_rows(pixels, old[same], target, new[same])
            done[new[same]] = True
        except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            logger.debug("nothing to copy from %s: %s", other, error)
    return done


def _copy_rows(pixels: NDArray[np.uint8], old: NDArray[np.intp], target: _Target, new: NDArray[np.intp]) -> None:
    assert target.file is not None
    with open(target.file, "r+b") as file:
        for source, row in zip(old.tolist(), new.tolist(), strict=True):
            file.seek(target.offset + row * pixels[0].size)
            file.write(np.ascontiguousarray(pixels[source]).data)


def _save_index(folder: Path, files: _Files, unreadable: dict[str, str], *, stored: bool) -> None:
    arrays = {"paths": files.paths, "file_sizes": files.stats[:, 0], "mtimes_ns": files.stats[:, 1]}
    for name, array in {**arrays, **files.labels}.items():
        np.save(folder / f"{name}.npy", array)
    index = {
        "fingerprint": files.fingerprint(stored=stored),
        "settings": files.settings(stored=stored),
        "count": len(files.paths),
        **files.names,
        "unreadable": unreadable,
    }
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n")


def _save_readable(folder: Path, readable: NDArray[np.bool_]) -> None:
    """Only after the rows themselves: what it names must be on the disk, whatever happens next."""
    with suppress(FileNotFoundError):
        _flush(folder / "pixels.npy")
    np.save(folder / "readable.new.npy", readable)
    _flush(folder / "readable.new.npy")
    os.replace(folder / "readable.new.npy", folder / "readable.npy")


# ----------------------------------------------------------------------------------------------------- temporary folders

_HELD = "builder.lock"


@contextmanager
def _temporary(final: Path) -> Iterator[Path]:
    """A folder beside `final` that a dead builder's successor can tell from a live one's."""
    folder = final.parent / f".{final.name}.{secrets.token_hex(6)}.tmp"
    folder.mkdir()
    keep = False  # What an interrupted build has done so far, for the next one.
    try:
        with open(folder / "new.lock", "w") as held:
            with suppress(OSError):
                _flock(held.fileno(), wait=False)
            # Under its name only when it is held, or another process could take this folder for remains.
            os.rename(folder / "new.lock", folder / _HELD)
            yield folder
    except KeyboardInterrupt:
        keep = (folder / "readable.npy").exists()
        raise
    finally:
        if not keep:  # After it was published there is nothing under this name.
            shutil.rmtree(folder, ignore_errors=True)


def _publish(temporary: Path, final: Path, *, outdated: bool) -> None:
    """Gives a finished entry its name.

    Args:
        temporary: The entry.
        final: Its name.
        outdated: What has this name now is damaged or stale. Else another builder was faster; its entry is as good.
    """
    for path in (*temporary.iterdir(), temporary):
        _flush(path)
    (temporary / _HELD).unlink()
    aside = temporary.with_name(temporary.name.replace(".tmp", ".old.tmp"))
    try:
        if outdated:
            with suppress(FileNotFoundError):
                os.rename(final, aside)
        os.rename(temporary, final)
    except OSError:
        if not os.path.isdir(final):
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    _flush(final.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems don't flush folders.
        if path.is_file() or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
    finally:
        os.close(descriptor)


def _remove_remains(cache_dir: Path) -> None:
    """Removes the temporary folders of builders that were killed."""
    for folder in cache_dir.glob(".*.tmp"):
        try:
            with open(folder / _HELD, "r+") as held:
                _flock(held.fileno(), wait=False)
        except FileNotFoundError:
            # Just made, just published, or set aside by one that was killed.
            with suppress(OSError):
                if time.time() - folder.stat().st_mtime > 3600:
                    shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # Held, or there are no locks here.
            continue
        else:
            logger.info("removing the remains of a cache build that was killed: %s", folder)
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _only_builder(path: Path) -> Iterator[None]:
    """Waits while another process holds this lock. The system frees it when its holder dies."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "w"))
            stack.callback(path.unlink, missing_ok=True)
            try:
                _flock(file.fileno(), wait=False)
            except BlockingIOError:
                logger.warning("another process is building %s; waiting for it", path.name.removesuffix(".lock")[1:])
                _flock(file.fileno(), wait=True)
        except OSError as error:
            logger.debug("no lock %s: %s; going on without", path, error)
        yield


def _flock(descriptor: int, *, wait: bool) -> None:
    """Raises OSError when another holds it, BlockingIOError if that is known, or when there are no locks here."""
    if fcntl is None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


@contextmanager
def _clear_disk_errors(folder: Path, needed: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(
                f"{folder}: can't write the cache there: {error}; name another folder with --cache-dir"
            ) from error
        free = shutil.disk_usage(folder).free
        raise InputError(
            f"{folder}: no room for the cache: it needs {needed:,} bytes ({needed / 1e9:.1f} GB), free are {free:,}; "
            "name a folder with more room with --cache-dir, or use --cache off"
        ) from error


# ------------------------------------------------------------------------------------------------------------- decoding

# Seconds that starting processes takes, mostly to import torch: less work than this is done sooner without them.
_POOL_START = 8.0
_SAVE_EVERY = 60.0
_CHUNK = 16

_Job: TypeAlias = tuple[int, bytes]
_Failures: TypeAlias = dict[int, str]


def _decode_chunk(target: _Target, jobs: Sequence[_Job]) -> _Failures:
    """Decodes files into their rows; also called in worker processes.

    Returns:
        Row to reason of the files that can't be read.
    """
    failures = {}
    for row, path in jobs:
        try:
            pixels = target.decode(path)
        except ImageError as error:
            failures[row] = error.reason
            continue
        if target.file is not None:
            # Written, not mapped: a full disk is an error here, but ends a process that writes to a map.
            with open(target.file, "r+b") as file:
                file.seek(target.offset + row * pixels.size)
                file.write(pixels.data)
    return failures


def _decode_all(
    target: _Target, files: _Files, done: NDArray[np.bool_], build: _Build, folder: Path | None = None
) -> _Failures:
    """Decodes all rows that are not done, here at first and in processes once that is sure to pay.

    Args:
        target: Where to.
        files: All files.
        done: Which rows are done; becomes true for each that is decoded, [N].
        build: How.
        folder: Where `readable.npy` is renewed every now and then.
    """
    failures: _Failures = {}
    rows = np.flatnonzero(~done)
    starts = iter(range(0, len(rows), _CHUNK))
    start_time = saved_time = time.monotonic()

    def chunk(start: int) -> list[_Job]:
        return [(int(row), bytes(files.paths[row])) for row in rows[start : start + _CHUNK]]

    def finish(jobs: list[_Job], failed: _Failures) -> None:
        nonlocal saved_time
        failures.update(failed)
        done[[row for row, _ in jobs if row not in failed]] = True
        bar.update(len(jobs))
        if folder is not None and time.monotonic() - saved_time > _SAVE_EVERY:
            _save_readable(folder, done)
            saved_time = time.monotonic()

    verb = "decoding" if target.file else "checking"
    with tqdm(total=len(rows), desc=f"{verb} {target.kind}s", unit="img", disable=not build.progress) as bar:
        for start in starts:
            jobs = chunk(start)
            finish(jobs, _decode_chunk(target, jobs))
            left = (time.monotonic() - start_time) * (len(rows) / (start + _CHUNK) - 1)
            if build.workers > 1 and left * (1 - 1 / build.workers) > _POOL_START:
                break
        for jobs, failed in _in_processes(target, (chunk(start) for start in starts), build.workers):
            finish(jobs, failed)
    return failures


def _in_processes(
    target: _Target, chunks: Iterator[list[_Job]], workers: int
) -> Iterator[tuple[list[_Job], _Failures]]:
    """Decodes chunks in worker processes, in any order. After one has died goes on with half as many."""
    pending: dict[Future[_Failures], list[_Job]] = {}
    for first in chunks:
        pool = _Pool(workers)
        try:
            pending[pool.submit(_decode_chunk, target, first)] = first
            for jobs in chunks:
                pending[pool.submit(_decode_chunk, target, jobs)] = jobs
                # A bounded queue: a million paths in flight would be as many objects.
                while len(pending) >= 4 * workers:
                    yield from _collect(pending)
            while pending:
                yield from _collect(pending)
        except BrokenProcessPool:
            workers = max(1, workers // 2)
            logger.warning("a decoding process died; going on with %d, the files it had one by one", workers)
            for jobs in list(pending.values()):
                yield jobs, _decode_alone(target, jobs)
            pending.clear()
        finally:
            pool.close()


def _collect(pending: dict[Future[_Failures], list[_Job]]) -> Iterator[tuple[list[_Job], _Failures]]:
    finished, _ = wait(pending, return_when=FIRST_COMPLETED)
    for future in finished:
        failures = future.result()
        yield pending.pop(future), failures


def _decode_alone(target: _Target, jobs: Sequence[_Job]) -> _Failures:
    """Decodes file by file in a process of its own, so that one which kills its process is found and left out."""
    failures: _Failures = {}
    pool: _Pool | None = None
    for job in jobs:
        try:
            pool = pool or _Pool(1)
            pool.submit(os.getpid).result()
        except BrokenProcessPool:  # It is not the file: there are no processes to be had.
            failures |= _decode_chunk(target, [job])
            continue
        try:
            failures |= pool.submit(_decode_chunk, target, [job]).result()
        except BrokenProcessPool:
            failures[job[0]] = "the process that decoded it died: out of memory, or the file breaks the decoder"
            pool.close()
            pool = None
    if pool is not None:
        pool.close()
    return failures


class _Pool:
    """Worker processes that import nothing of the caller's script and end when this process does."""

    def __init__(self, workers: int) -> None:
        method = "forkserver" if "forkserver" in get_all_start_methods() else "spawn"
        context = get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload([__name__])  # Imported once, not by each worker.
        self._executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)

    def submit(self, function: Any, *arguments: Any) -> Future[Any]:
        """Like the executor's; whatever keeps a process from starting is a broken pool."""
        # Each worker would import the main script, and run it if it has no `if __name__ == "__main__"`.
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            return self._executor.submit(function, *arguments)
        except (OSError, EOFError, AssertionError) as error:
            raise BrokenProcessPool(f"can't start a process: {error}") from error
        finally:
            sys.modules["__main__"] = main

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent alone reports it.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


# -------------------------------------------------------------------------------------------------------------- sources


class _Source(Protocol):
    """Rows of decoded images or masks."""

    def read(self, index: Index, out: Tensor | None = None) -> Tensor: ...
    def zeros(self, count: int) -> Tensor: ...
    def close(self) -> None: ...


def _source(
    files: _Files, entry: _Entry, rows: NDArray[np.intp], mode: CacheMode, device: torch.device, workers: int
) -> _Source:
    if mode == "off":
        return _Decoded(files.target, files.paths[rows], device, workers)
    assert entry.pixels is not None
    if mode == "device" and device.type != "cpu":
        return _Resident(entry.pixels, rows, device)
    pixels = _in_memory(entry.pixels) if mode in ("ram", "device") else entry.pixels
    return _Stored(pixels, device, None if len(rows) == len(pixels) else rows)


def _as_numpy(index: Index) -> NDArray[np.int64]:
    return np.asarray(index.cpu() if isinstance(index, Tensor) else index, dtype=np.int64)


def _on_host(shape: tuple[int, ...], device: torch.device, out: Tensor | None) -> Tensor:
    """Where a batch is put together: in `out` itself if that is not on another device."""
    if out is not None and out.device.type == "cpu":
        if out.shape != shape or out.dtype != torch.uint8:
            raise ValueError(f"out is {out.dtype} {tuple(out.shape)}; expected torch.uint8 {shape}")
        return out
    return torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")


def _sent(host: Tensor, device: torch.device, out: Tensor | None) -> Tensor:
    return host.to(device, non_blocking=True) if out is None or out is host else out.copy_(host, non_blocking=True)


class _Stored:
    """In a memory map or in memory."""

    def __init__(self, pixels: NDArray[np.uint8], device: torch.device, rows: NDArray[np.intp] | None = None) -> None:
        self._pixels = np.asarray(pixels)  # A plain view: subclasses of ndarray are slower to index.
        self._rows = np.arange(len(pixels)) if rows is None else rows
        self._device = device

    def read(self, index: Index, out: Tensor | None = None) -> Tensor:
        rows = self._rows[_as_numpy(index)]
        host = _on_host((len(rows), *self._pixels.shape[1:]), self._device, out)
        # "clip" writes straight into the batch; bounds were checked above.
        np.take(self._pixels, rows, axis=0, out=host.numpy(), mode="clip")
        return _sent(host, self._device, out)

    def zeros(self, count: int) -> Tensor:
        return torch.zeros((count, *self._pixels.shape[1:]), dtype=torch.uint8, device=self._device)

    def close(self) -> None:
        pass


class _Resident:
    """In the device's memory."""

    def __init__(self, pixels: NDArray[np.uint8], rows: NDArray[np.intp], device: torch.device) -> None:
        needed = len(rows) * int(np.prod(pixels.shape[1:]))
        try:
            self._pixels = torch.empty((len(rows), *pixels.shape[1:]), dtype=torch.uint8, device=device)
        except torch.cuda.OutOfMemoryError as error:
            raise InputError(
                f"the images need {needed:,} bytes on {device}, more than is free; use --cache ram"
            ) from error
        for start in range(0, len(rows), 1024):
            part = rows[start : start + 1024]
            self._pixels[start : start + len(part)] = torch.from_numpy(np.asarray(pixels)[part]).to(device)

    def read(self, index: Index, out: Tensor | None = None) -> Tensor:
        rows = torch.as_tensor(index, device=self._pixels.device, dtype=torch.int64)
        return torch.index_select(self._pixels, 0, rows, out=out)

    def zeros(self, count: int) -> Tensor:
        return self._pixels.new_zeros((count, *self._pixels.shape[1:]))

    def close(self) -> None:
        pass


class _Decoded:
    """Nowhere: decoded for each batch, by worker processes."""

    def __init__(self, target: _Target, paths: NDArray[np.bytes_], device: torch.device, workers: int) -> None:
        self._target = target
        self._paths = paths
        self._device = device
        self._workers = workers
        self._pool = _Pool(workers) if workers > 1 else None

    def read(self, index: Index, out: Tensor | None = None) -> Tensor:
        paths: list[bytes] = self._paths[_as_numpy(index)].tolist()
        host = _on_host((len(paths), *self._target.row_shape), self._device, out)
        for i, pixels in enumerate(self._decoded(paths)):
            host[i] = torch.from_numpy(pixels)
        return _sent(host, self._device, out)

    def _decoded(self, paths: list[bytes]) -> list[NDArray[np.uint8]]:
        if self._pool is not None:
            size = max(1, -(-len(paths) // (2 * self._workers)))
            try:
                parts = [
                    self._pool.submit(_decode_list, self._target, paths[i : i + size])
                    for i in range(0, len(paths), size)
                ]
                return [pixels for part in parts for pixels in part.result()]
            except BrokenProcessPool as error:
                logger.warning("a decoding process died (%s); decoding in this process from now on", error)
                self.close()
        return _decode_list(self._target, paths)

    def zeros(self, count: int) -> Tensor:
        return torch.zeros((count, *self._target.row_shape), dtype=torch.uint8, device=self._device)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def _decode_list(target: _Target, paths: Sequence[bytes]) -> list[NDArray[np.uint8]]:
    return [target.decode(path) for path in paths]


def _in_memory(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy in memory, if there is room: a system short of memory kills processes instead of refusing it."""
    available = _available_memory()
    if available is not None and pixels.nbytes > available:
        raise InputError(
            f"the images need {pixels.nbytes:,} bytes of memory, {available:,} are available; use --cache disk"
        )
    return np.array(pixels)


def _available_memory() -> int | None:
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None
