"""Fits a detector to the tiles of large photos. Folds are of photos, so no tile of a photo helps to judge another of it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tabzoo.data.cache import Images
from tabzoo.detectors import DETECTORS
from tabzoo.detectors.extractor import FeatureExtractor
from tabzoo.detectors.padim import Padim
from tabzoo.detectors.patchcore import Patchcore
from tabzoo.inspect.features import OutOfFold
from tabzoo.inspect.large_photos import LargePhotos, TiledFit
from tabzoo.inspect.options import FitOptions
from tabzoo.inspect.tiled_padim import fit_positions
from tabzoo.inspect.tiled_patchcore import fit_bank
from tabzoo.system import num_cores

__all__ = ["fit_to_tiles"]


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
        folds: Of each photo, [N]; copies of a photo are in the same one.
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
