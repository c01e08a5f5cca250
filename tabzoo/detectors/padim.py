"""PaDiM: a Gaussian of backbone features at every position, and the Mahalanobis distance to it.

Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization", arXiv 2011.08785.
Facts from xiahaifeng1995/PaDiM-Anomaly-Detection-Localization-master @ 616004b (Apache-2.0).
Differs from it in: maps are not min-max scaled over the test set, which changes no ranking; channels are chosen before
any upsampling, Gaussians are fitted batch by batch and covariances are never inverted, which changes no result; images are
squashed to a square, where it scales the shorter side.
"""

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from tabzoo.compute import to_device
from tabzoo.detectors.batches import each_batch
from tabzoo.detectors.extractor import FeatureExtractor
from tabzoo.detectors.gaussians import PyramidGaussians
from tabzoo.detectors.interface import ImageBatches, Scores, setting
from tabzoo.detectors.maps import smooth_upsample
from tabzoo.errors import InputError

__all__ = ["Padim", "PadimSettings", "choose_channels"]

_SIGMA = 4.0


@dataclass(frozen=True, kw_only=True)
class PadimSettings:
    """The reference's, for ResNet-18 (448 channels) and Wide ResNet-50 (1,792)."""

    channels: int | None = setting(
        None,
        "Number of channels, drawn at random. If not given: 550 where there are 1,000 or more, else 100, or all of fewer.",
        least=1,
    )
    regularisation: float = setting(0.01, "Number added to the diagonal of the covariances.", least=1e-6)


class Padim:
    """PaDiM with a random choice of channels; on ResNet-18 with seed 1024 the choice is the reference's.

    The embedding x_ij of an image at position (i, j) of the finest map is made of the chosen channels of all layers there
    (Section 3.1); a pixel of a coarse map covers several positions.

    Args:
        extractor: Its layers from fine to coarse.
        seed: Of the choice.
        settings: Channels and regularisation.

    Raises:
        InputError: More channels than there are.
    """

    def __init__(self, extractor: FeatureExtractor, seed: int, settings: PadimSettings | None = None) -> None:
        self.extractor = extractor
        settings = settings or PadimSettings()
        available = sum(extractor.channels.values())
        channels = settings.channels or min(available, 550 if available >= 1000 else 100)
        if channels > available:
            raise InputError(f"--padim-channels {channels}: the layers of this backbone have {available}")
        self.chosen = choose_channels(extractor.channels, channels, seed)
        self._indices = {layer: torch.tensor(chosen, dtype=torch.int64) for layer, chosen in self.chosen.items()}
        self.settings: dict[str, object] = {
            "layers": list(extractor.layers),
            "channels": channels,
            "regularisation": settings.regularisation,
            "sigma": _SIGMA,
        }
        self.gaussians = PyramidGaussians(settings.regularisation)

    def fit(self, images: ImageBatches) -> None:
        """Fits a Gaussian to the embeddings x_ij^k of the N images at each position (Equation 1).

        mu_ij    = 1 / N        sum_k x_ij^k
        Sigma_ij = 1 / (N - 1)  sum_k (x_ij^k - mu_ij) (x_ij^k - mu_ij)^T  +  epsilon I
        """
        self.gaussians = PyramidGaussians(self.gaussians.regularisation)  # epsilon
        for batch in each_batch(images, "features"):
            self.gaussians.update(self._embed(batch))  # mu_ij and the sums of squares around it
        if not self.gaussians.count:
            raise InputError("PaDiM: no images to fit to")
        self.gaussians.factorise()  # Sigma_ij = L_ij L_ij^T

    def score(self, images: Tensor) -> Scores:
        """The anomaly map is made of Mahalanobis distances (Equation 2), upsampled and smoothed; the score is its largest.

        M(x_ij) = sqrt((x_ij - mu_ij)^T Sigma_ij^-1 (x_ij - mu_ij))
        """
        distances = self.gaussians.mahalanobis(self._embed(images))  # [B, h, w]
        maps = smooth_upsample(distances, (images.shape[2], images.shape[3]), sigma=_SIGMA)
        return Scores(maps.amax(dim=(1, 2)), maps)

    def _embed(self, images: Tensor) -> list[Tensor]:
        """The chosen channels of each layer [B, d, h, w], coarse to fine; together they are the x_ij."""
        features = self.extractor(images)
        self._indices = {layer: to_device(index, images.device) for layer, index in self._indices.items()}
        return [features[layer][:, index] for layer, index in reversed(self._indices.items())]


def choose_channels(channels: dict[str, int], count: int, seed: int) -> dict[str, list[int]]:
    """A random choice over all layers' channels: for each layer the chosen ones.

    Args:
        channels: Number of channels of each layer.
        count: How many to choose in all.
        seed: Of Python's generator, as in the reference.
    """
    chosen = random.Random(seed).sample(range(sum(channels.values())), count)
    table, start = {}, 0
    for layer, number in channels.items():
        table[layer] = [index - start for index in chosen if start <= index < start + number]
        start += number
    return table
