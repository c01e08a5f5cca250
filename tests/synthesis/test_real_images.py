"""Anomalies on photographs: local, inside the image, and almost always visible."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tabzoo.synthesis import SYNTHESES

pytestmark = [pytest.mark.real_data, pytest.mark.slow]


@pytest.fixture(scope="module")
def photographs(real_data: Path) -> tuple[Tensor, Tensor]:
    """Twenty images of each class of the factory pack, as the recipes crop them, and their classes."""
    pixels, classes = [], []
    for class_id, folder in enumerate(sorted(path for path in (real_data / "factory").iterdir() if path.is_dir())):
        for path in sorted((folder / "train" / "good").iterdir())[:20]:
            squashed = Image.open(path).convert("RGB").resize((256, 256), Image.Resampling.LANCZOS)
            pixels.append(np.asarray(squashed)[16:240, 16:240])
            classes.append(class_id)
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2), torch.tensor(classes)


@pytest.mark.parametrize(
    ("name", "draws", "invisible", "largest_fraction"),
    [
        ("nsa", 2000, 1e-3, 0.05),
        ("cutpaste", 2000, 2e-3, 0.1),
        ("perlin", 500, 1e-3, 0.5),
        ("mask", 2000, 1e-3, 0.03),
    ],
)
def test_anomalies_are_visible(
    photographs: tuple[Tensor, Tensor], name: str, draws: int, invisible: float, largest_fraction: float
) -> None:
    images, classes = photographs
    method: Any = SYNTHESES[name](classes, 224, 224)
    fractions, same = [], 0
    for ids in torch.arange(draws).split(50):
        params = method.draw(0, 0, ids)
        normal = images[ids % len(images)]
        abnormal, mask = method.apply(normal, images[params.source], params)
        fractions.append(mask.flatten(1).float().mean(1))
        same += int((abnormal == normal).flatten(1).all(1).sum())
    fraction = torch.cat(fractions)
    print(f"{name}: {same} of {draws} equal the normal image; the mask is empty in {int((fraction == 0).sum())}")
    assert same <= invisible * draws
    assert (fraction == 0).float().mean() <= invisible
    assert fraction.max() <= largest_fraction
