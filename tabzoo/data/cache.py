"""Images in batches. Every file is decoded once into an entry on the disk, and read from there in four ways."""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tabzoo.compute import to_device
from tabzoo.data.decoding import Hashes, Kind, Target
from tabzoo.data.entries import Entry, Files, open_entry
from tabzoo.data.images import Resampling
from tabzoo.data.samples import Bytes, Samples
from tabzoo.data.white_level import check_value, check_white_level
from tabzoo.errors import InputError, count
from tabzoo.system import num_cores, user_folder

__all__ = ["CACHE_MODES", "CacheMode", "Images", "default_cache_dir", "open_images"]

logger = logging.getLogger(__name__)

CacheMode: TypeAlias = Literal["disk", "ram", "device", "off"]
CACHE_MODES: tuple[CacheMode, ...] = get_args(CacheMode)
Index: TypeAlias = Tensor | NDArray[np.integer] | Sequence[int]

_MAX_NAMED = 200


class Images:
    """Batches of uint8 images. The values are the same in every mode and with any number of workers.

    An image has one index everywhere: its row in `samples`. `hashes`, `batch` and `masks` go by it, and so does everything
    outside this package. These samples lack the unreadable files, so their rows are not those of the samples that were
    given to `open_images`, nor those of the cache entry, which has a row for each given file.

    Attributes:
        samples: The given samples without unreadable files, [N].
        hashes: Hash of each sample's file, [N].
        unreadable: Path, as text, to the reason why the file can't be read.
    """

    def __init__(
        self, samples: Samples, hashes: Hashes, unreadable: dict[str, str], images: "Source", masks: "_Masks | None"
    ) -> None:
        self.samples, self.hashes = samples, hashes
        self.unreadable = unreadable
        self._images = images
        self._masks = masks

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, index: Index) -> Tensor:
        """Images of these samples, in this order, uint8 [B, size, size, 3] on the device."""
        return self._images.read(index)

    def masks(self, index: Index) -> Tensor:
        """Defect masks of these samples, 0 and 1, uint8 [B, size, size] on the device; zeros where there is no mask.

        Raises:
            RuntimeError: The images were opened without `masks=True`.
        """
        if self._masks is None:
            raise RuntimeError("these images were opened without masks: call open_images(..., masks=True)")
        rows = self._masks.rows[_as_numpy(index)]
        known = rows >= 0
        batch = self._masks.none.repeat(len(rows), 1, 1)
        if known.any():
            batch[torch.from_numpy(known).to(batch.device)] = self._masks.source.read(rows[known])
        return batch


class _Masks(NamedTuple):
    source: "Source"
    rows: NDArray[np.int64]  # row of each sample's mask in the source, -1 without a mask, [N]
    none: Tensor  # [size, size]


