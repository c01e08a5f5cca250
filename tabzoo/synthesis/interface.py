"""What all kinds of synthetic anomalies share: `draw` chooses every random parameter, `apply` changes the pixels.

Because `apply` draws nothing, a sample gets the same anomaly in any batch, on any device and after any resume.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor

from tabzoo.compute import to_device
from tabzoo.errors import InputError

__all__ = ["Params", "Synthesis", "Synthetic", "check_images", "check_settings", "first_visible"]


class Synthetic(NamedTuple):
    """A batch of synthetic anomalies."""

    abnormal: Tensor
    """uint8 [B, 3, H, W], in the memory format of the normal images."""
    mask: Tensor
    """bool [B, 1, H, W]: where the mean absolute change over the channels is above 1 level. Always inside the region
    that the method pasted into."""


@dataclass(frozen=True)
class Params:
    """Drawn parameters of a batch: tensors, or further Params, whose first dimension is the batch."""

    source: Tensor
    """int64 [B]: index of the image to pass as `source`."""

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, samples: Tensor | slice) -> Self:
        """Returns the parameters of some of the samples."""
        return type(self)(**{f.name: getattr(self, f.name)[samples] for f in fields(self)})

    def to(self, device: torch.device | str) -> Self:
        """Returns a copy on another device; see `to_device`."""
        return type(self)(**{f.name: to_device(getattr(self, f.name), torch.device(device)) for f in fields(self)})


P = TypeVar("P", bound=Params)


class Synthesis(Protocol[P]):
    """A way to make anomalies."""

    def draw(self, seed: int, epoch: int, sample_ids: Tensor) -> P:
        """Draws the parameters of samples; they depend on (seed, epoch, sample id) alone.

        Args:
            seed: Seed of the run.
            epoch: The epoch.
            sample_ids: int64 [B]: image + N * repeat, where N is the number of images.
        """

    def apply(self, normal: Tensor, source: Tensor, params: P) -> Synthetic:
        """Makes the anomalies. Nothing is drawn, and no sample depends on another.

        Args:
            normal: uint8 [B, 3, H, W].
            source: uint8 [B, 3, H, W], the images that `params.source` names.
            params: On the device of the images.
        """


def check_settings(method: str, settings: object, checks: Iterable[tuple[str, bool, str]]) -> None:
    """Raises an InputError for the first setting that is out of range.

    Args:
        method: Name of the method; with the setting's name it gives the flag.
        settings: The settings of the method.
        checks: For each setting: its name, whether its value is in range, and the range in words.
    """
    for name, in_range, expected in checks:
        if not in_range:
            flag = f"--{method}-{name.replace('_', '-')}"
            raise InputError(f"{flag} {getattr(settings, name)!r}: expected {expected}")


def check_images(normal: Tensor, source: Tensor, sides: tuple[int, int]) -> None:
    """Raises an InputError unless both are uint8 [B, 3, height, width] of the given sides."""
    for name, images in (("normal", normal), ("source", source)):
        shape = (len(normal), 3, *sides)
        if images.dtype != torch.uint8 or images.shape != shape:
            raise InputError(f"{name} images must be uint8 {list(shape)}; got {images.dtype} {list(images.shape)}")


def first_visible(
    make: Callable[[Tensor, Tensor, P, int], Synthetic], normal: Tensor, source: Tensor, params: P, *, attempts: int
) -> Synthetic:
    """Makes each sample's anomaly at the first drawn place where it is visible, or else at the last one.

    A patch can leave the image unchanged: flat on flat, black on black, a mixed clone on a rough surface. Such an image
    must not be called abnormal. So methods draw several places for each sample, and a later one is used only where all
    earlier ones changed nothing. The result still depends only on the sample's images and draws.

    Args:
        make: Makes the anomalies of one attempt: (normal, source, params, attempt).
        normal: uint8 [B, 3, H, W].
        source: uint8 [B, 3, H, W].
        params: What was drawn.
        attempts: Number of places drawn.
    """
    made = make(normal, source, params, 0)
    for attempt in range(1, attempts):
        unchanged = made.mask.flatten(1).view(torch.uint8).amax(1) == 0  # many times faster than any()
        if unchanged.device.type == "cpu":
            few = torch.nonzero(unchanged)[:, 0]
            if len(few) == 0:
                break
            made.abnormal[few], made.mask[few] = make(normal[few], source[few], params[few], attempt)
        else:  # a GPU tries every attempt for the full batch: counting the samples left would wait for the device
            again, unchanged = make(normal, source, params, attempt), unchanged[:, None, None, None]
            made = Synthetic(
                torch.where(unchanged, again.abnormal, made.abnormal), made.mask | (again.mask & unchanged)
            )
    return made
