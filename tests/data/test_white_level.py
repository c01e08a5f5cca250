"""Images with more than 8 bits: one value has one brightness in all of them, and lost values give a warning."""

import io
import logging
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tabzoo.data import decoding, white_level
from tabzoo.data.cache import CACHE_MODES, CacheMode, Images, open_images
from tabzoo.data.images import read_image
from tabzoo.data.layouts import find_samples
from tabzoo.errors import ImageError, InputError

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A folder with a class for each keyword, of an image for each array."""

    def write(**classes: list[np.ndarray]) -> Path:
        for name, images in classes.items():
            folder = tmp_path / "data" / name / "train" / "good"
            folder.mkdir(parents=True)
            for i, pixels in enumerate(images):
                Image.fromarray(pixels).save(folder / f"{i}.{'tif' if pixels.dtype.kind == 'f' else 'png'}")
        return tmp_path / "data"

    return write


def words(*values: float, kind: type = np.uint16) -> np.ndarray:
    """8 rows of 8 pixels, each value in as many columns."""
    return np.array(values, dtype=kind).repeat(8 // len(values))[None].repeat(8, axis=0)


def opened(root: Path, **how: Any) -> Images:
    white_level._warn_once.cache_clear()
    given: dict[str, Any] = {"size": 8, "cache_dir": root.parent / "cache", "workers": 0, "progress": False}
    return open_images(find_samples(root), **given | how)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    caplog.clear()
    return found


@pytest.mark.parametrize("mode", CACHE_MODES)
def test_12_bits_in_16_give_one_warning_and_a_white_level_helps(
    mode: CacheMode, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    root = make(bolt=[words(7, 4095), words(100, 2000)], nut=[words(50, 4000)], plate=[words(0, 65535)])
    for _ in range(2):  # also where an entry is there
        assert opened(root, mode=mode).batch([0]).max() == 16
        assert messages(caplog) == [
            f"{root}: pixel values of 2 classes (bolt, nut) range from 7 to 4095, where 0 is black and 65535 is white; these "
            f"images become dark. Use --white-level 4095 if that is the camera's white"
        ]
    images = opened(root, mode=mode, white_level=4095)
    assert images.batch([0]).unique().tolist() == [0, 255]
    assert images.batch([1])[0, 0, [0, -1], 0].tolist() == [6, 125]  # 255 * 100 / 4095, 255 * 2000 / 4095
    (bright,) = messages(caplog)
    assert (
        "1 class (plate) range from 0 to 65535, where 0 is black and 4095 is white; values above that become white"
        in bright
    )


def test_one_process_warns_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Methods of a benchmark open the same images in several sizes."""
    root = make(bolt=[words(0, 4095)])
    opened(root)
    open_images(find_samples(root), size=4, cache_dir=root.parent / "cache", workers=0, progress=False)
    assert len(messages(caplog)) == 1


def test_a_hot_pixel_changes_no_other(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    plain, hot = words(0.25, 0.75, kind=np.float32), words(0.25, 0.75, kind=np.float32)
    hot[0, 0] = 3000
    root = make(bolt=[plain, hot])
    images = opened(root)
    assert images.batch([0])[0, -1, [0, -1], 0].tolist() == [64, 191]
    assert (images.batch([0]) == images.batch([1]))[:, 1:].all()
    assert messages(caplog) == [
        f"{root}: pixel values of 1 class (bolt) range from 0.25 to 3000, where 0 is black and 1 is white; values outside "
        f"become black or white"
    ]


def test_floats_that_would_be_white_are_refused(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    root = make(bolt=[words(0, 200, kind=np.float32)], nut=[words(0.1, 0.9, kind=np.float32)])
    for _ in range(2):  # also where an entry is there
        with pytest.raises(InputError) as caught:
            opened(root)
        assert str(caught.value) == (
            f"{root}: pixel values of 1 class (bolt) range from 0 to 200, where 0 is black and 1 is white; values above that "
            f"become white. Use --white-level 255 to keep them apart, or --white-level 1 to accept this."
        )
    assert opened(root, white_level=1).batch([0]).max() == 255
    assert len(messages(caplog)) == 1
    assert opened(root, white_level=255).batch([0]).max() == 200
    assert "1 class (nut)" in messages(caplog)[0]


def test_files_of_several_kinds(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    root = make(bolt=[words(0, 60000), words(0, 1, kind=np.float32)])
    opened(root)
    assert messages(caplog) == [
        f"{root}: pixel values of 1 class (bolt) range from 0 to 60000, where 0 is black and 65535 is white; each kind of "
        f"file has its own white. Use --white-level 65535 to set one for all"
    ]


def test_images_of_8_bits_are_left_alone(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    root = make(bolt=[words(0, 3, kind=np.uint8)])
    pixels = opened(root).batch([0])
    assert messages(caplog) == []
    assert (opened(root, white_level=100).batch([0]) == pixels).all()
    assert "no grey image has more than 8 bits, so --white-level 100 has no effect" in messages(caplog)[0]


def png_16_bit_colour(value: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header, row = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0), b"\0" + struct.pack(">H", value) * 24
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(row * 8)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_16_bit_colour_gives_a_warning_and_takes_no_white_level(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "data/bolt/train/good/1.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(png_16_bit_colour(4095))
    opened(tmp_path / "data")
    assert (
        "range from 3840 to 4095, where 0 is black and 65535 is white; these images become dark. Save them with 8 bits"
        in messages(caplog)[0]
    )
    with pytest.raises(ImageError, match="only the upper 8 of its 16 bits per channel can be read"):
        read_image(path, white_level=4095)


def test_5_bits_a_channel_are_no_16(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "data/bolt/train/good/1.bmp"
    path.parent.mkdir(parents=True)
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "BMP")
    content = bytearray(file.getvalue())
    content[28:30] = struct.pack("<H", 16)  # bits a pixel
    path.write_bytes(content)
    assert not opened(tmp_path / "data").batch([0]).any()
    assert messages(caplog) == []


@pytest.mark.parametrize("level", [0, -1, float("nan"), float("inf")])
def test_wrong_white_levels(level: float, make: Make) -> None:
    with pytest.raises(InputError, match=r"--white-level .*: expected the pixel value that becomes white, above 0"):
        opened(make(bolt=[words(1)]), white_level=level)


def test_levels_come_from_other_processes_too(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pool:
        def __init__(self, workers: int) -> None:
            pass

        def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
            future: Any = decoding.Future()
            future.set_result(pickle.loads(pickle.dumps(function(*arguments))))
            return future

        def close(self) -> None:
            pass

    monkeypatch.setattr(decoding, "Pool", Pool)
    monkeypatch.setattr(decoding, "_POOL_START", -1e-9)
    monkeypatch.setattr(decoding, "_CHUNK", 1)
    opened(make(bolt=[words(0, 4095)] * 3), workers=2)
    assert "0 to 4095" in messages(caplog)[0]