def default_cache_dir() -> Path:
    """`$TABZOO_CACHE/images`, or `tabzoo/images` in the user's cache folder."""
    return user_folder("cache") / "images"


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
    resampling: Resampling = "lanczos",
    white_level: float | None = None,
    reported: set[Path] | None = None,
) -> Images:
    """Makes images ready for batches; decodes them now unless an earlier call has done so.

    Args:
        samples: Which files.
        size: Side of the square that each image is resized to.
        mode: Where decoded images are kept. `disk`: in a memory map. `ram`: the same, read into memory. `device`: in the
            device's memory. `off`: nowhere, batches are decoded when read. Even then all files are decoded once now, to find
            out their hashes and which can't be read, unless there is an entry in the cache.
        cache_dir: Folder of the cache entries, by default `default_cache_dir()`.
        workers: Number of processes, or with `off` of threads, by default one for each core; 0 and 1 decode in this
            process.
        device: Where batches go.
        strict: Unreadable files are an error; otherwise each is left out with a warning.
        progress: Show progress while decoding, if a command runs.
        masks: Also make `Images.masks` available.
        resampling: How images are resized; masks are resized to the nearest pixel.
        white_level: The value that becomes white in images with more than 8 bits; see `images.py`.
        reported: Unreadable files that earlier calls have named, so that this one does not; its own are added.

    Raises:
        InputError: A bad argument; not enough space; nothing readable; with `strict`, anything unreadable; without a white
            level, a class that would become white.
    """
    if mode not in CACHE_MODES:
        raise InputError(f"unknown cache mode {mode!r}; accepted: {', '.join(CACHE_MODES)}")
    if size < 1:
        raise InputError(f"size {size}: expected the side of the resized images in pixels, at least 1")
    if workers is not None and workers < 0:
        raise InputError(f"workers {workers}: expected the number of processes, 0 or more")
    check_value(white_level)
    if not len(samples):
        raise InputError(f"{samples.root}: no images to open")
    folder = Path(os.path.abspath(cache_dir)) if cache_dir is not None else default_cache_dir()
    workers = num_cores() if workers is None else workers
    reported = set() if reported is None else reported
    before = len(reported)
    opening = _Opening(
        folder, size, resampling, white_level, mode, workers, torch.device(device), strict, progress, reported
    )
    entry = opening.decode(samples.root, samples.paths, "image")
    if not entry.readable.any():
        raise InputError(f"{samples.root}: none of the {count(len(samples), 'image')} can be read")
    kept = samples if entry.readable.all() else samples.select(entry.readable)
    lost = set(samples.class_ids.tolist()) - set(kept.class_ids.tolist())
    if lost and len(reported) > before:
        logger.warning("no readable image in: %s", ", ".join(samples.classes[i] for i in sorted(lost)))
    check_white_level(kept, entry.rows["levels"][entry.readable], white_level)
    source, hashes = opening.source(entry), entry.hashes[entry.readable]
    if not masks:
        return Images(kept, hashes, entry.unreadable, source, None)
    kept, opened = opening.masks(kept)
    return Images(kept, hashes, entry.unreadable, source, opened)


@dataclass(frozen=True)
class _Opening:
    """The options that images and masks share."""

    folder: Path
    size: int
    resampling: Resampling
    white_level: float | None
    mode: CacheMode
    workers: int
    device: torch.device
    strict: bool
    progress: bool
    reported: set[Path]

    def decode(self, root: Path, paths: Bytes, kind: Kind) -> Entry:
        files = Files.listed(root, paths, kind, self.size, self.resampling, self.white_level)
        entry = open_entry(files, self.folder, stored=self.mode != "off", workers=self.workers, progress=self.progress)
        new = {path: reason for path, reason in entry.unreadable.items() if root / path not in self.reported}
        _report(root, new, kind, strict=self.strict)
        self.reported.update(root / path for path in new)
        return entry

    def source(self, entry: Entry) -> "Source":
        """The readable files of the entry."""
        rows = np.flatnonzero(entry.readable)
        if self.mode == "off":
            return Decoded(entry.files.target, entry.files.paths[rows], self.device, self.workers)
        assert entry.pixels is not None
        if self.mode == "device" and self.device.type != "cpu":
            return Resident(entry.pixels, rows, self.device)
        return Stored(entry.pixels if self.mode == "disk" else np.array(entry.pixels), rows, self.device)

    def masks(self, samples: Samples) -> tuple[Samples, _Masks]:
        """The masks, and the samples without the unreadable ones."""
        none = torch.zeros((self.size, self.size), dtype=torch.uint8, device=self.device)
        rows, masked = np.full(len(samples), -1), np.flatnonzero(samples.masks != b"")
        if not len(masked):
            return samples, _Masks(Stored(np.zeros((0, self.size, self.size), np.uint8), rows, self.device), rows, none)
        entry = self.decode(samples.root, samples.masks[masked], "mask")
        rows[masked[entry.readable]] = np.arange(entry.readable.sum())
        if entry.unreadable:
            samples = replace(samples, masks=np.where(rows >= 0, samples.masks, b""))
        return samples, _Masks(self.source(entry), rows, none)


