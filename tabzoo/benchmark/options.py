"""The options of a run, checked. Their docstrings are the help of the command line's flags."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from tabzoo.compute import Amp
from tabzoo.data.cache import CacheMode
from tabzoo.data.images import Resampling
from tabzoo.data.samples import Samples
from tabzoo.detectors import DETECTORS, Budget
from tabzoo.errors import InputError, did_you_mean
from tabzoo.scores.rows import REAL

__all__ = ["ComputeOptions", "ImageOptions", "MainOptions", "Options", "choose_classes", "choose_device"]

_LARGEST = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class MainOptions:
    """What to measure."""

    backbone: Sequence[str]
    """A run's folder, a timm name, local-dir:DIR, hf-hub:ID, or random[:ARCHITECTURE] (resnet18 with weights from the seed).
    The first one is the baseline that the others are compared with."""
    method: Sequence[str] = ("padim",)
    """padim, patchcore, rd4ad, simplenet, regad."""
    data: str
    """Folder with good images to fit to and images to test on."""
    output: Path
    """Folder for the results; rows that are finished are kept, new ones are added."""
    classes: Sequence[str] | None = None
    """Test only these classes; regad is still trained on all others of --data."""
    seeds: Sequence[int] = (0,)
    """Seed values; each makes a row of its own."""
    shots: Sequence[int] | None = None
    """Fit to K good images drawn with the seed; if not given, to all, with regad to 4 and to 8."""
    test: Literal["real", "synthetic"] = "real"
    """synthetic: test on held-out good images and synthetic anomalies of a kind that no backbone was trained with; a proxy."""
    budget: Budget = "paper"
    """quick: less training, for small machines; the numbers then can't be compared with the paper's."""
    oracle: bool = False
    """Also report the best epoch on the test images, for methods whose public code selects it (simplenet). It is selected on
    test data, so don't compare it with other numbers."""


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How images are read."""

    layout: str = "auto"
    """Layout of the folder; auto, or a name from `python -m tabzoo.data check --help`."""
    resize: int | None = None
    """Side in pixels that images are squashed to; the method's own if not given."""
    crop: int | None = None
    """Side of the centre crop in pixels; the method's own if not given."""
    resampling: Resampling | None = None
    """Filter for squashing images; the method's own if not given: lanczos for padim and regad, else bilinear."""
    full_resolution: bool = False
    """Compute pixel metrics at the resolution of the files, not at that of the method's input."""
    white_level: float | None = None
    """Pixel value that becomes white in grey images of more than 8 bits, such as 4095 for a 12-bit camera; if not given, the
    largest value of the file's bits, or 1 for floats."""


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """How it is computed."""

    device: str = "auto"
    """Where to compute: auto, cpu or cuda; auto takes the GPU if there is one."""
    amp: Amp = "off"
    """Compute backbones in bfloat16: bf16 (the same as --amp alone), off, or auto, which is bf16 where the device has
    instructions for it."""
    batch_size: int = 32
    """Images at a time."""
    cache: CacheMode = "disk"
    """Where decoded images are kept."""
    cache_dir: str | None = None
    """Folder of the cache; the user's cache folder if not given."""
    workers: int | None = None
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
        if self.amp == "fp16":
            raise InputError("--amp fp16: expected bf16, auto or off; float16 is for training")
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
