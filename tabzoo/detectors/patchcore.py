"""PatchCore: distances of patch features to the nearest of a coreset of normal ones.

Roth et al., "Towards Total Recall in Industrial Anomaly Detection", arXiv 2106.08265. Facts from
amazon-science/patchcore-inspection @ fcaa92f (Apache-2.0).
Differs from it in:

- A patch is the mean of its 3 x 3 positions for each channel. The public code pools the C * 9 numbers of these positions to
  1,024 for each layer, and those of all layers to 1,024 again, which mixes channels: `width` 1024 does the same.
- The greedy choice of the coreset is exact, where it estimates distances from ten random points; the projection for it is
  Gaussian, where its matrix is uniform.
- Maps hold distances, where its hold squared distances, smoothed; this changes the ranking hardly at all.
- Image scores are weighted by the neighbourhood (Equation 7), which it leaves out.
- Maps and scores are not min-max scaled, which changes no ranking; neighbours are found in plain torch.
- Images are squashed to a square, where it scales the shorter side; masks are resized to the nearest pixel, where it resizes
  bilinearly and counts only pixels that are fully white, so that its thin defects are a fifth smaller.
- Its AUPRO: see tabzoo/benchmark/metrics.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tabzoo.compute import to_device
from tabzoo.detectors.extractor import FeatureExtractor
from tabzoo.detectors.interface import ImageBatches, Scores, setting
from tabzoo.detectors.maps import smooth_upsample
from tabzoo.detectors.neighbours import k_center_greedy, squared_distances
from tabzoo.detectors.patches import WIDEST, embed
from tabzoo.errors import InputError

__all__ = ["Patchcore", "PatchcoreSettings"]

_PROJECTED = 128
_SIGMA = 4.0
_BANK = "bank"


@dataclass(frozen=True, kw_only=True)
class PatchcoreSettings:
    """The reference's; the paper also has results for coresets of 25 % and 1 %."""

    share: float = setting(0.1, "Fraction of the patches of the good images to keep: the coreset.", most=1, above=True)
    neighbours: int = setting(9, "Number of neighbours that weight an image's score (b in Equation 7).", least=1)
    width: int | None = setting(
        None,
        "Pool patches to N numbers; the public code: 1024. If not given: means of each channel.",
        least=1,
        most=WIDEST,
    )


