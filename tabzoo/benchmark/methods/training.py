"""What trained detectors share: epochs of shuffled batches, and features of frozen networks that are computed once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from tabzoo.benchmark.methods.interface import ImageBatches

__all__ = ["KeptFeatures", "check_now_and_then", "limited", "seeded", "shuffled_batches"]

Batch = TypeVar("Batch")
_KEPT_AT_MOST = 4 * 2**30
"""Bytes of features that are kept; more are computed anew each time."""
_STEPS_UNSEEN = 100


class KeptFeatures:
    """Features of images that never change, since neither network nor images do: computed once, if memory allows.

    Args:
        images: What to compute them of.
        compute: From a batch [B, 3, H, W], float32 [B, ...] for each layer.
    """

    def __init__(self, images: ImageBatches, compute: Callable[[Tensor], Sequence[Tensor]]) -> None:
        self._images, self._compute = images, compute
        self._kept: list[Tensor] | None = None
        filled = 0
        for batch in images:
            layers = compute(batch)
            if self._kept is None:
                if sum(layer.nbytes for layer in layers) / len(batch) * len(images) > _KEPT_AT_MOST:
                    return
                self._kept = [layer.new_empty(len(images), *layer.shape[1:]) for layer in layers]
            for kept, layer in zip(self._kept, layers, strict=True):
                kept[filled : filled + len(batch)] = layer
            filled += len(batch)

    def take(self, rows: Tensor) -> Sequence[Tensor]:
        """Of some images, by index."""
        if self._kept is None:
            return self._compute(self._images.take(rows))
        return [layer[rows] for layer in self._kept]


def shuffled_batches(
    count: int, batch_size: int, *, epochs: int, steps: int | None, seed: int, about: str
) -> Iterator[Tensor]:
    """Indices of images, batch after batch; each epoch goes over all of them in another order. Shows a progress bar.

    Args:
        count: Number of images.
        batch_size: Images at a time; the last batch of an epoch may be smaller.
        epochs: How often to go over the images.
        steps: Batches after which to stop nevertheless.
        seed: Of the orders.
        about: What the progress bar says.
    """
    generator = torch.Generator().manual_seed(seed)
    orders = (torch.randperm(count, generator=generator) for _ in range(epochs))
    batches = (rows for order in orders for rows in order.split(batch_size))
    return limited(batches, epochs * -(-count // batch_size), steps=steps, about=about)


def limited(batches: Iterable[Batch], total: int, *, steps: int | None, about: str) -> Iterator[Batch]:
    """All `total` batches, or the first `steps` of them, with a progress bar that says what it is `about`."""
    total = total if steps is None else min(steps, total)
    return iter(tqdm(islice(batches, total), total=total, desc=about, unit="step", leave=False, disable=None))


def check_now_and_then(step: int, loss: Tensor) -> None:
    """Sees that a training has not diverged, at some steps only: on a GPU, to look is to wait.

    Raises:
        FloatingPointError: It has.
    """
    if step % _STEPS_UNSEEN == 0 and not loss.isfinite():
        raise FloatingPointError


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """New weights are drawn on the CPU from this seed; the process's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
