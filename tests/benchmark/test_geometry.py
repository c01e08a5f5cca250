"""Maps and masks meet: a bright square lies in both at the same place, for images of any size and aspect."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
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


@pytest.mark.parametrize("size", [(329, 329), (658, 987), (1316, 329)])
def test_simplenets_crop_starts_at_the_same_pixel_everywhere(size: tuple[int, int], tmp_path: Path) -> None:
    """What becomes row and column 20 of 329 is marked: the corner of the crop of 288, in the image and in masks of any size."""
    mask = np.zeros(size, np.uint8)
    step = np.array(size) // 329
    top, left = 20 * step
    mask[top : top + step[0], left : left + step[1]] = 1
    mask[top - step[0] : top, left - step[1] : left] = 2  # just outside: must be nowhere
    for path, pixels in (
        ("train/good", 0 * mask),
        ("test/mark", 100 * (mask == 1)),
        ("ground_truth/mark", 255 * (mask > 0)),
    ):
        (tmp_path / "plate" / path).mkdir(parents=True)
        Image.fromarray(np.uint8(pixels)).save(tmp_path / "plate" / path / "0.png")
    opened = open_images(
        find_samples(tmp_path), size=329, mode="off", workers=0, progress=False, masks=True, resampling="bilinear"
    )
    images = ClassImages(opened, 0, resize=329, crop=288)
    evaluation = images.evaluation_set(test="real", seed=0)
    pixels = evaluation.pixels(evaluation.rows)[0, ..., 0]
    assert int(pixels.argmax()) == 0
    assert int(pixels[0, 0]) > 2 * int(pixels[0, 1])  # a blurred mark, but in the middle of its pixel
    assert torch.equal(evaluation.masks[0].nonzero(), torch.tensor([[0, 0]]))
    (full,) = images.full_masks()
    assert full.shape == tuple(288 * step)
    assert full[: step[0], : step[1]].all()
    assert int((full != 0).sum()) == step.prod()
