"""A small model, and what is in a folder: shared by the tests of the Hub."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SMALL = "test_resnet"
"""timm's smallest ResNet, 0.4 M parameters, with the names of tensors that its siblings have."""


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rows(path: Path, values: Sequence[dict[str, Any]]) -> Path:
    """The benchmark's results.jsonl, with these fields in place of the usual."""
    base = {
        "backbone": f"{SMALL}.tab_here",
        "method": "padim",
        "dataset": "mvtec",
        "class": "bottle",
        "seed": 0,
        "shots": None,
    }
    metrics = {"image_auroc": 0.9, "pixel_auroc": 0.8, "aupro": None}
    path.write_text("".join(json.dumps({**base, **metrics, **value}) + "\n" for value in values))
    return path
