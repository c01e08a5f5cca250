"""What is exported and what it is compared with: a detector's folder, or a backbone."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from tabzoo._version import __version__
from tabzoo.data.images import IMAGE_SUFFIXES, Resampling, read_image
from tabzoo.detectors.extractor import weights_sha256
from tabzoo.errors import InputError, counted
from tabzoo.hub.files import Digest
from tabzoo.inspect.detector import InspectionDetector, load_detector
from tabzoo.inspect.export.backbone_graph import BackboneGraph, Reference
from tabzoo.inspect.export.graph import DetectorGraph
from tabzoo.inspect.export.onnx_file import check_bytes
from tabzoo.inspect.folder import RECORD, read_photos
from tabzoo.inspect.record import DetectorRecord

__all__ = ["DETECTOR_OUTPUTS", "Job", "backbone_job", "detector_job", "photos_in", "photos_of_fit"]

DETECTOR_OUTPUTS = ("score", "verdict", "map")
BACKBONE_SIZE = 224


@dataclass(kw_only=True)
class Job:
    """One export.

    Attributes:
        graph: What is written.
        outputs: Names of its outputs.
        size: Side of the photos.
        resampling: How they are resized.
        white_level: Pixel value that becomes white in photos of more than 8 bits.
        about: What the file is, in a sentence.
        metadata: Strings that the file holds.
        expected: What the outputs, but verdicts, have to be, for prepared photos uint8 [N, S, S, 3].
        prepare: A file to pixels, by tabzoo.
        span: Range that differences are shares of; None: of each output, its own.
        threshold: Of a detector.
        command: What a detector was fitted by.
    """

    graph: nn.Module
    outputs: Sequence[str]
    size: int
    resampling: Resampling
    white_level: float | None = None
    about: str
    metadata: dict[str, str] = field(default_factory=dict)
    expected: Callable[[Tensor], Sequence[Tensor]]
    prepare: Callable[[str], NDArray[np.uint8]]
    span: float | None = None
    threshold: float | None = None
    command: str = ""


def detector_job(folder: Path) -> Job:
    """The export of a detector.

    Raises:
        InputError: It can't be exported; the message says what to do.
        WeightsError: A file of it is damaged or was changed.
    """
    loaded = load_detector(folder, device="cpu")
    record = loaded.record
    if record.tile is not None:
        raise InputError(
            f"{folder}: was fitted with --tile {record.tile}. ONNX files of detectors with tiles are not supported yet. "
            f"Fit one without --tile, or score with tabzoo score."
        )
    if record.amp != "off":
        raise InputError(
            f"{folder}: computes in bfloat16, and a file in float32, so their scores differ. Fit it with --amp off."
        )
    smaller = {"padim": "--padim-channels", "patchcore": "--patchcore-share"}[record.method]
    held = [*loaded.detector.state().values(), *loaded.network.body.state_dict().values()]
    check_bytes(held, f"Fit with a smaller {smaller} or --size.")
    return Job(
        graph=DetectorGraph(loaded.detector, size=record.size, threshold=loaded.threshold),
        outputs=DETECTOR_OUTPUTS,
        size=record.size,
        resampling=record.resampling,
        white_level=record.white_level,
        about=f"{record.method} of {record.class_name}, fitted by tabzoo: photos in; score, verdict and map out.",
        metadata=_metadata_of_detector(folder, record),
        expected=lambda photos: _scores(loaded, photos),
        prepare=loaded.prepare,
        span=_span(record),
        threshold=loaded.threshold,
        command=str(record.provenance.get("command", "")),
    )


def _scores(loaded: InspectionDetector, photos: Tensor) -> tuple[Tensor, Tensor]:
    found = loaded.score_prepared(photos)
    return found.image_scores, found.anomaly_maps


def _span(record: DetectorRecord) -> float:
    """Range of the good photos' scores; where all are equal, the threshold takes its place."""
    return (record.good_scores[-1] - record.good_scores[0]) or abs(record.threshold.value) or 1.0


def _metadata_of_detector(folder: Path, record: DetectorRecord) -> dict[str, str]:
    side = record.size
    licence = record.backbone.get("license")
    return {
        **_common(side, record.resampling, record.white_level),
        "detector_sha256": Digest.of(folder / RECORD).sha256,
        "class": record.class_name,
        "method": record.method,
        "backbone": str(record.backbone["name"]),
        **({"license": str(licence)} if licence else {}),
        "threshold": repr(record.threshold.value),
        "threshold_words": record.threshold.words,
        "output_score": "float32 [N]: the method's distance; higher is more anomalous",
        "output_verdict": "bool [N]: true where the score is above the threshold: defective",
        "output_map": f"float32 [N, {side}, {side}]: the same distance at each pixel",
    }


def _common(size: int, resampling: str, white_level: float | None) -> dict[str, str]:
    return {
        "tabzoo_version": __version__,
        "size": str(size),
        "resampling": resampling,
        "white_level": "" if white_level is None else repr(white_level),
        "input_photos": f"uint8 [N, {size}, {size}, 3]: RGB, whole photos squashed to a square by the script beside this file",
    }


def backbone_job(name: str, *, size: int | None) -> Job:
    """The export of a backbone.

    Args:
        name: As for `extractor.build_extractor`.
        size: Side of the photos; None: `BACKBONE_SIZE`.

    Raises:
        InputError: No such backbone, or it can't be exported.
        WeightsError: Its weights can't be fetched.
    """
    side = BACKBONE_SIZE if size is None else size
    reference = Reference(name, side)
    check_bytes(list(reference.model.state_dict().values()), "Choose a smaller backbone.")
    resampling: Resampling = "lanczos"
    return Job(
        graph=BackboneGraph(reference),
        outputs=reference.names,
        size=side,
        resampling=resampling,
        about=f"The backbone {name}, exported by tabzoo: photos in; the map of each layer and the pooled embedding out.",
        metadata={
            **_common(side, resampling, None),
            "backbone": name,
            "weights_sha256": weights_sha256(reference.model),
            "outputs": "float32: the map [N, C, h, w] of each layer, and embedding [N, D]",
        },
        expected=reference,
        prepare=lambda path: read_image(path, size=side, resampling=resampling),
    )


def photos_in(folder: str) -> list[str]:
    """The image files in a folder and below, sorted.

    Raises:
        InputError: There are none.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"--photos {folder}: no such folder")
    found = sorted(str(path) for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not found:
        raise InputError(f"--photos {folder}: holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return found


def photos_of_fit(folder: Path, command: str) -> list[str]:
    """The good photos that a detector was fitted to, where they still are.

    Raises:
        InputError: One is missing or was changed.
    """
    words = shlex.split(command)
    root = Path(words[words.index("--data") + 1]) if "--data" in words[:-1] else Path()
    rows = [(str(root / photo.path), photo.sha256) for photo in read_photos(folder)]
    away = [path for path, sha256 in rows if not Path(path).is_file() or Digest.of(Path(path)).sha256 != sha256]
    if away:
        raise InputError(
            f"{counted(away, 'photo')} of those that the detector was fitted to can't be found here, or changed. The export "
            f"is proved on photos: name a folder of some with --photos DIR."
        )
    return [path for path, _ in rows]
