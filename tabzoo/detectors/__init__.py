"""Anomaly detectors on the feature maps of a backbone: fitted to normal images, they score images and pixels."""

from tabzoo.detectors.interface import (
    Budget,
    CallbackDetector,
    Detector,
    DetectorSpec,
    FewShotDetector,
    ImageBatches,
    MapDetector,
    Scores,
)
from tabzoo.detectors.registry import DETECTORS

__all__ = [
    "DETECTORS",
    "Budget",
    "CallbackDetector",
    "Detector",
    "DetectorSpec",
    "FewShotDetector",
    "ImageBatches",
    "MapDetector",
    "Scores",
]
