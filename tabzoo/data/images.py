"""One image file to one uint8 array, the same way everywhere, with errors that name the file and the reason.

What becomes of each kind of file:

- 8-bit grey, palette, CMYK, YCbCr and 1-bit files become RGB as Pillow's `convert("RGB")` makes it; grey is repeated
  over the channels.
- Grey with more than 8 bits: 0 becomes 0 and the white level 255; values outside become black or white. The default
  white level is the largest value of 16 bits (of 12 for a TIFF that says so), and 1 for floats. It never depends on the
  image, so that one value has the same brightness in all of them; without a level, a 12-bit camera image stored in 16
  bits becomes dark. Values that are not finite become black.
- Colour with 16 bits per channel keeps the upper 8, which is all that Pillow gives; a white level is an error for it.
- Alpha is dropped, not composited, because `convert("RGB")` and OpenCV do so, and with them the published numbers. The same
  for transparency in a palette.
- EXIF orientation is applied. Colour profiles are ignored.
- In a file with several pages or frames, the first one is read.

Only PNG, JPEG, BMP, TIFF and WebP are decoded, recognised by content and not by name: a JPEG called `.png` is read; a
PostScript file called `.png`, for which Pillow would start another program, is not.
"""

import hashlib
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from tabzoo.errors import ImageError, InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "Facts",
    "Levels",
    "Resampling",
    "centre_crop",
    "crop_edges",
    "files_of_mask",
    "image_pixels",
    "read_image",
    "read_mask",
]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})

MAX_PIXELS = 178_956_970
"""Larger images are an error, to protect against decompression bombs. It is Pillow's default, 0.5 GB as RGB."""

Resampling = Literal["lanczos", "bilinear"]
"""How images are resized, both with Pillow's antialiasing."""

_PART = 1 << 20  # bytes
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
_ACCEPTED = "PNG, JPEG, BMP, TIFF or WebP"

# What other files with the name of an image contain in practice, by their first bytes.
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "a PNG, truncated or broken at its start"),
    (b"\xff\xd8\xff", "a JPEG, truncated or broken at its start"),
    (b"RIFF", "a RIFF file, but not a WebP, or a truncated one"),
    (b"version https://git-lfs", "a Git LFS pointer, not the image itself: run `git lfs pull`"),
    (b"GIF8", "a GIF"),
    (b"%PDF", "a PDF"),
    (b"%!PS", "a PostScript file"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x00\x00\x00\x0cjP", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"<", "a web page or XML"),
)


class Levels(NamedTuple):
    """Pixel values of an image with more than 8 bits.

    Attributes:
        white: The value that became 255.
        low: The lowest of the image.
        high: The highest.
        above: Fraction of the pixels above white.
        fixed: Whether no other value can become white, as in colour images.
    """

    white: float
    low: float
    high: float
    above: float
    fixed: bool


@dataclass
class Facts:
    """What decoding finds out about a file.

    Attributes:
        sha256: Hash of the file's bytes, an object of hashlib.
        levels: Pixel values of an image with more than 8 bits.
    """

    sha256: Any = field(default_factory=hashlib.sha256)
    levels: Levels | None = None


def read_image(
    path: str | os.PathLike[str],
    *,
    size: int | None = None,
    resampling: Resampling = "lanczos",
    white_level: float | None = None,
    facts: Facts | None = None,
) -> NDArray[np.uint8]:
    """Reads a file as RGB.

    Args:
        path: The image file.
        size: Side of the square to which the image is resized; the aspect ratio is not kept. None keeps its size.
        resampling: How it is resized.
        white_level: The value that becomes 255 in images with more than 8 bits; see the top of this file.
        facts: Filled in, if given.

    Returns:
        The image, [H, W, 3].

    Raises:
        ImageError: The file is missing, empty, truncated, not an image, larger than `MAX_PIXELS`, or can't be read;
            names file and reason.
    """
    _check_size(size)
    if resampling not in get_args(Resampling):
        raise InputError(f"resampling {resampling!r}: expected {' or '.join(get_args(Resampling))}")
    with _opened(path, facts) as decoded:
        return _as_rgb(_to_8_bit(decoded, white_level, facts), size, resampling)


