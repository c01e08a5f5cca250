"""Images in batches, every file decoded once in its life: into entries on the disk, read from there in four ways."""

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tabzoo.data.decoding import Hashes, Kind
from tabzoo.data.entries import Entry, open_entry
from tabzoo.data.files import Files
from tabzoo.data.images import Resampling
from tabzoo.data.levels import check_levels
from tabzoo.data.samples import Bytes, Samples
from tabzoo.data.sources import Decoded, Index, Resident, Source, Stored, as_numpy
from tabzoo.errors import InputError
from tabzoo.system import num_cores

__all__ = ["CACHE_MODES", "CacheMode", "Images", "default_cache_dir", "open_images"]

logger = logging.getLogger(__name__)

CacheMode: TypeAlias = Literal["disk", "ram", "device", "off"]
CACHE_MODES: tuple[CacheMode, ...] = get_args(CacheMode)

_MAX_NAMED = 200


class Images:
    """Batches of uint8 images. The values are the same in every mode and with any number of workers.

    Attributes:
        samples: What was asked for, without unreadable files.
        hashes: Of the samples' files, [N].
        unreadable: Path, as text, to reason.
    """

    def __init__(
        self, samples: Samples, hashes: Hashes, unreadable: dict[str, str], images: Source, masks: "_Masks | None"
    ) -> None:
        self.samples, self.hashes = samples, hashes
        self.unreadable = unreadable
        self._images = images
        self._masks = masks

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
        if self._masks is None:
            raise RuntimeError("no masks here: call open_images(..., masks=True)")
        rows = self._masks.rows[as_numpy(index)]
        known = rows >= 0
        batch = self._masks.none.repeat(len(rows), 1, 1)
        if known.any():
            batch[torch.from_numpy(known).to(batch.device)] = self._masks.source.read(rows[known])
        return batch

    def close(self) -> None:
        """Ends worker threads."""
        self._images.close()
        if self._masks is not None:
            self._masks.source.close()

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
    resampling: Resampling = "lanczos",
    white_level: float | None = None,
) -> Images:
    """Images ready for batches, decoded now unless an earlier call has done so.

    Args:
        samples: Which files.
        size: Side of the square that each image is squashed to.
        mode: Where decoded images are kept: `disk`, a memory map; `ram`, the same read into memory; `device`, into the
            device's memory; `off`, nowhere: each batch is decoded anew. All files are decoded once now even so, to know
            their contents and which can't be read, unless an entry in the cache tells.
        cache_dir: Folder of the cache entries, by default `default_cache_dir()`.
        workers: Number of processes, with `off` of threads, by default one for each core; 0 and 1 decode in this process.
        device: Where batches go.
        strict: Unreadable files are an error; else each is left out with a warning.
        progress: Show a progress bar while decoding.
        masks: Also make `Images.masks` available.
        resampling: How images are squashed; masks go to the nearest pixel.
        white_level: The value that becomes white in images with more than 8 bits; see `images.py`.

    Raises:
        InputError: A bad argument; no room; nothing readable; with `strict`, anything unreadable; without a white level,
            a class that would come out white.
    """
    if mode not in CACHE_MODES:
        raise InputError(f"unknown cache mode {mode!r}; accepted: {', '.join(CACHE_MODES)}")
    if size < 1:
        raise InputError(f"size {size}: expected the side of the resized images in pixels, at least 1")
    if workers is not None and workers < 0:
        raise InputError(f"workers {workers}: expected the number of processes, 0 or more")
    if white_level is not None and not 0 < white_level < float("inf"):
        raise InputError(f"--white-level {white_level:g}: expected the pixel value that becomes white, above 0")
    if not len(samples):
        raise InputError(f"{samples.root}: no images to open")
    folder = Path(os.path.abspath(cache_dir)) if cache_dir is not None else default_cache_dir()
    workers = num_cores() if workers is None else workers
    opening = _Opening(folder, size, resampling, white_level, mode, workers, torch.device(device), strict, progress)
    entry, files = opening.decode(samples.root, samples.paths, "image")
    if not entry.readable.any():
        raise InputError(f"{samples.root}: none of {len(samples):,} images can be read")
    kept = samples if entry.readable.all() else samples.select(entry.readable)
    lost = set(samples.class_ids.tolist()) - set(kept.class_ids.tolist())
    if lost:
        logger.warning("no readable image is left of: %s", ", ".join(samples.classes[i] for i in sorted(lost)))
    check_levels(kept, entry.rows["levels"][entry.readable], white_level)
    source, hashes = opening.source(entry, files), entry.hashes[entry.readable]
    if not masks:
        return Images(kept, hashes, entry.reasons, source, None)
    kept, opened = opening.masks(kept)
    return Images(kept, hashes, entry.reasons, source, opened)


class _Masks(NamedTuple):
    source: Source
    rows: NDArray[np.int64]  # Each sample's mask in the source, -1 for none, [N].
    none: Tensor  # [size, size]


@dataclass(frozen=True)
class _Opening:
    """How images and masks are opened alike."""

    folder: Path
    size: int
    resampling: Resampling
    white_level: float | None
    mode: CacheMode
    workers: int
    device: torch.device
    strict: bool
    progress: bool

    def decode(self, root: Path, paths: Bytes, kind: Kind) -> tuple[Entry, Files]:
        files = Files.listed(root, paths, kind, self.size, self.resampling, self.white_level)
        entry = open_entry(files, self.folder, stored=self.mode != "off", workers=self.workers, progress=self.progress)
        _report(root, entry.reasons, kind, strict=self.strict)
        return entry, files

    def source(self, entry: Entry, files: Files) -> Source:
        rows = np.flatnonzero(entry.readable)
        if self.mode == "off":
            return Decoded(files.target, files.paths[rows], self.device, self.workers)
        assert entry.pixels is not None
        if self.mode == "device" and self.device.type != "cpu":
            return Resident(entry.pixels, rows, self.device)
        return Stored(entry.pixels if self.mode == "disk" else np.array(entry.pixels), rows, self.device)

    def masks(self, samples: Samples) -> tuple[Samples, _Masks]:
        """The samples without unreadable masks, and the masks."""
        none = torch.zeros((self.size, self.size), dtype=torch.uint8, device=self.device)
        rows, masked = np.full(len(samples), -1), np.flatnonzero(samples.masks != b"")
        if not len(masked):
            return samples, _Masks(Stored(np.zeros((0, self.size, self.size), np.uint8), rows, self.device), rows, none)
        entry, files = self.decode(samples.root, samples.masks[masked], "mask")
        rows[masked[entry.readable]] = np.arange(entry.readable.sum())
        if entry.reasons:
            samples = replace(samples, masks=np.where(rows >= 0, samples.masks, b""))
        return samples, _Masks(self.source(entry, files), rows, none)


def _report(root: Path, reasons: dict[str, str], kind: str, *, strict: bool) -> None:
    """Names the unreadable files, as far as anyone would read on; all are in `Images.unreadable` and in index.json."""
    if not reasons:
        return
    lines = [f"{root / path}: {reason}" for path, reason in list(reasons.items())[:_MAX_NAMED]]
    lines += [f"and {len(reasons) - _MAX_NAMED:,} more"] if len(reasons) > _MAX_NAMED else []
    if strict:
        listed = "".join(f"\n  {line}" for line in lines)
        raise InputError(f"{len(reasons):,} {kind}s can't be read (leave --strict away to go on without them):{listed}")
    for line in lines:
        logger.warning("left out: %s", line)
    logger.warning("left out %s unreadable %s files of %s", f"{len(reasons):,}", kind, root)
