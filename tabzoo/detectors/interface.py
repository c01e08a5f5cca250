"""What every detector offers: fit to the normal images of one class, then score batches of images."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from tabzoo.data.images import Resampling
from tabzoo.detectors.extractor import FeatureExtractor
from tabzoo.errors import InputError

__all__ = [
    "Budget",
    "CallbackDetector",
    "Detector",
    "DetectorSpec",
    "FewShotDetector",
    "ImageBatches",
    "MapDetector",
    "Scores",
    "flag_of",
    "setting",
]

Budget = Literal["paper", "quick"]
"""The settings of a detector's authors, or less training, for a small machine."""


class Scores(NamedTuple):
    """How anomalous images and pixels are; higher is more anomalous. Only scores of one class can be compared.

    Attributes:
        image_scores: float32 [B].
        anomaly_maps: float32 [B, H, W], at the size of the images that were scored.
    """

    image_scores: Tensor
    anomaly_maps: Tensor


class ImageBatches(Protocol):
    """Normal images of one class, in batches; detectors that are trained go over them many times."""

    def __len__(self) -> int:
        """Number of images."""

    def __iter__(self) -> Iterator[Tensor]:
        """Batches, float32 [B, 3, H, W], normalised as `DetectorSpec.normalised` says, on the extractor's device."""

    def take(self, positions: Tensor) -> Tensor:
        """Some of them as one batch; positions go from 0 to the number of images - 1."""


class Detector(Protocol):
    """A detector. `fit` forgets what was fitted before, so one object serves one class after another."""

    @property
    def settings(self) -> Mapping[str, object]:
        """What its numbers depend on besides weights, images and seed, such as layers; values that JSON can hold."""

    def fit(self, images: ImageBatches) -> None:
        """Learns what is normal.

        Raises:
            InputError: The list of images is empty.
        """

    def score(self, images: Tensor) -> Scores:
        """Scores images [B, 3, H, W], prepared as those it was fitted to."""


class CallbackDetector(Detector, Protocol):
    """A detector whose public code tests after each meta-epoch, and reports the one that is best on the test images."""

    def fit(self, images: ImageBatches, after_meta_epoch: Callable[[], None] | None = None) -> None:
        """Learns what is normal; calls `after_meta_epoch`, which may score, whenever the public code would test."""


class MapDetector(Detector, Protocol):
    """A detector that is fitted to features of a frozen backbone at once, and whose fitted state can be kept in a file."""

    def embed(self, images: Tensor) -> Sequence[Tensor]:
        """Features of images [B, 3, H, W] that do not depend on what was fitted: [B, ...] each."""

    def fit_maps(self, batches: Iterable[Sequence[Tensor]], count: int) -> None:
        """Learns what is normal from what `embed` returned for `count` images, batch by batch."""

    def score_maps(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Scores:
        """Scores from what `embed` returned, for images of this size."""

    def state(self) -> dict[str, Tensor]:
        """All that was fitted, by name."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes the place of `fit`: the scores are bit by bit those of the detector whose `state` it is.

        Raises:
            InputError: The state is not one of such a detector.
        """


@runtime_checkable
class FewShotDetector(Detector, Protocol):
    """A detector that is trained on other classes, once, and then fitted to one draw of support images after another."""

    @property
    def draws(self) -> int:
        """Number of draws of support images that its metrics are averaged over."""

    def meta_train(self, others: Sequence[ImageBatches], shots: int) -> None:
        """Trains from the start on normal images of two or more other classes; `fit` and `score` need it.

        Args:
            others: Of each class more than `shots` images.
            shots: Number of support images that it will be fitted to.
        """

    def embed(self, images: Tensor) -> Sequence[Tensor]:
        """The part of scoring that does not depend on the support images: [B, ...] each."""

    def score_maps(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Scores:
        """Scores from what `embed` returned, for images of this size."""


def setting(default: Any, about: str, *, least: float = 0, most: float = math.inf, above: bool = False) -> Any:
    """A field of a detector's settings, which is also a flag of the command line.

    Args:
        default: What the authors used.
        about: The flag's help.
        least: The smallest value accepted.
        most: The largest.
        above: Whether `least` itself is too small.
    """
    metadata = {"about": about, "least": least, "most": most, "above": above}
    return dataclasses.field(default=default, metadata=metadata)


def flag_of(name: str, field: str) -> str:
    """The flag of a field of the settings of a detector of this name."""
    return f"--{name}-{field.replace('_', '-')}"


@dataclass(frozen=True, kw_only=True)
class DetectorSpec:
    """How a detector is built, and the settings of its authors.

    Attributes:
        build: From a feature extractor with `layers`, a seed for all that the detector draws, and `settings`.
        settings: A dataclass; each field is made by `setting`.
        layers: Layers it uses, in the notation of `extractor.build_extractor`.
        resize: Side of the square that images are squashed to.
        resampling: The filter for that.
        crop: Side of the centre crop.
        multiple: The crop's side must be a multiple of this.
        smallest: The smallest side of the crop.
        quick: Settings that differ with the quick budget; empty where the detector is quick anyway.
        oracle: Whether it is a `CallbackDetector`.
        normalised: Whether images are normalised by the backbone's mean and standard deviation; else they are in [0, 1].
        shots: The default numbers of images to fit to; empty: all images.
        few_shot: Whether it is a `FewShotDetector`.
    """

    build: Callable[[FeatureExtractor, int, Any], Detector]
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
        """The detector's settings: those given, else the budget's.

        Raises:
            InputError: A value that is too small, too large or not finite; the message has the flag of the detector `name`.
        """
        fields = {field.name: field for field in dataclasses.fields(self.settings)}
        for key, value in given.items():
            least, most, above = (fields[key].metadata[bound] for bound in ("least", "most", "above"))
            if not isinstance(value, int | float):
                continue
            if not (least <= value <= most and math.isfinite(value)) or (above and value == least):
                expected = f"{'more than' if above else 'at least'} {least}"
                expected += f", at most {most}" if math.isfinite(most) else ", and finite"
                raise InputError(f"{flag_of(name, key)} {value}: expected {expected}")
        return self.settings(**{**(self.quick if budget == "quick" else {}), **given})
