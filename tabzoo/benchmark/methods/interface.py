"""What every detector of the benchmark offers: fit to the normal images of one class, then score batches of images."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from tabzoo.benchmark.features import FeatureExtractor
from tabzoo.data.images import Resampling
from tabzoo.errors import InputError

__all__ = [
    "Budget",
    "FewShotMethod",
    "ImageBatches",
    "Method",
    "MethodSpec",
    "Scores",
    "TestedOnTheWay",
    "flag_of",
    "setting",
]

Budget = Literal["paper", "quick"]
"""The settings of a method's authors, or less for a small machine."""


class Scores(NamedTuple):
    """How anomalous images and their pixels are; more is more anomalous, and only the order within a class has a meaning.

    Attributes:
        image_scores: float32 [B].
        anomaly_maps: float32 [B, H, W], at the size of the images that were scored.
    """

    image_scores: Tensor
    anomaly_maps: Tensor


class ImageBatches(Protocol):
    """Normal images of one class, in batches; trained methods go over them many times."""

    def __len__(self) -> int:
        """Number of images."""

    def __iter__(self) -> Iterator[Tensor]:
        """Batches, float32 [B, 3, H, W], normalised as `MethodSpec.normalised` says, on the extractor's device."""

    def take(self, rows: Tensor) -> Tensor:
        """Some of them, by index, as one batch."""


class Method(Protocol):
    """A detector. `fit` starts afresh, so one object serves class after class."""

    @property
    def settings(self) -> Mapping[str, object]:
        """Layers, options and what else tells its numbers apart besides weights, images and seed, as JSON takes it."""

    def fit(self, images: ImageBatches) -> None:
        """Learns what is normal.

        Raises:
            InputError: There are no images.
        """

    def score(self, images: Tensor) -> Scores:
        """Scores images [B, 3, H, W] like those it was fitted to."""


class TestedOnTheWay(Method, Protocol):
    """A detector whose public code tests after each meta-epoch, and reports the one that is best on the test images."""

    def fit(self, images: ImageBatches, after_meta_epoch: Callable[[], None] | None = None) -> None:
        """Learns what is normal; `after_meta_epoch` is called whenever that code would test, and can score."""


@runtime_checkable
class FewShotMethod(Method, Protocol):
    """A detector that learns on other classes, once, and is then fitted to one draw of support images after the other."""

    @property
    def draws(self) -> int:
        """How many draws of support images its numbers are averaged over."""

    def learn(self, others: Sequence[ImageBatches], shots: int) -> None:
        """Starts afresh and learns on normal images of other classes, more than one; afterwards `fit` and `score` work.

        Args:
            others: Of each class more than `shots` images.
            shots: How many support images it will be fitted to.
        """

    def embed(self, images: Tensor) -> Sequence[Tensor]:
        """What scoring needs of images, whichever the support images are: [B, ...] each."""

    def score_maps(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Scores:
        """Scores of what `embed` gave for images of this size."""


def setting(default: Any, about: str, *, least: float = 0, most: float = math.inf) -> Any:
    """A field of a method's settings, which is also a flag of the command line.

    Args:
        default: What the authors used.
        about: The flag's help.
        least: The smallest value that makes sense.
        most: The largest.
    """
    return dataclasses.field(default=default, metadata={"about": about, "least": least, "most": most})


def flag_of(method: str, field: str) -> str:
    """The flag of a field of a method's settings."""
    return f"--{method}-{field.replace('_', '-')}"


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """How a method is built, and the settings of its authors.

    Attributes:
        build: From a feature extractor with `layers`, a seed for all that the method draws, and `settings`.
        settings: A dataclass, each field of it made by `setting`.
        layers: Layers it takes, in the notation of `features.build_extractor`.
        resize: Side of the square that images are squashed to.
        resampling: How they are.
        crop: Side of the centre crop.
        multiple: What the crop's side must be a multiple of.
        smallest: The least side of the crop.
        quick: Settings that are other with the quick budget; none where the method is quick anyway.
        oracle: Whether it is `TestedOnTheWay`.
        normalised: Whether images are normalised by the backbone's mean and standard deviation; else they are in [0, 1].
        shots: How many images it is given if nothing else is asked for; none: all.
        few_shot: Whether it is a `FewShotMethod`.
    """

    build: Callable[[FeatureExtractor, int, Any], Method]
    settings: type[Any]
    layers: tuple[str, ...]
    resize: int = 256
    resampling: Resampling = "bilinear"
    crop: int = 224
    multiple: int = 1
    smallest: int = 1
    quick: Mapping[str, object] = dataclasses.field(default_factory=dict)
    oracle: bool = False
    normalised: bool = True
    shots: tuple[int, ...] = ()
    few_shot: bool = False

    def configure(self, name: str, *, budget: Budget, given: Mapping[str, object]) -> Any:
        """The method's settings: those given, else the budget's.

        Raises:
            InputError: A value that is too small, too large or not finite; flags are called after the method's `name`.
        """
        fields = {field.name: field for field in dataclasses.fields(self.settings)}
        for key, value in given.items():
            least, most = (fields[key].metadata[bound] for bound in ("least", "most"))
            if isinstance(value, int | float) and not (least <= value <= most and math.isfinite(value)):
                expected = f"{least} to {most}" if math.isfinite(most) else f"at least {least}, and finite"
                raise InputError(f"{flag_of(name, key)} {value}: expected {expected}")
        return self.settings(**{**(self.quick if budget == "quick" else {}), **given})
