"""From images to what the backbone sees: pairs of a normal image and a synthetic anomaly of it."""

import dataclasses
from collections.abc import Generator, Iterable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from tabzoo.data.cache import open_images
from tabzoo.data.layouts import find_samples
from tabzoo.errors import InputError
from tabzoo.training.ahead import one_ahead
from tabzoo.training.recipe import Recipe
from tabzoo.training.synthesis import (
    SYNTHESES,
    CutPasteSettings,
    GridMaskSettings,
    MixSettings,
    NsaSettings,
    Perlin,
    PerlinSettings,
    Synthesis,
)

__all__ = ["ImageSource", "PairMaker", "Pairs", "RawPairs", "synthesis_settings"]


SETTINGS = {"nsa": NsaSettings, "cutpaste": CutPasteSettings, "perlin": PerlinSettings, "mask": GridMaskSettings}

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
        recipe: Crop, normalisation and synthesis.
        device: Where the pairs are made.

    Attributes:
        textures: All images of the texture folder, uint8 [T, 3, crop, crop], if there is one.
    """

    def __init__(
        self, images: ImageSource, members: Tensor, class_ids: Tensor, recipe: Recipe, device: torch.device
    ) -> None:
        self.images, self.members, self.class_ids = images, members, class_ids
        self.crop, self.device, self.channels_last = recipe.crop, device, recipe.channels_last
        self.textures = None if recipe.perlin_textures is None else _textures(recipe)
        self.synthesis = _synthesis(recipe, class_ids, self.textures)
        # x / (255 std) - mean / std, for a row of interleaved pixels: contiguous rows are five times faster than planes.
        mean, std = (torch.tensor(values, device=device).repeat(recipe.crop) for values in (recipe.mean, recipe.std))
        self._scale, self._offset = 1 / (255 * std), -mean / std  # [3 W]
        self._buffers: dict[str, Tensor] = {}

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
        start = (squares.shape[1] - self.crop) // 2
        return squares[:, start : start + self.crop, start : start + self.crop].permute(0, 3, 1, 2)


def _synthesis(recipe: Recipe, class_ids: Tensor, textures: Tensor | None) -> Synthesis[Any]:
    settings = synthesis_settings(recipe)
    if textures is None:
        return SYNTHESES[recipe.synthesis](class_ids, recipe.crop, recipe.crop, settings)
    return Perlin(class_ids, recipe.crop, recipe.crop, settings, textures=textures)


def _textures(recipe: Recipe) -> Tensor:
    """All images of the texture folder, uint8 [T, 3, crop, crop]."""
    samples = find_samples(str(recipe.perlin_textures))
    images = open_images(
        samples,
        size=recipe.crop,
        cache_dir=recipe.cache_dir,
        workers=recipe.workers,
        white_level=recipe.white_level,
    )
    return images.batch(torch.arange(len(images))).permute(0, 3, 1, 2).contiguous()


def synthesis_settings(recipe: Recipe) -> Any:
    """The settings of a recipe's way to make anomalies.

    Raises:
        InputError: One is out of range, or is another way's; the text names the flag.
    """
    if recipe.mix_weights and recipe.synthesis != "mix":
        raise InputError(f"--mix-weights: only --synthesis mix uses weights; got --synthesis {recipe.synthesis}")
    if recipe.perlin_textures is not None and recipe.synthesis != "perlin":
        raise InputError(
            f"--perlin-textures: only --synthesis perlin uses textures; got --synthesis {recipe.synthesis}"
        )
    of_each = {name: _settings(recipe, name) for name in SETTINGS}  # all, so that no wrong value goes unseen
    if recipe.synthesis != "mix":
        return of_each[recipe.synthesis]
    return MixSettings(weights=recipe.mix_weights or dict.fromkeys(SETTINGS, 1.0), settings=of_each)


def _settings(recipe: Recipe, name: str) -> Any:
    """A method's settings: the recipe's fields that begin with its name, and its own defaults for the rest."""
    kind = SETTINGS[name]
    given = {entry.name: f"{name}_{entry.name}" for entry in dataclasses.fields(kind)}
    return kind(**{key: getattr(recipe, value) for key, value in given.items() if hasattr(recipe, value)})
