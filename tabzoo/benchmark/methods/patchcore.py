"""PatchCore: distances of patch features to the nearest of a coreset of normal ones.

Roth et al., "Towards Total Recall in Industrial Anomaly Detection", arXiv 2106.08265. Facts from
amazon-science/patchcore-inspection @ fcaa92f (Apache-2.0).
Differs from it in: features keep their channels, where it pools them to 1,024 numbers; the greedy choice of the coreset is
exact, where it estimates distances from ten random points; neighbours are found in plain torch; image scores are weighted by
the neighbourhood, Equation 7 of the paper, which it leaves out; no min-max scaling, which changes no ranking; images are
squashed to a square, where it scales the shorter side; masks are resized to the nearest pixel, where it resizes bilinearly and
counts only pixels that are fully white.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tabzoo.benchmark.features import FeatureExtractor
from tabzoo.benchmark.methods.interface import ImageBatches, Scores, setting
from tabzoo.benchmark.methods.maps import smooth_upsample
from tabzoo.benchmark.methods.neighbours import k_center_greedy, squared_distances
from tabzoo.errors import InputError

__all__ = ["Patchcore", "PatchcoreSettings"]

_PROJECTED = 128
_SIGMA = 4.0


@dataclass(frozen=True, kw_only=True)
class PatchcoreSettings:
    """The reference's; the paper also gives the coresets of 25 % and 1 %."""

    share: float = setting(0.1, "share of the patches that the coreset keeps", most=1)
    neighbours: int = setting(9, "b of Equation 7, which weights image scores", least=1)


class Patchcore:
    """PatchCore with a coreset chosen on a random projection.

    Args:
        extractor: Its layers from fine to coarse.
        seed: Of the projection and of the first patch chosen.
        settings: Size of the coreset, and of the neighbourhoods.
    """

    def __init__(self, extractor: FeatureExtractor, seed: int, settings: PatchcoreSettings | None = None) -> None:
        self.extractor, self.seed = extractor, seed
        settings = settings or PatchcoreSettings()
        self.share, self.neighbours = settings.share, settings.neighbours
        self.settings: dict[str, object] = {
            "layers": list(extractor.layers),
            "share": self.share,
            "neighbours": self.neighbours,
            "projected": _PROJECTED,
            "sigma": _SIGMA,
        }
        self.bank = torch.empty(0)

    def fit(self, images: ImageBatches) -> None:
        """Chooses the coreset."""
        self.bank = patches = self._all_patches(images)  # The old bank goes first.
        generator = torch.Generator().manual_seed(self.seed)
        start = int(torch.randint(len(patches), (), generator=generator))
        projected = patches
        if patches.shape[1] > _PROJECTED:
            projected = patches @ torch.randn(patches.shape[1], _PROJECTED, generator=generator).to(patches)
        self.bank = patches[k_center_greedy(projected, max(1, int(self.share * len(patches))), start=start)]

    def score(self, images: Tensor) -> Scores:
        """Distances to the nearest patch of the coreset, upsampled and smoothed; image scores by Equation 7."""
        patches, (height, width) = self._patches(images)
        nearest = torch.cat([distances.argmin(1) for _, distances in squared_distances(patches, self.bank)])
        # Anew from the difference: the products above lose digits of small distances.
        distances = (patches - self.bank[nearest]).norm(dim=1).view(len(images), -1)
        grid = distances.view(-1, height, width)
        maps = smooth_upsample(grid, (images.shape[2], images.shape[3]), sigma=_SIGMA)
        farthest = distances.argmax(1, keepdim=True)
        rows = torch.arange(len(images), device=images.device)
        patch = patches.view(len(images), -1, patches.shape[1])[rows, farthest[:, 0]]
        weights = self._weights(patch, nearest.view(len(images), -1).gather(1, farthest)[:, 0])
        return Scores(weights * distances.amax(1), maps)

    def _weights(self, patches: Tensor, nearest: Tensor) -> Tensor:
        """Equation 7: 1 - softmax over the neighbours of the nearest one in the coreset, itself among them, [B]."""
        count = min(self.neighbours, len(self.bank))
        if count < 2:
            return patches.new_ones(len(patches))
        found = [
            part.topk(count, largest=False).indices for _, part in squared_distances(self.bank[nearest], self.bank)
        ]
        around = self.bank[torch.cat(found)]  # [B, b, C]
        distances = (patches[:, None] - around).norm(dim=2)
        own = (patches - self.bank[nearest]).norm(dim=1)
        return 1 - torch.exp(own - distances.logsumexp(1))

    def _all_patches(self, images: ImageBatches) -> Tensor:
        """Of all images, [N, C], written into one piece of memory: a list would need it twice for a moment."""
        everything, filled = None, 0
        for batch in images:
            patches, (height, width) = self._patches(batch)
            if everything is None:
                everything = patches.new_empty(len(images) * height * width, patches.shape[1])
            everything[filled : filled + len(patches)] = patches
            filled += len(patches)
        if everything is None:
            raise InputError("PatchCore: no images to fit to")
        return everything

    def _patches(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Mean over 3 x 3 positions, all layers at the finest one's grid: [B h w, C], and h and w."""
        layers = [F.avg_pool2d(features, 3, stride=1, padding=1) for features in self.extractor(images).values()]
        height, width = layers[0].shape[-2:]
        layers = [layers[0], *(F.interpolate(layer, size=(height, width), mode="bilinear") for layer in layers[1:])]
        return torch.cat(layers, dim=1).permute(0, 2, 3, 1).flatten(0, 2), (height, width)
