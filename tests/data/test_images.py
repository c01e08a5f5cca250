"""Every kind of file that a camera, an annotation tool or an accident produces, and how it is read."""

import hashlib
import io
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, features

from tabzoo.data.entries import _FORMAT
from tabzoo.data.images import IMAGE_SUFFIXES, MAX_PIXELS, Resampling, read_image, read_mask
from tabzoo.errors import ImageError, InputError

# 6 high, 8 wide, so that a swap of the axes shows; smooth, so that JPEG keeps it.
Y, X = np.mgrid[0:6, 0:8]
RGB = np.stack([20 + 20 * X, 30 + 30 * Y, 200 - 10 * X - 10 * Y], axis=2).astype(np.uint8)
GREY = (20 + 12 * X + 20 * Y).astype(np.uint8)
BITS = (X + Y) % 2 == 0


def grey3(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(values, dtype=np.uint8)[:, :, None], 3, axis=2)


def saved(image: Image.Image | np.ndarray, form: str, **options: object) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def exif(orientation: int) -> bytes:
    data = Image.Exif()
    data[0x0112] = orientation
    return data.tobytes()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *more: bytes, interlace: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    parts = [chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(tags: dict[int, tuple[int, int]], pixels: bytes, *, order: str = "<") -> bytes:
    """A one-strip TIFF; tags as (type, value): 3 is SHORT, 4 LONG."""
    offset = 8 + 2 + 12 * (len(tags) + 2) + 4
    tags = {**tags, 273: (4, offset), 279: (4, len(pixels))}
    entries = b""
    for tag, (kind, value) in sorted(tags.items()):
        packed = struct.pack(order + ("HH" if kind == 3 else "I"), *((value, 0) if kind == 3 else (value,)))
        entries += struct.pack(order + "HHI", tag, kind, 1) + packed
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return head + struct.pack(order + "H", len(tags)) + entries + struct.pack(order + "I", 0) + pixels


def grey_tiff(pixels: bytes, bits: int, *, order: str = "<", form: int = 1) -> bytes:
    tags = {256: (3, 8), 257: (3, 6), 258: (3, bits), 259: (3, 1), 262: (3, 1), 277: (3, 1), 278: (3, 6)}
    return tiff(tags | ({339: (3, form)} if form != 1 else {}), pixels, order=order)


def packed_12_bit(values: np.ndarray) -> bytes:
    bits = "".join(f"{value:012b}" for value in values.ravel())
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def palette(**options: object) -> bytes:
    indexed = Image.frombytes("P", (8, 6), (X % 4).astype(np.uint8).tobytes())
    indexed.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 8, 7])
    return saved(indexed, "PNG", **options)


PALETTE = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]], dtype=np.uint8)[X % 4]
RGBA = np.dstack([RGB, np.where(X < 4, 0, 128).astype(np.uint8)])
DEEP = (X * 8000 + Y * 1000 + 300).astype(np.uint16)
FLOATS = ((X + Y) / 12).astype(np.float32)
FLAT_PNG = saved(RGB, "PNG")
JPEG = saved(RGB, "JPEG", quality=95, subsampling=0)
LARGE = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
PNG_LARGE = saved(LARGE, "PNG")


@dataclass
class Case:
    """A file, and its pixels or a part of the error's reason."""

    name: str
    content: bytes
    expected: np.ndarray | str
    tolerance: int = 0


def turned(orientation: int) -> np.ndarray:
    """What the eight EXIF orientations mean, after the standard's picture of the letter F."""
    ways = [
        lambda a: a,
        lambda a: a[:, ::-1],
        lambda a: a[::-1, ::-1],
        lambda a: a[::-1],
        lambda a: a.transpose(1, 0, 2),
        lambda a: a.transpose(1, 0, 2)[:, ::-1],
        lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        lambda a: a.transpose(1, 0, 2)[::-1],
    ]
    return ways[orientation - 1](RGB)


