"""Wafer maps in the form of MixedWM38's public file: an `.npz` with maps (`arr_0`) and labels (`arr_1`).

MixedWM38 (Wang et al., "Deformable Convolutional Networks for Efficient Mixed-type Wafer Defect Pattern Recognition", IEEE
Transactions on Semiconductor Manufacturing 2020; github.com/Junliangwangdhu/WaferMap at 10e65ca) has 38,015 maps of 52 x 52
values: 0 outside the wafer, 1 for a die that passed its test, 2 for a die that failed. A label has eight columns of 0 and
1, one for each basic pattern; a map may have several patterns or none. The authors' page says that the columns are "C2 to C9"
and shows the patterns in the order of `PATTERNS`. The rare columns of the public file agree with it: the sixth has 149 maps
(Near-full), the eighth 866 (Random).

The file also has a few dies with the value 3, which its page does not explain. They count as failed dies here, and
`Wafers.threes` says how many there are.
"""

import itertools
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tabzoo.errors import InputError, brief

__all__ = [
    "LEVELS",
    "NORMAL",
    "PATTERNS",
    "PUBLIC",
    "SIDE",
    "Wafers",
    "class_name",
    "is_wafer_file",
    "name_and_short",
    "read_wafers",
    "short",
]

SIDE = 52
"""Dies along each side of a map."""
PATTERNS = ("Center", "Donut", "Edge-Loc", "Edge-Ring", "Loc", "Near-full", "Scratch", "Random")
"""The basic patterns, in the order of the label's columns."""
NORMAL = "normal"
"""The class of maps without a pattern."""
LEVELS = (0, 127, 255)
"""Grey level of: no die, a die that passed, a die that failed."""

_SHORT = dict(zip(PATTERNS, ("C", "D", "EL", "ER", "L", "NF", "S", "R"), strict=True))
_MAPS, _LABELS = "arr_0", "arr_1"
_MOST_MAPS = 200_000  # five times the public file; 540 MB as bytes
_LONGEST_HEADER = 10_000  # bytes; NumPy writes 128
_PART = 2048  # maps that are read at a time
_EXPECTED = f"expected the form of MixedWM38's file: {_MAPS} [N, {SIDE}, {SIDE}] and {_LABELS} [N, {len(PATTERNS)}]"


def class_name(patterns: Iterable[str]) -> str:
    """The class of a map with these basic patterns: "normal", "Loc" or "Center+Edge-Loc"."""
    return "+".join(patterns) or NORMAL


def _public_counts() -> dict[str, int]:
    """A normal class, eight basic ones, and 29 mixtures: of at most one of Center and Donut, one of Edge-Loc and Edge-Ring, Loc
    and Scratch.
    """
    parts = itertools.product(("", "Center", "Donut"), ("", "Edge-Loc", "Edge-Ring"), ("", "Loc"), ("", "Scratch"))
    mixtures = [tuple(filter(None, one)) for one in parts]
    counts = {class_name(one): 1000 for one in mixtures} | {"Near-full": 149, "Random": 866}
    return counts | {"Center+Edge-Loc+Scratch": 2000}


PUBLIC: dict[str, int] = _public_counts()
"""Class to number of maps in the public file, as its users count them: 38 classes, 38,015 maps."""


class Wafers(NamedTuple):
    """Wafer maps and their labels.

    Attributes:
        path: The file.
        maps: uint8 [N, 52, 52]: 0 no die, 1 passed, 2 failed.
        labels: bool [N, 8], in the order of `PATTERNS`.
        classes: Names of the classes that occur: normal first, then by the number of patterns, then as `PATTERNS` has them.
        class_ids: Index into `classes`, int64 [N].
        threes: How many dies had the value 3, and in how many maps.
    """

    path: Path
    maps: NDArray[np.uint8]
    labels: NDArray[np.bool_]
    classes: tuple[str, ...]
    class_ids: NDArray[np.int64]
    threes: tuple[int, int]

    def counts(self) -> dict[str, int]:
        """Number of maps of each class."""
        return dict(zip(self.classes, np.bincount(self.class_ids).tolist(), strict=True))

    def grey(self, rows: Any) -> NDArray[np.uint8]:
        """Maps as grey images, uint8 [B, 52, 52]; see `LEVELS`."""
        images: NDArray[np.uint8] = np.array(LEVELS, dtype=np.uint8)[self.maps[rows]]
        return images


def is_wafer_file(path: str | Path) -> bool:
    """Whether a name is that of a file with wafer maps."""
    return Path(path).suffix.lower() == ".npz"


def short(name: str) -> str:
    """A class as figures call it, such as C+EL for Center+Edge-Loc; other names as they are."""
    return "+".join(_SHORT.get(part, part) for part in name.split("+"))


