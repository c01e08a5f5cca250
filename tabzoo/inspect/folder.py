"""The folder of a detector: JSON, CSV and safetensors, written completely or not at all, and verified when it is read.

detector.json         what it is and how to use it, with the sizes and hashes of the other files
backbone.safetensors  weights of the backbone's layers in use
state.safetensors     what was fitted
photos.csv            the good photos, with their hashes and out-of-fold scores
"""

import csv
import dataclasses
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import save_file
from torch import Tensor

from tabzoo.errors import InputError, WeightsError
from tabzoo.hub.files import Digest, read_json, write_json
from tabzoo.hub.folder import new_folder
from tabzoo.hub.tensors import read_tensors
from tabzoo.inspect.record import FORMAT, DetectorRecord
from tabzoo.inspect.tensor_sets import TensorSets
from tabzoo.system import writing

__all__ = [
    "BACKBONE",
    "PHOTOS",
    "RECORD",
    "STATE",
    "FittedPhoto",
    "check_output",
    "read_detector",
    "read_photos",
    "write_detector",
]

RECORD, BACKBONE, STATE, PHOTOS = "detector.json", "backbone.safetensors", "state.safetensors", "photos.csv"
_FILES = (BACKBONE, STATE, PHOTOS)
_SEAL = "sha256"
_LARGEST_RECORD = 32_000_000  # bytes; a million scores have 20


class FittedPhoto(NamedTuple):
    """A good photo that a detector was fitted to.

    Attributes:
        path: Relative to the folder of the photos.
        sha256: Of the file.
        score: Out of fold.
    """

    path: str
    sha256: str
    score: float


