"""Fits a detector to the good photos of a class, chooses its threshold, and writes its folder."""

import dataclasses
import datetime
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from tabzoo.command import typed
from tabzoo.compute import Amp, choose_amp, choose_device, deterministic
from tabzoo.data.cache import Images, open_images
from tabzoo.data.layouts import find_samples
from tabzoo.data.samples import TEST
from tabzoo.detectors import DETECTORS
from tabzoo.detectors.batches import NormalisedBatches
from tabzoo.detectors.extractor import FeatureExtractor, build_extractor, check_input_size
from tabzoo.detectors.interface import flag_of
from tabzoo.detectors.padim import Padim
from tabzoo.detectors.patchcore import Patchcore
from tabzoo.errors import InputError
from tabzoo.hub.files import Digest
from tabzoo.inspect.class_photos import good_photos, photos_of_class
from tabzoo.inspect.detector import InspectionDetector, build_method, load_detector
from tabzoo.inspect.features import OutOfFold, PhotoFeatures, backbone_batch, score_out_of_fold
from tabzoo.inspect.folder import STATE, FittedPhoto, check_output, write_detector
from tabzoo.inspect.looks import looks_of
from tabzoo.inspect.options import FitOptions
from tabzoo.inspect.rebuild import describe, licence_of
from tabzoo.inspect.record import DetectorRecord, Looks, Tested
from tabzoo.inspect.tensor_sets import TensorSets
from tabzoo.inspect.threshold import Threshold, assign_folds, choose_threshold
from tabzoo.inspect.tiled_fit import fit_to_tiles
from tabzoo.machine import hardware, versions
from tabzoo.synthesis.draws import permutation
from tabzoo.system import writing

__all__ = ["fit_detector"]

logger = logging.getLogger(__name__)

_FOLDS = 302  # stream of the draw of folds, distinct from all other streams
_USUAL_FOLDS, _FOLDS_OF_TILES = 10, 5  # with more than a few photos; a fold of PatchCore with tiles can take minutes


def fit_detector(options: FitOptions, *, settings: Mapping[str, object] | None = None) -> InspectionDetector:
    """Fits, writes the folder, and reads it back.

    Args:
        options: What to fit to which photos.
        settings: Of the method, those that differ from its authors'.

    Raises:
        InputError: Options or photos that do not fit.
        WeightsError: The backbone's weights can't be fetched.
        WriteError: The folder can't be written.
    """
    check_output(options.output, data=options.data, overwrite=options.overwrite)
    deterministic()
    device = choose_device(options.device)
    amp = choose_amp(options.amp, device).amp
    samples = photos_of_class(find_samples(options.data, layout=options.layout), options)
    spec, bfloat16 = DETECTORS[options.method], amp == "bf16"
    network = build_extractor(
        options.backbone, layers=spec.layers, seed=options.seed, device=device, amp=bfloat16, channels_last=True
    )
    check_input_size(network, options.backbone, options.side)
    method = build_method(options.method, network, settings or {}, options.seed)
    images = open_images(
        samples,
        size=options.side,
        mode="disk" if options.tiling is None else "off",  # photos in tiles are read in their own size
        cache_dir=options.cache_dir,
        workers=options.workers,
        device=device,
        resampling=spec.resampling,
        white_level=options.white_level,
    )
    with _folder_beside(options.output) as work:
        state = work / STATE
        found = _fit(options, network, method, images, good_photos(images, options), state)
        record = _record(options, settings or {}, amp, network, method, found)
        positions = TensorSets(state, Digest.of(state)) if state.exists() else None
        fitted = InspectionDetector(record, network, method, positions=positions)
        record = dataclasses.replace(record, tested=_test(fitted, images), blank_score=fitted.blank_score())
        if positions is not None:
            positions.close()
        write_detector(
            options.output,
            record,
            backbone=network.body.state_dict(),
            state=state if positions is not None else method.state(),
            photos=found.photos,
        )
    return load_detector(options.output, device=options.device)


@contextmanager
def _folder_beside(output: Path) -> Iterator[Path]:
    """A folder for what is too large for memory, on the disk of the output folder."""
    place = next(one for one in output.absolute().parents if one.exists())
    with writing(place), tempfile.TemporaryDirectory(prefix=f".{output.name[:60]}.", dir=place) as folder:
        yield Path(folder)


class _Found(NamedTuple):
    """What a fit leaves besides the detector."""

    class_name: str
    photos: list[FittedPhoto]
    out_of_fold: OutOfFold
    threshold: Threshold
    good_scores: tuple[float, ...]
    looks: Looks
    unreadable: int


