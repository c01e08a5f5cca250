"""From images to what the backbone sees: pairs of a normal image and a synthetic anomaly of it."""

from collections.abc import Generator, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from tabzoo.data.images import centre_crop
from tabzoo.synthesis.ahead import one_ahead
from tabzoo.synthesis.interface import Synthesis

__all__ = ["ImageSource", "PairMaker", "Pairs", "RawPairs"]

# On a CPU: few enough images that their pixels stay in its cache, from decoding store to floats.
_AT_A_TIME = 32


class ImageSource(Protocol):
    """Decoded images that can be asked for by index."""

    def batch(self, indices: Tensor) -> Tensor:
        """uint8 [B, S, S, 3] on the run's device, for int64 [B]."""


class RawPairs(NamedTuple):
    """Pairs as pixels: `normal` and `abnormal` uint8 [B, 3, H, W], `mask` of the change [B, 1, H, W], `classes` [B].

    The pixels are interleaved in memory and may be views.
    """

    normal: Tensor
    abnormal: Tensor
    mask: Tensor
    classes: Tensor


class Pairs(NamedTuple):
    """Pairs as the backbone takes them: `normal` and `abnormal` float32 [B, 3, H, W] normalised, `classes` [B]."""

    normal: Tensor
    abnormal: Tensor
    classes: Tensor


class PairMaker:
    """Makes the pairs of some of the images.

    Args:
        images: All images.
        members: Which of them this maker is about, [N]; sources of anomalies are taken from them alone.
        class_ids: Class of each of the members, [N].
        synthesis: Makes the anomalies, for the same members.
        crop: Side of the centre crop, in pixels.
        device: Where the pairs are made.
        mean: Of the normalisation, RGB in [0, 1].
        std: The same.
        channels_last: Keep the pixels of the pairs interleaved in memory.
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
        # x / (255 std) - mean / std, for a row of interleaved pixels: contiguous rows are five times faster than planes.
        means, stds = (torch.tensor(values, device=device).repeat(crop) for values in (mean, std))
        self._scale, self._offset = 1 / (255 * stds), -means / stds  # [3 W]
        self._buffers: dict[str, Tensor] = {}

    @property
    def textures(self) -> Tensor | None:
        """What anomalies are made of beside the images, uint8 [T, 3, crop, crop], if a set of textures was given."""
        return getattr(self.synthesis, "textures", None)

    def __len__(self) -> int:
        return len(self.members)

    def raw(self, seed: int, epoch: int, sample_ids: Tensor) -> RawPairs:
        """The pairs of some samples, as pixels; they depend on (seed, epoch, sample id) alone.

        Args:
            seed: The run's seed.
            epoch: The epoch they are drawn for.
            sample_ids: int64 [B], see `sampling.epoch_samples`.
        """
        members = sample_ids % len(self)
        drawn = self.synthesis.draw(seed, epoch, sample_ids)
        normal, source = self._pixels(members), self._pixels(drawn.source)
        abnormal, mask = self.synthesis.apply(normal, source, drawn.to(self.device))
        return RawPairs(normal, abnormal, mask, self.class_ids[members].to(self.device))

    def stream(
        self, seed: int, batches: Iterable[tuple[int, Tensor]], *, ahead: bool | None = None
    ) -> Generator[Pairs, None, None]:
        """The pairs of one batch after another; the next one may write over them.

        Args:
            seed: The run's seed.
            batches: Epoch and sample ids of each.
            ahead: Make the next batch while one is in use; by default on a GPU, for a CPU has no idle cores to do it with.
        """
        if not (self.device.type != "cpu" if ahead is None else ahead):
            return (self(seed, epoch, ids) for epoch, ids in batches)

        def make(numbered: tuple[int, tuple[int, Tensor]]) -> Pairs:
            number, (epoch, ids) = numbered
            return self(seed, epoch, ids, buffers=number % 2)

        return one_ahead(make, enumerate(batches), self.device)

    def __call__(self, seed: int, epoch: int, sample_ids: Tensor, *, buffers: int = 0) -> Pairs:
        """The same pairs, normalised; the next call with the same number of `buffers` writes over them."""
        size = len(sample_ids)
        normal, abnormal = (self._buffer(f"{name} {buffers}", size) for name in ("normal", "abnormal"))
        classes = []
        for rows in torch.arange(size).split(_AT_A_TIME if self.device.type == "cpu" else size):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            raw = self.raw(seed, epoch, sample_ids[part])
            self.normalise(raw.normal, normal[part])
            self.normalise(raw.abnormal, abnormal[part])
            classes.append(raw.classes)
        return Pairs(self._as_images(normal), self._as_images(abnormal), torch.cat(classes))

    def normalise(self, pixels: Tensor, out: Tensor) -> None:
        """uint8 [B, 3, H, W], interleaved -> float32 [B, H, 3 W], (x / 255 - mean) / std."""
        out.copy_(pixels.permute(0, 2, 3, 1).flatten(2))
        torch.addcmul(self._offset, out, self._scale, out=out)

    def _buffer(self, name: str, size: int) -> Tensor:
        """Float32 [B, H, 3 W], kept under this name: fresh memory costs as much as filling it."""
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < size:
            buffer = self._buffers[name] = torch.empty(size, self.crop, 3 * self.crop, device=self.device)
        return buffer[:size]

    def _as_images(self, rows: Tensor) -> Tensor:
        images: Tensor = rows.unflatten(2, (-1, 3)).permute(0, 3, 1, 2)
        return images if self.channels_last else images.contiguous()

    def _pixels(self, members: Tensor) -> Tensor:
        """uint8 [B, 3, H, W], centre crops, a view of pixels that are interleaved in memory."""
        squares = self.images.batch(self.members[members])  # [B, S, S, 3]
        return centre_crop(squares, self.crop).permute(0, 3, 1, 2)
