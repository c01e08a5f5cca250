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
    """What is drawn for each sample: the method, and that method's parameters."""

    choice: Tensor
    """int64 [B]: index of the method among those whose weight is above 0."""
    samples: tuple[Tensor, ...]
    """For each method, the samples that it makes, ascending, int64 [n]."""
    methods: tuple[Params, ...]
    """For each method, the parameters of its samples."""

    def __getitem__(self, samples: Tensor | slice) -> "MixParams":
        place = torch.empty_like(self.choice)  # of each sample among those of its method
        for own in self.samples:
            place[own] = torch.arange(len(own), device=place.device)
        choice, place = self.choice[samples], place[samples]
        kept = tuple(torch.nonzero(choice == k)[:, 0] for k in range(len(self.methods)))
        methods = tuple(drawn[place[own]] for drawn, own in zip(self.methods, kept, strict=True))
        return MixParams(self.source[samples], choice, kept, methods)

    def to(self, device: torch.device | str) -> "MixParams":
        """Returns a copy on another device; see `to_device`."""
        source, choice, *samples = (
            to_device(t, torch.device(device)) for t in (self.source, self.choice, *self.samples)
        )
        return MixParams(source, choice, tuple(samples), tuple(drawn.to(device) for drawn in self.methods))


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
        """Draws the method of each sample, and that method's parameters; see `Synthesis.draw`."""
        u = uniforms(seed, epoch, sample_ids, 1, stream=STREAM)
        choice = (u >= self._limits.to(u.device)).sum(1)
        samples = tuple(torch.nonzero(choice == k)[:, 0] for k in range(len(self._methods)))
        methods = tuple(
            method.draw(seed, epoch, sample_ids[own]) for method, own in zip(self._methods, samples, strict=True)
        )
        source = torch.empty_like(sample_ids)
        for own, drawn in zip(samples, methods, strict=True):
            source[own] = drawn.source
        return MixParams(source, choice, samples, methods)

    def apply(self, normal: Tensor, source: Tensor, params: MixParams) -> Synthetic:
        """Makes each sample's anomaly by its method; see `Synthesis.apply`."""
        check_images(normal, source, self._sides)
        abnormal = normal.clone()
        mask = torch.zeros_like(normal[:, :1], dtype=torch.bool, memory_format=torch.contiguous_format)
        for method, own, drawn in zip(self._methods, params.samples, params.methods, strict=True):
            if len(own) > 0:
                abnormal[own], mask[own] = method.apply(normal[own], source[own], drawn)
        return Synthetic(abnormal, mask)
