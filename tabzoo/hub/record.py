"""The record of a weights folder, `tabzoo.json`, and the names of its files. Nothing here imports torch or timm."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabzoo.errors import WeightsError
from tabzoo.hub.files import LARGEST_WEIGHTS, Digest, read_json

__all__ = ["CARD", "CONFIG", "NAME", "ORIGIN", "RECORD", "UNSPECIFIED", "WEIGHTS", "Record", "read_record"]

WEIGHTS, CONFIG, RECORD, CARD = "model.safetensors", "config.json", "tabzoo.json", "README.md"
ORIGIN = "installed.json"
"""Of installed weights: where they came from."""
UNSPECIFIED = "unspecified"
"""The licence of weights for which none was stated."""
NAME = re.compile(r"([a-z0-9_]+)\.([a-z0-9_]+)")
"""A timm name with tag, in the form that tabzoo allows."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """The content of `tabzoo.json`.

    Attributes:
        name: timm name with tag.
        license: Of the weights.
        digest: The digest that model.safetensors must have.
        content: All of the file.
    """

    name: str
    license: str
    digest: Digest
    content: dict[str, Any]


def read_record(path: Path) -> Record:
    """Reads a `tabzoo.json`.

    Raises:
        WeightsError: It is missing or incomplete.
    """
    content = read_json(path)
    name, license, weights = (content.get(key) for key in ("name", "license", "weights"))
    # Both are shown on terminals, so they may not contain control characters.
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
        # Only this name: a record from elsewhere must not point to another place.
        weights.get("file") != WEIGHTS
        or not isinstance(sha256, str)
        or not re.fullmatch("[0-9a-f]{64}", sha256)
        or not isinstance(size, int)
        or not 0 < size <= LARGEST_WEIGHTS
    ):
        raise WeightsError(
            f'{path}: expected "weights": {{"file": "{WEIGHTS}", "sha256": 64 hexadecimal digits, "size": bytes}}'
        )
    return Record(name=name, license=license, digest=Digest(sha256, size), content=content)
