"""From photos to verdicts: a detector is fitted to good photos, kept in a folder, and judges new ones."""

from tabzoo.inspect.detector import InspectionDetector, Verdicts, load_detector

__all__ = ["InspectionDetector", "Verdicts", "load_detector"]
