"""Generated wafer maps in the form of MixedWM38's file, for tests and docs. They are not that data set, nor like it in detail.

A map is a disc of dies, of which a few fail anywhere. Each basic pattern is a probability of failure for each die; a mixture
has that of each of its patterns.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tabzoo.data.wafers import NORMAL, PATTERNS, PUBLIC, SIDE
from tabzoo.errors import InputError, did_you_mean
from tabzoo.system import whole_file

__all__ = ["draw_wafer", "make_toy_wafers"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_ANYWHERE = (0.02, 0.08)  # probability that a die fails without a pattern
_INSIDE = (0.7, 0.95)  # and within one
_AXIS = (np.arange(SIDE) + 0.5) * (2 / SIDE) - 1
_X, _Y = np.meshgrid(_AXIS, _AXIS)
_RADIUS, _ANGLE = np.hypot(_X, _Y), np.arctan2(_Y, _X)


def _blob(rng: Generator, radius: float, angle: float) -> Mask:
    """A spot whose middle is at this place."""
    x, y = _X - radius * np.cos(angle), _Y - radius * np.sin(angle)
    turn, width, height = rng.uniform(0, np.pi), *rng.uniform(0.12, 0.26, 2)
    inside: Mask = ((x * np.cos(turn) + y * np.sin(turn)) / width) ** 2 + (
        (y * np.cos(turn) - x * np.sin(turn)) / height
    ) ** 2 < 1
    return inside


def _centre(rng: Generator) -> Mask:
    x, y = rng.uniform(-0.08, 0.08, 2)
    inside: Mask = np.hypot(_X - x, _Y - y) < rng.uniform(0.2, 0.38)
    return inside


def _donut(rng: Generator) -> Mask:
    x, y = rng.uniform(-0.12, 0.12, 2)
    inner = rng.uniform(0.2, 0.32)
    radius = np.hypot(_X - x, _Y - y)
    inside: Mask = (radius > inner) & (radius < inner + rng.uniform(0.2, 0.32))
    return inside


def _edge(rng: Generator, least: float, most: float) -> Mask:
    """A part of the rim, from `least` to `most` of a half turn to each side."""
    away = np.abs((_ANGLE - rng.uniform(-np.pi, np.pi) + np.pi) % (2 * np.pi) - np.pi)
    inside: Mask = (_RADIUS > rng.uniform(0.78, 0.88)) & (away < np.pi * rng.uniform(least, most))
    return inside


def _scratch(rng: Generator) -> Mask:
    """A thin line that bends."""
    x, y, heading = *rng.uniform(-0.5, 0.5, 2), rng.uniform(0, 2 * np.pi)
    bend, steps = rng.uniform(-1.2, 1.2), int(rng.integers(30, 60))
    inside = np.zeros((SIDE, SIDE), dtype=bool)
    for _ in range(steps):
        row, column = (int((value + 1) * SIDE / 2) for value in (y, x))
        if 0 <= row < SIDE and 0 <= column < SIDE:
            inside[row, column] = True
        x, y, heading = x + np.cos(heading) / SIDE * 1.6, y + np.sin(heading) / SIDE * 1.6, heading + bend / SIDE
    return inside


_DRAWN: Mapping[str, Callable[[Generator], Mask]] = {
    "Center": _centre,
    "Donut": _donut,
    "Edge-Loc": lambda rng: _edge(rng, 0.1, 0.3),
    "Edge-Ring": lambda rng: _edge(rng, 0.9, 1.0),
    "Loc": lambda rng: _blob(rng, rng.uniform(0.35, 0.65), rng.uniform(0, 2 * np.pi)),
    "Near-full": lambda rng: _RADIUS < rng.uniform(0.97, 1.1),
    "Scratch": _scratch,
    "Random": lambda rng: np.ones((SIDE, SIDE), dtype=bool),
}
_DENSITY = {"Random": (0.3, 0.5), "Scratch": (0.85, 1.0), "Near-full": (0.9, 1.0)}  # where it is not `_INSIDE`


def draw_wafer(name: str, rng: Generator) -> NDArray[np.uint8]:
    """A map of a class: 0 no die, 1 passed, 2 failed, [52, 52].

    Args:
        name: A class, as `wafers.class_name` spells it.
        rng: Where all draws come from.
    """
    failing: Array = np.full((SIDE, SIDE), rng.uniform(*_ANYWHERE))
    for pattern in name.split("+") if name != NORMAL else ():
        inside = _DRAWN[pattern](rng)
        failing[inside] = np.maximum(failing[inside], rng.uniform(*_DENSITY.get(pattern, _INSIDE)))
    states = 1 + (rng.random((SIDE, SIDE)) < failing)
    return np.where(_RADIUS <= 1, states, 0).astype(np.uint8)


def make_toy_wafers(
    path: str | Path, *, seed: int = 0, per_class: int = 20, classes: tuple[str, ...] | None = None
) -> Path:
    """Writes generated wafer maps as `.npz`, in the form of MixedWM38's file.

    Equal arguments give the same maps with the same version of NumPy. A map does not depend on the number of maps.

    Args:
        path: The file; it must not exist yet.
        seed: Of all draws; 0 or more.
        per_class: Number of maps of each class.
        classes: Which classes, as `wafers.class_name` spells them; all 38 of MixedWM38 by default.

    Returns:
        `path`.

    Raises:
        InputError: A number is too small, a class is unknown, or the file exists.
        WriteError: The file can't be written.
    """
    path = Path(path)
    names = tuple(PUBLIC) if classes is None else tuple(dict.fromkeys(classes))
    for flag, value, least in (("seed", seed, 0), ("per-class", per_class, 1)):
        if not least <= value <= 10_000:
            raise InputError(f"--{flag} {value}: expected {least} to 10000")
    for name in names:
        if name not in PUBLIC:
            raise InputError(f"--classes {name}: expected some of {', '.join(PUBLIC)}.{did_you_mean(name, PUBLIC)}")
    if path.suffix != ".npz":
        raise InputError(f"{path}: expected a name that ends in .npz")
    if path.exists():
        raise InputError(f"{path}: exists; name a new file")
    order = list(PUBLIC)
    maps = [
        draw_wafer(name, np.random.default_rng([seed, order.index(name), number]))
        for name in names
        for number in range(per_class)
    ]
    labels = [[int(pattern in name.split("+")) for pattern in PATTERNS] for name in names for _ in range(per_class)]
    with whole_file(path) as file:
        np.savez_compressed(file, arr_0=np.array(maps), arr_1=np.array(labels, dtype=np.uint8))
    return path
