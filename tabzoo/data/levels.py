"""What a user is told of images with more than 8 bits: which values there are, and what became black and white."""

import functools
import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tabzoo.data.samples import Samples, counted
from tabzoo.errors import InputError

__all__ = ["check_levels", "level_messages"]

logger = logging.getLogger(__name__)

_USUAL = (1, 255, 1023, 4095, 16383, 65535)  # Floats, 8, 10, 12, 14 and 16 bits.
_DARK = 0.25  # Of white: a class that stays below is dark.
_BRIGHT = 0.01  # Share of pixels above white: a class with more of them is bright.


class _Class(NamedTuple):
    name: str
    white: float
    low: float
    high: float
    above: float
    fixed: bool  # Whether there are images to which no white level applies.
    several: bool  # Whether white is not the same value in all of its images.


def check_levels(samples: Samples, levels: NDArray[np.float32], white_level: float | None) -> None:
    """Warns, once in a process for the data set, of classes that come out dark or lose values.

    Args:
        samples: The images.
        levels: `images.Levels` of each, zeros for images of 8 bits, [N, 5].
        white_level: The one that was given.

    Raises:
        InputError: None was given, and a class comes out white.
    """
    if white_level is not None and not levels[:, 0].any():
        _warn_once(
            f"{samples.root}: no grey image has more than 8 bits, so --white-level {white_level:g} changes nothing"
        )
    for message in level_messages(samples, levels, refuse=white_level is None):
        _warn_once(f"{samples.root}: {message}")


def level_messages(samples: Samples, levels: NDArray[np.float32], *, refuse: bool = False) -> Iterator[str]:
    """What is to be told of classes that come out dark or lose values; arguments as for `check_levels`.

    Args:
        samples: The images.
        levels: Of each.
        refuse: Classes that come out white are an error.

    Raises:
        InputError: As said.
    """
    classes = _classes(samples, levels)
    too_bright = "what lies above comes out white. Type --white-level {suggested:g} to see it apart"
    go_on = ", or --white-level {white:g} to go on so."
    for judge, what in (
        (_is_bright, too_bright + go_on if refuse else too_bright),
        (_is_dark, "they come out dark. Type --white-level {suggested:g} if that is the camera's white"),
        (_is_dark_colour, "they come out dark. Save them with 8 bits: of colour with 16, only the upper 8 can be read"),
        (_loses_few, "what lies outside comes out black or white"),
        (_is_mixed, "each kind of file has its own white. Type --white-level {suggested:g} for one of all"),
    ):
        if found := [one for one in classes if judge(one)]:
            told = what.format(suggested=_suggested(found), white=max(one.white for one in found))
            message = f"{_described(found)}; {told}"
            if refuse and judge is _is_bright:
                raise InputError(f"{samples.root}: {message}")
            yield message


@functools.cache
def _warn_once(message: str) -> None:
    """The same images may be opened for one method after another."""
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
    """Those that have images with more than 8 bits."""
    classes = []
    for class_id in np.unique(samples.class_ids[levels[:, 0] > 0]).tolist():
        white, low, high, above, fixed = levels[(samples.class_ids == class_id) & (levels[:, 0] > 0)].T
        values = float(white.max()), float(low.min()), float(high.max()), float(above.mean())
        name, several = samples.classes[class_id], bool(white.min() != white.max())
        classes.append(_Class(name, *values, fixed=bool(fixed.any()), several=several))
    return classes


def _suggested(found: Sequence[_Class]) -> float:
    """A white level that keeps all values of these classes and does not leave them dark."""
    highest = max(one.high for one in found)
    return next((value for value in _USUAL if highest <= value <= highest / _DARK), highest)


def _described(found: Sequence[_Class]) -> str:
    low, high = min(one.low for one in found), max(one.high for one in found)
    whites = ", ".join(f"{value:g}" for value in sorted({one.white for one in found}))
    names = counted([one.name for one in found], "class", "classes")
    return f"pixel values of {names} go from {low:g} to {high:g}, with 0 as black and {whites} as white"
