"""PatchCore: nearest neighbours of patch features in a coreset of normal ones.

Roth et al., "Towards Total Recall in Industrial Anomaly Detection", arXiv 2106.08265. Facts from
amazon-science/patchcore-inspection @ fcaa92f (Apache-2.0).
"""

from torch import Tensor

from tabzoo.benchmark.features import FeatureExtractor
from tabzoo.benchmark.methods.interface import ImageBatches, Scores

__all__ = ["Patchcore"]


class Patchcore:
    """PatchCore."""

    def __init__(self, extractor: FeatureExtractor, seed: int, *, share: float = 0.1, neighbours: int = 9) -> None:
        self.extractor = extractor
        self.settings = {"layers": list(extractor.layers), "share": share, "neighbours": neighbours}

    def fit(self, images: ImageBatches) -> None:
        """Fills the memory bank."""
        raise NotImplementedError

    def score(self, images: Tensor) -> Scores:
        """Distances to the nearest."""
        raise NotImplementedError
