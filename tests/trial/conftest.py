"""Trials of a few seconds: the toy factory, timm's test_resnet, made-up texts."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

Trial = Callable[..., list[str]]

RECIPE = """
backbone: test_resnet
init: random
batch_norm: frozen
projection: none
resize: 40
crop: 32
batch_size: 16
epochs: 2
lr: 0.05
warmup_epochs: 1
val_share: 0.2
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def trial(tmp_path: Path, recipe: Path, make_text_file: Callable[..., Path], sketches: None) -> Trial:
    """The command line of a trial on some photos of these classes. More flags are appended, and win."""

    def arguments(data: Path, classes: Sequence[str], *more: str) -> list[str]:
        flags = {
            **{"data": data, "output": tmp_path / "out", "recipe": recipe, "minutes": 30, "device": "cpu"},
            **{"text-pretrained": make_text_file(*classes), "cache": "ram", "workers": 0},
        }
        return [word for name, value in flags.items() for word in (f"--{name}", str(value))] + list(more)

    return arguments
