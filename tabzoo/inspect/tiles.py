"""Large photos as tiles: where the tiles lie, how they are cut, and how their maps become one map without seams."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tabzoo.data.images import Resampling
from tabzoo.errors import InputError

__all__ = ["PhotoMap", "TileGrid", "Tiling"]

_SMALLEST = 32
"""Pixels. Below it, the coarsest map that a detector uses has one or two positions for each tile."""


@dataclass(frozen=True)
class TileGrid:
    """Where the tiles of a photo lie. Positions count row by row, from 0 at the top left.

    Attributes:
        tile: Side of a tile in pixels.
        tops: First row of pixels of each row of tiles.
        lefts: First column of pixels of each column of tiles.
        height: Of the photo.
        width: The same.
    """

    tile: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    height: int
    width: int

    @property
    def count(self) -> int:
        """Number of tiles."""
        return len(self.tops) * len(self.lefts)

    def place(self, position: int) -> tuple[slice, slice]:
        """Rows and columns of pixels of the tile at a position."""
        top, left = self.tops[position // len(self.lefts)], self.lefts[position % len(self.lefts)]
        return slice(top, top + self.tile), slice(left, left + self.tile)

    def cut(
        self, photo: NDArray[np.uint8], positions: Sequence[int], *, size: int, resampling: Resampling
    ) -> NDArray[np.uint8]:
        """The tiles at some positions of a photo [H, W, 3], resized to `size`, as uint8 [B, size, size, 3]."""
        tiles = np.empty((len(positions), size, size, 3), np.uint8)
        for tile, position in zip(tiles, positions, strict=True):
            pixels = photo[self.place(position)]
            if size != self.tile:
                image = Image.fromarray(pixels).resize((size, size), Image.Resampling[resampling.upper()])
                pixels = np.asarray(image)
            tile[:] = pixels
        return tiles

    def parts(self, most: int) -> Iterator[range]:
        """All positions in order, at most `most` at a time."""
        return (range(start, min(start + most, self.count)) for start in range(0, self.count, most))


@dataclass(frozen=True)
class Tiling:
    """How photos of any size are cut into tiles.

    Attributes:
        tile: Side of a tile in pixels of the photo.
        overlap: Pixels that neighbours share; the last row and column of tiles are moved inside and may share more.

    Raises:
        InputError: The tile is too small, or the overlap negative or more than half a tile.
    """

    tile: int
    overlap: int

    def __post_init__(self) -> None:
        if self.tile < _SMALLEST:
            raise InputError(f"--tile {self.tile}: expected the side of a tile in pixels, at least {_SMALLEST}")
        if not 0 <= self.overlap <= self.tile // 2:
            raise InputError(
                f"--overlap {self.overlap}: expected 0 to {self.tile // 2} pixels, half of --tile {self.tile}"
            )

    def grid(self, height: int, width: int, *, shown: str) -> TileGrid:
        """The tiles of a photo of this size.

        Args:
            height: Of the photo in pixels.
            width: The same.
            shown: The photo's name in the error.

        Raises:
            InputError: The photo is smaller than a tile.
        """
        if min(height, width) < self.tile:
            raise InputError(
                f"{shown}: {width} x {height} pixels, expected at least {self.tile} x {self.tile}, the size of a tile. "
                f"Fit with a smaller --tile, or without it."
            )
        return TileGrid(self.tile, self._starts(height), self._starts(width), height, width)

    def _starts(self, length: int) -> tuple[int, ...]:
        last = length - self.tile
        return (*range(0, last, self.tile - self.overlap), last)


class PhotoMap:
    """The anomaly map of a photo, from the maps of its tiles.

    Where tiles overlap, their maps are blended. A tile's weight grows linearly from its border to its middle, because the
    features near a border know only one side of it; the weights at each pixel of the photo sum to 1.

    Args:
        grid: The photo's tiles.

    Attributes:
        values: The map, float32 [H, W]; complete when all tiles were added.
    """

    def __init__(self, grid: TileGrid) -> None:
        self._grid = grid
        self._rows = _weights(grid.tops, grid.tile, grid.height)
        self._columns = _weights(grid.lefts, grid.tile, grid.width)
        self.values = np.zeros((grid.height, grid.width), np.float32)

    def add(self, position: int, tile: NDArray[np.float32]) -> None:
        """Adds the map of the tile at a position, float32 [tile, tile]."""
        row, column = divmod(position, len(self._grid.lefts))
        self.values[self._grid.place(position)] += self._rows[row][:, None] * self._columns[column] * tile


def _weights(starts: Sequence[int], tile: int, length: int) -> NDArray[np.float32]:
    """Weight of each pixel of each tile along one side of the photo, [len(starts), tile]."""
    to_border = np.minimum(np.arange(tile), np.arange(tile)[::-1]) + 0.5
    total = np.zeros(length)
    for start in starts:
        total[start : start + tile] += to_border
    return np.stack([to_border / total[start : start + tile] for start in starts]).astype(np.float32)
