"""Photos that are unlike those that a detector was fitted to: of another shape, or grey instead of in colour."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tabzoo.data.images import read_image
from tabzoo.inspect.record import Looks

__all__ = ["Comparison", "looks_of"]

_LOOKED_AT = 20
"""Good photos, evenly spaced: all may be many, and are decoded in full here."""
_FACTOR = 1.1
"""Between two ratios of width to height, from which a photo that is squashed to a square looks like another one."""

logger = logging.getLogger(__name__)


def looks_of(paths: Sequence[Path], *, white_level: float | None) -> Looks:
    """What good photos look like.

    Args:
        paths: Of one photo at least.
        white_level: As for `data.images.read_image`.

    Raises:
        ImageError: One can't be read.
    """
    chosen = np.unique(np.linspace(0, len(paths) - 1, _LOOKED_AT).round().astype(int)).tolist()
    ratios, grey = [], []
    for index in chosen:
        photo = read_image(paths[index], white_level=white_level)
        ratios.append(photo.shape[1] / photo.shape[0])
        grey.append(_is_grey(photo))
    return Looks(min(ratios), max(ratios), grey[0] if len(set(grey)) == 1 else None)


class Comparison:
    """Warns of photos that are unlike the good ones, once for each way of being so.

    Args:
        looks: Of the good ones; without it, nothing is compared.
    """

    def __init__(self, looks: Looks | None) -> None:
        self._looks = looks
        self._said: set[str] = set()

    def see(self, file: str, size: tuple[int, int], pixels: NDArray[np.uint8]) -> None:
        """Looks at a photo.

        Args:
            file: Its path.
            size: Its height and width.
            pixels: RGB [h, w, 3], in any size.
        """
        if self._looks is None:
            return
        (height, width), (narrowest, widest, grey) = size, self._looks
        if not narrowest / _FACTOR <= width / height <= widest * _FACTOR:
            fitted = f"{narrowest:.2f}" if f"{narrowest:.2f}" == f"{widest:.2f}" else f"{narrowest:.2f} to {widest:.2f}"
            self._say("shape", f"{file}: {width / height:.2f} times as wide as high; the fitted photos: {fitted} times")
        if grey is not None and grey != _is_grey(pixels):
            self._say(
                "colour",
                f"{file}: {'in colour; the fitted photos are grey' if grey else 'grey; the fitted photos are in colour'}",
            )

    def _say(self, way: str, text: str) -> None:
        if way not in self._said:
            self._said.add(way)
            logger.warning("%s. Scores of such photos may mean little. This is said once.", text)


def _is_grey(pixels: NDArray[np.uint8]) -> bool:
    return bool((pixels == pixels[..., :1]).all())