def name_and_short(name: str) -> str:
    """A basic pattern with its short name, such as Center (C), which explains those of mixtures; others as `short`."""
    return f"{name} ({_SHORT[name]})" if name in _SHORT else short(name)


def read_wafers(path: str | Path) -> Wafers:
    """Reads a file of wafer maps. Sizes are checked before memory is taken, and nothing in it is unpickled.

    Raises:
        InputError: The file is missing or not of this form; names the file and what is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; expected MixedWM38's .npz, or one of `python -m tabzoo.data toy-wafers`"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            labels = _read(path, archive, _LABELS, (len(PATTERNS),))
            maps, threes = _as_maps(path, _read(path, archive, _MAPS, (SIDE, SIDE)))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise InputError(f"{path}: can't be read as .npz: {brief(error)}") from error
    if len(maps) != len(labels):
        raise InputError(
            f"{path}: {len(maps)} maps in {_MAPS}, but {len(labels)} labels in {_LABELS}; expected as many"
        )
    if labels.size and labels.max() > 1:
        raise InputError(
            f"{path}: {_LABELS} holds {labels.max()}; expected labels of 0 and 1, a column for each pattern"
        )
    classes, class_ids = _classes(labels != 0)
    if len(classes) < 2:
        held = f"one class, {classes[0]}" if classes else "no maps"
        raise InputError(f"{path}: holds {held}; expected at least two classes")
    return Wafers(path, maps, labels != 0, classes, class_ids, threes)


def _classes(labels: NDArray[np.bool_]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Names of the classes, and the class of each map."""
    codes = (labels.astype(np.int64) << np.arange(len(PATTERNS))).sum(axis=1)
    found = {
        int(code): tuple(number for number in range(len(PATTERNS)) if code >> number & 1) for code in np.unique(codes)
    }
    order = sorted(found, key=lambda code: (len(found[code]), found[code]))
    names = tuple(class_name(PATTERNS[number] for number in found[code]) for code in order)
    by_code = np.zeros(1 << len(PATTERNS), dtype=np.int64)
    by_code[order] = np.arange(len(order))
    return names, by_code[codes]


def _as_maps(path: Path, values: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Maps with 3 as 2, and how many dies and maps had a 3."""
    if values.size and values.max() > 3:
        raise InputError(
            f"{path}: {_MAPS} holds the value {values.max()}; expected 0 (no die), 1 (passed) and 2 (failed)"
        )
    threes = values == 3
    counts = int(threes.sum()), int(threes.any(axis=(1, 2)).sum())
    return np.minimum(values, 2), counts


def _read(path: Path, archive: zipfile.ZipFile, name: str, shape: Sequence[int]) -> NDArray[np.uint8]:
    """An array of whole numbers from 0 to 255, [N, *shape], read in parts."""
    members = {Path(info.filename).stem: info for info in archive.infolist()}
    if name not in members:
        held = ", ".join(sorted(members)[:5]) or "nothing"
        raise InputError(f"{path}: has no array {name}, but {held}; {_EXPECTED}")
    with archive.open(members[name]) as file:
        found, fortran, dtype = _header(path, name, file)
        if len(found) != 1 + len(shape) or found[1:] != tuple(shape) or fortran or dtype.kind not in "iub":
            order = ", in Fortran order" if fortran else ""
            raise InputError(f"{path}: {name} is {dtype} {list(found)}{order}; {_EXPECTED}, whole numbers")
        if not 0 <= found[0] <= _MOST_MAPS:
            raise InputError(f"{path}: {name} has {found[0]:,} rows; expected at most {_MOST_MAPS:,}")
        size = dtype.itemsize * int(np.prod(found))
        if members[name].file_size - file.tell() != size:
            raise InputError(
                f"{path}: {name} should hold {size:,} bytes, but {members[name].file_size - file.tell():,} follow"
            )
        values = np.empty(found, dtype=np.uint8)
        for start in range(0, found[0], _PART):
            part = values[start : start + _PART]
            read = np.frombuffer(file.read(dtype.itemsize * part.size), dtype=dtype)
            if read.size != part.size:
                raise EOFError(f"{name} is cut off")
            if dtype.kind != "b" and (read.min() < 0 or read.max() > 255):
                odd = read.min() if read.min() < 0 else read.max()
                raise InputError(f"{path}: {name} holds the value {odd}; expected small whole numbers from 0 on")
            part[...] = read.reshape(part.shape)
        file.read(1)  # at the end, the archive's checksum is compared
    return values


def _header(path: Path, name: str, file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and type of an array."""
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(file)
        shape, fortran, dtype = read[version](file, max_header_size=_LONGEST_HEADER)
    except (ValueError, KeyError, SyntaxError, TypeError) as error:
        raise InputError(f"{path}: {name} is not an array of NumPy: {brief(error)}; {_EXPECTED}") from error
    return shape, fortran and len(shape) > 1, dtype
