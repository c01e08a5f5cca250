"""The score and the map of a large photo, from its tiles, in memory that does not grow with the number of tiles.

At any time there are a batch of tiles, the statistics of one tile where PaDiM has some for each, and the photo's map.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tabzoo.data.images import Resampling
from tabzoo.detectors import Scores
from tabzoo.detectors.padim import Padim
from tabzoo.inspect.tensor_sets import TensorSets
from tabzoo.inspect.tiles import PhotoMap, TileGrid

__all__ = ["TileScore", "TiledVerdict", "score_by_position", "score_tiles"]

TileScore: TypeAlias = Callable[[Tensor, Sequence[int]], Scores]
"""From tiles, uint8 [B, size, size, 3], and their positions to scores [B] and maps [B, size, size]."""


class TiledVerdict(NamedTuple):
    """What the tiles of a photo say together.

    Attributes:
        score: The highest of all tiles.
        map: float32 [H, W], at the photo's size.
    """

    score: float
    map: NDArray[np.float32]


def score_tiles(
    photo: NDArray[np.uint8], grid: TileGrid, score: TileScore, *, size: int, resampling: Resampling, batch_size: int
) -> TiledVerdict:
    """Scores a photo [H, W, 3].

    Args:
        photo: The pixels.
        grid: Its tiles.
        score: Of a batch of tiles.
        size: Side that tiles are resized to.
        resampling: The filter for that.
        batch_size: Tiles at a time.
    """
    whole, highest = PhotoMap(grid), -np.inf
    for positions in grid.parts(batch_size):
        tiles = grid.cut(photo, positions, size=size, resampling=resampling)
        found = score(torch.from_numpy(tiles), positions)
        maps = found.anomaly_maps
        if size != grid.tile:
            maps = F.interpolate(maps[:, None], size=grid.tile, mode="bilinear")[:, 0]
        for position, values in zip(positions, maps.cpu().numpy(), strict=True):
            whole.add(position, values)
        highest = float(np.maximum(highest, float(found.image_scores.max())))  # not max(): of it and NaN, NaN
    return TiledVerdict(highest, whole.values)


def score_by_position(method: Padim, sets: TensorSets, images: Tensor, positions: Sequence[int]) -> Scores:
    """Scores tiles [B, 3, S, S] by the statistics of their positions.

    Args:
        method: PaDiM with the statistics of any position, whose channels are those of all; it is left with the last one's.
        sets: Its state for each position.
        images: The tiles, normalised.
        positions: Of each tile.
    """
    maps, parts = method.embed(images), []
    for row, position in enumerate(positions):
        method.load_state({name: value.to(images.device) for name, value in sets.read(position).items()})
        parts.append(method.score_maps([layer[row : row + 1] for layer in maps], (images.shape[2], images.shape[3])))
    return Scores(torch.cat([part.image_scores for part in parts]), torch.cat([part.anomaly_maps for part in parts]))
