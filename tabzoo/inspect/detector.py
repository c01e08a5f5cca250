"""A fitted detector, ready for photos: `load_detector(DIR)` -> `detector(photos)` -> scores and maps."""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from tabzoo.compute import choose_device, deterministic
from tabzoo.detectors import DETECTORS, Scores
from tabzoo.detectors.batches import NormalisedBatches
from tabzoo.detectors.extractor import FeatureExtractor
from tabzoo.detectors.padim import Padim
from tabzoo.detectors.patchcore import Patchcore
from tabzoo.errors import InputError, TabzooError, WeightsError, brief
from tabzoo.inspect.folder import BACKBONE, RECORD, STATE, read_detector
from tabzoo.inspect.large_photos import check_photo_size
from tabzoo.inspect.prepare import Photo, prepare
from tabzoo.inspect.rebuild import rebuild
from tabzoo.inspect.record import DetectorRecord
from tabzoo.inspect.tensor_sets import TensorSets
from tabzoo.inspect.tiled_scores import TiledVerdict, score_by_position, score_tiles
from tabzoo.inspect.tiles import Tiling

__all__ = ["InspectionDetector", "Verdicts", "build_method", "load_detector"]

_TOLERANCE = {"off": 1e-3, "bf16": 5e-2}
"""How far, relative to the threshold, the score of a grey photo may be from that at the time of fitting."""
_GREY = 128


class Verdicts(NamedTuple):
    """Scores and maps of photos; the unit is the method's distance, and higher is more anomalous.

    Attributes:
        scores: float32 [N].
        maps: For each photo float32 [h, w] at the detector's own size, or with tiles at the photo's.
    """

    scores: NDArray[np.float32]
    maps: list[NDArray[np.float32]]


