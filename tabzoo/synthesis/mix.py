"""A mix: each sample's anomaly is made by one of several methods, drawn with given weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tabzoo.compute import to_device
from tabzoo.errors import InputError, did_you_mean
from tabzoo.synthesis.cutpaste import CutPaste, CutPasteSettings
from tabzoo.synthesis.draws import uniforms
from tabzoo.synthesis.interface import Params, Synthesis, Synthetic, check_images
from tabzoo.synthesis.mask import GridMask, GridMaskSettings
from tabzoo.synthesis.nsa import Nsa, NsaSettings
from tabzoo.synthesis.perlin import Perlin, PerlinSettings

__all__ = ["METHODS", "MethodSettings", "Mix", "MixParams", "MixSettings", "check_weights"]

STREAM = 5
METHODS: dict[str, type[Nsa | CutPaste | Perlin | GridMask]] = {
    "nsa": Nsa,
    "cutpaste": CutPaste,
    "perlin": Perlin,
    "mask": GridMask,
}
MethodSettings = NsaSettings | CutPasteSettings | PerlinSettings | GridMaskSettings


@dataclass(frozen=True, kw_only=True)
class MixSettings:
    """How often each method is used, and its settings; the defaults, also of the weights, are the TAB authors'."""

    weights: dict[str, float] = field(default_factory=lambda: dict.fromkeys(METHODS, 1.0))
    """Name of a method -> its relative weight; a method without a weight is not used."""
    nsa: NsaSettings = field(default_factory=NsaSettings)
    cutpaste: CutPasteSettings = field(default_factory=CutPasteSettings)
    perlin: PerlinSettings = field(default_factory=PerlinSettings)
    mask: GridMaskSettings = field(default_factory=GridMaskSettings)

    def __post_init__(self) -> None:
        check_weights(self.weights)

    def of_methods(self) -> dict[str, MethodSettings]:
        """The settings by the method's name."""
        return {"nsa": self.nsa, "cutpaste": self.cutpaste, "perlin": self.perlin, "mask": self.mask}


def check_weights(weights: Mapping[str, float]) -> None:
    """Raises an InputError if a method is unknown, a weight is negative or not finite, or none is above 0."""
    for name in weights:
        if name not in METHODS:
            raise InputError(
                f"mix_weights: {name!r} given, expected {', '.join(METHODS)}.{did_you_mean(name, METHODS)}"
            )
    if not weights or not min(weights.values()) >= 0 < sum(weights.values()) < float("inf"):
        raise InputError(f"mix_weights: {dict(weights)} given, expected numbers of at least 0, one above 0")


@dataclass(frozen=True)
class MixParams(Params):
    """What is drawn for each sample: the method, and the parameters of every method."""

    choice: Tensor
    """int64 [B]: index of the method among those whose weight is above 0."""
    methods: tuple[Params, ...]
    """The parameters of all samples, by method."""

    def __getitem__(self, samples: Tensor | slice) -> "MixParams":
        return MixParams(self.source[samples], self.choice[samples], tuple(m[samples] for m in self.methods))

    def to(self, device: torch.device | str) -> "MixParams":
        """Returns a copy on another device."""
        source, choice = (to_device(tensor, torch.device(device)) for tensor in (self.source, self.choice))
        return MixParams(source, choice, tuple(m.to(device) for m in self.methods))


class Mix:
    """Draws a method for each sample, and draws and applies that method.

    Args:
        class_ids: Class of each image, integers [N].
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        settings: Weights and settings of the methods; by default all four equally often, with the TAB authors' settings.
    """

    def __init__(self, class_ids: Tensor, height: int, width: int, settings: MixSettings | None = None) -> None:
        self.settings = settings or MixSettings()
        self._sides = (height, width)
        names = [name for name, weight in self.settings.weights.items() if weight > 0]
        given: dict[str, Any] = {**self.settings.of_methods()}
        self._methods: list[Synthesis[Any]] = [METHODS[name](class_ids, height, width, given[name]) for name in names]
        weights = torch.tensor([self.settings.weights[name] for name in names], dtype=torch.float64)
        self._limits = torch.cumsum(weights / weights.sum(), 0)[:-1]

    def draw(self, seed: int, epoch: int, sample_ids: Tensor) -> MixParams:
        """Draws the method of each sample, and the parameters of all methods; see `Synthesis.draw`."""
        u = uniforms(seed, epoch, sample_ids, 1, stream=STREAM)
        choice = (u >= self._limits.to(u.device)).sum(1)
        methods = tuple(method.draw(seed, epoch, sample_ids) for method in self._methods)
        sources = torch.stack([m.source for m in methods], 1)  # [B, M]
        return MixParams(sources.gather(1, choice[:, None])[:, 0], choice, methods)

    def apply(self, normal: Tensor, source: Tensor, params: MixParams) -> Synthetic:
        """Makes each sample's anomaly by its method; see `Synthesis.apply`."""
        check_images(normal, source, self._sides)
        abnormal = normal.clone()
        mask = torch.zeros_like(normal[:, :1], dtype=torch.bool, memory_format=torch.contiguous_format)
        for k, (method, drawn) in enumerate(zip(self._methods, params.methods, strict=True)):
            chosen = params.choice == k
            if normal.device.type == "cpu":
                few = torch.nonzero(chosen)[:, 0]
                if len(few) > 0:
                    abnormal[few], mask[few] = method.apply(normal[few], source[few], drawn[few])
            else:  # listing the chosen samples would wait for the device, so the method is applied to all
                made = method.apply(normal, source, drawn)
                abnormal = torch.where(chosen[:, None, None, None], made.abnormal, abnormal)
                mask |= made.mask & chosen[:, None, None, None]
        return Synthetic(abnormal, mask)