class Patchcore:
    """PatchCore with a coreset chosen on a random projection.

    Args:
        extractor: Its layers from fine to coarse.
        seed: Of the projection and of the first patch chosen.
        settings: Size of the coreset and of the neighbourhoods, length of a patch's features.
    """

    def __init__(self, extractor: FeatureExtractor, seed: int, settings: PatchcoreSettings | None = None) -> None:
        self.extractor, self.seed = extractor, seed
        settings = settings or PatchcoreSettings()
        self.share, self.neighbours, self.width = settings.share, settings.neighbours, settings.width
        self.projected = _PROJECTED
        self.settings: dict[str, object] = {
            "layers": list(extractor.layers),
            "share": self.share,
            "neighbours": self.neighbours,
            "projected": self.projected,
            "sigma": _SIGMA,
        }
        if self.width is not None:  # rows without it keep their keys
            self.settings["width"] = self.width
        self.bank = torch.empty(0)

    def fit(self, images: ImageBatches) -> None:
        """Gathers the patch features of all images in a memory bank M (Equation 4) and keeps a coreset of it (Equation 5).

        M_C* = argmin_{M_C in M} max_{m in M} min_{n in M_C} ||m - n||,  chosen greedily on a random projection
        """
        self.fit_maps(map(self.embed, images), len(images))

    def fit_maps(self, batches: Iterable[Sequence[Tensor]], count: int) -> None:
        """The same from what `embed` returned for `count` images, or from some of the patches: [B, ..., C] each."""
        self.bank = memory = _memory_bank(batches, count)  # An earlier bank is freed before the new one is reduced.
        generator = torch.Generator().manual_seed(self.seed)
        start = int(torch.randint(len(memory), (), generator=generator))
        projected = memory
        if memory.shape[1] > self.projected:
            projection = torch.randn(memory.shape[1], self.projected, generator=generator)
            projected = memory @ to_device(projection.to(memory.dtype), memory.device)
        self.bank = memory[k_center_greedy(projected, max(1, int(self.share * len(memory))), start=start)]

    def score(self, images: Tensor) -> Scores:
        """Distances of patches to the nearest patch of the bank, upsampled and smoothed; image scores by Equations 6 and 7.

        s* = ||m_test* - m*||,  where m_test* is the image's patch that is farthest from the bank, and m* its nearest there
        """
        return self.score_maps(self.embed(images), (images.shape[2], images.shape[3]))

    def score_maps(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Scores:
        """The same from what `embed` returned for images of this size."""
        (patches,) = maps
        count, height, width = patches.shape[:3]
        patches = patches.flatten(0, 2)
        nearest = torch.cat([distances.argmin(1) for _, distances in squared_distances(patches, self.bank)])
        # Computed again from the difference: the products that found the nearest lose digits of small distances.
        distances = (patches - self.bank[nearest]).norm(dim=1).view(count, -1)  # [B, h w]
        smooth = smooth_upsample(distances.view(-1, height, width), size, sigma=_SIGMA)
        farthest = distances.argmax(1, keepdim=True)  # [B, 1]
        rows = torch.arange(count, device=patches.device)
        m_test = patches.view(count, -1, patches.shape[1])[rows, farthest[:, 0]]
        m_star = nearest.view(count, -1).gather(1, farthest)[:, 0]
        return Scores(self._weights(m_test, m_star) * distances.amax(1), smooth)

    def _weights(self, m_test: Tensor, m_star: Tensor) -> Tensor:
        """How rare the nearest patch is among its own neighbours (Equation 7), [B].

        w = 1 - exp ||m_test* - m*|| / sum_{m in N_b(m*)} exp ||m_test* - m||,  N_b(m*) the b nearest of m*, with itself

        Args:
            m_test: The farthest patch of each image, [B, C].
            m_star: Index of its nearest patch in the bank, [B].
        """
        count = min(self.neighbours, len(self.bank))
        if count < 2:
            return m_test.new_ones(len(m_test))
        found = [part.topk(count, largest=False).indices for _, part in squared_distances(self.bank[m_star], self.bank)]
        around = self.bank[torch.cat(found)]  # [B, b, C]
        distances = (m_test[:, None] - around).norm(dim=2)
        own = (m_test - self.bank[m_star]).norm(dim=1)
        return 1 - torch.exp(own - distances.logsumexp(1))

    def embed(self, images: Tensor) -> list[Tensor]:
        """Locally aware patch features (Equation 2): of 3 x 3 positions, all layers on the finest one's grid, [B, h, w, C]."""
        features = list(self.extractor(images).values())
        height, width = features[0].shape[-2:]
        if self.width is not None:
            return [embed(features, self.width)]
        layers = [F.avg_pool2d(layer, 3, stride=1, padding=1) for layer in features]
        layers = [layers[0], *(F.interpolate(layer, size=(height, width), mode="bilinear") for layer in layers[1:])]
        return [torch.cat(layers, dim=1).permute(0, 2, 3, 1).contiguous()]

    def state(self) -> dict[str, Tensor]:
        """All that was fitted, by name: the coreset."""
        return {_BANK: self.bank}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes the place of `fit`: scores are those of the detector whose state it is.

        Raises:
            InputError: It is not the state of a PatchCore on these layers.
        """
        width = self.width or sum(self.extractor.channels.values())
        bank = state.get(_BANK, torch.empty(0))
        if set(state) != {_BANK} or bank.ndim != 2 or not len(bank) or bank.shape[1] != width:
            found = ", ".join(f"{name} {tuple(value.shape)}" for name, value in state.items())
            raise InputError(f"PatchCore: expected patches [N, {width}] as {_BANK!r}, got {found[:200]}")
        if bank.dtype != torch.float32:
            raise InputError(f"PatchCore: {_BANK!r} is {bank.dtype}; expected {torch.float32}")
        self.bank = bank


def _memory_bank(batches: Iterable[Sequence[Tensor]], count: int) -> Tensor:
    """Patches of `count` images, [N, C], written into one piece of memory: a list would need it twice for a moment."""
    memory, filled = None, 0
    for (maps,) in batches:
        patches = maps.flatten(0, -2)
        if memory is None:
            memory = patches.new_empty(count * (len(patches) // len(maps)), patches.shape[1])
        memory[filled : filled + len(patches)] = patches
        filled += len(patches)
    if memory is None:
        raise InputError("PatchCore: no images to fit to")
    return memory