class InspectionDetector:
    """A detector that was fitted to good photos.

    Args:
        record: What it is.
        network: Its backbone.
        detector: The method, fitted.
        positions: The states of the method for each position of a tile, if it is PaDiM with tiles.
        batch_size: Photos, or tiles of a photo, that pass the backbone at a time.

    Attributes:
        record: What it is: settings, threshold, provenance.
        threshold: Photos with a higher score are defective.
        network: Its backbone.
        detector: The method, fitted; with `positions` to one of them.
        tiling: How photos are cut into tiles, or None: whole photos.
    """

    def __init__(
        self,
        record: DetectorRecord,
        network: FeatureExtractor,
        detector: Padim | Patchcore,
        *,
        positions: TensorSets | None = None,
        batch_size: int = 8,
    ) -> None:
        self.record, self.network, self.detector, self.batch_size = record, network, detector, batch_size
        self.threshold = record.threshold.value
        self.tiling = None if record.tile is None else Tiling(record.tile, record.overlap or 0)
        self._positions = positions
        self._good = np.array(record.good_scores)

    def __call__(self, images: Photo | Iterable[Photo]) -> Verdicts:
        """Scores photos of any size; with tiles, the maps of large photos are large too: give one at a time.

        Args:
            images: A path, a Pillow image or uint8 RGB pixels [H, W, 3], or a sequence of them.

        Raises:
            ImageError: A file can't be read.
            InputError: Something else is given. With tiles: a photo that is smaller than a tile, or, for PaDiM, of another
                size than those that it was fitted to.
        """
        one = isinstance(images, str | os.PathLike | Image.Image) or (
            isinstance(images, np.ndarray) and images.ndim < 4
        )
        photos: list[Any] = [images] if one else list(images)  # type: ignore[arg-type]
        if self.tiling is not None:
            verdicts = [self._of_tiles(photo) for photo in photos]
            return Verdicts(np.array([one.score for one in verdicts], np.float32), [one.map for one in verdicts])
        scores: list[NDArray[np.float32]] = []
        maps: list[NDArray[np.float32]] = []
        for start in range(0, len(photos), self.batch_size):
            pixels = [self.prepare(photo) for photo in photos[start : start + self.batch_size]]
            found = self.score_prepared(torch.from_numpy(np.stack(pixels)))
            scores.append(found.image_scores.cpu().numpy())
            maps += list(found.anomaly_maps.cpu().numpy())
        return Verdicts(np.concatenate(scores) if scores else np.empty(0, np.float32), maps)

    def prepare(self, photo: Photo) -> NDArray[np.uint8]:
        """A photo as the detector looks at it, uint8 [size, size, 3]."""
        record = self.record
        return prepare(photo, record.size, record.resampling, white_level=record.white_level)

    def _of_tiles(self, photo: Photo) -> TiledVerdict:
        record = self.record
        assert self.tiling is not None
        pixels = prepare(photo, None, record.resampling, white_level=record.white_level)
        shown = str(photo) if isinstance(photo, str | os.PathLike) else getattr(photo, "filename", "") or "a photo"
        if record.photo_size is not None:
            check_photo_size(pixels.shape, record.photo_size, shown=shown)
        grid = self.tiling.grid(*pixels.shape[:2], shown=shown)
        facts: Any = {"size": record.size, "resampling": record.resampling, "batch_size": self.batch_size}
        return score_tiles(pixels, grid, lambda tiles, where: self.score_prepared(tiles, positions=where), **facts)

    def score_prepared(self, batch: Tensor, *, positions: Sequence[int] | None = None) -> Scores:
        """Scores prepared photos, or tiles.

        Args:
            batch: uint8 [B, size, size, 3].
            positions: Of tiles in their photos, row by row; only PaDiM with tiles needs them.

        Returns:
            Scores [B] and maps [B, size, size], on the detector's device.

        Raises:
            InputError: The positions are missing.
        """
        record, device = self.record, self.network.device
        rows = torch.arange(len(batch))
        pixels = batch.to(device)
        batches = NormalisedBatches(lambda _: pixels, rows, batch_size=len(batch), mean=record.mean, std=record.std)
        images = batches.take(rows)
        if self._positions is None:
            return self.detector.score(images)
        if positions is None:
            raise InputError(
                "PaDiM with tiles has statistics for each position of a tile. Give photos: detector(photos)."
            )
        assert isinstance(self.detector, Padim)
        return score_by_position(self.detector, self._positions, images, positions)

    def is_defective(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Whether photos with these scores are defective."""
        return np.asarray(np.asarray(scores) > self.threshold)

    def percentile(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Share of the good photos with a lower score (theirs are out of fold), in [0, 100]."""
        return np.asarray(100 * np.searchsorted(self._good, np.asarray(scores), side="left") / len(self._good))

    def blank_score(self) -> float:
        """The score of a plain grey photo, or of a tile at the top left of one."""
        size = self.record.size
        blank = torch.full((1, size, size, 3), _GREY, dtype=torch.uint8)
        return float(self.score_prepared(blank, positions=[0]).image_scores)


def build_method(
    method: str, network: FeatureExtractor, settings: Mapping[str, Any], seed: int = 0
) -> Padim | Patchcore:
    """A method that is not fitted yet, with these settings; others, such as the layers, are left out."""
    spec = DETECTORS[method]
    known = {entry.name for entry in dataclasses.fields(spec.settings)}
    given = {name: value for name, value in settings.items() if name in known}
    built = spec.build(network, seed, spec.configure(method, budget="paper", given=given))
    assert isinstance(built, Padim | Patchcore)
    return built


def load_detector(
    folder: str | os.PathLike[str], *, device: Literal["auto", "cpu", "cuda"] = "auto"
) -> InspectionDetector:
    """Reads a detector that `tabzoo fit` wrote; needs neither network nor caches.

    Args:
        folder: Its folder.
        device: Where it computes; "auto" takes the GPU if there is one.

    Raises:
        InputError: It is not the folder of a detector, or it is of a newer version.
        WeightsError: A file is damaged, was changed, or does not belong to it.
    """
    path, chosen = Path(folder), choose_device(device)
    record, backbone, state = read_detector(path)
    try:
        described = {**record.backbone, "layers": record.layers, "mean": record.mean, "std": record.std}
        network = rebuild(described, backbone, amp=record.amp == "bf16")
    except TabzooError as error:
        raise type(error)(f"{path / BACKBONE}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path / RECORD}: backbone: {brief(error)}") from error
    deterministic()
    network.to(chosen)
    try:
        method = build_method(record.method, network, record.settings)
        positions = state if isinstance(state, TensorSets) else None
        if positions is not None:
            _check_positions(record, positions)
        first = state.read(0) if isinstance(state, TensorSets) else state  # all positions have the same channels
        method.load_state({name: value.to(chosen) for name, value in first.items()})
        loaded = InspectionDetector(record, network, method, positions=positions)
        score = loaded.blank_score()
    except (InputError, RuntimeError, TypeError, ValueError, IndexError) as error:
        raise WeightsError(f"{path / STATE}: does not fit {RECORD}: {brief(error)}") from error
    _check_blank(path, record, score)
    return loaded


def _check_positions(record: DetectorRecord, positions: TensorSets) -> None:
    """Checks that there is a state for each tile, and that it holds numbers; the method checks the rest when it takes one."""
    assert record.tile is not None
    assert record.photo_size is not None
    expected = Tiling(record.tile, record.overlap or 0).grid(*record.photo_size, shown="photo_size").count
    if record.method != "padim" or positions.count != expected:
        raise InputError(f"{positions.count} positions of tiles, expected {expected} of padim")
    for position in range(expected):
        if not all(bool(tensor.isfinite().all()) for tensor in positions.read(position).values()):
            raise InputError(f"values of tile {position} are not finite")


def _check_blank(path: Path, record: DetectorRecord, score: float) -> None:
    """Another version of a library may build a backbone of this name that computes something else."""
    allowed = _TOLERANCE[record.amp] * max(abs(record.threshold.value), abs(record.blank_score))
    if not abs(score - record.blank_score) <= allowed:
        raise WeightsError(
            f"{path}: computes other scores here than where it was fitted: {score:g} for a grey photo, not "
            f"{record.blank_score:g}. Fit it again with the versions of this machine."
        )
