"""Fits PaDiM to the tiles of large photos: to one position of a tile after another, and each state is written at once.

Photos are read one after another, so their tiles wait on the disk until it is their position's turn.
"""

import shutil
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from tabzoo.compute import to_device
from tabzoo.detectors.batches import NormalisedBatches
from tabzoo.detectors.padim import Padim
from tabzoo.errors import InputError
from tabzoo.inspect.features import OutOfFold, PhotoFeatures, backbone_batch, score_out_of_fold
from tabzoo.inspect.large_photos import TiledFit, check_photo_size
from tabzoo.inspect.record import Scale
from tabzoo.inspect.tensor_sets import write_sets
from tabzoo.inspect.tiles import TileGrid

__all__ = ["fit_positions"]


class TileFile:
    """Tiles of all photos in a file on the disk, those at one position of the photos next to each other.

    Photos are read one after another, but PaDiM is fitted to one position after another.

    Args:
        path: A new file.
        photos: Number of photos.
        size: Side of a tile.
    """

    def __init__(self, path: Path, *, photos: int, size: int) -> None:
        self._file: BinaryIO = path.open("w+b")
        self._photos, self._shape = photos, (size, size, 3)

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


def fit_positions(method: Padim, fit: TiledFit, state: Path) -> OutOfFold:
    """Fits PaDiM to one position after another, and writes the state of each.

    Args:
        method: What to fit; it is left fitted to the last position.
        fit: To what.
        state: A new file for the states; tiles are kept beside it meanwhile.

    Raises:
        InputError: The states take more than `max_memory`, or there is too little space on the disk; a photo of another size.
        WriteError: A file can't be written.
    """
    photos, size = fit.photos, fit.photos.size
    ((_, first),) = photos.read([0])
    grid = photos.grid(0, first)
    _check_space(method, fit, grid, state.parent)
    scores, lows, highest, folds = np.full(len(photos), -np.inf, np.float32), [], -np.inf, 0

    def states(tiles: TileFile) -> Iterator[dict[str, Tensor]]:
        nonlocal folds, highest
        everything = torch.arange(len(photos))
        for position in tqdm(range(grid.count), desc="tiles", unit="tile", leave=False, disable=None):
            batches = NormalisedBatches(
                partial(tiles.read, position, device=fit.device),
                everything,
                batch_size=backbone_batch(fit.batch_size, fit.device),
                mean=fit.mean,
                std=fit.std,
            )
            features = PhotoFeatures(
                *(batches, method, fit.hashes),
                batch_size=fit.batch_size,
                most_bytes=1e9 * fit.max_memory,
                seed=fit.seed,
            )
            found = score_out_of_fold(method, features, fit.folds, size)
            np.maximum(scores, found.scores, out=scores)
            folds = found.folds
            lows.append(found.scale.low)
            highest = max(highest, found.scale.highest)
            method.fit_maps(features.to_fit(everything), len(photos))
            yield method.state()

    with closing(TileFile(state.with_suffix(".tiles"), photos=len(photos), size=size)) as tiles:
        _cut_all(fit, grid, tiles)
        write_sets(state, states(tiles), count=grid.count)
    return OutOfFold(scores, folds, Scale.of(float(np.median(lows)), highest), (grid.height, grid.width))


def _cut_all(fit: TiledFit, grid: TileGrid, tiles: TileFile) -> None:
    """Writes the tiles of all photos."""
    photos = fit.photos
    for row, photo in tqdm(
        photos.read(range(len(photos))), total=len(photos), desc="photos", leave=False, disable=None
    ):
        check_photo_size(photo.shape, (grid.height, grid.width), shown=str(photos.paths[row]))
        for positions in grid.parts(fit.batch_size):
            for position, tile in zip(positions, photos.cut(grid, photo, positions), strict=True):
                tiles.write(position, row, tile.numpy())


def _check_space(method: Padim, fit: TiledFit, grid: TileGrid, folder: Path) -> None:
    """Checks that there is room for the statistics of all positions, from those of one that is fitted to blank tiles."""
    photos = fit.photos
    blank = method.embed(fit.normalised(torch.zeros(1, photos.size, photos.size, 3, dtype=torch.uint8)))
    parts = torch.arange(len(photos)).split(fit.batch_size)
    method.fit_maps(([layer.expand(len(part), -1, -1, -1) for layer in blank] for part in parts), len(photos))
    needed = grid.count * sum(tensor.nbytes for tensor in method.state().values())
    tiling, tiles = photos.tiling, grid.count * len(photos) * photos.size**2 * 3
    if needed > 1e9 * fit.max_memory:
        raise InputError(
            f"--tile {tiling.tile} --overlap {tiling.overlap}: PaDiM keeps statistics for each of {grid.count} tiles of a "
            f"photo of {grid.width} x {grid.height} pixels, {needed / 1e9:.1f} GB in all; --max-memory is {fit.max_memory:g}. "
            f"Type --method patchcore, which has one bank for all tiles, or --size {photos.size // 2}, which makes "
            f"tiles smaller before the backbone sees them, or a larger --tile with --size {photos.size}, or "
            f"--max-memory {needed / 1e9 + 0.05:.1f}."
        )
    if needed + tiles > (free := shutil.disk_usage(folder).free):
        raise InputError(
            f"{folder}: {free / 1e9:.1f} GB are free; expected {(needed + tiles) / 1e9:.1f} GB, {needed / 1e9:.1f} for the "
            f"statistics of all tiles, and {tiles / 1e9:.1f} for the tiles of all photos while fitting"
        )
