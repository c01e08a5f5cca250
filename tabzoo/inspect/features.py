"""Features of the good photos within the memory given, and scores of each photo by a detector that did not see it."""

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tabzoo.detectors.batches import FrozenFeatures, NormalisedBatches
from tabzoo.detectors.padim import Padim
from tabzoo.detectors.patchcore import Patchcore
from tabzoo.inspect.record import Scale
from tabzoo.progress import track
from tabzoo.synthesis.draws import permutation

__all__ = ["OutOfFold", "PhotoFeatures", "backbone_batch", "draw_patches", "score_out_of_fold"]

_PATCHES = 301  # stream of the draw of patches, distinct from all other streams
_OF_A_THREAD, _ON_A_CPU = 4, 8
"""Photos whose maps fit into a CPU's caches. With 32 at a time on a thread, ResNet-18 took 36 % longer than with 4, and
EfficientNet-Lite0 73 %. Up to 8, maps were those of single photos bit for bit, so the number of threads changes nothing."""
_LEAVE_ONE_OUT = 300
"""Up to so many photos, PaDiM leaves each out by itself: with fewer than channels, that takes the cube of their number."""

logger = logging.getLogger(__name__)


def backbone_batch(batch_size: int, device: torch.device) -> int:
    """How many of the photos of a batch pass the backbone at a time: on a CPU, few are faster."""
    if device.type != "cpu":
        return batch_size
    return min(batch_size, _OF_A_THREAD * torch.get_num_threads(), _ON_A_CPU)


class PhotoFeatures:
    """Features of photos: computed once and kept if memory allows, else computed again each time.

    PatchCore's memory bank holds some patches of each photo where all of them would need more memory.

    Args:
        photos: The photos.
        detector: What to fit; it computes the features.
        hashes: Of the photos' files, [N]; the patches drawn depend on them and the seed.
        batch_size: Photos at a time.
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
        batch_size: int = 32,
        most_bytes: float,
        seed: int,
    ) -> None:
        self.hashes, self.batch_size, self._seed = hashes, batch_size, seed
        first = detector.embed(photos.take(torch.arange(1)))
        each, self.patches = float(sum(layer.nbytes for layer in first)), None
        fitting = each  # of one photo, in bytes
        if isinstance(detector, Patchcore):
            (layer,) = first
            patches, width, projected = layer[..., 0].numel(), layer.shape[-1], detector.projected
            fitting = each * (1 + detector.share) + (4 * patches * projected if width > projected else 0)
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
        if not self.kept:
            logger.warning(
                "--max-memory: features are computed anew for each fold, since they need %.1f GB",
                each * len(photos) / 1e9,
            )

    @property
    def kept(self) -> bool:
        """Whether they are in memory."""
        return self._features.kept

    def take(self, positions: Tensor) -> Sequence[Tensor]:
        """All features of some of the photos."""
        return self._features.take(positions)

    def to_fit(self, positions: Tensor) -> Iterator[Sequence[Tensor]]:
        """What a detector is fitted to: features of these photos, batch by batch."""
        for part in positions.split(self.batch_size):
            maps = self.take(part)
            yield maps if self.patches is None else [self._drawn(maps[0], part, self.patches)]

    def _drawn(self, maps: Tensor, positions: Tensor, number: int) -> Tensor:
        drawn = []
        for one, position in zip(maps.flatten(1, -2), positions.tolist(), strict=True):
            drawn.append(one[draw_patches(self._seed, self.hashes[position], len(one), number).to(one.device)])
        return torch.stack(drawn)


def draw_patches(seed: int, file_hash: np.uint64, patches: int, number: int) -> Tensor:
    """Some of the patches of a photo: sorted indices, int64 [number], by the seed and the hash of its file."""
    return permutation(seed, int(file_hash >> np.uint64(1)), patches, _PATCHES)[:number].sort().values


class OutOfFold(NamedTuple):
    """What detectors that were not fitted to a photo say of it.

    Attributes:
        scores: float32 [N].
        folds: Number of folds.
        scale: From the maps of all photos.
        photo_size: Height and width that all photos have, where PaDiM was fitted to each of their tiles; else None.
    """

    scores: NDArray[np.float32]
    folds: int
    scale: Scale
    photo_size: tuple[int, int] | None = None


def score_out_of_fold(
    detector: Padim | Patchcore, features: PhotoFeatures, folds: NDArray[np.int64], size: int
) -> OutOfFold:
    """Scores each photo by a detector that is fitted to the photos of other folds.

    PaDiM leaves each photo out by itself where it can, for the cost of one fit, whatever the folds; copies count as one.

    Args:
        detector: What to fit; what it is fitted to afterwards says nothing.
        features: Of the photos.
        folds: Of each photo, [N]; copies of a photo are in the same one.
        size: Side of the maps.
    """
    _, different, same = np.unique(features.hashes, return_index=True, return_inverse=True)
    if isinstance(detector, Padim) and features.kept and len(different) <= _LEAVE_ONE_OUT:
        found = detector.leave_one_out(features.take(torch.from_numpy(different)), (size, size))
        scores = found.image_scores.cpu().numpy()[same.reshape(-1)]
        return OutOfFold(scores, len(different), _scale([_summary(found.anomaly_maps)]))
    scores, maps = np.empty(len(folds), np.float32), []
    for fold in track(range(number := int(folds.max()) + 1), number, "folds", unit="fold"):
        inside, outside = (torch.from_numpy(np.flatnonzero(of)) for of in (folds != fold, folds == fold))
        detector.fit_maps(features.to_fit(inside), len(inside))
        for part in outside.split(features.batch_size):
            found = detector.score_maps(features.take(part), (size, size))
            scores[part.numpy()] = found.image_scores.cpu().numpy()
            maps.append(_summary(found.anomaly_maps))
    return OutOfFold(scores, number, _scale(maps))


def _summary(maps: Tensor) -> Tensor:
    """Median and highest value of each map, [B, 2]."""
    flat = maps.flatten(1)
    return torch.stack([flat.median(dim=1).values, flat.amax(dim=1)], dim=1).cpu()


def _scale(summaries: Sequence[Tensor]) -> Scale:
    medians, highest = torch.cat(list(summaries)).double().unbind(1)
    low = float(medians.median())
    return Scale.of(low, float(highest.max()))
