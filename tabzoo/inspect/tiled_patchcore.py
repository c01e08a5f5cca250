"""Fits PatchCore to the tiles of large photos: one bank for all tiles of all photos."""

import logging
import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from tabzoo.detectors import Scores
from tabzoo.detectors.neighbours import squared_distances
from tabzoo.detectors.patchcore import Patchcore
from tabzoo.inspect.features import OutOfFold, draw_patches
from tabzoo.inspect.large_photos import TiledFit
from tabzoo.inspect.record import Scale
from tabzoo.inspect.tiled_scores import score_tiles

__all__ = ["fit_bank"]

_PATIENCE = 120.0  # seconds; what takes longer is announced

logger = logging.getLogger(__name__)


def fit_bank(method: Patchcore, fit: TiledFit) -> OutOfFold:
    """Fits PatchCore to patches of the tiles of all photos.

    Args:
        method: What to fit.
        fit: To what.

    Raises:
        InputError: A photo is smaller than a tile.
    """
    photos, rows = fit.photos, np.arange(len(fit.photos))
    folds, number = fit.folds, int(fit.folds.max()) + 1
    patches, most = _patches(method, fit)
    _announce(method, patches, number + 1, most)
    scores, lows, highest = np.empty(len(photos), np.float32), [], -np.inf

    def fitted_to(chosen: NDArray[np.int64]) -> None:
        # A patch at a time is an "image": photos may have different numbers of them.
        method.fit_maps(([patches[row][:, None]] for row in chosen), sum(len(patches[row]) for row in chosen))

    def score(tiles: Tensor, _: object) -> Scores:
        return method.score(fit.normalised(tiles))

    for fold in tqdm(range(number), desc="folds", unit="fold", leave=False, disable=None):
        fitted_to(rows[folds != fold])
        for row, photo in photos.read(rows[folds == fold].tolist()):
            found = score_tiles(
                *(photo, photos.grid(row, photo), score),
                size=photos.size,
                resampling=photos.resampling,
                batch_size=fit.batch_size,
            )
            scores[row] = found.score
            lows.append(float(np.median(found.map)))
            highest = max(highest, float(found.map.max()))
    fitted_to(rows)
    return OutOfFold(scores, number, Scale.of(float(np.median(lows)), highest))


def _patches(method: Patchcore, fit: TiledFit) -> tuple[list[Tensor], int]:
    """Patches of each photo, [n, C], as many as memory allows; and the largest number that a photo has."""
    photos, kept, most, short = fit.photos, [], 0, False
    for row, photo in tqdm(
        photos.read(range(len(photos))), total=len(photos), desc="photos", leave=False, disable=None
    ):
        grid = photos.grid(row, photo)
        parts: list[Tensor] = []
        for positions in grid.parts(fit.batch_size):
            (maps,) = method.embed(fit.normalised(photos.cut(grid, photo, positions)))
            each, width = maps[0, ..., 0].numel(), maps.shape[-1]
            if not parts:
                total = grid.count * each
                # Of each patch: in a photo's list, in the bank, in its projection and in the coreset.
                allowed = 1e9 * fit.max_memory / len(photos) / (4 * width * (2 + method.share) + 4 * method.projected)
                number = max(1, min(total, int(allowed)))
                chosen = draw_patches(fit.seed, fit.hashes[row], total, number)
            start = positions[0] * each
            inside = chosen[(chosen >= start) & (chosen < start + each * len(positions))] - start
            parts.append(maps.flatten(0, -2)[inside.to(maps.device)])
        kept.append(torch.cat(parts))
        most, short = max(most, total), short or number < total
    drawn = sum(map(len, kept))
    if short:
        logger.warning(
            "--max-memory: PatchCore's bank has %s patches, up to %s of up to %s of a photo",
            *(f"{value:,}" for value in (drawn, max(map(len, kept)), most)),
        )
    return kept, most


def _announce(method: Patchcore, patches: list[Tensor], banks: int, most: int) -> None:
    """Says how long coresets take, and a photo, where that is long."""
    sample = patches[0][:2048]
    start = time.perf_counter()
    checked = sum(float(distances.sum()) for _, distances in squared_distances(sample, sample))
    rate = (time.perf_counter() - start) / (len(sample) ** 2 * sample.shape[1])  # seconds for a product
    assert checked >= 0
    total = sum(map(len, patches))
    coreset = max(1, int(method.share * total))
    choosing = banks * rate * total * coreset * min(method.projected, sample.shape[1])
    scoring = rate * most * coreset * sample.shape[1]
    if choosing + len(patches) * scoring > _PATIENCE:
        logger.warning(
            "PatchCore chooses %s of %s patches %d times, once for each fold of photos and once for all: about %.0f minutes. "
            "Distances to them take %.0f seconds for a photo. --patchcore-share %g or a smaller --max-memory takes less.",
            *(f"{coreset:,}", f"{total:,}", banks, choosing / 60, scoring, method.share / 10),
        )
