"""A photo with its anomaly map over it: in the photo's own size, with one scale of colours for all photos.

The photo becomes dark grey, so that all colour is the map's: none up to the lower end of the scale, then from purple over red
to yellow (matplotlib's inferno, which rises in brightness too and so can be read by the colour-blind). A white line with a
black rim goes around what is above the threshold.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from tabzoo.figures import save_figure
from tabzoo.plain import for_path
from tabzoo.system import whole_file

__all__ = ["LEGEND", "OVERLAYS", "Scale", "draw_legend", "draw_overlay", "name_of_overlay", "save_overlay"]

LEGEND, OVERLAYS = "legend.png", "overlays"
_STRIP = 1 << 21
"""Pixels that are drawn at a time, which bounds the memory besides the photo itself."""
_PNG_PIXELS = 1 << 20
"""Up to here PNG, above it JPEG: a PNG of 12 million pixels takes some 15 MB and seconds."""
_JPEG_SIDE = 65_500
_STRONGEST = 0.8
"""Share of the map's colour at the upper end of the scale."""
_PHOTO = 0.65
"""Brightness of the photo: on white, light colours would not be seen."""


class Scale(NamedTuple):
    """Values of anomaly maps.

    Attributes:
        low: Where colour begins.
        high: The strongest colour, also for all above.
        threshold: Where the line is.
    """

    low: float
    high: float
    threshold: float


@cache
def _colours() -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """For 256 levels: the colour times its share [256, 3], and the share of the photo [256], both times 256."""
    share = _STRONGEST * np.linspace(0, 1, 256) ** 0.7  # so that the middle of the scale is clearly seen
    colours = 255 * matplotlib.colormaps["inferno"](np.linspace(0.25, 1, 256))[:, :3]
    return np.rint(256 * share[:, None] * colours).astype(np.uint16), np.rint(256 * _PHOTO * (1 - share)).astype(
        np.uint16
    )


def draw_overlay(photo: NDArray[np.uint8], anomaly_map: NDArray[np.float32], scale: Scale) -> None:
    """Draws an anomaly map over a photo, in place.

    Args:
        photo: RGB [H, W, 3].
        anomaly_map: Of any size [h, w]; it is resized bilinearly.
        scale: Its colours.
    """
    height, width = photo.shape[:2]
    line = max(1, round(min(height, width) / 400))
    values = Image.fromarray(anomaly_map)
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        first, last = max(0, top - 2 * line), min(height, bottom + 2 * line)  # the line needs its neighbours
        around = _rows_of(values, (height, width), first, last)
        strip = photo[top:bottom]
        _colour(strip, around[top - first : bottom - first], scale)
        if (above := around > scale.threshold).any():
            inner = above & _grown(~above, line)
            rim = ~above & _grown(above, line)
            strip[inner[top - first : bottom - first]] = 255
            strip[rim[top - first : bottom - first]] = 0


def _rows_of(values: Image.Image, size: tuple[int, int], first: int, last: int) -> NDArray[np.float32]:
    """Some rows of the map in the photo's size, [last - first, W]."""
    (height, width), unit = size, values.height / size[0]
    if values.size == (width, height):
        return np.asarray(values.crop((0, first, width, last)))
    box = (0, first * unit, values.width, min(values.height, last * unit))
    return np.asarray(values.resize((width, last - first), Image.Resampling.BILINEAR, box=box))


def _colour(strip: NDArray[np.uint8], values: NDArray[np.float32], scale: Scale) -> None:
    colours, rest = _colours()
    unit = 255 / max(scale.high - scale.low, 1e-12)
    levels = np.rint(((values - np.float32(scale.low)) * np.float32(unit)).clip(0, 255)).astype(np.uint8)
    grey = np.asarray(Image.fromarray(strip).convert("L")).astype(np.uint16)
    strip[:] = (colours[levels] + (rest[levels] * grey)[..., None]) >> 8


def _grown(mask: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """The mask and all within this number of pixels of it, in rows and columns."""
    for axis in (0, 1):
        grown = mask.copy()
        for step in range(1, min(steps, mask.shape[axis] - 1) + 1):
            one, other = (np.moveaxis(array, axis, 0) for array in (grown, mask))
            one[step:] |= other[:-step]
            one[:-step] |= other[step:]
        mask = grown
    return mask


def name_of_overlay(file: str, sha256: str, size: tuple[int, int]) -> str:
    """The overlay's path relative to the folder of the scores: another one for another photo, or another content.

    Args:
        file: The photo's path, as reported.
        sha256: Of its content.
        size: Its height and width.
    """
    height, width = size
    png = height * width <= _PNG_PIXELS or max(size) > _JPEG_SIDE
    digits = hashlib.sha256(f"{sha256}{file}".encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{OVERLAYS}/{for_path(Path(file).name)}-{digits}.{'png' if png else 'jpg'}"


def save_overlay(path: Path, overlay: NDArray[np.uint8]) -> None:
    """Writes an overlay [H, W, 3]; the path's ending says how.

    Raises:
        WriteError: It can't be written.
    """
    with whole_file(path) as file:
        Image.fromarray(overlay).save(file, compress_level=1, quality=90)  # of PNG, of JPEG


def draw_legend(path: Path, scale: Scale) -> None:
    """Writes the scale of all overlays of a folder as a picture, with the colours on a mid-grey photo.

    Raises:
        WriteError: It can't be written.
    """
    colours, rest = _colours()
    on_grey = ((colours + (rest * np.uint16(128))[:, None]) >> 8) / 255
    figure = Figure(figsize=(4.2, 1.1), layout="constrained")
    axis = figure.subplots()
    span = max(scale.high - scale.low, 1e-12)
    axis.imshow(
        [np.arange(256)], aspect="auto", cmap=ListedColormap(on_grey), extent=(scale.low, scale.low + span, 0, 1)
    )
    axis.set_xlim(min(scale.low, scale.threshold), max(scale.low + span, scale.threshold))
    axis.axvline(scale.threshold, color="black", linewidth=4)
    axis.axvline(scale.threshold, color="white", linewidth=2)
    axis.set_yticks([])
    axis.set_title(f"Anomaly map of all photos; line: the threshold, {scale.threshold:.4g}", fontsize=8)
    axis.tick_params(labelsize=7)
    save_figure(figure, path, dpi=150)