def _fit(
    options: FitOptions,
    network: FeatureExtractor,
    method: Padim | Patchcore,
    images: Images,
    rows: NDArray[np.int64],
    state: Path,
) -> _Found:
    hashes, order = images.hashes[rows], permutation(options.seed, 0, len(rows), _FOLDS).tolist()
    if options.tiling is None:
        folds, fit = assign_folds(hashes.tolist(), order, usual=_USUAL_FOLDS), _fit_to_photos
    else:
        tiled = _FOLDS_OF_TILES if options.method == "patchcore" else _USUAL_FOLDS
        folds = assign_folds(hashes.tolist(), order, usual=tiled, leave_one_out=tiled)
        fit = partial(fit_to_tiles, state=state)
    out_of_fold = fit(options, network, method, images, rows, folds)
    _, different = np.unique(hashes, return_index=True)
    scores = np.sort(out_of_fold.scores[different])
    return _Found(
        images.samples.classes[0],
        [_listed(images, row, score) for row, score in zip(rows.tolist(), out_of_fold.scores.tolist(), strict=True)],
        out_of_fold,
        choose_threshold(scores, asked=options.false_alarms, folds=out_of_fold.folds),
        tuple(scores.tolist()),
        looks_of([images.samples.path(row) for row in rows.tolist()], white_level=options.white_level),
        len(images.unreadable),
    )


def _fit_to_photos(
    options: FitOptions,
    network: FeatureExtractor,
    method: Padim | Patchcore,
    images: Images,
    rows: NDArray[np.int64],
    folds: NDArray[np.int64],
) -> OutOfFold:
    photos = NormalisedBatches(
        images.batch,
        torch.from_numpy(rows),
        batch_size=backbone_batch(options.batch_size, network.device),
        mean=network.mean,
        std=network.std,
    )
    features = PhotoFeatures(
        *(photos, method, images.hashes[rows]),
        batch_size=options.batch_size,
        most_bytes=1e9 * options.max_memory,
        seed=options.seed,
    )
    out_of_fold = score_out_of_fold(method, features, folds, options.side)
    method.fit_maps(features.to_fit(torch.arange(len(rows))), len(rows))
    return out_of_fold


def _listed(images: Images, row: int, score: float) -> FittedPhoto:
    path = images.samples.path(row)
    try:
        sha256 = Digest.of(path).sha256
    except OSError as error:
        raise InputError(f"{path}: can't be read any more: {error.strerror}") from error
    if (int(sha256[:16], 16) or 1) != int(images.hashes[row]):
        raise InputError(f"{path}: was changed while the detector was fitted. Fit it again.")
    return FittedPhoto(os.fsdecode(bytes(images.samples.paths[row])), sha256, score)


def _test(fitted: InspectionDetector, images: Images) -> Tested | None:
    """What the threshold does on the class's test photos."""
    rows = np.flatnonzero(images.samples.split == TEST)
    if not len(rows):
        return None
    if fitted.tiling is None:
        parts = torch.from_numpy(rows).split(fitted.batch_size)
        scores = torch.cat([fitted.score_prepared(images.batch(part)).image_scores.cpu() for part in parts]).numpy()
    else:
        rows, scores = _score_large(fitted, images, rows)
    called, bad = fitted.is_defective(scores), images.samples.labels[rows] != 0
    return Tested(int(bad.sum()), int((called & bad).sum()), int((~bad).sum()), int((called & ~bad).sum()))


def _score_large(
    fitted: InspectionDetector, images: Images, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rows of the photos that have a size that fits, and their scores."""
    scores: dict[int, float] = {}
    for row in tqdm(rows.tolist(), desc="test photos", unit="photo", leave=False, disable=None):
        try:
            scores[row] = fitted(images.samples.path(row)).scores[0]
        except InputError as error:  # these photos only report; the detector does not need them
            logger.warning("left out of the test: %s", error)
    return np.array(list(scores), np.int64), np.array(list(scores.values()), np.float32)


def _record(
    options: FitOptions,
    settings: Mapping[str, object],
    amp: Amp,
    network: FeatureExtractor,
    method: Padim | Patchcore,
    found: _Found,
) -> DetectorRecord:
    described = describe(options.backbone, network)
    layers, mean, std = (tuple(described.pop(name)) for name in ("layers", "mean", "std"))
    listed = "".join(f"{photo.path}\t{photo.sha256}\n" for photo in found.photos)
    return DetectorRecord(
        method=options.method,
        settings=dict(method.settings),
        layers=layers,
        size=options.side,
        resampling=DETECTORS[options.method].resampling,
        white_level=options.white_level,
        tile=options.tile,
        overlap=None if options.tiling is None else options.tiling.overlap,
        photo_size=found.out_of_fold.photo_size,
        mean=mean,
        std=std,
        amp=amp,
        class_name=found.class_name,
        backbone={"name": options.backbone, **described, "license": licence_of(options.backbone, network)},
        threshold=found.threshold,
        good_scores=found.good_scores,
        scale=found.out_of_fold.scale,
        looks=found.looks,
        blank_score=0.0,
        provenance={
            "photos": len(found.photos),
            "unreadable": found.unreadable,
            "photos_sha256": hashlib.sha256(listed.encode(errors="surrogateescape")).hexdigest(),
            "weights_sha256": network.sha256(),
            "versions": versions(),
            "hardware": hardware(network.device),
            "seed": options.seed,
            "shots": options.shots,
            "command": _command(options, settings),
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        },
    )


def _command(options: FitOptions, settings: Mapping[str, Any]) -> str:
    words = typed("tabzoo fit", dataclasses.replace(options, overwrite=False)).replace(" --class-name ", " --class ", 1)
    return " ".join([words, *(f"{flag_of(options.method, name)} {value}" for name, value in settings.items())])
