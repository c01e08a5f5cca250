"""Fits a detector to the tiles of large photos. Folds are of photos, so no tile of a photo helps to judge another of it.

PaDiM is fitted to one position of a tile after another. PatchCore has one bank for the tiles of all photos.
"""

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from tabzoo.data.cache import Images
from tabzoo.detectors import DETECTORS, Scores
from tabzoo.detectors.batches import NormalisedBatches
from tabzoo.detectors.extractor import FeatureExtractor
from tabzoo.detectors.neighbours import squared_distances
from tabzoo.detectors.padim import Padim
from tabzoo.detectors.patchcore import PROJECTED, Patchcore
from tabzoo.errors import InputError
from tabzoo.inspect.features import OutOfFold, PhotoFeatures, draw_patches, score_out_of_fold
from tabzoo.inspect.large_photos import LargePhotos, TileFile, check_photo_size
from tabzoo.inspect.options import FitOptions
from tabzoo.inspect.record import Scale
from tabzoo.inspect.tensor_sets import write_sets
from tabzoo.inspect.tiled_scores import score_tiles
from tabzoo.inspect.tiles import TileGrid
from tabzoo.system import num_cores

__all__ = ["MOST_FOLDS", "TiledFit", "fit_bank", "fit_positions", "fit_to_tiles"]

MOST_FOLDS = 5
"""At most: each costs PatchCore a coreset, and PaDiM Gaussians at all positions."""
_PATIENCE = 120.0  # seconds; what takes longer is announced

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TiledFit:
    """What to fit to, and how.

    Attributes:
        photos: The good photos.
        hashes: Of their files, [N].
        folds: Of each photo, [N].
        device: Where to compute.
        mean: Of the normalisation.
        std: The same.
        batch_size: Tiles at a time.
        max_memory: In GB.
        seed: Of the draw of patches.
    """

    photos: LargePhotos
    hashes: NDArray[np.uint64]
    folds: NDArray[np.int64]
    device: torch.device
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch_size: int
    max_memory: float
    seed: int

    def normalised(self, tiles: Tensor) -> Tensor:
        """Tiles uint8 [B, S, S, 3] as the backbone takes them, float32 [B, 3, S, S]."""
        pixels, rows = tiles.to(self.device), torch.arange(len(tiles))
        return NormalisedBatches(lambda _: pixels, rows, batch_size=len(rows), mean=self.mean, std=self.std).take(rows)


def fit_to_tiles(
    options: FitOptions,
    network: FeatureExtractor,
    method: Padim | Patchcore,
    images: Images,
    rows: NDArray[np.int64],
    folds: NDArray[np.int64],
    *,
    state: Path,
) -> OutOfFold:
    """Fits a method to the tiles of photos, in their own size.

    Args:
        options: How, with `tiling`.
        network: The backbone.
        method: What to fit.
        images: Photos, of which `rows` are fitted to, [N].
        rows: As said.
        folds: Of each photo, [N].
        state: A new file for the state of PaDiM at each position.

    Raises:
        InputError: As `fit_positions` and `fit_bank` say.
    """
    assert options.tiling is not None
    photos = LargePhotos(
        [images.samples.path(row) for row in rows.tolist()],
        tiling=options.tiling,
        size=options.side,
        resampling=DETECTORS[options.method].resampling,
        white_level=options.white_level,
        workers=num_cores() if options.workers is None else options.workers,
    )
    fit = TiledFit(
        photos=photos,
        hashes=images.hashes[rows],
        folds=folds,
        device=network.device,
        mean=network.mean,
        std=network.std,
        batch_size=options.batch_size,
        max_memory=options.max_memory,
        seed=options.seed,
    )
    return fit_bank(method, fit) if isinstance(method, Patchcore) else fit_positions(method, fit, state)


def fit_positions(method: Padim, fit: TiledFit, state: Path) -> OutOfFold:
    """Fits PaDiM to one position after another, and writes the state of each.

    Args:
        method: What to fit; it is left fitted to the last position.
        fit: To what.
        state: A new file for the states; tiles are kept beside it meanwhile.

    Raises:
        InputError: The states take more than `max_memory`, or there is too little space on the disk; a photo of another size.
        WriteError: A file can't be written.
    """
    photos, size = fit.photos, fit.photos.size
    ((_, first),) = photos.read([0])
    grid = photos.grid(0, first)
    _check_space(method, fit, grid, state.parent)
    scores, lows, highest = np.full(len(photos), -np.inf, np.float32), [], -np.inf

    def states(tiles: TileFile) -> Iterator[dict[str, Tensor]]:
        nonlocal highest
        everything = torch.arange(len(photos))
        for position in tqdm(range(grid.count), desc="tiles", unit="tile", leave=False, disable=None):
            batches = NormalisedBatches(
                partial(tiles.read, position, device=fit.device),
                everything,
                batch_size=fit.batch_size,
                mean=fit.mean,
                std=fit.std,
            )
            features = PhotoFeatures(batches, method, fit.hashes, most_bytes=1e9 * fit.max_memory, seed=fit.seed)
            found = score_out_of_fold(method, features, fit.folds, size)
            np.maximum(scores, found.scores, out=scores)
            lows.append(found.scale.low)
            highest = max(highest, found.scale.highest)
            method.fit_maps(features.to_fit(everything), len(photos))
            yield method.state()

    with closing(_all_tiles(fit, grid, state.with_suffix(".tiles"))) as tiles:
        write_sets(state, states(tiles), count=grid.count)
    return OutOfFold(scores, Scale.of(float(np.median(lows)), highest), (grid.height, grid.width))


