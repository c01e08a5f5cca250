"""Features of the test images before and after fine-tuning, kept with a row so that figures need no new training.

`features/KEY.safetensors` holds both in float16: 7,603 test images with 512 features each are 16 MB.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from tabzoo.benchmark.classify.rows import ClassifyRow
from tabzoo.benchmark.kept_tensors import halved, read_kept_tensors
from tabzoo.errors import InputError
from tabzoo.system import whole_file

__all__ = ["FEATURES", "KeptFeatures", "keep_features", "kept_path", "read_features"]

FEATURES = "features"
"""The folder."""
_STATES = {"before", "after"}
Array = NDArray[np.float64]


class KeptFeatures(NamedTuple):
    """Of the test images of a row, in the order of its `truth`.

    Attributes:
        before: Of the backbone as it was given, [N, D].
        after: Of the same after fine-tuning, [N, D].
    """

    before: Array
    after: Array


def kept_path(folder: Path, key: str) -> Path:
    """Where a row's features are, if they were kept."""
    return folder / FEATURES / f"{key}.safetensors"


def keep_features(folder: Path, key: str, *, before: Tensor, after: Tensor) -> None:
    """Writes the features of a row.

    Args:
        folder: Of the results.
        key: Of the row.
        before: float32 [N, D].
        after: The same.

    Raises:
        WriteError: They can't be written.
    """
    with whole_file(kept_path(folder, key)) as file:
        tensors = {"before": halved(before), "after": halved(after)}
        save_file(tensors, str(file), metadata={"tabzoo": json.dumps({"row": key})})


def read_features(folder: Path, row: ClassifyRow) -> KeptFeatures:
    """Reads the features of a row.

    Raises:
        InputError: The file is missing, damaged, or of other images.
    """
    tensors, about = read_kept_tensors(path := kept_path(folder, row.key), _STATES)
    before, after = (tensors[name].double().numpy() for name in ("before", "after"))
    if about.get("row") != row.key or before.ndim != 2 or before.shape != after.shape or len(before) != len(row.truth):
        raise InputError(f"{path}: does not fit its row; was it written by tabzoo?")
    return KeptFeatures(before, after)
