"""Pictures inside a page, as data addresses."""

import base64
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["embed_file", "embed_picture"]

_QUALITY = 85
_LARGE = 150_000
"""Bytes from which on a PNG is embedded as JPEG: a sheet of photos and maps then takes a sixth."""


def embed_file(path: Path) -> str:
    """A PNG file, in its own size.

    Args:
        path: The file.

    Returns:
        What stands in `src`.

    Raises:
        OSError: It can't be read.
    """
    content = path.read_bytes()
    if len(content) < _LARGE:
        return _address(content, "png")
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        return _jpeg(image.convert("RGB"))


def embed_picture(pixels: NDArray[np.uint8], side: int) -> str:
    """Pixels as a small JPEG.

    Args:
        pixels: RGB, [H, W, 3].
        side: The longer side is made this long, in pixels, if it is longer.

    Returns:
        What stands in `src`.
    """
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return _jpeg(image)


def _jpeg(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY)
    return _address(file.getvalue(), "jpeg")


def _address(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