def _all_tiles(fit: TiledFit, grid: TileGrid, path: Path) -> TileFile:
    """The tiles of all photos, on the disk."""
    photos = fit.photos
    tiles = TileFile(path, positions=grid.count, photos=len(photos), size=photos.size)
    for row, photo in tqdm(
        photos.read(range(len(photos))), total=len(photos), desc="photos", leave=False, disable=None
    ):
        check_photo_size(photo.shape, (grid.height, grid.width), shown=str(photos.paths[row]))
        for positions in grid.parts(fit.batch_size):
            for position, tile in zip(positions, photos.cut(grid, photo, positions), strict=True):
                tiles.write(position, row, tile.numpy())
    return tiles


def _check_space(method: Padim, fit: TiledFit, grid: TileGrid, folder: Path) -> None:
    """Checks that there is room for the statistics of all positions, from those of one that is fitted to blank tiles."""
    photos = fit.photos
    blank = method.embed(fit.normalised(torch.zeros(1, photos.size, photos.size, 3, dtype=torch.uint8)))
    parts = torch.arange(len(photos)).split(fit.batch_size)
    method.fit_maps(([layer.expand(len(part), -1, -1, -1) for layer in blank] for part in parts), len(photos))
    needed = grid.count * sum(tensor.nbytes for tensor in method.state().values())
    tiling, tiles = photos.tiling, grid.count * len(photos) * photos.size**2 * 3
    if needed > 1e9 * fit.max_memory:
        raise InputError(
            f"--tile {tiling.tile} --overlap {tiling.overlap}: PaDiM keeps statistics for each of {grid.count} tiles of a "
            f"photo of {grid.width} x {grid.height} pixels, {needed / 1e9:.1f} GB in all; --max-memory is {fit.max_memory:g}. "
            f"Type --method patchcore, which has one bank for all tiles, or --size {photos.size // 2}, which makes "
            f"tiles smaller before the backbone sees them, or a larger --tile with --size {photos.size}, or "
            f"--max-memory {needed / 1e9 + 0.05:.1f}."
        )
    if needed + tiles > (free := shutil.disk_usage(folder).free):
        raise InputError(
            f"{folder}: {free / 1e9:.1f} GB are free; expected {(needed + tiles) / 1e9:.1f} GB, {needed / 1e9:.1f} for the "
            f"statistics of all tiles, and {tiles / 1e9:.1f} for the tiles of all photos while fitting"
        )


def fit_bank(method: Patchcore, fit: TiledFit) -> OutOfFold:
    """Fits PatchCore to patches of the tiles of all photos.

    Args:
        method: What to fit.
        fit: To what.

    Raises:
        InputError: A photo is smaller than a tile.
    """
    photos, rows = fit.photos, np.arange(len(fit.photos))
    patches, most = _patches(method, fit)
    banks = int(fit.folds.max()) + 2
    _announce(method, patches, banks, most)
    scores, lows, highest = np.empty(len(photos), np.float32), [], -np.inf

    def fitted_to(chosen: NDArray[np.int64]) -> None:
        # A patch at a time is an "image": photos may have different numbers of them.
        method.fit_maps(([patches[row][:, None]] for row in chosen), sum(len(patches[row]) for row in chosen))

    def score(tiles: Tensor, _: object) -> Scores:
        return method.score(fit.normalised(tiles))

    for fold in tqdm(range(banks - 1), desc="folds", unit="fold", leave=False, disable=None):
        fitted_to(rows[fit.folds != fold])
        for row, photo in photos.read(rows[fit.folds == fold].tolist()):
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
    return OutOfFold(scores, Scale.of(float(np.median(lows)), highest))


def _patches(method: Patchcore, fit: TiledFit) -> tuple[list[Tensor], int]:
    """Patches of each photo, [n, C], as many as memory allows; and the largest number that a photo has."""
    photos, kept, most = fit.photos, [], 0
    for row, photo in tqdm(
        photos.read(range(len(photos))), total=len(photos), desc="photos", leave=False, disable=None
    ):
        grid = photos.grid(row, photo)
        parts: list[Tensor] = []
        for positions in grid.parts(fit.batch_size):
            (maps,) = method.embed(fit.normalised(photos.cut(grid, photo, positions)))
            each, width = maps[0, ..., 0].numel(), maps.shape[-1]
            total = grid.count * each
            # Of each patch: in a photo's list, in the bank, in its projection and in the coreset.
            allowed = 1e9 * fit.max_memory / len(photos) / (4 * width * (2 + method.share) + 4 * PROJECTED)
            number = max(1, min(total, int(allowed)))
            chosen = draw_patches(fit.seed, fit.hashes[row], total, number)
            start = positions[0] * each
            inside = chosen[(chosen >= start) & (chosen < start + each * len(positions))] - start
            parts.append(maps.flatten(0, -2)[inside.to(maps.device)])
        kept.append(torch.cat(parts))
        most = max(most, total)
    drawn = sum(map(len, kept))
    if number < total:
        logger.warning(
            "--max-memory: PatchCore's bank has %s patches, up to %s of the %s of a photo",
            *(f"{value:,}" for value in (drawn, number, total)),
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
    choosing = banks * rate * total * coreset * min(PROJECTED, sample.shape[1])
    scoring = rate * most * coreset * sample.shape[1]
    if choosing + len(patches) * scoring > _PATIENCE:
        logger.warning(
            "PatchCore chooses %s of %s patches %d times, once for each fold of photos and once for all: about %.0f minutes. "
            "Distances to them take %.0f seconds for a photo. --patchcore-share %g or a smaller --max-memory takes less.",
            *(f"{coreset:,}", f"{total:,}", banks, choosing / 60, scoring, method.share / 10),
        )
