"""Synthetic anomalies: batched, on the device of the images, the same for a sample whatever surrounds it."""

from typing import Any

from torch import Tensor

from tabzoo.synthesis.cutpaste import CutPaste, CutPasteParams, CutPasteSettings
from tabzoo.synthesis.interface import Params, Synthesis, Synthetic
from tabzoo.synthesis.mask import GridMask, GridMaskParams, GridMaskSettings
from tabzoo.synthesis.mix import METHODS, Mix, MixParams, MixSettings
from tabzoo.synthesis.nsa import Nsa, NsaParams, NsaSettings
from tabzoo.synthesis.perlin import Perlin, PerlinParams, PerlinSettings

__all__ = [
    "SETTINGS",
    "SYNTHESES",
    "CutPaste",
    "CutPasteParams",
    "CutPasteSettings",
    "GridMask",
    "GridMaskParams",
    "GridMaskSettings",
    "Mix",
    "MixParams",
    "MixSettings",
    "Nsa",
    "NsaParams",
    "NsaSettings",
    "Params",
    "Perlin",
    "PerlinParams",
    "PerlinSettings",
    "Synthesis",
    "Synthetic",
    "make_synthesis",
]

SYNTHESES: dict[str, type[Nsa | CutPaste | Perlin | GridMask | Mix]] = {**METHODS, "mix": Mix}
"""Name in a recipe -> class, made as `cls(class_ids, height, width, settings)`."""

SETTINGS = {"nsa": NsaSettings, "cutpaste": CutPasteSettings, "perlin": PerlinSettings, "mask": GridMaskSettings}
"""Settings of each method; a mix takes those of all."""


def make_synthesis(name: str, class_ids: Tensor, side: int) -> Synthesis[Any]:
    """A method with its own settings, or a mix of all in equal parts.

    Args:
        name: A key of `SYNTHESES`.
        class_ids: Class of each image, [N].
        side: Of the square images, in pixels.
    """
    own: dict[str, Any] = {method: kind() for method, kind in SETTINGS.items()}
    mixed = MixSettings(weights=dict.fromkeys(SETTINGS, 1.0), settings=own)
    return SYNTHESES[name](class_ids, side, side, {**own, "mix": mixed}[name])
