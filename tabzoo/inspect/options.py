"""The options of a fit, checked. Their docstrings are the help of the command line's flags."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tabzoo.data.layouts import LAYOUTS
from tabzoo.errors import InputError, did_you_mean
from tabzoo.flags import check_number, check_white_level, optional
from tabzoo.inspect.record import METHODS
from tabzoo.inspect.tiles import Tiling

__all__ = ["FitOptions"]

_LARGEST_SIZE = 4096
_DEFAULT_SIZE = 224
_PART = 8  # of a tile, by which tiles overlap


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """What to fit to which photos."""

    data: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """Good photos: DIR/CLASS/train/good/*, DIR/CLASS/*, or DIR/* for a single class."""
    class_name: Annotated[str | None, tyro.conf.arg(name="class", metavar="NAME", help_behavior_hint="")] = None
    """Which class of --data. It can be left out where there is only one."""
    backbone: Annotated[str, tyro.conf.arg(metavar="NAME|DIR")]
    """A timm name, a run's folder, local-dir:DIR, hf-hub:ID, or random[:ARCHITECTURE]. The detector has its weights inside."""
    method: Literal["padim", "patchcore"] = "padim"
    """How to tell good from defective."""
    output: Annotated[Path, tyro.conf.arg(metavar="DETECTOR")]
    """Folder for the detector: a new or empty one."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")] = False
    """Replace the detector in the output folder."""
    layout: Annotated[str, tyro.conf.arg(metavar="NAME", help=f"auto, {', '.join(LAYOUTS)}.")] = "auto"
    shots: Annotated[int | None, optional("K")] = None
    """Fit to only K good photos, drawn with the seed. If not given: to all."""
    size: Annotated[int | None, optional("PX")] = None
    """Side of the square that the whole photo is squashed to. Nothing is cropped: defects can be at the border.
    (`benchmark run` crops as the papers do.) If not given: 224; with --tile, the side of a tile."""
    tile: Annotated[int | None, optional("PX")] = None
    """For large photos: cut them into tiles of this side, which keep the photo's own pixels. A photo's score is the highest
    of its tiles. padim has statistics for each place of a tile, and takes photos of one size; patchcore has one bank."""
    overlap: Annotated[int | None, optional("PX")] = None
    """Pixels that neighbouring tiles share. If not given: an eighth of a tile."""
    false_alarms: Annotated[float, tyro.conf.arg(metavar="X")] = 0.01
    """Share of good parts that may be called defective: 0.01 is 10 of 1,000."""
    max_memory: Annotated[float, tyro.conf.arg(metavar="GB")] = 4.0
    """Memory for features of photos while fitting. PatchCore draws fewer patches of each photo where all would need more."""
    white_level: Annotated[float | None, optional("X")] = None
    """Pixel value that becomes white in grey photos of more than 8 bits, such as 4095 for a 12-bit camera.
    If not given: the largest value of the file's bits, or 1 for floats."""
    seed: Annotated[int, tyro.conf.arg(metavar="S")] = 1024
    """Of all that is drawn."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes the GPU if there is one."""
    amp: Literal["bf16", "auto", "off"] = "off"
    """bf16: compute the backbone in bfloat16, also when photos are scored; auto: only where the device has instructions."""
    batch_size: Annotated[int, tyro.conf.arg(metavar="N")] = 32
    """Photos that pass the backbone at a time. A CPU takes at most 8, which is faster there."""
    workers: Annotated[int | None, optional("N")] = None
    """Processes that decode photos. If not given: one for each CPU core."""
    cache_dir: Annotated[str | None, optional("DIR")] = None
    """Folder of the cache of decoded photos. If not given: tabzoo/images in the user's cache folder."""

    def __post_init__(self) -> None:
        for name in ("data", "backbone", "class_name", "cache_dir"):
            if (
                getattr(self, name) == ""
            ):  # such as an unset variable of a shell; as a path it would be the current folder
                raise InputError(f"--{name.removesuffix('_name').replace('_', '-')}: '' given, expected a value")
        if self.method not in METHODS:
            hint = did_you_mean(self.method, METHODS)
            raise InputError(
                f"--method {self.method}: can't be kept in a folder; expected {' or '.join(METHODS)}.{hint}"
            )
        if self.overlap is not None and self.tile is None:
            raise InputError("--overlap: only with --tile")
        numbers = {"shots": 2, "size": 1, "tile": 1, "overlap": 0, "seed": 0, "batch_size": 1, "workers": 0}
        for name, least in numbers.items():
            check_number(name.replace("_", "-"), getattr(self, name), least=least)
        for name in ("size", "tile"):
            if (getattr(self, name) or 0) > _LARGEST_SIZE:
                raise InputError(f"--{name} {getattr(self, name)}: expected at most {_LARGEST_SIZE}")
        _ = self.tiling
        if not 0 < self.false_alarms < 1:
            raise InputError(
                f"--false-alarms {self.false_alarms:g}: expected a share above 0 and below 1, such as 0.01"
            )
        if not 0 < self.max_memory < float("inf"):
            raise InputError(f"--max-memory {self.max_memory:g}: expected gigabytes, above 0")
        check_white_level(self.white_level)

    @property
    def tiling(self) -> Tiling | None:
        """How photos are cut into tiles, or None: whole photos.

        Raises:
            InputError: `tile` and `overlap` do not fit each other.
        """
        if self.tile is None:
            return None
        return Tiling(self.tile, self.tile // _PART if self.overlap is None else self.overlap)

    @property
    def side(self) -> int:
        """Side of the square that the backbone takes, in pixels."""
        return self.size or self.tile or _DEFAULT_SIZE
