"""What a run keeps of each row to draw it again: raw anomaly maps of some images, these images, and the range of good ones.

`maps/kept/KEY.safetensors` holds the maps of a row and quantiles of all pixels of its good images' maps; the images are in a
file of their own, which rows share. That is some 0.6 MB a row and 1 MB a class at 224 px.
"""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from tabzoo.benchmark.class_images import EvaluationSet
from tabzoo.benchmark.kept_tensors import halved, read_kept_tensors
from tabzoo.errors import InputError
from tabzoo.system import whole_file

__all__ = ["LEVELS", "Kept", "keep_raw_maps", "read_kept"]

LEVELS = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.995, 0.999, 1.0)
"""Of the quantiles."""
_ROW, _IMAGES = {"maps", "quantiles"}, {"images", "masks", "has_mask"}


class Kept(NamedTuple):
    """What was kept of a row.

    Attributes:
        maps: float32 [K, H, W].
        quantiles: Level to quantile of the pixels of all good test images; empty if there are none.
        images: What the backbone saw, uint8 [K, H, W, 3].
        masks: uint8 [K, H, W], 0 and 1.
        has_mask: Whether a defect has a mask, [K].
        kinds: Kind of defect of each image, or "good".
        images_sha256: Of images and masks.
    """

    maps: NDArray[np.float32]
    quantiles: dict[float, float]
    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    has_mask: NDArray[np.bool_]
    kinds: list[str]
    images_sha256: str


def keep_raw_maps(folder: Path, key: str, evaluation: EvaluationSet, maps: Tensor, shown: Tensor) -> None:
    """Keeps the maps of some images, and the images.

    Args:
        folder: Where to.
        key: Of the row.
        evaluation: The test images, [N].
        maps: Of all of them, float32 [N, H, W].
        shown: Positions of the images to keep, [K].
    """
    positions = shown.numpy()
    images = {
        "images": evaluation.pixels(evaluation.rows[shown]).cpu().contiguous(),
        "masks": evaluation.masks[shown].byte().cpu().contiguous(),
        "has_mask": torch.from_numpy(evaluation.has_mask[positions]),
    }
    kinds = [evaluation.kinds[i] for i in positions]
    digest = hashlib.sha256(json.dumps(kinds).encode())
    for tensor in images.values():
        digest.update(tensor.numpy().tobytes())
    of_images = digest.hexdigest()
    if not (path := _images_path(folder, of_images)).exists():
        with whole_file(path) as file:
            save_file(images, str(file), metadata={"tabzoo": json.dumps({"kinds": kinds})})
    good = maps[torch.from_numpy(~evaluation.labels)].numpy()
    quantiles = torch.from_numpy(np.quantile(good, LEVELS)) if good.size else torch.empty(0, dtype=torch.float64)
    with whole_file(_row_path(folder, key)) as file:
        tensors = {"maps": halved(maps[shown]), "quantiles": quantiles}
        save_file(tensors, str(file), metadata={"tabzoo": json.dumps({"images_sha256": of_images})})


def read_kept(folder: Path, key: str) -> Kept | None:
    """What was kept of a row; None if it was measured by a version that kept no raw maps.

    Raises:
        InputError: A file is damaged.
    """
    if not (path := _row_path(folder, key)).is_file():
        return None
    row, about = read_kept_tensors(path, _ROW)
    of_images = str(about.get("images_sha256"))
    images, about = read_kept_tensors(_images_path(folder, of_images), _IMAGES)
    kinds, values = about.get("kinds"), row["quantiles"].tolist()
    if not isinstance(kinds, list) or not _fit(row, images, len(kinds)):
        raise InputError(f"{path}: does not fit its images; was it written by tabzoo?")
    return Kept(
        maps=row["maps"].float().numpy(),
        quantiles=dict(zip(LEVELS, values, strict=True)) if values else {},
        images=images["images"].numpy(),
        masks=images["masks"].numpy(),
        has_mask=images["has_mask"].bool().numpy(),
        kinds=[str(kind) for kind in kinds],
        images_sha256=of_images,
    )


def _fit(row: dict[str, Tensor], images: dict[str, Tensor], number: int) -> bool:
    """Whether all tensors have the shapes that `Kept` names, of so many images."""
    shape, quantiles = row["maps"].shape, row["quantiles"].shape
    shapes = (images["images"].shape, images["masks"].shape, images["has_mask"].shape)
    return (
        len(shape) == 3
        and shapes == ((number, *shape[1:], 3), (number, *shape[1:]), (number,))
        and shape[0] == number
        and quantiles in ((0,), (len(LEVELS),))
    )


def _row_path(folder: Path, key: str) -> Path:
    return folder / f"{key}.safetensors"


def _images_path(folder: Path, sha256: str) -> Path:
    return folder / f"images-{sha256[:16]}.safetensors"
