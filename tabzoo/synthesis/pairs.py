"""Pairs of a normal image and a synthetic anomaly made from it, as the backbone takes them."""

from collections.abc import Generator, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from tabzoo.compute import to_device
from tabzoo.data.images import centre_crop
from tabzoo.synthesis.interface import Synthesis
from tabzoo.synthesis.perlin import Perlin
from tabzoo.synthesis.prefetch import prefetch

__all__ = ["ImageSource", "PairMaker", "Pairs", "RawPairs"]

_CPU_CHUNK = 32  # images: few enough that their pixels stay in the CPU's cache from the image cache to the floats


class ImageSource(Protocol):
    """Decoded images, read by index."""

    def batch(self, indices: Tensor) -> Tensor:
        """Returns the images of the indices, int64 [B]: uint8 [B, S, S, 3] on the run's device."""


class RawPairs(NamedTuple):
    """Pairs as pixels: `normal` and `abnormal` uint8 [B, 3, H, W], `mask` of the change [B, 1, H, W], `classes` [B].

    The pixels are interleaved in memory (channels_last) and may be views.
    """

    normal: Tensor
    abnormal: Tensor
    mask: Tensor
    classes: Tensor


class Pairs(NamedTuple):
    """As `RawPairs`, with `normal` and `abnormal` as the backbone takes them: float32 [B, 3, H, W], normalised."""

    normal: Tensor
    abnormal: Tensor
    mask: Tensor
    classes: Tensor

    def split(self, count: int) -> "list[Pairs]":
        """So many parts, of equal size give or take one."""
        return [Pairs(*tensors) for tensors in zip(*(tensor.tensor_split(count) for tensor in self), strict=True)]


class PairMaker:
    """Makes pairs from some of the images.

    Args:
        images: All images.
        members: Indices of the images to use, [N]. Source images of anomalies are taken only from these, too.
        class_ids: Class of each member, [N].
        synthesis: Makes the anomalies of the members.
        crop: Side of the centre crop, in pixels.
        device: Where the pairs are made.
        mean: Mean of the normalisation, RGB in [0, 1].
        std: Standard deviation of the normalisation, RGB in [0, 1].
        channels_last: Leave the pixels of the pairs interleaved in memory.
    """

    def __init__(
        self,
        images: ImageSource,
        members: Tensor,
        class_ids: Tensor,
        synthesis: Synthesis[Any],
        *,
        crop: int,
        device: torch.device,
        mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
        std: Sequence[float] = IMAGENET_DEFAULT_STD,
        channels_last: bool = False,
    ) -> None:
        self.images, self.members, self.class_ids, self.synthesis = images, members, class_ids, synthesis
        self.crop, self.device, self.channels_last = crop, device, channels_last
        # x / (255 std) - mean / std, repeated for one row of interleaved pixels: working on contiguous rows is five times
        # faster than on planes.
        means, stds = (torch.tensor(values, device=device).repeat(crop) for values in (mean, std))
        self._scale, self._offset = 1 / (255 * stds), -means / stds  # [3 W]
        self._buffers: dict[str, Tensor] = {}

    @property
    def textures(self) -> Tensor | None:
        """The set of textures that anomalies are made from, uint8 [T, 3, crop, crop], if one was given."""
        return self.synthesis.textures if isinstance(self.synthesis, Perlin) else None

    def __len__(self) -> int:
        return len(self.members)

    def rows(self, sample_ids: Tensor) -> Tensor:
        """Where the normal images of some samples are among all images: rows of `Samples`, int64 [B]."""
        return self.members[sample_ids % len(self)]

    def raw(self, seed: int, epoch: int, sample_ids: Tensor) -> RawPairs:
        """Makes pairs as pixels; each depends on (seed, epoch, sample id) alone.

        Args:
            seed: Seed of the run.
            epoch: The epoch.
            sample_ids: int64 [B]: member + N * repeat.
        """
        drawn = self.synthesis.draw(seed, epoch, sample_ids)
        normal, source = self._pixels(self.rows(sample_ids)), self._pixels(self.members[drawn.source])
        abnormal, mask = self.synthesis.apply(normal, source, drawn.to(self.device))
        return RawPairs(normal, abnormal, mask, to_device(self.class_ids[sample_ids % len(self)], self.device))

    def stream(
        self, seed: int, batches: Iterable[tuple[int, Tensor]], *, prefetched: bool | None = None
    ) -> Generator[Pairs, None, None]:
        """Yields the pairs of one batch after another. The next batch may overwrite them.

        Args:
            seed: Seed of the run.
            batches: Epoch and sample ids of each batch.
            prefetched: Make the next batch while one is in use. By default only on a GPU: a CPU has no idle cores for it.
        """
        if not (self.device.type != "cpu" if prefetched is None else prefetched):
            return (self(seed, epoch, ids) for epoch, ids in batches)

        def make(numbered: tuple[int, tuple[int, Tensor]]) -> Pairs:
            number, (epoch, ids) = numbered
            return self(seed, epoch, ids, buffers=number % 2)  # the caller still uses the other set

        return prefetch(make, enumerate(batches), self.device)

    def __call__(self, seed: int, epoch: int, sample_ids: Tensor, *, buffers: int = 0) -> Pairs:
        """Makes the pairs of `raw`, normalised. The next call with the same number of `buffers` overwrites them."""
        size = len(sample_ids)
        normal, abnormal = (self._buffer(f"{name} {buffers}", size) for name in ("normal", "abnormal"))
        masks, classes = [], []
        for rows in torch.arange(size).split(_CPU_CHUNK if self.device.type == "cpu" else size):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            raw = self.raw(seed, epoch, sample_ids[part])
            self.normalise(raw.normal, normal[part])
            self.normalise(raw.abnormal, abnormal[part])
            masks.append(raw.mask)
            classes.append(raw.classes)
        return Pairs(self._as_images(normal), self._as_images(abnormal), torch.cat(masks), torch.cat(classes))

    def normalise(self, pixels: Tensor, out: Tensor) -> None:
        """Normalises interleaved pixels, uint8 [B, 3, H, W] -> float32 [B, H, 3 W]: (x / 255 - mean) / std."""
        out.copy_(pixels.permute(0, 2, 3, 1).flatten(2))
        torch.addcmul(self._offset, out, self._scale, out=out)

    def _buffer(self, name: str, size: int) -> Tensor:
        """A float32 buffer [B, H, 3 W], kept under this name: allocating memory costs as much as filling it."""
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < size:
            buffer = self._buffers[name] = torch.empty(size, self.crop, 3 * self.crop, device=self.device)
        return buffer[:size]

    def _as_images(self, rows: Tensor) -> Tensor:
        images: Tensor = rows.unflatten(2, (-1, 3)).permute(0, 3, 1, 2)
        return images if self.channels_last else images.contiguous()

    def _pixels(self, rows: Tensor) -> Tensor:
        """Centre crops, uint8 [B, 3, H, W]: a view of pixels that are interleaved in memory."""
        return centre_crop(self.images.batch(rows), self.crop).permute(0, 3, 1, 2)
