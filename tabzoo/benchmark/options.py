"""The options of a run, checked. Their docstrings are the help of the command line's flags."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from tabzoo.compute import choose_device
from tabzoo.data.cache import CacheMode
from tabzoo.data.images import Resampling
from tabzoo.data.layouts import LAYOUTS
from tabzoo.data.samples import Samples
from tabzoo.detectors import DETECTORS, Budget
from tabzoo.errors import InputError, did_you_mean
from tabzoo.flags import check_number, check_white_level, optional
from tabzoo.scores.rows import REAL

__all__ = [
    "ComputeOptions",
    "ImageOptions",
    "MainOptions",
    "Options",
    "check_number",
    "check_white_level",
    "choose_classes",
    "choose_device",
    "optional",
]

_Names = Annotated[Sequence[str], tyro.conf.arg(metavar="NAME [NAME ...]")]
_Pixels = Annotated[int | None, optional("PX")]
_LANCZOS = " and ".join(name for name, spec in DETECTORS.items() if spec.resampling == "lanczos")
_WITH_ORACLE = ", ".join(name for name, spec in DETECTORS.items() if spec.oracle)


@dataclass(frozen=True, kw_only=True)
class MainOptions:
    """What to measure."""

    backbone: _Names
    """A run's folder, a timm name, local-dir:DIR, hf-hub:ID, or random[:ARCHITECTURE]. The first one is the baseline.
    random: weights drawn from the seed; a resnet18 if no architecture is given."""
    method: Annotated[_Names, tyro.conf.arg(help=f"Detectors: {', '.join(DETECTORS)}.")] = ("padim",)
    data: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """Images: good ones to fit to (DIR/CLASS/train/good/*), good and defective ones to test on (DIR/CLASS/test/KIND/*)."""
    output: Annotated[Path, tyro.conf.arg(metavar="OUT")]
    """Folder for the results: a new or empty one, or that of earlier runs, whose results are not measured again."""
    classes: Annotated[Sequence[str] | None, optional("NAME [NAME ...]")] = None
    """Test only these classes; regad is still trained on all others of --data."""
    seeds: Annotated[Sequence[int], tyro.conf.arg(metavar="S [S ...]")] = (0,)
    """Seeds. All is measured once for each seed; tables show means over them."""
    shots: Annotated[Sequence[int] | None, optional("K [K ...]")] = None
    """Fit to only K good images of a class, drawn with the seed. If not given: to all; regad: to 4, then to 8."""
    test: Literal["real", "synthetic"] = "real"
    """real: test on the test split.
    synthetic: hold out a quarter of the good training images; test on them and on a synthetic anomaly made from each.
    No backbone was trained with anomalies of this kind. The test is a proxy for real defects."""
    budget: Budget = "paper"
    """paper: the settings of each method's authors.
    quick: less training, for small machines; the numbers can't be compared with those of papers."""
    oracle: Annotated[
        bool,
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.arg(
            help=f"Also report the best epoch on the test images, for methods whose public code selects it ({_WITH_ORACLE}). "
            "It is selected on test data, so it can't be compared with other numbers.",
            help_behavior_hint="",
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How images are read."""

    layout: Annotated[str, tyro.conf.arg(metavar="NAME", help=f"auto, {', '.join(LAYOUTS)}.")] = "auto"
    resize: _Pixels = None
    """Side of the square that images are squashed to. If not given: as in the method's public code."""
    crop: _Pixels = None
    """Side of the centre crop. If not given: as in the method's public code."""
    resampling: Annotated[
        Resampling | None,
        tyro.conf.arg(
            metavar=f"{{{','.join(get_args(Resampling))}}}",
            help=f"Filter for squashing images. If not given: lanczos for {_LANCZOS}, else bilinear.",
            help_behavior_hint="",
        ),
    ] = None
    full_resolution: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")] = False
    """Compute pixel metrics at the files' resolution, not at the size of the method's input."""
    white_level: Annotated[float | None, optional("X")] = None
    """Pixel value that becomes white in grey images of more than 8 bits, such as 4095 for a 12-bit camera.
    If not given: the largest value of the file's bits, or 1 for floats."""


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """Where and how to compute."""

    device: Annotated[str, tyro.conf.arg(metavar="{auto,cpu,cuda}")] = "auto"
    """auto takes the GPU if there is one."""
    amp: Literal["bf16", "auto", "off"] = "off"
    """bf16 (the same as --amp alone): compute backbones in bfloat16; auto: only where the device has instructions for it."""
    batch_size: Annotated[int, tyro.conf.arg(metavar="N")] = 32
    """Images that pass a backbone at a time. A method's training has batches of its own."""
    cache: CacheMode = "disk"
    """Where decoded images are kept: on the disk (later runs use them again), in memory, in the device's memory, or nowhere."""
    cache_dir: Annotated[str | None, optional("DIR")] = None
    """Folder of the cache. If not given: tabzoo/images in the user's cache folder."""
    workers: Annotated[int | None, optional("N")] = None
    """Processes that decode images. If not given: one for each CPU core."""


@dataclass(frozen=True, kw_only=True)
class Options(MainOptions, ImageOptions, ComputeOptions):
    """All options of a run, checked."""

    settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """For each method the settings that differ from the budget's."""

    def __post_init__(self) -> None:
        for name in self.method:
            if name not in DETECTORS:
                known = f"{', '.join(DETECTORS)}.{did_you_mean(name, DETECTORS)}"
                raise InputError(f"--method {name}: unknown; there are {known}")
        if self.oracle and not self.with_oracle:
            having = ", ".join(name for name, spec in DETECTORS.items() if spec.oracle)
            raise InputError(
                f"--oracle: only for methods whose public code selects the best epoch on the test images: {having}; none of "
                f"them is in --method {' '.join(self.method)}"
            )
        for name, accepted in (("device", ("auto", "cpu", "cuda")), ("amp", ("bf16", "auto", "off"))):
            if (value := getattr(self, name)) not in accepted:
                raise InputError(f"--{name} {value}: expected {', '.join(accepted)}")
        for name in ("backbone", "method", "seeds", "classes", "shots"):
            if (values := getattr(self, name)) is not None and not len(values):
                raise InputError(f"--{name}: expected at least one value")
        if self.full_resolution and self.test != REAL:
            raise InputError(
                "--full-resolution: not with --test synthetic, whose anomalies have the method's input size"
            )
        check_white_level(self.white_level)
        least = {"seeds": 0, "shots": 1, "resize": 1, "crop": 1, "batch_size": 1, "workers": 0}
        for name, minimum in least.items():
            given = getattr(self, name)
            for value in given if isinstance(given, Sequence) else [given]:
                check_number(name.replace("_", "-"), value, least=minimum)

    @property
    def with_oracle(self) -> set[str]:
        """Methods whose best epoch on the test images is reported, too."""
        return {name for name in self.method if self.oracle and DETECTORS[name].oracle}


def choose_classes(samples: Samples, names: Sequence[str] | None) -> Samples:
    """The samples of these classes, all if no names are given.

    Raises:
        InputError: A class does not exist.
    """
    if not names:
        return samples
    if unknown := sorted(set(names) - set(samples.classes)):
        raise InputError(
            f"--classes: no class {', '.join(unknown)}; there are {', '.join(samples.classes)}."
            f"{did_you_mean(unknown[0], samples.classes)}"
        )
    return samples.select([samples.classes[i] in names for i in samples.class_ids], drop=True)
