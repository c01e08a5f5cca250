"""Photos in their own size while a detector is fitted to their tiles: read one after another, a few ahead."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tabzoo.compute import to_device
from tabzoo.data.images import Resampling, read_image
from tabzoo.errors import InputError
from tabzoo.inspect.tiles import TileGrid, Tiling

__all__ = ["LargePhotos", "TileFile", "check_photo_size"]

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


class TileFile:
    """Tiles of all photos in a file on the disk, those at one position of the photos next to each other.

    Photos are read one after another, but PaDiM is fitted to one position after another.

    Args:
        path: A new file.
        positions: Number of positions in a photo.
        photos: Number of photos.
        size: Side of a tile.
    """

    def __init__(self, path: Path, *, positions: int, photos: int, size: int) -> None:
        self._file: BinaryIO = path.open("w+b")
        self._photos, self._shape = photos, (size, size, 3)
        self.num_bytes = positions * photos * size * size * 3

    def write(self, position: int, photo: int, tile: NDArray[np.uint8]) -> None:
        """Keeps the tile at a position of a photo, uint8 [size, size, 3]."""
        self._file.seek((position * self._photos + photo) * tile.nbytes)
        self._file.write(np.ascontiguousarray(tile).data)

    def read(self, position: int, photos: Tensor, *, device: torch.device) -> Tensor:
        """The tiles at a position of some photos, uint8 [B, size, size, 3]."""
        tiles = np.empty((len(photos), *self._shape), np.uint8)
        for tile, photo in zip(tiles, photos.tolist(), strict=True):
            self._file.seek((position * self._photos + photo) * tile.nbytes)
            read = self._file.readinto(tile.data)  # type: ignore[attr-defined]
            assert read == tile.nbytes
        return to_device(torch.from_numpy(tiles), device)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
