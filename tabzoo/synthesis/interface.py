"""What every kind of synthetic anomaly offers: draw the parameters on their own, then apply them to pixels."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor

from tabzoo.errors import InputError

__all__ = ["Params", "Synthesis", "Synthetic", "check_images", "check_settings"]


class Synthetic(NamedTuple):
    """A batch of synthetic anomalies."""

    abnormal: Tensor
    """uint8 [B, 3, H, W], in the memory format of the normal images."""
    mask: Tensor
    """bool [B, 1, H, W]: where the mean absolute change over the channels is above 1 level; never outside the region
    that the method pasted into."""


@dataclass(frozen=True)
class Params:
    """Drawn parameters of a batch: tensors, or further Params, whose first dimension is the batch."""

    source: Tensor
    """int64 [B]: the index of the image to pass as `source`."""

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, samples: Tensor | slice) -> Self:
        """Returns the parameters of some of the samples."""
        return type(self)(**{f.name: getattr(self, f.name)[samples] for f in fields(self)})

    def to(self, device: torch.device | str) -> Self:
        """Returns a copy on another device."""
        return type(self)(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


P = TypeVar("P", bound=Params)


class Synthesis(Protocol[P]):
    """A way to make anomalies."""

    def draw(self, seed: int, epoch: int, sample_ids: Tensor) -> P:
        """Draws the parameters of samples from (seed, epoch, sample id) alone.

        Args:
            seed: The seed of the run.
            epoch: The epoch.
            sample_ids: int64 [B]; image + N * repeat, N being the number of images.
        """

    def apply(self, normal: Tensor, source: Tensor, params: P) -> Synthetic:
        """Makes the anomalies; nothing is drawn, and no sample depends on another.

        Args:
            normal: uint8 [B, 3, H, W].
            source: uint8 [B, 3, H, W], the images named by `params.source`.
            params: On the device of the images.
        """


def check_settings(method: str, settings: object, checks: Iterable[tuple[str, bool, str]]) -> None:
    """Raises an InputError for the first setting that is out of range.

    Args:
        method: The method's name.
        settings: Its settings.
        checks: Name of a setting, whether its value is in range, and what is expected.
    """
    for name, fits, expected in checks:
        if not fits:
            flag = f"--{method}-{name.replace('_', '-')}"
            raise InputError(f"{flag} {getattr(settings, name)!r}: expected {expected}")


def check_images(normal: Tensor, source: Tensor, sides: tuple[int, int]) -> None:
    """Raises an InputError unless both are uint8 [B, 3, height, width] of the given sides."""
    for name, images in (("normal", normal), ("source", source)):
        shape = (len(normal), 3, *sides)
        if images.dtype != torch.uint8 or images.shape != shape:
            raise InputError(f"{name} images must be uint8 {list(shape)}; got {images.dtype} {list(images.shape)}")
