"""Poisson blending against OpenCV, with masks of any form; what cannot have an influence has none."""

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tabzoo.synthesis.poisson import blend, clone_mask, eroded

SIZE = 64


def blobs(generator: np.random.Generator, count: int) -> list[NDArray[np.uint8]]:
    """Masks of random ellipses and holes, each cut to its bounding box."""
    masks = []
    while len(masks) < count:
        mask = np.zeros((SIZE - 2, SIZE - 2), np.uint8)
        for _ in range(generator.integers(1, 4)):
            centre, axes = generator.integers(12, SIZE - 14, 2).tolist(), generator.integers(6, 20, 2).tolist()
            cv2.ellipse(mask, centre, axes, float(generator.integers(180)), 0, 360, 255, -1)
        cv2.circle(mask, generator.integers(20, SIZE - 20, 2).tolist(), 3, 0, -1)
        rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
        mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        if min(mask.shape) > 14:
            masks.append(mask)
    return masks


@pytest.mark.parametrize("mixed", [False, True])
def test_masks_of_any_form(images: Tensor, mixed: bool) -> None:
    generator = np.random.default_rng(0)
    masks = blobs(generator, 60)
    canvas = torch.zeros(60, SIZE, SIZE, dtype=torch.bool)
    source, destination = (torch.zeros(60, SIZE, 3, SIZE, dtype=torch.int16) for _ in range(2))
    expected = []
    for i, mask in enumerate(masks):
        h, w = mask.shape
        y, x, top, left = generator.integers(0, 224 - SIZE, 4)
        normal = images[i % 32].permute(1, 2, 0).contiguous().numpy()
        # OpenCV clears the border of the mask that it is given: give it one more pixel all around.
        patch = images[(i * 7 + 1) % 32, :, y : y + h + 2, x : x + w + 2].permute(1, 2, 0).contiguous().numpy()
        centre = (int(left) + w // 2, int(top) + h // 2)
        kind = cv2.MIXED_CLONE if mixed else cv2.NORMAL_CLONE
        made = cv2.seamlessClone(patch, normal, np.pad(mask, 1), centre, kind)
        expected.append(made[top : top + h, left : left + w])
        canvas[i, :h, :w] = torch.from_numpy(mask > 0)
        source[i, :h, :, :w] = torch.from_numpy(patch[1:-1, 1:-1]).transpose(1, 2)
        destination[i, :h, :, :w] = torch.from_numpy(normal[top : top + h, left : left + w]).transpose(1, 2)
    rows, columns = (torch.tensor([mask.shape[axis] for mask in masks]) for axis in (0, 1))
    ours = blend(source, destination, eroded(canvas), rows, columns, torch.full((60,), mixed))
    changed = equal = 0
    for i, reference in enumerate(expected):
        h, w, _ = reference.shape
        blended = ours[i, :h, :, :w].transpose(1, 2).numpy()
        before = destination[i, :h, :, :w].transpose(1, 2).numpy()
        difference = np.abs(blended.astype(int) - reference)
        assert difference.max() <= 1
        touched = (reference != before) | (blended != before)
        changed, equal = changed + int(touched.sum()), equal + int((touched & (difference == 0)).sum())
    assert changed > 40_000
    assert equal / changed >= 0.998


def test_eroded_rectangle_is_the_clone_mask() -> None:
    rows, columns = torch.tensor([9, 7, 20, 6]), torch.tensor([12, 20, 8, 20])
    i = torch.arange(20)
    rectangle = (i < rows[:, None])[:, :, None] & (i < columns[:, None])[:, None]
    assert torch.equal(eroded(rectangle), clone_mask(rows, columns, 20))
    assert clone_mask(rows, columns, 20)[0].sum() == 3 * 6


@pytest.mark.parametrize("mixed", [False, True])
def test_what_lies_outside_the_rectangle_is_not_read(mixed: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    source, destination = (
        torch.randint(0, 256, (4, 30, 3, 30), generator=generator, dtype=torch.int16) for _ in range(2)
    )
    rows, columns = torch.tensor([30, 12, 20, 9]), torch.tensor([11, 30, 17, 9])
    guided, modes = clone_mask(rows, columns, 30), torch.full((4,), mixed)
    first = blend(source, destination, guided, rows, columns, modes)
    i = torch.arange(30)
    inside = ((i < rows[:, None])[:, :, None] & (i < columns[:, None])[:, None])[:, :, None]
    other = blend(
        torch.where(inside, source, 255 - source), torch.where(inside, destination, 7), guided, rows, columns, modes
    )
    assert torch.equal(first * inside, other * inside)
    assert torch.equal(torch.where(inside, 0, first), torch.where(inside, 0, destination).to(torch.uint8))


def test_alike_images_stay_as_they_are() -> None:
    image = torch.randint(0, 256, (2, 20, 3, 20), dtype=torch.int16)
    side = torch.tensor([20, 15])
    made = blend(image, image, clone_mask(side, side, 20), side, side, torch.tensor([True, False]))
    assert torch.equal(made, image.to(torch.uint8))
