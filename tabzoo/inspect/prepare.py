"""A photo as the square of pixels that a detector looks at: the same pixels as the image cache makes of a file."""

import os
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tabzoo.data.images import Resampling, image_pixels, read_image
from tabzoo.errors import InputError

__all__ = ["Photo", "prepare"]

Photo: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
"""A file, a Pillow image, or pixels: uint8 RGB [H, W, 3]."""


def prepare(
    source: Photo, size: int | None, resampling: Resampling, *, white_level: float | None = None
) -> NDArray[np.uint8]:
    """The whole photo, squashed to a square: nothing is cropped, since defects can be at the border.

    Args:
        source: The photo, of any size.
        size: Side of the square in pixels. None keeps the photo's own size, and its shape.
        resampling: How it is resized.
        white_level: The value that becomes white in images of more than 8 bits; see `data.images`.

    Returns:
        uint8 RGB [size, size, 3].

    Raises:
        ImageError: The file, or the Pillow image, can't be read.
        InputError: It is none of the three, or an array of another shape or type.
    """
    if isinstance(source, str | os.PathLike):
        return read_image(source, size=size, resampling=resampling, white_level=white_level)
    image = source if isinstance(source, Image.Image) else Image.fromarray(_checked(source))
    return image_pixels(image, size=size, resampling=resampling, white_level=white_level)


def _checked(source: Any) -> NDArray[np.uint8]:
    if not isinstance(source, np.ndarray):
        raise InputError(f"a photo of type {type(source).__name__}: expected a path, a Pillow image or a NumPy array")
    if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or 0 in source.shape:
        raise InputError(f"an array {source.shape} of {source.dtype}: expected RGB pixels, uint8 [H, W, 3]")
    return np.ascontiguousarray(source)
