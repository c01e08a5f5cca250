"""A mixture: each sample's anomaly is made by one of several methods, drawn with given weights."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tabzoo.errors import InputError
from tabzoo.synthesis.cutpaste import CutPaste
from tabzoo.synthesis.draws import uniforms
from tabzoo.synthesis.interface import Params, Synthesis, Synthetic, check_images
from tabzoo.synthesis.mask import GridMask
from tabzoo.synthesis.nsa import Nsa
from tabzoo.synthesis.perlin import Perlin

__all__ = ["METHODS", "Mix", "MixParams", "MixSettings"]

STREAM = 5
METHODS: dict[str, type[Nsa | CutPaste | Perlin | GridMask]] = {
    "nsa": Nsa,
    "cutpaste": CutPaste,
    "perlin": Perlin,
    "mask": GridMask,
}


@dataclass(frozen=True, kw_only=True)
class MixSettings:
    """Which methods are mixed, and how often each."""

    weights: dict[str, float] = field(default_factory=lambda: dict.fromkeys(METHODS, 1.0))
    """Relative weight by method name; a method without one isn't used."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings by method name; a method without them uses its defaults."""

    def __post_init__(self) -> None:
        for name in (*self.weights, *self.settings):
            if name not in METHODS:
                raise InputError(f"mix: there is no method {name!r}; accepted are {', '.join(METHODS)}")
        if not all(weight >= 0 for weight in self.weights.values()) or not sum(self.weights.values()) > 0:
            raise InputError(f"mix: weights must not be negative, and one must be above 0; got {self.weights}")


@dataclass(frozen=True)
class MixParams(Params):
    """What is drawn for each sample: the method, and the parameters of all of them."""

    choice: Tensor
    """int64 [B]: place of the method in the order of the weights."""
    methods: tuple[Params, ...]
    """Parameters for every sample by every method."""

    def __getitem__(self, samples: Tensor | slice) -> "MixParams":
        return MixParams(self.source[samples], self.choice[samples], tuple(m[samples] for m in self.methods))

    def to(self, device: torch.device | str) -> "MixParams":
        """Returns a copy on another device."""
        return MixParams(self.source.to(device), self.choice.to(device), tuple(m.to(device) for m in self.methods))


class Mix:
    """Draws a method for each sample, and draws and applies it.

    Args:
        class_ids: The class of each image, integers [N].
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        settings: Weights and settings of the methods; all four equally often, as the TAB authors set them, by default.
    """

    def __init__(self, class_ids: Tensor, height: int, width: int, settings: MixSettings | None = None) -> None:
        self.settings = settings or MixSettings()
        self._sides = (height, width)
        names = [name for name, weight in self.settings.weights.items() if weight > 0]
        self._methods: list[Synthesis[Any]] = [
            METHODS[name](class_ids, height, width, self.settings.settings.get(name)) for name in names
        ]
        weights = torch.tensor([self.settings.weights[name] for name in names], dtype=torch.float64)
        self._limits = torch.cumsum(weights / weights.sum(), 0)[:-1]

    def draw(self, seed: int, epoch: int, sample_ids: Tensor) -> MixParams:
        """Draws the parameters of samples from (seed, epoch, sample id) alone; see `Synthesis.draw`."""
        u = uniforms(seed, epoch, sample_ids, 1, stream=STREAM)
        choice = (u >= self._limits.to(u.device)).sum(1)
        methods = tuple(method.draw(seed, epoch, sample_ids) for method in self._methods)
        sources = torch.stack([m.source for m in methods], 1)  # [B, M]
        return MixParams(sources.gather(1, choice[:, None])[:, 0], choice, methods)

    def apply(self, normal: Tensor, source: Tensor, params: MixParams) -> Synthetic:
        """Makes the anomalies; nothing is drawn; see `Synthesis.apply`."""
        check_images(normal, source, self._sides)
        abnormal = normal.clone()
        mask = torch.zeros_like(normal[:, :1], dtype=torch.bool, memory_format=torch.contiguous_format)
        for k, (method, drawn) in enumerate(zip(self._methods, params.methods, strict=True)):
            chosen = params.choice == k
            if normal.device.type == "cpu":
                few = torch.nonzero(chosen)[:, 0]
                if len(few) > 0:
                    abnormal[few], mask[few] = method.apply(normal[few], source[few], drawn[few])
            else:  # finding out which ones would wait for the device
                made = method.apply(normal, source, drawn)
                abnormal = torch.where(chosen[:, None, None, None], made.abnormal, abnormal)
                mask |= made.mask & chosen[:, None, None, None]
        return Synthetic(abnormal, mask)