def _report(root: Path, unreadable: dict[str, str], kind: str, *, strict: bool) -> None:
    """Names the first unreadable files; all are in `Images.unreadable` and in index.json."""
    if not unreadable:
        return
    lines = [f"{root / path}: {reason}" for path, reason in list(unreadable.items())[:_MAX_NAMED]]
    lines += [f"and {len(unreadable) - _MAX_NAMED:,} more"] if len(unreadable) > _MAX_NAMED else []
    if strict:
        listed = "".join(f"\n  {line}" for line in lines)
        raise InputError(f"{count(len(unreadable), kind)} can't be read; without --strict, they are left out:{listed}")
    for line in lines:
        logger.warning("left out: %s", line)
    logger.warning("%s: left out %s that can't be read", root, count(len(unreadable), kind))


class Source:
    """Pixels of files by row, put together in memory and sent to the device."""

    def __init__(self, row_shape: tuple[int, ...], device: torch.device) -> None:
        self._row_shape = row_shape
        self._device = device

    def read(self, index: Index) -> Tensor:
        """A batch on the device, uint8 [B, ...]."""
        rows = _as_numpy(index)
        host = torch.empty((len(rows), *self._row_shape), dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        self._fill(rows, host)
        return host.to(self._device, non_blocking=True)

    def _fill(self, rows: NDArray[np.int64], host: Tensor) -> None:
        raise NotImplementedError


class Stored(Source):
    """Pixels in a memory map or in memory, of which `rows` count."""

    def __init__(self, pixels: NDArray[np.uint8], rows: NDArray[np.intp], device: torch.device) -> None:
        super().__init__(pixels.shape[1:], device)
        self._pixels = np.asarray(pixels)  # A plain view: subclasses of ndarray are slower to index.
        self._rows = rows

    def _fill(self, rows: NDArray[np.int64], host: Tensor) -> None:
        # "clip" writes straight into the batch; looking up the rows has checked the bounds.
        np.take(self._pixels, self._rows[rows], axis=0, out=host.numpy(), mode="clip")


class Decoded(Source):
    """Pixels that are decoded for each batch, by threads, because Pillow decodes and resizes without Python's lock.

    The threads end when this object is garbage, as those of any executor do.
    """

    def __init__(self, target: Target, paths: Bytes, device: torch.device, workers: int) -> None:
        super().__init__(target.row_shape, device)
        self._target = target
        self._paths = paths
        self._threads = ThreadPoolExecutor(max(1, workers), thread_name_prefix="tabzoo-decode")

    def _fill(self, rows: NDArray[np.int64], host: Tensor) -> None:
        paths: list[bytes] = self._paths[rows].tolist()
        for i, pixels in enumerate(self._threads.map(self._target.decode, paths)):
            host[i] = torch.from_numpy(pixels)


class Resident(Source):
    """Pixels in the device's memory, of which `rows` count."""

    def __init__(self, pixels: NDArray[np.uint8], rows: NDArray[np.intp], device: torch.device) -> None:
        super().__init__(pixels.shape[1:], device)
        shape = (len(rows), *pixels.shape[1:])
        try:
            self._pixels = torch.empty(shape, dtype=torch.uint8, device=device)
        except torch.cuda.OutOfMemoryError as error:
            needed = int(np.prod(shape))
            raise InputError(
                f"the images need {needed:,} bytes on {device}, more than is free; use --cache ram"
            ) from error
        for start in range(0, len(rows), 1024):
            part = rows[start : start + 1024]
            self._pixels[start : start + len(part)] = torch.from_numpy(np.asarray(pixels)[part]).to(device)

    def read(self, index: Index) -> Tensor:
        """A batch, without a detour through the host's memory."""
        rows = to_device(torch.as_tensor(index, dtype=torch.int64), self._device)
        return torch.index_select(self._pixels, 0, rows)


def _as_numpy(index: Index) -> NDArray[np.int64]:
    return np.asarray(index.cpu() if isinstance(index, Tensor) else index, dtype=np.int64)
