"""Photos of any kind as the pixels that a detector looks at."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tabzoo.errors import ImageError, InputError
from tabzoo.inspect.prepare import prepare


def test_a_pillow_image_gives_the_pixels_of_its_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (30, 50, 3), np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    cases = {
        "colour.png": (colour, {}, None),
        "grey.png": (colour.convert("L"), {}, None),
        "palette.png": (colour.quantize(8), {}, None),
        "transparent.png": (colour.convert("RGBA"), {}, None),
        "turned.jpg": (colour, {"exif": turned}, None),
        "deep.tif": (Image.fromarray(rng.integers(0, 4096, (30, 50), np.uint16)), {}, 4095.0),
    }
    for name, (image, options, white) in cases.items():
        image.save(tmp_path / name, **options)
        expected = prepare(tmp_path / name, 24, "bilinear", white_level=white)
        assert (expected.shape, expected.dtype) == ((24, 24, 3), np.uint8)
        with Image.open(tmp_path / name) as opened:
            assert np.array_equal(prepare(opened, 24, "bilinear", white_level=white), expected), name
    assert not np.array_equal(  # the orientation counts
        prepare(tmp_path / "turned.jpg", 24, "lanczos"), prepare(colour, 24, "lanczos")
    )


def test_the_whole_photo_counts() -> None:
    photo = np.zeros((60, 100, 3), np.uint8)
    photo[:, -12:] = 255  # at the border
    assert prepare(photo, 20, "bilinear")[:, -2:].min() > 200


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (np.zeros((4, 4), np.uint8), r"an array \(4, 4\) of uint8: expected RGB pixels, uint8 \[H, W, 3\]"),
        (np.zeros((3, 4, 4), np.uint8), r"\(3, 4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (7, "a photo of type int: expected a path, a Pillow image or a NumPy array"),
        (None, "a photo of type NoneType"),
    ],
)
def test_what_is_no_photo(source: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        prepare(source, 8, "lanczos")  # type: ignore[arg-type]


def test_files_that_are_no_photo(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"GIF89a")
    with pytest.raises(ImageError, match=r"a\.png: a GIF"):
        prepare(tmp_path / "a.png", 8, "lanczos")
    (tmp_path / "b.png").write_bytes(Image.new("RGB", (40, 40), "red").tobytes())
    with pytest.raises(ImageError, match=r"b\.png"):
        prepare(tmp_path / "b.png", 8, "lanczos")
    Image.effect_noise((90, 90), 50).save(tmp_path / "c.png")
    (tmp_path / "c.png").write_bytes((tmp_path / "c.png").read_bytes()[:-900])
    with Image.open(tmp_path / "c.png") as broken, pytest.raises(ImageError, match="can't be read"):
        prepare(broken, 8, "lanczos")
