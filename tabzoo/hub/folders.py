"""A weights folder and its record: `model.safetensors`, timm's `config.json`, and `tabzoo.json`, which says what they are."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timm.models import PretrainedCfg
from torch import Tensor

from tabzoo.errors import InputError, WeightsError
from tabzoo.hub.config import read_config, read_json
from tabzoo.hub.files import Digest, read_tensors

__all__ = ["CARD", "CONFIG", "RECORD", "WEIGHTS", "Folder", "read_folder", "verify"]

WEIGHTS, CONFIG, RECORD, CARD = "model.safetensors", "config.json", "tabzoo.json", "README.md"


@dataclass(frozen=True, kw_only=True)
class Folder:
    """What a folder says of its weights; the weights themselves have not been looked at.

    Attributes:
        path: The folder.
        name: timm name with tag.
        license: Of the weights.
        digest: What model.safetensors must be; None in a folder without record, such as timm's own tools write.
        config: How timm is to use them.
        record: All of tabzoo.json.
    """

    path: Path
    name: str
    license: str
    digest: Digest | None
    config: PretrainedCfg
    record: dict[str, Any]

    @property
    def weights(self) -> Path:
        """The weights file."""
        return self.path / WEIGHTS


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
    if not recorded and not (path / RECORD).exists():
        stated: str = config.license or "unspecified"
        return Folder(path=path, name=str(config.architecture), license=stated, digest=None, config=config, record={})
    record = read_json(path / RECORD)
    name, license = record.get("name"), record.get("license")
    if not isinstance(name, str) or not isinstance(license, str):
        raise WeightsError(f"{path / RECORD}: expected texts under name and license")
    if name.split(".")[0] != config.architecture:
        raise WeightsError(
            f"{path}: {RECORD} is of {name}, but {CONFIG} asks for the architecture {config.architecture}"
        )
    return Folder(path=path, name=name, license=license, digest=_digest(path, record), config=config, record=record)


def verify(path: Path) -> tuple[dict[str, Tensor], Digest, Folder | None]:
    """Reads a weights folder or a single .safetensors file in full.

    Returns:
        The tensors, the file's digest, and what the folder says; None for a file with no folder around it.

    Raises:
        InputError: No such file or folder.
        WeightsError: The weights are not what the record says, or can't be what they should.
    """
    if path.is_file() and not (path.name == WEIGHTS and (path.parent / RECORD).exists()):
        return *read_tensors(path), None
    folder = read_folder(path.parent if path.is_file() else path)
    return *read_tensors(folder.weights, folder.digest), folder


def _digest(path: Path, record: dict[str, Any]) -> Digest:
    weights = record.get("weights")
    weights = weights if isinstance(weights, dict) else {}
    sha256, size = weights.get("sha256"), weights.get("size")
    if (
        # Only ever this name: a record from elsewhere must not point to another place.
        weights.get("file") != WEIGHTS
        or not isinstance(sha256, str)
        or not re.fullmatch("[0-9a-f]{64}", sha256)
        or not isinstance(size, int)
    ):
        raise WeightsError(
            f'{path / RECORD}: expected "weights": {{"file": "{WEIGHTS}", "sha256": 64 hexadecimal digits, "size": bytes}}'
        )
    return Digest(sha256, size)
