"""Photos are read in order, a few ahead of the one in use."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tabzoo.errors import ImageError
from tabzoo.inspect import large_photos
from tabzoo.inspect.large_photos import LargePhotos
from tabzoo.inspect.tiles import Tiling


def photos_of(paths: list[Path], workers: int) -> LargePhotos:
    tiling = Tiling(32, 8)
    return LargePhotos(paths, tiling=tiling, size=32, resampling="lanczos", white_level=None, workers=workers)


@pytest.mark.parametrize("workers", [0, 1, 8])
def test_at_most_three_photos_wait(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def read(path: Path, **_: Any) -> np.ndarray[Any, Any]:
        started.append(path)
        return np.full((40, 40, 3), int(path.name), np.uint8)

    monkeypatch.setattr(large_photos, "read_image", read)
    seen = []
    for row, photo in photos_of([Path(str(i)) for i in range(12)], workers).read(range(1, 12)):
        seen.append(row)
        assert (photo == row).all()
        assert len(started) <= len(seen) + 3
    assert seen == list(range(1, 12))


def test_a_photo_that_is_gone(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path in paths:
        Image.new("RGB", (40, 40)).save(path)
    paths[2].unlink()
    with pytest.raises(ImageError, match=r"2\.png: no such file"):
        list(photos_of(paths, 2).read(range(4)))
