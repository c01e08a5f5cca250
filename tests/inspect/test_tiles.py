"""Tiles cover a photo, and their maps become one map without seams."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tabzoo.errors import InputError
from tabzoo.inspect.tiles import PhotoMap, TileGrid, Tiling

SIZES = [(64, 64), (64, 200), (65, 129), (150, 100), (233, 177)]


def stitched(grid: TileGrid, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
    photo = PhotoMap(grid)
    for position, tile in enumerate(tiles):
        photo.add(position, tile)
    return photo.values


@pytest.mark.parametrize("overlap", [0, 1, 16, 32])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_whole_tiles_cover_the_photo(height: int, width: int, overlap: int) -> None:
    grid = Tiling(64, overlap).grid(height, width, shown="photo")
    covered = np.zeros((height, width), int)
    for position in range(grid.count):
        rows, columns = grid.place(position)
        assert covered[rows, columns].shape == (64, 64)  # whole: not cut off at the photo's border
        covered[rows, columns] += 1
    assert covered.min() > 0
    for starts, side in ((grid.tops, height), (grid.lefts, width)):
        steps = np.diff(starts)
        assert starts[0] == 0
        assert starts[-1] + 64 == side
        assert (steps[:-1] == 64 - overlap).all()
        assert (0 < steps).all()
        assert (steps <= 64 - overlap).all()
        # No tile more than are needed.
        assert len(starts) == 1 or (len(starts) - 2) * (64 - overlap) + 64 < side


def test_positions_go_row_by_row() -> None:
    grid = Tiling(64, 16).grid(150, 200, shown="photo")
    assert (grid.tops, grid.lefts, grid.count) == ((0, 48, 86), (0, 48, 96, 136), 12)
    assert grid.place(6) == (slice(48, 112), slice(96, 160))
    assert [list(part) for part in grid.parts(5)] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]


def test_a_tile_holds_the_photos_own_pixels() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8)
    grid = Tiling(64, 16).grid(150, 200, shown="photo")
    tiles = grid.cut(photo, range(4, 7), size=64, resampling="lanczos")
    assert (tiles[2] == photo[48:112, 96:160]).all()
    for resampling in ("lanczos", "bilinear"):
        (small,) = grid.cut(photo, [6], size=32, resampling=resampling)
        expected = Image.fromarray(photo[48:112, 96:160]).resize((32, 32), Image.Resampling[resampling.upper()])
        assert (small == np.asarray(expected)).all()


@pytest.mark.parametrize("overlap", [0, 1, 16, 32])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_equal_tiles_give_an_equal_photo(height: int, width: int, overlap: int) -> None:
    grid = Tiling(64, overlap).grid(height, width, shown="photo")
    photo = stitched(grid, np.full((grid.count, 64, 64), 3.7, np.float32))
    assert photo.shape == (height, width)
    assert photo.dtype == np.float32
    np.testing.assert_allclose(photo, 3.7, rtol=1e-6)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_tiles_that_agree_give_back_the_map(height: int, width: int) -> None:
    values = np.random.default_rng(1).random((height, width), np.float32)
    grid = Tiling(64, 16).grid(height, width, shown="photo")
    tiles = np.stack([values[grid.place(position)] for position in range(grid.count)])
    np.testing.assert_allclose(stitched(grid, tiles), values, rtol=1e-5)


def test_no_jump_at_a_seam() -> None:
    """Tiles that disagree by up to 1 are blended over 32 pixels: no pixel differs from the next by more than 1 / 32."""
    grid = Tiling(64, 32).grid(160, 192, shown="photo")  # the last tiles fit without being moved
    levels = np.random.default_rng(2).random(grid.count, np.float32)
    photo = stitched(grid, np.broadcast_to(levels[:, None, None], (grid.count, 64, 64)))
    for axis in (0, 1):
        assert np.abs(np.diff(photo, axis=axis)).max() <= 1.0001 / 32
    assert photo.min() >= levels.min()
    assert photo.max() <= levels.max() + 1e-6


def test_the_seam_of_a_moved_tile_is_blended_too() -> None:
    grid = Tiling(64, 16).grid(64, 130, shown="photo")
    assert grid.lefts == (0, 48, 66)
    levels = np.array([0, 1, 0], np.float32)
    photo = stitched(grid, np.broadcast_to(levels[:, None, None], (3, 64, 64)))
    assert np.abs(np.diff(photo, axis=1)).max() <= 1.5 / 16


def test_the_middle_of_a_tile_counts_more_than_its_border() -> None:
    grid = Tiling(64, 32).grid(64, 96, shown="photo")
    photo = stitched(grid, np.stack([np.zeros((64, 64)), np.ones((64, 64))]).astype(np.float32))
    np.testing.assert_allclose(photo[10, 32:64], (np.arange(32) + 0.5) / 32, rtol=1e-5)  # a linear ramp
    assert (photo[:, :32] == 0).all()
    assert (photo[:, 64:] == 1).all()


@pytest.mark.parametrize(
    ("tile", "overlap", "said"),
    [
        (31, 0, "--tile 31: expected the side of a tile in pixels, at least 32"),
        (256, 129, "--overlap 129: expected 0 to 128 pixels, half of --tile 256"),
        (256, -1, "--overlap -1: expected 0 to 128 pixels, half of --tile 256"),
    ],
)
def test_tiles_that_can_not_be(tile: int, overlap: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Tiling(tile, overlap)


@pytest.mark.parametrize(("height", "width"), [(255, 400), (400, 255)])
def test_a_photo_smaller_than_a_tile(height: int, width: int) -> None:
    with pytest.raises(InputError, match=rf"a\.png: {width} x {height} pixels, expected at least 256 x 256.*--tile"):
        Tiling(256, 32).grid(height, width, shown="a.png")
