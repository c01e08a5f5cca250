"""Photos in their own size while a detector is fitted to their tiles: read one after another, a few ahead."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tabzoo.data.images import Resampling, read_image
from tabzoo.detectors.batches import NormalisedBatches
from tabzoo.errors import InputError
from tabzoo.inspect.tiles import TileGrid, Tiling

__all__ = ["LargePhotos", "TiledFit", "check_photo_size"]

_AHEAD = 3


class LargePhotos:
    """Photos that are cut into tiles, as the backbone sees them.

    Args:
        paths: Of the files.
        tiling: How they are cut.
        size: Side that tiles are resized to.
        resampling: The filter for that.
        white_level: As for `data.images.read_image`.
        workers: Threads that read photos; at most three are used.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        tiling: Tiling,
        size: int,
        resampling: Resampling,
        white_level: float | None,
        workers: int,
    ) -> None:
        self.paths, self.tiling, self.size, self.resampling = paths, tiling, size, resampling
        self._white_level, self._threads = white_level, min(_AHEAD, max(1, workers))

    def __len__(self) -> int:
        return len(self.paths)

    def grid(self, row: int, photo: NDArray[np.uint8]) -> TileGrid:
        """The tiles of the photo in a row."""
        return self.tiling.grid(*photo.shape[:2], shown=str(self.paths[row]))

    def cut(self, grid: TileGrid, photo: NDArray[np.uint8], positions: Sequence[int]) -> Tensor:
        """Tiles at these positions, uint8 [B, size, size, 3]."""
        return torch.from_numpy(grid.cut(photo, positions, size=self.size, resampling=self.resampling))

    def read(self, rows: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """These rows with their photos [H, W, 3], in order; never more than three photos are waiting.

        Raises:
            ImageError: A file can't be read any more.
        """
        coming: deque[tuple[int, Future[NDArray[np.uint8]]]] = deque()
        with ThreadPoolExecutor(self._threads, thread_name_prefix="tabzoo-photo") as threads:
            try:
                for row in rows:
                    coming.append((row, threads.submit(read_image, self.paths[row], white_level=self._white_level)))
                    if len(coming) > _AHEAD:
                        first, photo = coming.popleft()
                        yield first, photo.result()
                while coming:
                    first, photo = coming.popleft()
                    yield first, photo.result()
            finally:
                threads.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True, kw_only=True)
class TiledFit:
    """What to fit to, and how.

    Attributes:
        photos: The good photos.
        hashes: Of their files, [N].
        folds: Of each photo, [N]; copies of a photo are in the same one.
        device: Where to compute.
        mean: Of the normalisation.
        std: The same.
        batch_size: Tiles at a time.
        max_memory: In GB.
        seed: Of the draw of patches.
    """

    photos: LargePhotos
    hashes: NDArray[np.uint64]
    folds: NDArray[np.int64]
    device: torch.device
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch_size: int
    max_memory: float
    seed: int

    def normalised(self, tiles: Tensor) -> Tensor:
        """Tiles uint8 [B, S, S, 3] as the backbone takes them, float32 [B, 3, S, S]."""
        pixels, rows = tiles.to(self.device), torch.arange(len(tiles))
        return NormalisedBatches(lambda _: pixels, rows, batch_size=len(rows), mean=self.mean, std=self.std).take(rows)


def check_photo_size(shape: Sequence[int], expected: Sequence[int], *, shown: str) -> None:
    """Checks that a photo [H, W, ...] has the height and width that PaDiM with tiles was fitted to.

    Raises:
        InputError: It does not; names the photo and both sizes.
    """
    if tuple(shape[:2]) != tuple(expected):
        raise InputError(
            f"{shown}: {shape[1]} x {shape[0]} pixels, expected {expected[1]} x {expected[0]}: PaDiM with --tile has "
            f"statistics for each place in a photo. For photos of different sizes fit with --method patchcore."
        )
