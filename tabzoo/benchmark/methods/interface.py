"""What every detector of the benchmark offers: fit to the normal images of one class, then score batches of images."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from tabzoo.benchmark.features import FeatureExtractor

__all__ = ["ImageBatches", "Method", "MethodSpec", "Scores"]


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
        """Batches, float32 [B, 3, H, W], normalised, on the extractor's device."""


class Method(Protocol):
    """A detector. `fit` starts afresh, so one object serves class after class."""

    @property
    def settings(self) -> Mapping[str, object]:
        """All that its numbers depend on besides weights, images and seed, as JSON takes it."""

    def fit(self, images: ImageBatches) -> None:
        """Learns what is normal.

        Raises:
            InputError: There are no images.
        """

    def score(self, images: Tensor) -> Scores:
        """Scores images [B, 3, H, W] like those it was fitted to."""


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """How a method is built, and the settings of its authors.

    Attributes:
        build: From a feature extractor with `layers`, and a seed for all that the method draws.
        layers: Layers it takes, in the notation of `features.build_extractor`.
        resize: Side of the square that images are squashed to.
        crop: Side of the centre crop.
    """

    build: Callable[[FeatureExtractor, int], Method]
    layers: tuple[str, ...]
    resize: int = 256
    crop: int = 224
