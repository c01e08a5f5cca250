"""The options of a run, checked. Their docstrings are the help of the command line's flags."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import torch
import tyro

from tabzoo.data.cache import CacheMode
from tabzoo.data.images import Resampling
from tabzoo.data.layouts import LAYOUTS
from tabzoo.data.samples import Samples
from tabzoo.detectors import DETECTORS, Budget
from tabzoo.errors import InputError, did_you_mean
from tabzoo.scores.rows import REAL

__all__ = ["ComputeOptions", "ImageOptions", "MainOptions", "Options", "choose_classes", "choose_device", "optional"]

_LARGEST = 2**31 - 1


def optional(metavar: str) -> Any:
    """What `--help` shows for a flag that has no value unless given."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


_Names = Annotated[Sequence[str], tyro.conf.arg(metavar="NAME [NAME ...]")]
_Pixels = Annotated[int | None, optional("PX")]
_LANCZOS = " and ".join(name for name, spec in DETECTORS.items() if spec.resampling == "lanczos")
_WITH_ORACLE = ", ".join(name for name, spec in DETECTORS.items() if spec.oracle)


@dataclass(frozen=True, kw_only=True)
class MainOptions:
    """What to measure."""

    backbone: _Names
    """A run's folder, a timm name, local-dir:DIR, hf-hub:ID, or random[:ARCHITECTURE] (resnet18), with weights from the seed.
    The others are compared with the first one."""
    method: Annotated[_Names, tyro.conf.arg(help=f"Detectors: {', '.join(DETECTORS)}.")] = ("padim",)
    data: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """Folder with good images to fit to and images to test on."""
    output: Annotated[Path, tyro.conf.arg(metavar="OUT")]
    """Folder for the results; finished rows in it are kept, new ones are added."""
    classes: Annotated[Sequence[str] | None, optional("NAME [NAME ...]")] = None
    """Test only these classes; regad is still trained on all others of --data."""
    seeds: Annotated[Sequence[int], tyro.conf.arg(metavar="S [S ...]")] = (0,)
    """Seed values; each makes rows of its own."""
    shots: Annotated[Sequence[int] | None, optional("K [K ...]")] = None
    """Fit to K good images drawn with the seed. If not given: to all, with regad to 4 and to 8."""
    test: Literal["real", "synthetic"] = "real"
    """synthetic: test on held-out good images, and on synthetic anomalies of a kind that no backbone was trained with.
    This is a proxy for real defects."""
    budget: Budget = "paper"
    """quick: less training, for small machines; the numbers can't be compared with the paper's."""
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
    """Side that images are squashed to; the method's own if not given."""
    crop: _Pixels = None
    """Side of the centre crop; the method's own if not given."""
    resampling: Annotated[
        Resampling | None,
        tyro.conf.arg(
            metavar=f"{{{','.join(get_args(Resampling))}}}",
            help=f"Filter for squashing images; if not given, lanczos for {_LANCZOS}, else bilinear.",
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
    """Images at a time."""
    cache: CacheMode = "disk"
    """Where decoded images are kept."""
    cache_dir: Annotated[str | None, optional("DIR")] = None
    """Folder of the cache; the user's cache folder if not given."""
    workers: Annotated[int | None, optional("N")] = None
    """Processes that decode images; one a core if not given."""


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
        if self.white_level is not None and not 0 < self.white_level < float("inf"):
            raise InputError(
                f"--white-level {self.white_level:g}: expected the pixel value that becomes white, above 0"
            )
        least = {"seeds": 0, "shots": 1, "resize": 1, "crop": 1, "batch_size": 1, "workers": 0}
        for name, minimum in least.items():
            given = getattr(self, name)
            for value in given if isinstance(given, Sequence) else [given]:
                if value is not None and not minimum <= value <= _LARGEST:
                    raise InputError(f"--{name.replace('_', '-')} {value}: expected {minimum} to {_LARGEST}")

    @property
    def with_oracle(self) -> set[str]:
        """Methods whose best epoch on the test images is reported, too."""
        return {name for name in self.method if self.oracle and DETECTORS[name].oracle}


def choose_classes(samples: Samples, names: Sequence[str] | None) -> Samples:
    """The samples of these classes, all if no names are given.

    Raises:
        InputError: There is no such class.
    """
    if not names:
        return samples
    if unknown := sorted(set(names) - set(samples.classes)):
        raise InputError(
            f"--classes: no class {', '.join(unknown)}; there are {', '.join(samples.classes)}."
            f"{did_you_mean(unknown[0], samples.classes)}"
        )
    return samples.select([samples.classes[i] in names for i in samples.class_ids], drop=True)


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" takes the GPU if there is one.

    Raises:
        InputError: "cuda" without a CUDA device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no CUDA device here. Type --device cpu.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
