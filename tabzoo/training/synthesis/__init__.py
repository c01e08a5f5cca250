"""Synthetic anomalies: batched, on the device of the images, the same for a sample whatever surrounds it."""

from tabzoo.training.synthesis.interface import Params, Synthesis, Synthetic
from tabzoo.training.synthesis.nsa import Nsa, NsaParams, NsaSettings

__all__ = [
    "SYNTHESES",
    "Nsa",
    "NsaParams",
    "NsaSettings",
    "Params",
    "Synthesis",
    "Synthetic",
]

SYNTHESES = {"nsa": Nsa}
"""Name in a recipe -> class, made as `cls(class_ids, height, width, settings)`."""
