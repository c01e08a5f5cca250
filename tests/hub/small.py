"""A small model, and what is in a folder: shared by the tests of the Hub."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabzoo.scores.rows import METRICS

SMALL = "test_resnet"
"""timm's smallest ResNet, 0.4 M parameters, with the names of tensors that its siblings have."""


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rows(path: Path, values: Sequence[dict[str, Any]]) -> Path:
    """The benchmark's results.jsonl, with these fields in place of the usual."""
    base: dict[str, Any] = {
        "backbone": f"{SMALL}.tab_here",
        "method": "padim",
        "dataset": "mvtec",
        "class": "bottle",
        "seed": 0,
        "shots": None,
        **dict.fromkeys(METRICS, None),
        "image_auroc": 0.9,
        "pixel_auroc": 0.8,
        "transductive": False,
        "images": {"fitted": 3, "good": 1, "anomalous": 1},
        "scores": {"good": [0.1], "anomalous": [0.2]},
        **{key: {} for key in ("settings", "versions", "seconds")},
        **dict.fromkeys(("weights_sha256", "data_sha256", "hardware", "created"), ""),
        "peak_memory": None,
    }
    lines = [{"key": f"{number:016x}", **base, **value} for number, value in enumerate(values)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