def image_pixels(
    image: Image.Image,
    *,
    size: int | None = None,
    resampling: Resampling = "lanczos",
    white_level: float | None = None,
) -> NDArray[np.uint8]:
    """Pixels of a Pillow image, RGB [H, W, 3], as `read_image` has them for a file with the same content.

    Args:
        image: The image, of any mode; what its EXIF data say about its orientation is done.
        size: As for `read_image`.
        resampling: As for `read_image`.
        white_level: As for `read_image`.

    Raises:
        ImageError: It can't be loaded, or its values make no image.
    """
    _check_size(size)
    try:
        with _steady_pillow():
            image.load()
            return _as_rgb(_to_8_bit(_decoded(image), white_level, None), size, resampling)
    except Exception as error:  # as for files
        raise ImageError(
            getattr(image, "filename", "") or "a Pillow image", f"can't be read: {_reason(error)}"
        ) from error


def _as_rgb(plain: Image.Image, size: int | None, resampling: Resampling) -> NDArray[np.uint8]:
    # A grey image is resized as one channel: the same values as with three, in a third of the time.
    if size is not None and plain.size != (size, size):
        plain = plain.resize((size, size), Image.Resampling[resampling.upper()])
    pixels = np.array(plain, dtype=np.uint8)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)


def read_mask(
    path: str | os.PathLike[str], *, size: int | None = None, facts: Facts | None = None
) -> NDArray[np.uint8]:
    """Reads a defect mask: 1 where any channel is not zero.

    The value does not matter: masks contain 1, 255 or class ids. Fully transparent pixels count as background. Lossy
    compression (JPEG, TIFF with JPEG or WebP inside, lossy WebP) makes faint noise around every edge; there, a pixel counts
    from half brightness.

    Args:
        path: The mask file, or a folder of masks of one image (MVTec LOCO): a pixel in any of them counts.
        size: Side of the square to which the mask is resized, to the nearest pixel. None keeps its size.
        facts: As for `read_image`.

    Returns:
        0 (normal) and 1 (defect), [H, W].

    Raises:
        ImageError: As for `read_image`; also for masks of one image that differ in size.
    """
    _check_size(size)
    masks = [_read_one_mask(file, size, facts) for file in files_of_mask(path)]
    if not masks or any(mask.shape != masks[0].shape for mask in masks):
        raise ImageError(_printable(path), "contains no masks" if not masks else "contains masks of different sizes")
    return masks[0] if len(masks) == 1 else np.maximum.reduce(masks)


def files_of_mask(path: str | os.PathLike[str]) -> list[str]:
    """The files of a mask: the file itself, or those in a folder, sorted."""
    if not os.path.isdir(path):
        return [os.fspath(path)]
    names = sorted(name for name in os.listdir(path) if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES)
    return [os.path.join(path, name) for name in names]


def _read_one_mask(path: str, size: int | None, facts: Facts | None) -> NDArray[np.uint8]:
    with _opened(path, facts) as decoded:
        mask = Image.fromarray(_foreground(decoded))
        if size is not None and mask.size != (size, size):
            mask = mask.resize((size, size), Image.Resampling.NEAREST)
        return np.array(mask, dtype=np.uint8)


def centre_crop(squares: "Tensor", side: int) -> "Tensor":
    """The middle `side` x `side` pixels of squares [B, S, S, ...], as a view."""
    start, end = crop_edges(squares.shape[1], side)
    return squares[:, start:end, start:end]


def crop_edges(size: int, side: int) -> tuple[int, int]:
    """First row (or column) of the centre crop of a square, and the one after its last.

    With an odd margin, one pixel less is cut off at the start than at the end. torchvision's crop, which the detectors'
    public codes use, rounds half of an odd margin to the even number: of a margin of 41 (SimpleNet's 329 to 288) both cut off
    20 at the start, of one of 31 this one 15 and torchvision 16.
    """
    start = (size - side) // 2
    return start, start + side


