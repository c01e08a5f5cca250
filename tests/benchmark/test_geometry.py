"""Maps and masks meet: a bright square lies in both at the same place, for images of any size and aspect."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from tabzoo.benchmark.class_images import ClassImages
from tabzoo.benchmark.measure import _planes
from tabzoo.data.cache import open_images
from tabzoo.data.layouts import find_samples
from tabzoo.detectors import DETECTORS

SIZES = [(48, 48), (300, 300), (97, 211), (301, 64), (640, 1000), (37, 401)]
GREY, BRIGHT = 64, 192
DEFAULTS = {(spec.resize, spec.crop, spec.resampling) for spec in DETECTORS.values()}
ODD_MARGINS = {(257, 224, "lanczos"), (95, 64, "bilinear")}


def squares(root: Path) -> None:
    """An image of each size with a square that is neither in the middle nor of a size that halves well."""
    for number, (height, width) in enumerate(SIZES):
        mask = np.zeros((height, width), np.uint8)
        top, left = round(0.3 * height), round(0.55 * width)
        mask[top : top + max(5, height // 7), left : left + max(5, width // 9)] = 1
        for path, pixels in (
            ("train/good", np.full_like(mask, GREY)),
            ("test/square", GREY + (BRIGHT - GREY) * mask),
            ("ground_truth/square", 255 * mask),
        ):
            (root / "plate" / path).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / "plate" / path / f"{number}.png")


def middle(plane: Tensor) -> np.ndarray:
    """Row and column of the centre of mass, in pixels."""
    weights = plane.double().numpy()
    return np.array(
        [(weights.sum(axis=1 - axis) @ np.arange(size) / weights.sum()) for axis, size in enumerate(weights.shape)]
    )


@pytest.mark.parametrize(("resize", "crop", "resampling"), sorted(DEFAULTS | ODD_MARGINS))
def test_maps_and_masks_meet(resize: int, crop: int, resampling: str, tmp_path: Path) -> None:
    squares(tmp_path)
    opened = open_images(
        find_samples(tmp_path),
        size=resize,
        mode="off",
        workers=0,
        progress=False,
        masks=True,
        resampling=resampling,  # type: ignore[arg-type]
    )
    images = ClassImages(opened, 0, resize=resize, crop=crop)
    evaluation = images.evaluation_set(test="real", seed=0)
    # A method that sees every pixel: its map is the brightness.
    maps = (evaluation.pixels(evaluation.rows)[..., 0].float() - GREY) / (BRIGHT - GREY)
    for map_, mask in zip(maps, evaluation.masks, strict=True):  # at the method's size to half a pixel of it
        assert np.abs(middle(map_) - middle(mask)).max() <= 0.5
    plan, job = SimpleNamespace(options=SimpleNamespace(full_resolution=True)), SimpleNamespace(images=images)
    for map_, mask, shape in zip(*_planes(plan, job, evaluation, maps), SIZES, strict=True):  # type: ignore[arg-type]
        assert map_.shape == mask.shape
        assert np.abs(np.array(mask.shape) - np.array(shape) * crop / resize).max() <= 1
        assert np.abs(middle(map_) - middle(mask)).max() <= 0.5