GOOD_FILES = [
    Case("grey.png", saved(GREY, "PNG"), grey3(GREY)),
    Case("rgb.png", FLAT_PNG, RGB),
    Case("alpha.png", saved(RGBA, "PNG"), RGB),
    Case("grey-alpha.png", saved(np.dstack([GREY, GREY]), "PNG"), grey3(GREY)),
    Case("palette.png", palette(), PALETTE),
    Case("palette-transparent-index.png", palette(transparency=1), PALETTE),
    Case("palette-transparent-bytes.png", palette(transparency=bytes([0, 128, 255, 7])), PALETTE),
    Case("palette-2-bit.png", palette(bits=2), PALETTE),
    Case("palette-4-bit.png", palette(bits=4), PALETTE),
    Case("1-bit.png", saved(BITS, "PNG"), grey3(255 * BITS)),
    Case("16-bit.png", saved(DEEP, "PNG"), grey3(np.rint(DEEP / 257))),
    Case("16-bit-extremes.png", saved(np.array([[0, 65535]], np.uint16), "PNG"), grey3(np.array([[0, 255]]))),
    Case("12-bit-in-16.png", saved(np.full((2, 2), 4095, np.uint16), "PNG"), grey3(np.full((2, 2), 16))),
    Case("16-bit-rgb.png", png(1, 1, 16, 2, b"\0" + bytes([200, 99, 100, 0, 7, 255])), np.uint8([[[200, 100, 7]]])),
    Case("16-bit-grey-alpha.png", png(1, 1, 16, 4, b"\0" + bytes([200, 9, 0, 0])), np.uint8([[[200, 200, 200]]])),
    Case("4-bit-grey.png", png(2, 1, 4, 0, b"\0\x0f"), grey3(np.array([[0, 255]]))),
    Case("rgb-colour-key.png", saved(RGB, "PNG", transparency=(20, 30, 200)), RGB),
    Case("grey-colour-key.png", saved(GREY, "PNG", transparency=20), grey3(GREY)),
    Case("interlaced.png", png(1, 1, 8, 0, b"\0\x7b", interlace=1), np.uint8([[[123, 123, 123]]])),
    Case(
        "animated.png",
        saved(Image.fromarray(RGB), "PNG", save_all=True, append_images=[Image.fromarray(255 - RGB)]),
        RGB,
    ),
    Case("gamma.png", png(1, 1, 8, 0, b"\0\x7b", chunk(b"gAMA", struct.pack(">I", 10000))), np.uint8([[[123] * 3]])),
    Case("one-pixel.png", saved(RGB[:1, :1], "PNG"), RGB[:1, :1]),
    Case("one-row.png", saved(np.repeat(GREY[:1], 700, axis=1), "PNG"), grey3(np.repeat(GREY[:1], 700, axis=1))),
    Case("trailing-bytes.png", FLAT_PNG + b"written by a camera", RGB),
    Case("no-end-chunk.png", FLAT_PNG[:-12], RGB),
    Case("really-a-jpeg.png", JPEG, RGB, 6),
    Case("really-a-png.jpg", FLAT_PNG, RGB),
    Case("UPPER.PNG", FLAT_PNG, RGB),
    Case("no-ending", FLAT_PNG, RGB),
    Case("prüfteil 你好.png", FLAT_PNG, RGB),
    Case("line\nbreak.png", FLAT_PNG, RGB),
    Case("grey.jpg", saved(GREY, "JPEG", quality=95), grey3(GREY), 6),
    Case("rgb.jpeg", JPEG, RGB, 6),
    Case("progressive.jpg", saved(RGB, "JPEG", quality=95, subsampling=0, progressive=True), RGB, 6),
    Case("cmyk.jpg", saved(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=100), RGB, 12),
    Case("broken-exif.jpg", saved(RGB, "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0II*\0\xff\xff\0\0\1"), RGB, 6),
    Case("strange-orientation.jpg", saved(RGB, "JPEG", quality=95, subsampling=0, exif=exif(77)), RGB, 6),
    Case(
        "two-images.jpg",
        saved(
            Image.fromarray(RGB),
            "MPO",
            save_all=True,
            append_images=[Image.fromarray(255 - RGB)],
            quality=95,
            subsampling=0,
        ),
        RGB,
        6,
    ),
    Case("comment.jpg", saved(RGB, "JPEG", quality=95, subsampling=0, comment=b"x" * 60000), RGB, 6),
    Case("trailing.jpg", JPEG + bytes(5000), RGB, 6),
    Case("rgb.bmp", saved(RGB, "BMP"), RGB),
    Case("grey.bmp", saved(GREY, "BMP"), grey3(GREY)),
    Case("1-bit.bmp", saved(BITS, "BMP"), grey3(255 * BITS)),
    Case("alpha.bmp", saved(RGBA, "BMP"), RGB),
    Case("rgb.tif", saved(RGB, "TIFF"), RGB),
    Case("grey.tiff", saved(GREY, "TIFF"), grey3(GREY)),
    Case("alpha.tif", saved(RGBA, "TIFF"), RGB),
    Case("1-bit-fax.tif", saved(BITS, "TIFF", compression="group4"), grey3(255 * BITS)),
    Case("lzw.tif", saved(RGB, "TIFF", compression="tiff_lzw"), RGB),
    Case("deflate.tif", saved(RGB, "TIFF", compression="tiff_adobe_deflate"), RGB),
    Case(
        "jpeg.tif",
        saved(np.full((16, 16, 3), 90, np.uint8), "TIFF", compression="jpeg"),
        np.full((16, 16, 3), 90, np.uint8),
        3,
    ),
    Case("cmyk.tif", saved(Image.fromarray(RGB).convert("CMYK"), "TIFF"), RGB),
    Case("16-bit.tif", saved(DEEP, "TIFF"), grey3(np.rint(DEEP / 257))),
    Case("16-bit-big-endian.tif", grey_tiff(DEEP.astype(">u2").tobytes(), 16, order=">"), grey3(np.rint(DEEP / 257))),
    Case("12-bit.tif", grey_tiff(packed_12_bit(DEEP >> 4), 12), grey3(np.rint((DEEP >> 4) / 4095 * 255))),
    Case(
        "white-is-zero.tif",
        tiff(
            {256: (3, 8), 257: (3, 6), 258: (3, 8), 259: (3, 1), 262: (3, 0), 277: (3, 1), 278: (3, 6)}, GREY.tobytes()
        ),
        grey3(255 - GREY),
    ),
    Case("int32-small.tif", saved(GREY.astype(np.int32), "TIFF"), grey3(np.rint(GREY / 257))),
    Case("int32-middle.tif", saved(DEEP.astype(np.int32), "TIFF"), grey3(np.rint(DEEP / 257))),
    Case(
        "int32-large.tif",
        saved(np.array([[-10, 100000, 49995]], np.int32), "TIFF"),
        grey3(np.array([[0, 255, 195]])),
    ),
    Case("float-unit.tif", saved(FLOATS, "TIFF"), grey3(np.rint(FLOATS * 255))),
    Case("float-bytes.tif", saved(GREY.astype(np.float32), "TIFF"), grey3(np.full_like(GREY, 255))),
    Case("float-words.tif", saved(DEEP.astype(np.float32), "TIFF"), grey3(np.full_like(GREY, 255))),
    Case(
        "float-hot-pixel.tif",
        saved(np.array([[0.2, 0.6, 3000]], np.float32), "TIFF"),
        grey3(np.array([[51, 153, 255]])),
    ),
    Case("float-negative.tif", saved(np.array([[-1, 0, 1]], np.float32), "TIFF"), grey3(np.array([[0, 0, 255]]))),
    Case("float-huge.tif", saved(np.array([[1e6, 3e38]], np.float32), "TIFF"), grey3(np.array([[255, 255]]))),
    Case("float-constant.tif", saved(np.full((2, 2), -3, np.float32), "TIFF"), grey3(np.zeros((2, 2)))),
    Case(
        "float-holes.tif",
        saved(np.array([[np.nan, np.inf, 0.5, 1]], np.float32), "TIFF"),
        grey3(np.array([[0, 0, 128, 255]])),
        1,
    ),
    Case(
        "float-negative-holes.tif",
        saved(np.array([[np.nan, -np.inf, -1, 1]], np.float32), "TIFF"),
        grey3(np.array([[0, 0, 0, 255]])),
    ),
    Case(
        "pages.tif", saved(Image.fromarray(RGB), "TIFF", save_all=True, append_images=[Image.fromarray(255 - RGB)]), RGB
    ),
    Case("turned.tif", saved(RGB, "TIFF", tiffinfo={274: 6}), turned(6)),
    Case("lossless.webp", saved(RGB, "WEBP", lossless=True), RGB),
    Case("lossy.webp", saved(np.full((16, 16, 3), 90, np.uint8), "WEBP"), np.full((16, 16, 3), 90, np.uint8), 3),
    Case("alpha.webp", saved(RGBA, "WEBP", lossless=True, exact=True), RGB),
    Case("turned.webp", saved(RGB, "WEBP", lossless=True, exif=exif(8)), turned(8)),
    Case(
        "animated.webp",
        saved(Image.fromarray(RGB), "WEBP", save_all=True, append_images=[Image.fromarray(255 - RGB)], lossless=True),
        RGB,
    ),
    Case("turned.png", saved(RGB, "PNG", exif=exif(3)), turned(3)),
    *(
        Case(f"orientation-{i}.jpg", saved(RGB, "JPEG", quality=95, subsampling=0, exif=exif(i)), turned(i), 6)
        for i in range(1, 9)
    ),
]