def check_output(folder: Path, *, data: str, overwrite: bool) -> None:
    """Checks that a detector can be written here, before anything is computed.

    Raises:
        InputError: It is inside the photos, a file, a detector without `overwrite`, or a folder with other files.
    """
    if Path(data).is_dir() and folder.resolve().is_relative_to(Path(data).resolve()):
        raise InputError(f"--output {folder}: is inside --data {data}. Name a folder outside the photos.")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"--output {folder}: is a file or a link; expected a new or empty folder")
    nearest = next(one for one in folder.absolute().parents if one.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise InputError(f"--output {folder}: can't be made in {nearest}")
    held = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if held and (RECORD not in held or held - {RECORD, *_FILES}):
        shown = sorted(held - {RECORD, *_FILES}) or sorted(held)
        raise InputError(
            f"--output {folder}: holds something else than a detector ({', '.join(shown[:3])}). Name another folder, or move "
            f"these files away."
        )
    if held and not overwrite:
        raise InputError(
            f"--output {folder}: holds a detector. Type --overwrite to replace it, or name another folder."
        )


def write_detector(
    folder: Path,
    record: DetectorRecord,
    *,
    backbone: Mapping[str, Tensor],
    state: Mapping[str, Tensor] | Path,
    photos: Sequence[FittedPhoto],
) -> DetectorRecord:
    """Writes a detector, completely or not at all; a detector that is in the folder is replaced.

    Args:
        folder: Where; checked by `check_output`.
        record: What to write to detector.json, still without the digests of the files.
        backbone: Weights of its features-only body.
        state: What was fitted, or the file that has it, which is moved.
        photos: What it was fitted to.

    Returns:
        The record, with the digests.

    Raises:
        WriteError: A file can't be written.
    """
    with _replaced(folder) as made:
        for name, tensors in ((BACKBONE, backbone), (STATE, state)):
            with writing(made / name):
                if isinstance(tensors, Path):
                    shutil.move(tensors, made / name)
                    continue
                save_file({key: value.cpu().contiguous() for key, value in sorted(tensors.items())}, made / name)
        with (
            writing(made / PHOTOS),
            (made / PHOTOS).open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
        ):
            table = csv.writer(file, lineterminator="\n")
            table.writerow(FittedPhoto._fields)
            table.writerows(photo._replace(score=f"{photo.score:.9g}") for photo in photos)  # type: ignore[arg-type]
        for name in (BACKBONE, STATE):
            shutil.copymode(made / PHOTOS, made / name)  # safetensors writes files that only their owner can read
        digests = {name: Digest.of(made / name) for name in _FILES}
        record = dataclasses.replace(record, files=digests)
        write_json(made / RECORD, sealed(record.to_json()))
    return record


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of detector.json with the hash of all the rest, so that a change is noticed; no protection against intent."""
    rest = {key: value for key, value in content.items() if key != _SEAL}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=True)
    return {**rest, _SEAL: hashlib.sha256(text.encode()).hexdigest()}


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """Gives a folder to fill; at the end, it takes the place of the one that is there."""
    if not folder.is_dir() or not any(folder.iterdir()):
        with new_folder(folder) as made:
            yield made
        return
    place = Path(os.path.abspath(folder))
    new, old = (place.with_name(f".{place.name[:60]}.{uuid.uuid4().hex}") for _ in range(2))
    try:
        with new_folder(new) as made:
            yield made
        with writing(folder):
            place.rename(old)
            new.rename(place)
    finally:
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)


class DetectorFiles(NamedTuple):
    """A detector's folder, read and verified.

    Attributes:
        record: The content of detector.json.
        backbone: Weights of the features-only body.
        state: What was fitted; for each position of a tile where PaDiM has statistics of its own for it.
    """

    record: DetectorRecord
    backbone: dict[str, Tensor]
    state: dict[str, Tensor] | TensorSets


def read_detector(folder: Path) -> DetectorFiles:
    """Reads a detector. Sizes are compared first, then hashes; nothing is executed.

    Raises:
        InputError: It is not the folder of a detector, or of a newer version of tabzoo.
        WeightsError: A file is damaged, was changed, or does not belong to it.
    """
    path = folder / RECORD
    if not path.is_file():
        what = "no such folder" if not folder.exists() else "a file" if folder.is_file() else f"no {RECORD} in it"
        raise InputError(f"{folder}: {what}; expected the folder of a detector, which `tabzoo fit` writes")
    record = _read_record(path)
    for name in _FILES:
        size = (folder / name).stat().st_size if (folder / name).is_file() else None
        if size != record.files[name].size:
            found = "is missing" if size is None else f"has {size:,} bytes, expected {record.files[name].size:,}"
            raise WeightsError(f"{folder / name}: {found}. The detector was changed or copied incompletely.")
    if (found_digest := Digest.of(folder / PHOTOS)) != record.files[PHOTOS]:
        raise WeightsError(f"{folder / PHOTOS}: was changed: SHA-256 {found_digest.sha256}, not as in {RECORD}")
    backbone, _ = read_tensors(folder / BACKBONE, record.files[BACKBONE])
    if record.photo_size is not None:
        return DetectorFiles(record, backbone, TensorSets(folder / STATE, record.files[STATE]))
    state, _ = read_tensors(folder / STATE, record.files[STATE])
    return DetectorFiles(record, backbone, state)


def read_photos(folder: Path) -> list[FittedPhoto]:
    """The good photos of a detector that was read and verified."""
    with (folder / PHOTOS).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return [FittedPhoto(row["path"], row["sha256"], float(row["score"])) for row in csv.DictReader(file)]


def _read_record(path: Path) -> DetectorRecord:
    content: dict[str, Any] = read_json(path, largest=_LARGEST_RECORD)
    version = content.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise InputError(
            f"{path}: written by a newer tabzoo (format {version}; this one reads up to {FORMAT}). Update tabzoo."
        )
    try:
        record = DetectorRecord.from_json(content)
        if set(record.files) != set(_FILES):
            raise ValueError(f"files: expected {', '.join(_FILES)}")
        if content.get(_SEAL) != sealed(content)[_SEAL]:
            raise ValueError("its content was changed; to change the threshold, fit again with --false-alarms")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path}: not written by `tabzoo fit`, or damaged: {type(error).__name__}: {error}"
        ) from error
    return record
