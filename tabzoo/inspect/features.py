"""Features of the good photos within the memory given, and scores of each photo by a detector that did not see it."""

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from tabzoo.detectors.batches import FrozenFeatures, NormalisedBatches
from tabzoo.detectors.padim import Padim
from tabzoo.detectors.patchcore import PROJECTED, Patchcore
from tabzoo.inspect.record import Scale
from tabzoo.synthesis.draws import permutation

__all__ = ["OutOfFold", "PhotoFeatures", "draw_patches", "score_out_of_fold"]

_PATCHES = 301  # stream of the draw of patches, distinct from all other streams
_AT_A_TIME = 32  # photos scored at a time

logger = logging.getLogger(__name__)


class PhotoFeatures:
    """Features of photos: computed once and kept if memory allows, else computed again each time.

    PatchCore's memory bank holds some patches of each photo where all of them would need more memory.

    Args:
        photos: The photos.
        detector: What to fit; it computes the features.
        hashes: Of the photos' files, [N]; the patches drawn depend on them and the seed.
        most_bytes: Of memory, for features, bank and projection.
        seed: Of the draw.

    Attributes:
        patches: Number of patches of each photo that the bank has; None: all, or the method has no bank.
    """

    def __init__(
        self,
        photos: NormalisedBatches,
        detector: Padim | Patchcore,
        hashes: NDArray[np.uint64],
        *,
        most_bytes: float,
        seed: int,
    ) -> None:
        self._hashes, self._seed = hashes, seed
        first = detector.embed(photos.take(torch.arange(1)))
        each, self.patches = float(sum(layer.nbytes for layer in first)), None
        fitting = each  # of one photo, in bytes
        if isinstance(detector, Patchcore):
            (layer,) = first
            patches, width = layer[..., 0].numel(), layer.shape[-1]
            fitting = each * (1 + detector.share) + (4 * patches * PROJECTED if width > PROJECTED else 0)
            if (share := most_bytes / (fitting * len(photos))) < 1:
                self.patches = max(1, int(share * patches))
                logger.warning(
                    "--max-memory: of each photo %d of %d patches are drawn for PatchCore's bank; all of them need %.1f GB",
                    self.patches,
                    patches,
                    fitting * len(photos) / 1e9,
                )
        kept = most_bytes - fitting * len(photos) if isinstance(detector, Patchcore) else most_bytes
        self._features = FrozenFeatures(photos, detector.embed, most_bytes=kept)

    def take(self, positions: Tensor) -> Sequence[Tensor]:
        """All features of some of the photos."""
        return self._features.take(positions)

    def to_fit(self, positions: Tensor) -> Iterator[Sequence[Tensor]]:
        """What a detector is fitted to: features of these photos, batch by batch."""
        for part in positions.split(_AT_A_TIME):
            maps = self.take(part)
            yield maps if self.patches is None else [self._drawn(maps[0], part, self.patches)]

    def _drawn(self, maps: Tensor, positions: Tensor, number: int) -> Tensor:
        drawn = []
        for one, position in zip(maps.flatten(1, -2), positions.tolist(), strict=True):
            drawn.append(one[draw_patches(self._seed, self._hashes[position], len(one), number).to(one.device)])
        return torch.stack(drawn)


def draw_patches(seed: int, file_hash: np.uint64, patches: int, number: int) -> Tensor:
    """Some of the patches of a photo: sorted indices, int64 [number], by the seed and the hash of its file."""
    return permutation(seed, int(file_hash >> np.uint64(1)), patches, _PATCHES)[:number].sort().values


class OutOfFold(NamedTuple):
    """What detectors that were not fitted to a photo say of it.

    Attributes:
        scores: float32 [N].
        scale: From the maps of all photos.
        photo_size: Height and width that all photos have, where PaDiM was fitted to each of their tiles; else None.
    """

    scores: NDArray[np.float32]
    scale: Scale
    photo_size: tuple[int, int] | None = None


def score_out_of_fold(
    detector: Padim | Patchcore, features: PhotoFeatures, folds: NDArray[np.int64], size: int
) -> OutOfFold:
    """Fits the detector to all folds but one, and scores the photos of that one; in turn.

    Args:
        detector: What to fit; it is left with the last of the fits.
        features: Of the photos.
        folds: Of each photo, [N].
        size: Side of the maps.
    """
    scores, middles, highest = np.empty(len(folds), np.float32), [], -np.inf
    for fold in tqdm(range(int(folds.max()) + 1), desc="folds", unit="fold", leave=False, disable=None):
        inside, outside = (torch.from_numpy(np.flatnonzero(of)) for of in (folds != fold, folds == fold))
        detector.fit_maps(features.to_fit(inside), len(inside))
        for part in outside.split(_AT_A_TIME):
            found = detector.score_maps(features.take(part), (size, size))
            scores[part.numpy()] = found.image_scores.cpu().numpy()
            maps = found.anomaly_maps.flatten(1)
            middles += maps.median(dim=1).values.tolist()
            highest = max(highest, float(maps.max()))
    low = float(np.median(middles))
    return OutOfFold(scores, Scale.of(low, highest))