CORRUPT_PNG = bytearray(PNG_LARGE)
CORRUPT_PNG[len(PNG_LARGE) // 2] ^= 0xFF

BAD_FILES = [
    Case("empty.png", b"", "the file is empty"),
    Case("zeros.png", bytes(1000), "not an image (it begins with 00 00 00 00 00 00 00 00)"),
    Case("text.png", b"class,split,label\n", 'not an image (it begins with "class,sp")'),
    Case("short.png", b"hello\n", 'not an image (it begins with "hello")'),
    Case("page.jpg", b"<!DOCTYPE html><title>404</title>", "a web page"),
    Case("lfs.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    Case("gif.png", saved(GREY, "GIF"), "a GIF"),
    Case("pdf.png", b"%PDF-1.7\n", "a PDF"),
    Case("postscript.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a PostScript"),
    Case("zip.png", b"PK\x03\x04" + bytes(30), "a ZIP"),
    Case("gzip.png", b"\x1f\x8b\x08" + bytes(30), "a gzip"),
    Case("array.png", b"\x93NUMPY\x01\x00", "a NumPy array"),
    Case("jp2.jpg", b"\x00\x00\x00\x0cjP  \r\n\x87\n", "a JPEG 2000"),
    Case("heic.jpg", b"\x00\x00\x00\x18ftypheic", "a HEIC"),
    Case("ppm.png", saved(RGB, "PPM"), "not an image"),
    Case("signature.png", b"\x89PNG\r\n\x1a\n", ""),
    Case("header.png", PNG_LARGE[:33], "truncated"),
    Case("half.png", PNG_LARGE[: len(PNG_LARGE) // 2], "truncated"),
    Case("flipped.png", bytes(CORRUPT_PNG), "can't be decoded"),
    Case("no-size.png", png(0, 0, 8, 0, b""), ""),
    Case("wrong-colour.png", png(2, 2, 8, 5, bytes(6)), ""),
    Case(
        "text-bomb.png",
        png(1, 1, 8, 0, b"\0\0", chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80_000_000)))),
        "can't be decoded",
    ),
    Case("start.jpg", JPEG[:20], ""),
    Case("header.jpg", JPEG[:250], ""),
    Case("half.jpg", saved(LARGE, "JPEG")[:5000], "truncated"),
    Case("half.bmp", saved(LARGE, "BMP")[:5000], "truncated"),
    Case("header.bmp", saved(LARGE, "BMP")[:20], ""),
    Case("half.tif", saved(LARGE, "TIFF")[:5000], ""),
    Case("half-lzw.tif", saved(LARGE, "TIFF", compression="tiff_lzw")[:5000], ""),
    Case("half.webp", saved(LARGE, "WEBP")[:2000], ""),
    Case("bomb.png", png(60_000, 60_000, 1, 0, b""), "decompression bomb"),
    Case("bomb-just-over.png", png(MAX_PIXELS + 1, 1, 1, 0, b""), "decompression bomb"),
    Case(
        "bomb.bmp",
        saved(RGB, "BMP")[:18] + struct.pack("<ii", 40_000, 40_000) + saved(RGB, "BMP")[26:],
        "decompression bomb",
    ),
    Case(
        "bomb.tif",
        tiff(
            {256: (4, 90_000), 257: (4, 90_000), 258: (3, 8), 259: (3, 1), 262: (3, 1), 277: (3, 1), 278: (4, 90_000)},
            bytes(9),
        ),
        "decompression bomb",
    ),
    Case("nan.tif", saved(np.full((2, 2), np.nan, np.float32), "TIFF"), "no pixel has a finite value"),
    Case(
        "float-rgb.tif",
        tiff(
            {256: (3, 1), 257: (3, 1), 258: (3, 32), 259: (3, 1), 262: (3, 2), 277: (3, 3), 278: (3, 1), 339: (3, 3)},
            bytes(12),
        ),
        "",
    ),
]


def written(folder: Path, case: Case) -> Path:
    path = folder / case.name
    path.write_bytes(case.content)
    return path


def test_the_table_is_long_enough():
    assert len(BAD_FILES) + len(GOOD_FILES) >= 60
    assert len({case.name for case in BAD_FILES + GOOD_FILES}) == len(BAD_FILES) + len(GOOD_FILES)


@pytest.mark.parametrize("case", GOOD_FILES, ids=lambda case: case.name.encode("ascii", "replace").decode())
def test_readable(case: Case, tmp_path: Path):
    pixels = read_image(written(tmp_path, case))
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    assert pixels.shape == case.expected.shape
    assert np.abs(pixels.astype(int) - case.expected).max() <= case.tolerance


@pytest.mark.parametrize("case", BAD_FILES, ids=lambda case: case.name)
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_unreadable(case: Case, read: Callable[[Path], np.ndarray], tmp_path: Path):
    if case.name == "nan.tif" and read is read_mask:
        pytest.skip("a mask needs no scale")
    path = written(tmp_path, case)
    with pytest.raises(ImageError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.path == str(path)
    assert case.expected in caught.value.reason
    assert len(caught.value.reason) > 5


# ---------------------------------------------------------------------------------------------------------- not a file


def test_missing_file(tmp_path: Path):
    with pytest.raises(ImageError, match=r"none\.png: no such file"):
        read_image(tmp_path / "none.png")


def test_folder(tmp_path: Path):
    with pytest.raises(ImageError, match="a folder, not an image file"):
        read_image(tmp_path)


def test_broken_link_names_its_target(tmp_path: Path):
    link = tmp_path / "link.png"
    link.symlink_to("gone.png")
    with pytest.raises(ImageError, match=r"link\.png: a symbolic link to gone\.png, which does not exist"):
        read_image(link)


def test_link_to_itself(tmp_path: Path):
    link = tmp_path / "loop.png"
    link.symlink_to(link)
    with pytest.raises(ImageError, match="symbolic links"):
        read_image(link)


def test_link_to_an_image(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(FLAT_PNG)
    (tmp_path / "b.png").symlink_to("a.png")
    assert np.array_equal(read_image(tmp_path / "b.png"), RGB)


def test_named_pipe_does_not_block(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="not a regular file"):
        read_image(tmp_path / "pipe.png")


def test_path_with_a_zero_byte():
    with pytest.raises(ImageError, match="null"):
        read_image("a\0b.png")


def test_name_that_is_not_unicode(tmp_path: Path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    try:
        Path(path).write_bytes(FLAT_PNG)
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    assert np.array_equal(read_image(path), RGB)
    Path(path).write_bytes(b"nothing")
    with pytest.raises(ImageError) as caught:
        read_image(path)
    str(caught.value).encode()  # Any log and terminal can print it.
    assert "caf" in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path):
    path = written(tmp_path, GOOD_FILES[0])
    path.chmod(0)
    with pytest.raises(ImageError, match="Permission denied"):
        read_image(path)


# -------------------------------------------------------------------------------------------------------------- resizing


@pytest.mark.parametrize("form", ["RGB", "L", "P", "CMYK"])
@pytest.mark.parametrize("shape", [(200, 300), (256, 256), (31, 500), (1, 1)])
@pytest.mark.parametrize("resampling", get_args(Resampling))
def test_resize_is_pillows_of_the_rgb_image(resampling: Resampling, form: str, shape: tuple[int, int], tmp_path: Path):
    noise = np.random.default_rng(1).integers(0, 255, (*shape, 3), dtype=np.uint8)
    image = Image.fromarray(noise).convert(form)
    path = tmp_path / ("a.tif" if form == "CMYK" else "a.png")
    image.save(path)
    how = {"lanczos": Image.Resampling.LANCZOS, "bilinear": Image.Resampling.BILINEAR}[resampling]
    expected = np.asarray(image.convert("RGB").resize((64, 64), how))
    assert np.array_equal(read_image(path, size=64, resampling=resampling), expected)
    assert np.array_equal(read_image(path, size=64), expected) == (resampling == "lanczos" or shape == (1, 1))


@pytest.mark.parametrize("size", [0, -3])
def test_bad_size(size: int, tmp_path: Path):
    with pytest.raises(InputError, match=f"size {size}: expected"):
        read_image(written(tmp_path, GOOD_FILES[0]), size=size)


# ----------------------------------------------------------------------------------------------------------------- masks

FRAME = (X > 3) & (Y < 2)
MASKS = [
    Case("bits.png", saved(FRAME, "PNG"), FRAME),
    Case("ones.png", saved(FRAME.astype(np.uint8), "PNG"), FRAME),
    Case("full.bmp", saved(255 * FRAME.astype(np.uint8), "BMP"), FRAME),
    Case("class-ids.png", saved((FRAME * X).astype(np.uint8), "PNG"), FRAME),
    Case("words.png", saved((FRAME * 300).astype(np.uint16), "PNG"), FRAME),
    Case("one-channel.png", saved(np.dstack([FRAME * 0, FRAME * 9, FRAME * 0]).astype(np.uint8), "PNG"), FRAME),
    Case("float.tif", saved(FRAME.astype(np.float32) * 0.2, "TIFF"), FRAME),
    Case("float-holes.tif", saved(np.where(FRAME, 1, np.nan).astype(np.float32), "TIFF"), FRAME),
    Case("int.tif", saved(FRAME.astype(np.int32) * -1, "TIFF"), FRAME),
    Case("transparent.png", saved(np.dstack([np.full((6, 8, 3), 255), FRAME * 255]).astype(np.uint8), "PNG"), FRAME),
    Case(
        "noise.jpg",
        saved((255 * (np.kron(FRAME, np.ones((8, 8))) > 0)).astype(np.uint8), "JPEG", quality=40),
        np.kron(FRAME, np.ones((8, 8))) > 0,
    ),
    Case("empty.png", saved(np.zeros((6, 8), np.uint8), "PNG"), FRAME & False),
]


@pytest.mark.parametrize("case", MASKS, ids=lambda case: case.name)
def test_mask(case: Case, tmp_path: Path):
    mask = read_mask(written(tmp_path, case))
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, case.expected)


def test_palette_mask_is_read_by_colour(tmp_path: Path):
    mask = Image.frombytes("P", (8, 6), (~FRAME).astype(np.uint8).tobytes())
    mask.putpalette([255, 255, 255, 0, 0, 0])
    mask.save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png"), FRAME)


@pytest.mark.parametrize("size", [16, 5])
def test_mask_is_resized_to_the_nearest_pixel(size: int, tmp_path: Path):
    noise = np.random.default_rng(0).random((30, 44)) < 0.3
    Image.fromarray(noise).save(tmp_path / "m.png")
    rows, columns = (((np.arange(size) + 0.5) * side / size).astype(int) for side in noise.shape)
    assert np.array_equal(read_mask(tmp_path / "m.png", size=size), noise[np.ix_(rows, columns)])


def test_mask_is_rotated_like_its_image(tmp_path: Path):
    path = tmp_path / "m.png"
    Image.fromarray(FRAME).save(path, exif=exif(6))
    assert read_mask(path).shape == (8, 6)


# --------------------------------------------------------------------------------------------------------- surroundings


def test_pillows_warnings_stay_inside_and_are_no_errors(tmp_path: Path):
    paths = [written(tmp_path, case) for case in GOOD_FILES if "exif" in case.name or "transparent" in case.name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in paths:
            read_image(path)


def test_bombs_are_refused_whatever_limit_other_code_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    bomb = next(case for case in BAD_FILES if case.name == "bomb-just-over.png")
    with pytest.raises(ImageError, match="decompression bomb"):
        read_image(written(tmp_path, bomb))


def test_a_large_image_that_pillow_only_warns_of(tmp_path: Path):
    side = 9500  # 90 million pixels, over Pillow's limit for a warning.
    rows = bytes(1 + (side + 7) // 8) * side
    (tmp_path / "large.png").write_bytes(png(side, side, 1, 0, rows))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not read_image(tmp_path / "large.png", size=8).any()


def test_filters_and_settings_are_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    half = next(case for case in BAD_FILES if case.name == "half.png")
    before = list(warnings.filters)
    with pytest.raises(ImageError, match="truncated"):  # Other code's setting must not let broken files in.
        read_image(written(tmp_path, half))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    assert list(warnings.filters) == before


def test_threads_read_the_same_and_leave_the_filters_alone(tmp_path: Path):
    cases = GOOD_FILES * 4
    paths = [written(tmp_path, case) for case in cases]
    before = list(warnings.filters)
    barrier = threading.Barrier(8)
    with ThreadPoolExecutor(8, initializer=barrier.wait) as pool:
        together = list(pool.map(read_image, paths))
    assert list(warnings.filters) == before
    for path, pixels in zip(paths, together, strict=True):
        assert np.array_equal(read_image(path), pixels)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_an_image_or_an_image_error(data: st.DataObject, tmp_path: Path):
    """Cut, overwrite and extend real files anywhere: nothing but `ImageError` may come out."""
    case = data.draw(st.sampled_from([case for case in GOOD_FILES if len(case.content) > 8]))
    content = bytearray(case.content[: data.draw(st.integers(1, len(case.content)))])
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.png"
    path.write_bytes(bytes(content))
    try:
        pixels = read_image(path, size=16)
    except ImageError:
        return
    assert pixels.shape == (16, 16, 3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_arbitrary_bytes(content: bytes, tmp_path: Path):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ImageError):
        read_image(tmp_path / "x.png")


PIXELS = {
    **dict.fromkeys((1, 2, 3), "60288d93e641c444546eaf7128b7b1920cf9867e0bc5479cbd23709b058b4593"),
    4: "496e24cbb6774dc951f8be53f04a50c15879221001bdaa2b9e94608b55f7c9c5",
}
"""Number of the format to the digest of all pixels without loss. A new number adds one; published ones stay.

2: masks of lossy WebP, and of TIFF with JPEG inside, are no longer grown by their noise.
3: entries hold the hashes of the files, and tell these apart by more.
4: the scale of floats and 32-bit integers no longer depends on the image.
"""


def test_other_pixels_have_another_number(tmp_path: Path):
    """Entries of the cache outlive a release. This number in their key says which pixels they contain."""
    digest = hashlib.sha256()
    for case in [case for case in GOOD_FILES if not case.tolerance]:  # JPEG's pixels depend on the library's version
        path = written(tmp_path, case)
        for how in ({}, {"size": 5}, {"size": 5, "resampling": "bilinear"}):
            digest.update(read_image(path, **how).tobytes())
    for case in MASKS:
        path = written(tmp_path, case)
        digest.update(read_mask(path).tobytes() + read_mask(path, size=5).tobytes())
    assert digest.hexdigest() == PIXELS.get(_FORMAT), "what becomes of an image has changed: raise files._FORMAT"


def test_every_known_ending_is_tested_and_can_be_decoded():
    tested = {Path(case.name).suffix.lower() for case in GOOD_FILES}
    assert tested >= IMAGE_SUFFIXES
    assert features.check("webp")


@pytest.mark.real_data
@pytest.mark.skipif("TABZOO_TEST_DATA" not in os.environ, reason="TABZOO_TEST_DATA does not name a folder of images")
def test_real_files():
    paths = sorted(Path(os.environ["TABZOO_TEST_DATA"]).glob("*/**/000*.*"))
    assert len(paths) > 30
    for path in paths:
        pixels = read_image(path, size=64)
        assert pixels.std() > 1 or "mask" in path.name
        if path.stem.endswith("_mask"):
            assert 0 < read_mask(path).mean() < 0.9


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("m.png", {}),
        ("m.jpg", {"quality": 90}),
        ("m.webp", {"lossless": True}),
        ("lossy.webp", {"quality": 80}),
        ("extended.webp", {"quality": 80, "exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}),
        ("extended-lossless.webp", {"lossless": True, "exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}),
        ("lzw.tif", {"compression": "tiff_lzw"}),
        ("jpeg.tif", {"compression": "jpeg"}),
    ],
)
def test_masks_keep_their_area_whatever_the_compression(name: str, options: dict[str, object], tmp_path: Path):
    y, x = np.mgrid[:128, :128]
    mask = (y - 50) ** 2 + (x - 60) ** 2 < 400
    Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(tmp_path / name, **options)
    assert read_mask(tmp_path / name).sum() == pytest.approx(mask.sum(), rel=0.01)
    if "lossless" in name or name in ("m.png", "m.webp", "lzw.tif"):  # class ids are levels of 1 and 2
        Image.fromarray(np.where(mask, 1, 0).astype(np.uint8)).save(tmp_path / name, **options)
        assert read_mask(tmp_path / name).sum() == mask.sum()
