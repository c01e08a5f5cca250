"""Synthetic anomalies: batched, on the device of the images, the same for a sample whatever surrounds it."""

from tabzoo.training.synthesis.cutpaste import CutPaste, CutPasteParams, CutPasteSettings
from tabzoo.training.synthesis.interface import Params, Synthesis, Synthetic
from tabzoo.training.synthesis.mask import GridMask, GridMaskParams, GridMaskSettings
from tabzoo.training.synthesis.mix import METHODS, Mix, MixParams, MixSettings
from tabzoo.training.synthesis.nsa import Nsa, NsaParams, NsaSettings
from tabzoo.training.synthesis.perlin import Perlin, PerlinParams, PerlinSettings

__all__ = [
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
]

SYNTHESES: dict[str, type[Nsa | CutPaste | Perlin | GridMask | Mix]] = {**METHODS, "mix": Mix}
"""Name in a recipe -> class, made as `cls(class_ids, height, width, settings)`."""
