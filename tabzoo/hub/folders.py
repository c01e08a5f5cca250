"""A weights folder and its record: `model.safetensors`, timm's `config.json`, and `tabzoo.json`, which says what they are."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from timm.models import PretrainedCfg
from torch import Tensor

from tabzoo.errors import InputError, WeightsError
from tabzoo.hub.config import read_config, read_json
from tabzoo.hub.files import LARGEST, Digest, read_tensors
from tabzoo.hub.names import NAME

__all__ = [
    "CARD",
    "CONFIG",
    "HASHES",
    "RECORD",
    "WEIGHTS",
    "Folder",
    "Record",
    "read_folder",
    "read_record",
    "Verified",
    "verify",
]

WEIGHTS, CONFIG, RECORD, CARD = "model.safetensors", "config.json", "tabzoo.json", "README.md"
HASHES = "image_hashes.txt"
"""Of the images that the weights were trained on: the first 16 hex digits of each file's SHA-256, sorted, one a line."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What `tabzoo.json` says.

    Attributes:
        name: timm name with tag.
        license: Of the weights.
        digest: What model.safetensors must be.
        content: All of it.
    """

    name: str
    license: str
    digest: Digest
    content: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Folder:
    """What a folder says of its weights; the weights themselves have not been looked at.

    Attributes:
        path: The folder.
        config: How timm is to use the weights.
        record: None where there is none, as timm's own tools leave it.
    """

    path: Path
    config: PretrainedCfg
    record: Record | None

    @property
    def weights(self) -> Path:
        """The weights file."""
        return self.path / WEIGHTS

    @property
    def digest(self) -> Digest | None:
        """What it must be."""
        return self.record.digest if self.record else None


def read_folder(path: Path, *, recorded: bool = True) -> Folder:
    """Reads the record and the configuration of a folder.

    Args:
        path: The folder.
        recorded: Whether it must have a `tabzoo.json`.

    Raises:
        InputError: No such folder, or no weights in it.
        WeightsError: A record or a configuration that can't be used.
    """
    if not (path / WEIGHTS).is_file():
        raise InputError(
            f"{path}: expected a folder with {WEIGHTS}, {CONFIG} and {RECORD}, as a finished run, `tabzoo convert` and "
            f"`tabzoo download` leave it; {'it lacks ' + WEIGHTS if path.is_dir() else 'there is no such folder'}"
        )
    config = read_config(path / CONFIG)
    record = read_record(path / RECORD) if recorded or (path / RECORD).exists() else None
    if record and record.name.split(".")[0] != config.architecture:
        raise WeightsError(
            f"{path}: {RECORD} is of {record.name}, but {CONFIG} asks for the architecture {config.architecture}"
        )
    return Folder(path=path, config=config, record=record)


def read_record(path: Path) -> Record:
    """Reads a `tabzoo.json`.

    Raises:
        WeightsError: It is not there or lacks what it must say.
    """
    content = read_json(path)
    name, license, weights = (content.get(key) for key in ("name", "license", "weights"))
    # Both are shown to people, so they hold nothing that moves a cursor.
    if (
        not isinstance(name, str)
        or not NAME.fullmatch(name)
        or not isinstance(license, str)
        or not license.isprintable()
        or len(license) > 200
    ):
        raise WeightsError(f"{path}: expected ARCHITECTURE.TAG under name and one line of text under license")
    weights = weights if isinstance(weights, dict) else {}
    sha256, size = weights.get("sha256"), weights.get("size")
    if (
        # Only ever this name: a record from elsewhere must not point to another place.
        weights.get("file") != WEIGHTS
        or not isinstance(sha256, str)
        or not re.fullmatch("[0-9a-f]{64}", sha256)
        or not isinstance(size, int)
        or not 0 < size <= LARGEST
    ):
        raise WeightsError(
            f'{path}: expected "weights": {{"file": "{WEIGHTS}", "sha256": 64 hexadecimal digits, "size": bytes}}'
        )
    return Record(name=name, license=license, digest=Digest(sha256, size), content=content)


class Verified(NamedTuple):
    """Weights that were read in full.

    Attributes:
        tensors: All of the file.
        digest: Of the file.
        folder: What the folder says; None for a file with no folder around it.
    """

    tensors: dict[str, Tensor]
    digest: Digest
    folder: Folder | None


def verify(path: Path) -> Verified:
    """Reads a weights folder or a single .safetensors file in full.

    Raises:
        InputError: No such file or folder.
        WeightsError: The weights are not what the record says, or can't be what they should.
    """
    if path.is_file() and not (path.name == WEIGHTS and (path.parent / RECORD).exists()):
        return Verified(*read_tensors(path), None)
    folder = read_folder(path.parent if path.is_file() else path)
    return Verified(*read_tensors(folder.weights, folder.digest), folder)