def _check_size(size: int | None) -> None:
    if size is not None and size < 1:
        raise InputError(f"size {size}: expected the side of the resized image in pixels, at least 1")


class _Decoded(NamedTuple):
    image: Image.Image  # upright
    form: str | None  # the file's format
    bits: int  # of a grey TIFF's pixel in the file; 16 for other files
    deep: bool  # whether a channel of a colour image has 16 bits, of which Pillow keeps 8
    lossy: bool  # whether compression may have changed its values


@contextmanager
def _opened(path: str | os.PathLike[str], facts: Facts | None) -> Iterator[_Decoded]:
    """A loaded image. Every error becomes an `ImageError`, also those in the caller's block."""
    shown = _printable(path)
    problem = _problem(path)
    if problem is not None:
        raise ImageError(shown, problem)
    try:
        with _steady_pillow(), open(path, "rb") as file, Image.open(_hashed(file, facts), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ImageError(shown, _too_large(f"{width}x{height} pixels"))
            deep = any(re.search(";16[BLN]", str(tile)) for tile in image.tile)
            image.load()
            yield _decoded(image)._replace(deep=deep, lossy=_is_lossy(image, path))
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(shown, _too_large(str(error).partition(",")[0])) from error
    except UnidentifiedImageError as error:
        raise ImageError(shown, _foreign(path)) from error
    except MemoryError as error:
        raise ImageError(shown, "not enough memory to decode it") from error
    except Exception as error:
        # On broken files Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, IndexError and more.
        raise ImageError(shown, f"can't be decoded: {_reason(error)}") from error


def _decoded(image: Image.Image) -> _Decoded:
    # 258 is TIFF's BitsPerSample. Rotating an image drops its tags and format.
    bits = getattr(image, "tag_v2", {}).get(258, (16,))
    return _Decoded(_upright(image), image.format, int(bits[0]), deep=False, lossy=False)


def _hashed(file: BinaryIO, facts: Facts | None) -> BinaryIO:
    """The file at its start, after its hash was computed. It stays open: by name, it could be another file by now."""
    while facts is not None and (part := file.read(_PART)):
        facts.sha256.update(part)
    file.seek(0)
    return file


def _is_lossy(image: Image.Image, path: str | os.PathLike[str]) -> bool:
    if image.format == "TIFF":
        return image.info.get("compression") in ("jpeg", "tiff_jpeg", "webp")
    if image.format != "WEBP":
        return image.format in ("JPEG", "MPO")
    with open(path, "rb") as file:  # RIFF: chunks of a name, a length and as many bytes, padded to an even number
        file.seek(12)
        while len(head := file.read(8)) == 8:
            if head[:4] in (b"VP8 ", b"VP8L"):
                return head[:4] == b"VP8 "
            length = int.from_bytes(head[4:], "little")
            file.seek(length + length % 2, os.SEEK_CUR)
    return True


def _problem(path: str | os.PathLike[str]) -> str | None:
    """What is wrong with the file, found without opening it, because opening a named pipe would wait forever."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        if os.path.islink(path):
            return f"a symbolic link to {_printable(os.readlink(path))}, which does not exist"
        return "no such file"
    except (OSError, ValueError) as error:
        return _reason(error)
    if stat.S_ISDIR(status.st_mode):
        return "a folder, not an image file"
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    return "the file is empty (0 bytes)" if status.st_size == 0 else None


def _foreign(path: str | os.PathLike[str]) -> str:
    """Why Pillow did not recognise the file, from its first bytes."""
    with open(path, "rb") as file:
        head = file.read(32)
    if head[4:8] == b"ftyp":
        return f"a HEIC, AVIF or video file; expected {_ACCEPTED}"
    for signature, name in _SIGNATURES:
        if head.lstrip().startswith(signature):
            return f"{name}; expected {_ACCEPTED}"
    return f"not an image (it begins with {_shown(head[:8])}); expected {_ACCEPTED}"


def _shown(head: bytes) -> str:
    """A file's first bytes for people: as text if they are one, else in hexadecimal."""
    text = head.decode("ascii", "replace").rstrip()
    return f'"{text}"' if text.isprintable() and text.isascii() else head.hex(" ")


def _too_large(what: str) -> str:
    return f"{what}: more than {MAX_PIXELS:,} pixels, the limit against decompression bombs; cut the image into tiles"


def _reason(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text or type(error).__name__


def _printable(path: str | os.PathLike[str]) -> str:
    """The path as text for any terminal and log: bytes that are not UTF-8 become escapes."""
    return os.fspath(path).encode("utf-8", "backslashreplace").decode("utf-8")


_lock = threading.Lock()
_readers = 0
_before: "tuple[warnings.catch_warnings[None], bool] | None" = None


@contextmanager
def _steady_pillow() -> Iterator[None]:
    """Makes decoding independent of global state: Pillow's warnings are silent, truncated files are errors.

    `warnings.catch_warnings` is not safe in threads (the last one to leave may restore another's filters). So readers are
    counted, and only the first and the last one change the state. The filter is limited to Pillow's own modules.
    """
    global _before, _readers
    with _lock:
        _readers += 1
        if _readers == 1:
            _before = (warnings.catch_warnings(), ImageFile.LOAD_TRUNCATED_IMAGES)
            _before[0].__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\b")
            ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if _readers == 0 and _before is not None:
                _before[0].__exit__(None, None, None)
                ImageFile.LOAD_TRUNCATED_IMAGES = _before[1]


def _upright(image: Image.Image) -> Image.Image:
    try:
        # After loading, because Pillow rotates a TIFF itself while it loads it, and then drops the tag.
        return ImageOps.exif_transpose(image) if image.getexif().get(0x0112, 1) != 1 else image
    except Exception:  # Broken EXIF data does not matter for the pixels, which are decoded already.
        return image


def _to_8_bit(decoded: _Decoded, white_level: float | None, facts: Facts | None) -> Image.Image:
    """The image in mode L or RGB."""
    image = decoded.image
    if image.mode.startswith("I;16"):
        return _scaled(image, white_level or (1 << decoded.bits) - 1, facts)
    if image.mode in ("I", "F"):  # Pillow before 11.3 opens a 16-bit grey PNG in mode I.
        return _scaled(image, white_level or (65535 if image.mode == "I" else 1), facts)
    plain = image if image.mode in ("L", "RGB") else image.convert("L" if image.mode in ("1", "LA") else "RGB")
    if decoded.deep:
        if white_level is not None:
            raise ValueError(
                "only the upper 8 of its 16 bits per channel can be read, so --white-level does not apply; save it as grey, "
                "or with 8 bits"
            )
        if facts is not None:
            extrema = np.ravel(plain.getextrema())
            facts.levels = Levels(65535, 256.0 * extrema.min(), 256.0 * extrema.max() + 255, above=0, fixed=True)
    return plain


def _scaled(image: Image.Image, white: float, facts: Facts | None) -> Image.Image:
    """Maps values from 0 to `white` to 0 to 255, rounded to nearest."""
    values = np.asarray(image, dtype=np.float32)
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("no pixel has a finite value")
    if facts is not None:
        above = float((finite > white).mean())
        facts.levels = Levels(white, float(finite.min()), float(finite.max()), above, fixed=False)
    inside = np.where(np.isfinite(values), values, 0).clip(0, white)
    return Image.fromarray(np.rint(inside * np.float32(255 / white)).astype(np.uint8))


def _foreground(decoded: _Decoded) -> NDArray[np.uint8]:
    """1 where a pixel of the mask is set, [H, W]."""
    image = decoded.image
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        return np.asarray(np.nan_to_num(values, nan=0.0) != 0, dtype=np.uint8)
    level = 127 if decoded.lossy else 0
    if image.mode in ("1", "L"):
        return np.asarray(np.asarray(image.convert("L")) > level, dtype=np.uint8)
    # By colour and not by palette index: an image editor may save white as index 0.
    channels = np.asarray(image.convert("RGBA"))
    return np.asarray((channels[:, :, :3].max(axis=2) > level) & (channels[:, :, 3] > 0), dtype=np.uint8)
