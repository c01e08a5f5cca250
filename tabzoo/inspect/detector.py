"""A fitted detector, ready for photos: `load_detector(DIR)` -> `detector(photos)` -> scores and maps."""

import dataclasses
import os
from collections.abc import Iterable, Mapping
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
from tabzoo.inspect.prepare import Photo, prepare
from tabzoo.inspect.rebuild import rebuild
from tabzoo.inspect.record import DetectorRecord

__all__ = ["InspectionDetector", "Verdicts", "build_method", "load_detector"]

_TOLERANCE = {"off": 1e-3, "bf16": 5e-2}
"""How far, relative to the threshold, the score of a grey photo may be from that at the time of fitting."""
_GREY = 128


class Verdicts(NamedTuple):
    """Scores and maps of photos; the unit is the method's distance, and higher is more anomalous.

    Attributes:
        scores: float32 [N].
        maps: For each photo float32 [h, w] at the detector's own size.
    """

    scores: NDArray[np.float32]
    maps: list[NDArray[np.float32]]


class InspectionDetector:
    """A detector that was fitted to good photos.

    Args:
        record: What it is.
        network: Its backbone.
        detector: The method, fitted.
        batch_size: Photos that pass the backbone at a time.

    Attributes:
        record: What it is: settings, threshold, provenance.
        threshold: Photos with a higher score are defective.
        network: Its backbone.
        detector: The method, fitted.
    """

    def __init__(
        self, record: DetectorRecord, network: FeatureExtractor, detector: Padim | Patchcore, *, batch_size: int = 8
    ) -> None:
        self.record, self.network, self.detector, self.batch_size = record, network, detector, batch_size
        self.threshold = record.threshold.value
        self._good = np.array(record.good_scores)

    def __call__(self, images: Photo | Iterable[Photo]) -> Verdicts:
        """Scores photos of any size.

        Args:
            images: A path, a Pillow image or uint8 RGB pixels [H, W, 3], or a sequence of them.

        Raises:
            ImageError: A file can't be read.
            InputError: Something else is given.
        """
        one = isinstance(images, str | os.PathLike | Image.Image) or (
            isinstance(images, np.ndarray) and images.ndim < 4
        )
        photos: list[Any] = [images] if one else list(images)  # type: ignore[arg-type]
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

    def score_prepared(self, batch: Tensor) -> Scores:
        """Scores prepared photos, uint8 [B, size, size, 3]: scores [B] and maps [B, size, size], on the detector's device."""
        record, device = self.record, self.network.device
        rows = torch.arange(len(batch))
        pixels = batch.to(device)
        batches = NormalisedBatches(lambda _: pixels, rows, batch_size=len(batch), mean=record.mean, std=record.std)
        return self.detector.score(batches.take(rows))

    def is_defective(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Whether photos with these scores are defective."""
        return np.asarray(np.asarray(scores) > self.threshold)

    def percentile(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Share of the good photos with a lower score (theirs are out of fold), in [0, 100]."""
        return np.asarray(100 * np.searchsorted(self._good, np.asarray(scores), side="left") / len(self._good))

    def blank_score(self) -> float:
        """The score of a plain grey photo."""
        size = self.record.size
        return float(self.score_prepared(torch.full((1, size, size, 3), _GREY, dtype=torch.uint8)).image_scores)


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
        method.load_state({name: value.to(chosen) for name, value in state.items()})
        loaded = InspectionDetector(record, network, method)
        score = loaded.blank_score()
    except (InputError, RuntimeError, TypeError, ValueError, IndexError) as error:
        raise WeightsError(f"{path / STATE}: does not fit {RECORD}: {brief(error)}") from error
    _check_blank(path, record, score)
    return loaded


def _check_blank(path: Path, record: DetectorRecord, score: float) -> None:
    """Another version of a library may build a backbone of this name that computes something else."""
    allowed = _TOLERANCE[record.amp] * max(abs(record.threshold.value), abs(record.blank_score))
    if not abs(score - record.blank_score) <= allowed:
        raise WeightsError(
            f"{path}: computes other scores here than where it was fitted: {score:g} for a grey photo, not "
            f"{record.blank_score:g}. Fit it again with the versions of this machine."
        )
