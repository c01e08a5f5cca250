"""The script beside an exported file prepares every kind of photo as tabzoo does, bit for bit."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_images import BAD_FILES, GOOD_FILES, Case

from tabzoo.data.images import Resampling, read_image
from tabzoo.errors import ImageError
from tabzoo.inspect.export.script import load_prepare, write_script


@pytest.mark.parametrize("case", GOOD_FILES, ids=lambda case: case.name)
@pytest.mark.parametrize("resampling", ["lanczos", "bilinear"])
@pytest.mark.parametrize("size", [5, 40])
def test_pixels(case: Case, resampling: Resampling, size: int, tmp_path: Path) -> None:
    path = tmp_path / case.name
    path.write_bytes(case.content)
    for white_level in (None, 4095.0):
        write_script(tmp_path / "s.py", model="m.onnx", size=size, resampling=resampling, white_level=white_level)
        prepare = load_prepare(tmp_path / "s.py")
        try:
            expected = read_image(path, size=size, resampling=resampling, white_level=white_level)
        except ImageError:
            with pytest.raises(ValueError, match="white level"):
                prepare(str(path))
        else:
            np.testing.assert_array_equal(prepare(str(path)), expected, strict=True)


def test_a_large_photo_is_smoothed_as_by_tabzoo(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (301, 412, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    write_script(tmp_path / "s.py", model="m.onnx", size=64, resampling="lanczos")
    expected = read_image(tmp_path / "photo.png", size=64, resampling="lanczos")
    np.testing.assert_array_equal(load_prepare(tmp_path / "s.py")(str(tmp_path / "photo.png")), expected)


@pytest.mark.parametrize("case", BAD_FILES, ids=lambda case: case.name)
def test_files_that_tabzoo_does_not_read(case: Case, tmp_path: Path) -> None:
    path = tmp_path / case.name
    path.write_bytes(case.content)
    write_script(tmp_path / "s.py", model="m.onnx", size=8, resampling="lanczos")
    with pytest.raises((OSError, ValueError, SyntaxError, Image.DecompressionBombError)):
        load_prepare(tmp_path / "s.py")(str(path))


def test_a_name_with_quotes_and_letters_of_any_script(tmp_path: Path) -> None:
    name = "prüf'\"teil\\1.onnx"
    write_script(tmp_path / "s.py", model=name, size=8, resampling="lanczos")
    assert runpy.run_path(str(tmp_path / "s.py"))["MODEL"] == name
