"""PaDiM: a Gaussian of backbone features at every position, and the Mahalanobis distance to it.

Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization", arXiv 2011.08785.
Facts from xiahaifeng1995/PaDiM-Anomaly-Detection-Localization-master @ 616004b (Apache-2.0).
Differs from it in: maps are not min-max scaled over the test set, which changes no ranking; channels are chosen before
any upsampling, Gaussians are fitted batch by batch and covariances are never inverted, which changes no result; images are
squashed to a square, where it scales the shorter side.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from tabzoo.compute import to_device
from tabzoo.detectors.batches import each_batch
from tabzoo.detectors.extractor import FeatureExtractor
from tabzoo.detectors.gaussians import (
    FewImageGaussians,
    PyramidGaussians,
    gaussians_of_state,
    smaller_gaussians,
)
from tabzoo.detectors.interface import ImageBatches, Scores, flag_of, setting
from tabzoo.detectors.leave_one_out import leave_one_out
from tabzoo.detectors.maps import smooth_upsample
from tabzoo.errors import InputError

__all__ = ["Padim", "PadimSettings", "choose_channels"]

_SIGMA = 4.0
_CHOSEN, _GAUSSIANS = "chosen.", "gaussians."  # how names of tensors in a state begin


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

    gaussians: PyramidGaussians | FewImageGaussians

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
        self._fit(
            PyramidGaussians(self.gaussians.regularisation), map(self.embed, each_batch(images, "features"))
        )  # epsilon

    def fit_maps(self, batches: Iterable[Sequence[Tensor]], count: int) -> None:
        """The same from what `embed` returned for `count` images, with the form of Gaussians that `smaller_gaussians` says.

        Raises:
            InputError: There are no images, or features are so large, next to the regularisation, that covariances are
                singular in single precision.
        """
        batches = iter(batches)
        first = next(batches, None)
        if first is None:
            raise InputError("PaDiM: no images to fit to")
        regularisation = self.gaussians.regularisation
        try:
            self._fit(smaller_gaussians(first, count, regularisation), chain([first], batches))
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise InputError(
                f"PaDiM: the features of this backbone are too large for {flag_of('padim', 'regularisation')} "
                f"{regularisation:g}, or not finite. Type a larger number, or take another method or backbone."
            ) from error

    def score(self, images: Tensor) -> Scores:
        """The anomaly map is made of Mahalanobis distances (Equation 2), upsampled and smoothed; the score is its largest.

        M(x_ij) = sqrt((x_ij - mu_ij)^T Sigma_ij^-1 (x_ij - mu_ij))
        """
        return self.score_maps(self.embed(images), (images.shape[2], images.shape[3]))

    def score_maps(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Scores:
        """The same from what `embed` returned for images of this size."""
        distances = self.gaussians.mahalanobis(maps)  # [B, h, w]
        smooth = smooth_upsample(distances, size, sigma=_SIGMA)
        return Scores(smooth.amax(dim=(1, 2)), smooth)

    def leave_one_out(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Scores:
        """Scores of each of two or more images by a PaDiM that is fitted to all others, for the cost of about one fit.

        Args:
            maps: What `embed` returned for all images.
            size: Of the images.
        """
        smooth = smooth_upsample(leave_one_out(maps, self.gaussians.regularisation), size, sigma=_SIGMA)
        return Scores(smooth.amax(dim=(1, 2)), smooth)

    def embed(self, images: Tensor) -> list[Tensor]:
        """The chosen channels of each layer [B, d, h, w], coarse to fine; together they are the x_ij."""
        features = self.extractor(images)
        self._indices = {layer: to_device(index, images.device) for layer, index in self._indices.items()}
        return [features[layer][:, index] for layer, index in reversed(self._indices.items())]

    def state(self) -> dict[str, Tensor]:
        """All that was fitted, by name: Gaussians, and the channels chosen of each layer."""
        chosen = {f"{_CHOSEN}{layer}": index.cpu() for layer, index in self._indices.items()}
        return chosen | {f"{_GAUSSIANS}{name}": value for name, value in self.gaussians.state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes the place of `fit`: scores are those of the detector whose state it is.

        Raises:
            InputError: It is not the state of a PaDiM on these layers.
        """
        parts: dict[str, dict[str, Tensor]] = {_CHOSEN: {}, _GAUSSIANS: {}}
        for name, value in state.items():
            kind = next((kind for kind in parts if name.startswith(kind)), None)
            if kind is None:
                raise InputError(f"PaDiM: a state has no tensor {name!r}")
            parts[kind][name.removeprefix(kind)] = value
        channels, chosen = self.extractor.channels, parts[_CHOSEN]
        fits = set(chosen) == set(channels) and all(
            index.ndim == 1 and index.dtype == torch.int64 and bool(((index >= 0) & (index < channels[layer])).all())
            for layer, index in chosen.items()
        )
        if not fits:
            raise InputError(f"PaDiM: expected the channels chosen of the layers {', '.join(channels)}")
        widths = [len(chosen[layer]) for layer in reversed(channels)]
        self.gaussians = gaussians_of_state(parts[_GAUSSIANS], widths, self.gaussians.regularisation)
        self._indices = {layer: chosen[layer] for layer in channels}
        self.chosen = {layer: index.tolist() for layer, index in self._indices.items()}

    def _fit(self, gaussians: PyramidGaussians | FewImageGaussians, batches: Iterable[Sequence[Tensor]]) -> None:
        self.gaussians, count = gaussians, 0
        for maps in batches:
            gaussians.update(maps)  # mu_ij and the sums of squares around it
            count += len(maps[0])
        if not count:
            raise InputError("PaDiM: no images to fit to")
        gaussians.factorise()  # Sigma_ij = L_ij L_ij^T


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
