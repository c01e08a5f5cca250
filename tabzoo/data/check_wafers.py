"""Checks a file of wafer maps: its classes beside those of the public file, its 3s, and maps that occur twice."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tabzoo.data.check import Problem
from tabzoo.data.wafers import PUBLIC, Wafers
from tabzoo.errors import count

__all__ = ["LAYOUT", "WaferReport", "check_wafers"]

LAYOUT = "mixedwm38"
"""What `check` calls the form of the file."""


@dataclass(frozen=True)
class WaferReport:
    """What `check_wafers` found.

    Attributes:
        wafers: What was checked.
        notes: What one should know of the file.
        problems: What makes results on it wrong.
    """

    wafers: Wafers
    notes: list[str]
    problems: list[Problem]

    def to_json(self) -> dict[str, Any]:
        """The report for `--json`."""
        dies, maps = self.wafers.threes
        return {
            "layout": LAYOUT,
            "classes": self.wafers.counts(),
            "threes": {"dies": dies, "maps": maps},
            "notes": self.notes,
            "problems": [problem._asdict() for problem in self.problems],
            "total": len(self.wafers.maps),
        }


def check_wafers(wafers: Wafers) -> WaferReport:
    """Compares a file of wafer maps with the public one, and looks for maps that occur more than once."""
    notes, problems = [_beside_the_public_file(wafers)], []
    dies, maps = wafers.threes
    if dies:
        notes.append(f"{count(dies, 'die')} with the value 3, in {count(maps, 'map')}: read as 2, a die that failed")
    problems += [
        Problem("small", name, "1 map; expected at least 2, one to train on and one to test on")
        for name, number in wafers.counts().items()
        if number == 1
    ]
    twice, contradictory = _repeated(wafers)
    if twice:
        notes.append(f"{count(twice, 'map')} the same as an earlier one of its class; a split can put one on each side")
    if contradictory:
        message = f"{count(contradictory, 'map')} the same as an earlier one of another class"
        problems.append(Problem("duplicate", str(wafers.path), message))
    return WaferReport(wafers, notes, problems)


def _beside_the_public_file(wafers: Wafers) -> str:
    found, total = wafers.counts(), sum(PUBLIC.values())
    if found == PUBLIC:
        return f"as many maps of each class as MixedWM38's public file: {total:,} in {len(PUBLIC)} classes"
    other = [name for name in {**PUBLIC, **found} if found.get(name, 0) != PUBLIC.get(name, 0)]
    shown = ", ".join(f"{name} {found.get(name, 0)} (public {PUBLIC.get(name, 0)})" for name in other[:3])
    more = f" and {len(other) - 3} more" if len(other) > 3 else ""
    return (
        f"not MixedWM38's public file, which has {total:,} maps in {len(PUBLIC)} classes; "
        f"{count(len(other), 'class', 'classes')} with another number of maps: {shown}{more}"
    )


def _repeated(wafers: Wafers) -> tuple[int, int]:
    """How many maps are the same as an earlier one: of their class, and of another class."""
    seen: dict[bytes, set[int]] = {}
    same = other = 0
    for pixels, class_id in zip(np.packbits(_bits(wafers), axis=1), wafers.class_ids.tolist(), strict=True):
        classes = seen.setdefault(pixels.tobytes(), set())
        same += class_id in classes
        other += bool(classes - {class_id})
        classes.add(class_id)
    return same, other


def _bits(wafers: Wafers) -> Any:
    """Two bits for each die, [N, 2 x 52 x 52]."""
    flat = wafers.maps.reshape(len(wafers.maps), -1)
    return np.concatenate([flat & 1, flat >> 1], axis=1)
