"""How detectors get images: normalised batches, shuffled mini-batches, and features of frozen networks computed once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from tabzoo.compute import to_device
from tabzoo.detectors.interface import ImageBatches

__all__ = ["FrozenFeatures", "NormalisedBatches", "check_finite", "shuffled_batches", "with_progress"]

Batch = TypeVar("Batch")
_MOST_BYTES = 4 * 2**30
"""Of features that are kept; if there are more, they are computed again each time."""
_STEPS_BETWEEN_CHECKS = 100


class NormalisedBatches:
    """Normalised images in batches, float32 [B, 3, H, W]; one can go over them any number of times.

    Args:
        pixels: Returns images by row, uint8 [B, H, W, 3].
        rows: The rows to go through, int64 [N]. A position, 0 to N - 1, is a place in them.
        batch_size: Images at a time.
        mean: Of the normalisation, RGB in [0, 1].
        std: The same.
    """

    def __init__(
        self,
        pixels: Callable[[Tensor], Tensor],
        rows: Tensor,
        *,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self._pixels, self._rows, self._batch_size = pixels, rows, batch_size
        self._mean, self._std = (255 * torch.tensor(values).view(3, 1, 1) for values in (mean, std))

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Tensor]:
        for positions in torch.arange(len(self)).split(self._batch_size):
            yield self.take(positions)

    def take(self, positions: Tensor) -> Tensor:
        """Some of them as one batch."""
        images = self._pixels(self._rows[positions]).permute(0, 3, 1, 2).contiguous()
        self._mean, self._std = to_device(self._mean, images.device), to_device(self._std, images.device)
        return (images - self._mean) / self._std


class FrozenFeatures:
    """Features of images from a network that is not trained: computed once and kept, if memory allows.

    Args:
        images: The images.
        compute: From a batch [B, 3, H, W], float32 [B, ...] for each layer.
        most_bytes: How much memory they may take; if they take more, they are computed again each time.
    """

    def __init__(
        self,
        images: ImageBatches,
        compute: Callable[[Tensor], Sequence[Tensor]],
        *,
        most_bytes: float | None = None,
    ) -> None:
        self._images, self._compute = images, compute
        self._kept: list[Tensor] | None = None
        filled, most = 0, _MOST_BYTES if most_bytes is None else most_bytes
        for batch in images:
            layers = compute(batch)
            if self._kept is None:
                if sum(layer.nbytes for layer in layers) / len(batch) * len(images) > most:
                    return
                self._kept = [layer.new_empty(len(images), *layer.shape[1:]) for layer in layers]
            for kept, layer in zip(self._kept, layers, strict=True):
                kept[filled : filled + len(batch)] = layer
            filled += len(batch)

    @property
    def kept(self) -> bool:
        """Whether they are in memory."""
        return self._kept is not None

    def take(self, positions: Tensor) -> Sequence[Tensor]:
        """Of some of the images, by position."""
        if self._kept is None:
            return self._compute(self._images.take(positions))
        positions = to_device(positions, self._kept[0].device)
        return [layer[positions] for layer in self._kept]


def shuffled_batches(
    count: int, batch_size: int, *, epochs: int, steps: int | None, seed: int, about: str
) -> Iterator[Tensor]:
    """Positions of images, batch after batch, in a new order for each epoch. Shows a progress bar.

    Args:
        count: Number of images.
        batch_size: Images at a time; the last batch of an epoch may be smaller.
        epochs: How often to go over the images.
        steps: Stop after this number of batches, even before the epochs are over.
        seed: Of the orders.
        about: Text of the progress bar.
    """
    generator = torch.Generator().manual_seed(seed)
    orders = (torch.randperm(count, generator=generator) for _ in range(epochs))
    batches = (positions for order in orders for positions in order.split(batch_size))
    return with_progress(batches, epochs * -(-count // batch_size), steps=steps, about=about)


def with_progress(batches: Iterable[Batch], total: int, *, steps: int | None, about: str) -> Iterator[Batch]:
    """All `total` batches, or the first `steps` of them, with a progress bar with the text `about`."""
    total = total if steps is None else min(steps, total)
    return iter(tqdm(islice(batches, total), total=total, desc=about, unit="step", leave=False, disable=None))


def check_finite(step: int, loss: Tensor) -> None:
    """Checks at every hundredth step that a training has not diverged: on a GPU, each check has to wait for the device.

    Raises:
        FloatingPointError: The loss is infinite or not a number.
    """
    if step % _STEPS_BETWEEN_CHECKS == 0 and not loss.isfinite():
        raise FloatingPointError
