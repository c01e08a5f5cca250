"""Photos of parts in class folders, and detectors that are fitted to them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tabzoo.inspect.fit import fit_detector
from tabzoo.inspect.options import FitOptions

Fit = Callable[..., Path]


def photo(seed: int, *, defect: bool = False, side: int = 72) -> Image.Image:
    """A textured part with a disc; a defect is a bright square on it."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    pixels = 60 + 40 * np.sin(rows / 5)[..., None] + rng.normal(0, 12, (side, side, 3))
    pixels[(rows - side / 2) ** 2 + (columns - side / 2) ** 2 < (side / 4) ** 2] += 60
    if defect:
        top, left = rng.integers(8, side - 28, 2)
        pixels[top : top + 18, left : left + 18] = rng.uniform(0, 255, (18, 18, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_class(folder: Path, *, good: int, tested: int = 4, seed: int = 0) -> None:
    """train/good, test/good and test/hole of one class."""
    for part, number, defect in (
        ("train/good", good, False),
        ("test/good", tested, False),
        ("test/hole", tested, True),
    ):
        for i in range(number):
            path = folder / part / f"{i:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            photo(seed + 1000 * len(part) + i, defect=defect).save(path)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes: nut with 12 good photos, bolt with 3."""
    folder = tmp_path_factory.mktemp("photos")
    write_class(folder / "nut", good=12)
    write_class(folder / "bolt", good=3, seed=50_000)
    return folder


@pytest.fixture(scope="session")
def fit(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """Fits a detector with small sizes; the same flags are fitted once."""
    made: dict[tuple[Any, ...], Path] = {}

    def fit_once(**flags: Any) -> Path:
        key = tuple(sorted((name, str(value)) for name, value in flags.items()))
        if key not in made:
            output = tmp_path_factory.mktemp("fitted") / "detector"
            given = {"data": str(photos), "class_name": "nut", "backbone": "random:test_resnet", "size": 64, **flags}
            fit_detector(FitOptions(**{"output": output, **given}))
            made[key] = output
        return made[key]

    return fit_once
