"""Messages about images with more than 8 bits: their range of values, and what becomes black and white."""

import functools
import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tabzoo.data.samples import Samples
from tabzoo.errors import InputError, counted

__all__ = ["check_value", "check_white_level", "suggested_white_level", "white_level_messages"]

logger = logging.getLogger(__name__)

_USUAL = (1, 255, 1023, 4095, 16383, 65535)  # of floats, 8, 10, 12, 14 and 16 bits
_DARK = 0.25  # fraction of white: a class with no value above it is dark
_BRIGHT = 0.01  # fraction of the pixels above white: a class with more of them is bright


class _Class(NamedTuple):
    name: str
    white: float
    low: float
    high: float
    above: float  # fraction of the pixels
    fixed: bool  # whether some images take no white level
    several: bool  # whether white differs between its images


def check_value(white_level: float | None) -> None:
    """Checks a white level that a user gave.

    Raises:
        InputError: It is not a positive number.
    """
    if white_level is not None and not 0 < white_level < float("inf"):
        raise InputError(f"--white-level {white_level:g}: expected the pixel value that becomes white, above 0")


def check_white_level(samples: Samples, levels: NDArray[np.float32], white_level: float | None) -> None:
    """Warns, once in a process for each data set, of classes that become dark or lose values.

    Args:
        samples: The images.
        levels: `images.Levels` of each, zeros for images of 8 bits, [N, 5].
        white_level: The white level that the user gave.

    Raises:
        InputError: No white level was given, and a class becomes white.
    """
    if white_level is not None and not levels[:, 0].any():
        _warn_once(
            f"{samples.root}: no grey image has more than 8 bits, so --white-level {white_level:g} has no effect"
        )
    for message in white_level_messages(samples, levels, refuse=white_level is None):
        _warn_once(f"{samples.root}: {message}")


def white_level_messages(samples: Samples, levels: NDArray[np.float32], *, refuse: bool = False) -> Iterator[str]:
    """Describes the classes that become dark or lose values.

    Args:
        samples: The images.
        levels: As for `check_white_level`.
        refuse: Classes that become white are an error.

    Raises:
        InputError: A class becomes white, with `refuse`.
    """
    classes = _classes(samples, levels)
    bright = "values above that become white. Use --white-level {suggested:g} to keep them apart"
    accept = ", or --white-level {white:g} to accept this."
    for judge, what in (
        (_is_bright, bright + accept if refuse else bright),
        (_is_dark, "these images become dark. Use --white-level {suggested:g} if that is the camera's white"),
        (_is_dark_colour, "these images become dark. Save them with 8 bits: only the upper 8 of 16 bits can be read"),
        (_loses_few, "values outside become black or white"),
        (_is_mixed, "each kind of file has its own white. Use --white-level {suggested:g} to set one for all"),
    ):
        if found := [one for one in classes if judge(one)]:
            advice = what.format(suggested=_suggested(found), white=max(one.white for one in found))
            message = f"{_described(found)}; {advice}"
            if refuse and judge is _is_bright:
                raise InputError(f"{samples.root}: {message}")
            yield message


def suggested_white_level(samples: Samples, levels: NDArray[np.float32]) -> float | None:
    """One white level for all classes of which a message says that they need another; None if there are none.

    Args:
        samples: The images.
        levels: As for `check_white_level`.
    """
    found = [one for one in _classes(samples, levels) if _is_bright(one) or _is_dark(one) or _is_mixed(one)]
    return _suggested(found) if found else None


@functools.cache
def _warn_once(message: str) -> None:
    """One run may open the same images several times, in several sizes."""
    logger.warning("%s", message)


def _is_bright(one: _Class) -> bool:
    return one.above > _BRIGHT


def _is_dark(one: _Class) -> bool:
    return one.high < _DARK * one.white and not one.fixed


def _is_dark_colour(one: _Class) -> bool:
    return one.high < _DARK * one.white and one.fixed


def _loses_few(one: _Class) -> bool:
    return 0 < one.above <= _BRIGHT or one.low < 0


def _is_mixed(one: _Class) -> bool:
    return one.several


def _classes(samples: Samples, levels: NDArray[np.float32]) -> list[_Class]:
    """The classes with images of more than 8 bits."""
    classes = []
    for class_id in np.unique(samples.class_ids[levels[:, 0] > 0]).tolist():
        white, low, high, above, fixed = levels[(samples.class_ids == class_id) & (levels[:, 0] > 0)].T
        values = float(white.max()), float(low.min()), float(high.max()), float(above.mean())
        name, several = samples.classes[class_id], bool(white.min() != white.max())
        classes.append(_Class(name, *values, fixed=bool(fixed.any()), several=several))
    return classes


def _suggested(found: Sequence[_Class]) -> float:
    """A white level that keeps all values of these classes and does not make them dark."""
    highest = max(one.high for one in found)
    return next((value for value in _USUAL if highest <= value <= highest / _DARK), highest)


def _described(found: Sequence[_Class]) -> str:
    low, high = min(one.low for one in found), max(one.high for one in found)
    whites = ", ".join(f"{value:g}" for value in sorted({one.white for one in found}))
    names = counted([one.name for one in found], "class", "classes")
    return f"pixel values of {names} range from {low:g} to {high:g}, where 0 is black and {whites} is white"
