"""From images to what the backbone sees: pairs of a normal image and a synthetic anomaly of it."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tabzoo.training.recipe import Recipe
from tabzoo.training.synthesis import Nsa, NsaSettings

__all__ = ["ImageSource", "PairMaker", "Pairs", "RawPairs"]


class ImageSource(Protocol):
    """Decoded images that can be asked for by index."""

    def batch(self, indices: Tensor) -> Tensor:
        """uint8 [B, S, S, 3] on the run's device, for int64 [B]."""


class RawPairs(NamedTuple):
    """Pairs as pixels: `normal` and `abnormal` uint8 [B, 3, H, W], `mask` of the change [B, 1, H, W], `classes` [B]."""

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
    """

    def __init__(
        self, images: ImageSource, members: Tensor, class_ids: Tensor, recipe: Recipe, device: torch.device
    ) -> None:
        self.images, self.members, self.class_ids = images, members, class_ids
        self.crop, self.device = recipe.crop, device
        self.memory_format = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.synthesis = Nsa(class_ids, recipe.crop, recipe.crop, _nsa_settings(recipe))
        # On 0..255 pixels, so that normalising is one subtraction and one division.
        self.mean, self.std = (
            (255 * torch.tensor(values, device=device)).view(1, 3, 1, 1) for values in (recipe.mean, recipe.std)
        )

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

    def __call__(self, seed: int, epoch: int, sample_ids: Tensor) -> Pairs:
        """The same pairs, normalised."""
        raw = self.raw(seed, epoch, sample_ids)
        return Pairs(self.normalised(raw.normal), self.normalised(raw.abnormal), raw.classes)

    def normalised(self, pixels: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] -> float32, in the memory format that the backbone is fastest with."""
        return pixels.to(torch.float32, memory_format=self.memory_format).sub_(self.mean).div_(self.std)

    def _pixels(self, members: Tensor) -> Tensor:
        squares = self.images.batch(self.members[members])  # [B, S, S, 3]
        start = (squares.shape[1] - self.crop) // 2
        cropped = squares[:, start : start + self.crop, start : start + self.crop]
        return cropped.permute(0, 3, 1, 2).contiguous()


def _nsa_settings(recipe: Recipe) -> NsaSettings:
    return NsaSettings(
        gamma_shape=recipe.nsa_gamma_shape,
        gamma_scale=recipe.nsa_gamma_scale,
        gamma_lower=recipe.nsa_gamma_lower,
        width_min=recipe.nsa_width_min,
        width_max=recipe.nsa_width_max,
        resize=recipe.nsa_resize,
        shift=recipe.nsa_shift,
        num_patches=recipe.nsa_num_patches,
        blend=recipe.nsa_blend,
    )
