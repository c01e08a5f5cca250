"""Synthetic anomalies: made in batches on the images' device; a sample's anomaly does not depend on its batch."""

from typing import Literal

from torch import Tensor

from tabzoo.synthesis.cutpaste import CutPaste, CutPasteParams, CutPasteSettings
from tabzoo.synthesis.interface import Params, Synthesis, Synthetic
from tabzoo.synthesis.mask import GridMask, GridMaskParams, GridMaskSettings
from tabzoo.synthesis.mix import METHODS, Mix, MixParams, MixSettings
from tabzoo.synthesis.nsa import Nsa, NsaParams, NsaSettings
from tabzoo.synthesis.perlin import Perlin, PerlinParams, PerlinSettings

__all__ = [
    "METHODS",
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
    "SynthesisName",
    "Synthetic",
    "make_synthesis",
]

SYNTHESES: dict[str, type[Nsa | CutPaste | Perlin | GridMask | Mix]] = {**METHODS, "mix": Mix}
"""Name in a recipe -> class, called as `cls(class_ids, height, width, settings)`."""

SynthesisName = Literal["nsa", "cutpaste", "perlin", "mask", "mix"]
"""The keys of `SYNTHESES`."""


def make_synthesis(name: str, class_ids: Tensor, side: int) -> Nsa | CutPaste | Perlin | GridMask | Mix:
    """Returns a method with its default settings; a mix uses all methods equally often.

    Args:
        name: A key of `SYNTHESES`.
        class_ids: Class of each image, [N].
        side: Side of the square images, in pixels.
    """
    return SYNTHESES[name](class_ids, side, side)
