"""The content of detector.json: what a detector is, how it is used, and where it comes from."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args

from tabzoo.data.images import Resampling
from tabzoo.hub.files import Digest
from tabzoo.inspect.threshold import Threshold

__all__ = ["FORMAT", "METHODS", "DetectorRecord", "Scale", "Tested"]

FORMAT = 1
METHODS = ("padim", "patchcore")
"""Detectors of which a fitted state can be kept."""
_LARGEST_SIDE = 8192


class Scale(NamedTuple):
    """One colour scale for the maps of all photos.

    Attributes:
        low: What maps of good photos usually have.
        high: As far above the highest value of all good photos as that is above `low`.
    """

    low: float
    high: float


class Tested(NamedTuple):
    """What the threshold does on labelled photos that played no part in its choice.

    Attributes:
        defects: Number of photos of defects.
        caught: Those of them above the threshold.
        good: Number of good photos.
        above: Those of them above the threshold: false alarms.
    """

    defects: int
    caught: int
    good: int
    above: int


@dataclass(frozen=True, kw_only=True)
class DetectorRecord:
    """What detector.json holds.

    Attributes:
        method: "padim" or "patchcore".
        settings: What the method's numbers depend on, among them those of its flags.
        layers: Of the backbone, fine to coarse.
        size: Side of the square that photos are squashed to.
        resampling: The filter for that.
        white_level: Pixel value that becomes white in photos of more than 8 bits, or None.
        tile: Side of the tiles that photos are cut into, or None: whole photos.
        overlap: Of neighbouring tiles, in pixels, or None.
        mean: What pixels in [0, 1] are normalised by, RGB.
        std: The same.
        amp: "off" or "bf16": how the backbone computes.
        class_name: What is inspected.
        backbone: `name` as typed, `license` or None, and what `inspect.rebuild` builds it from.
        threshold: And what it means.
        good_scores: Out-of-fold scores of the different good photos, sorted.
        scale: For the maps.
        tested: What the threshold does on the class's test photos, or None where there are none.
        blank_score: Score of a plain grey photo: another version of a library that computes otherwise is noticed.
        provenance: Photos, weights, versions, hardware, seed, command and time.
        files: Digest of each other file.
    """

    method: str
    settings: dict[str, Any]
    layers: tuple[str, ...]
    size: int
    resampling: Resampling
    white_level: float | None = None
    tile: int | None = None
    overlap: int | None = None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    amp: str = "off"
    class_name: str
    backbone: dict[str, Any]
    threshold: Threshold
    good_scores: tuple[float, ...]
    scale: Scale
    tested: Tested | None = None
    blank_score: float
    provenance: dict[str, Any]
    files: dict[str, Digest] = field(default_factory=dict)
    format: int = FORMAT

    def to_json(self) -> dict[str, Any]:
        """As JSON takes it; `from_json` is the reverse."""
        content: dict[str, Any] = {"format": self.format}
        content |= {
            entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self) if entry.name != "format"
        }
        content["threshold"] = dataclasses.asdict(self.threshold)
        content["scale"] = self.scale._asdict()
        content["tested"] = self.tested and self.tested._asdict()
        content["files"] = {name: {"bytes": one.size, "sha256": one.sha256} for name, one in self.files.items()}
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "DetectorRecord":
        """The record, checked.

        Raises:
            ValueError: A part is missing, of another type or out of range. KeyError, TypeError, AttributeError: the same.
        """
        known = {entry.name for entry in dataclasses.fields(cls)}
        if missing := known - content.keys():
            raise ValueError(f"{sorted(missing)[0]!r} is missing")
        given = {name: content[name] for name in known}
        record = cls(
            **given
            | {
                "layers": tuple(map(str, given["layers"])),
                "mean": tuple(map(_finite, given["mean"])),
                "std": tuple(map(_finite, given["std"])),
                "threshold": Threshold(**given["threshold"]),
                "good_scores": tuple(map(_finite, given["good_scores"])),
                "scale": Scale(**given["scale"]),
                "tested": given["tested"] and Tested(**given["tested"]),
                "files": {name: Digest(str(one["sha256"]), int(one["bytes"])) for name, one in given["files"].items()},
            }
        )
        record._check()
        return record

    def _check(self) -> None:
        accepted: dict[str, Any] = {
            "format": (1,),
            "method": METHODS,
            "resampling": get_args(Resampling),
            "amp": ("off", "bf16"),
        }
        for name, values in accepted.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} {getattr(self, name)!r}: expected {' or '.join(map(str, values))}")
        for name in ("size", "tile", "overlap"):
            value = getattr(self, name)
            if not (value is None and name != "size") and not (type(value) is int and 0 <= value <= _LARGEST_SIDE):
                raise ValueError(f"{name} {value!r}: expected a number of pixels")
        if self.size < 1 or len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError("size, mean or std is out of range")
        if not self.good_scores or list(self.good_scores) != sorted(self.good_scores):
            raise ValueError("good_scores: expected sorted numbers")
        numbers = {**dataclasses.asdict(self.threshold), **self.scale._asdict(), "blank_score": self.blank_score}
        numbers |= {} if self.white_level is None else {"white_level": self.white_level}
        for text in (numbers.pop("words"), self.class_name):
            if not isinstance(text, str):
                raise ValueError(f"{text!r}: expected text")
        for value in numbers.values():
            _finite(value)
        if not all(isinstance(part, dict) for part in (self.settings, self.backbone, self.provenance)):
            raise ValueError("settings, backbone and provenance: expected JSON objects")


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r}: expected a finite number")
    return float(value)
