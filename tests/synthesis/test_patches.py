"""Reading, resizing and writing many rectangles at once, against one at a time."""

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from tabzoo.synthesis.patches import dense, places, read, resized, spots, write


def random_boxes(generator: np.random.Generator, count: int, largest: int, side: int) -> Tensor:
    """int64 [count, 4]: top, left, height, width; some of them touch the image's bottom right corner."""
    size = generator.integers(2, largest + 1, (count, 2))
    corner = generator.integers(0, side - size + 1)
    corner[::4] = side - size[::4]
    return torch.from_numpy(np.concatenate([corner, size], 1))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_exact_resizing_is_opencvs(images: Tensor, layout: torch.memory_format) -> None:
    generator = np.random.default_rng(0)
    held = images.contiguous(memory_format=layout)
    for round_ in range(10):
        box = random_boxes(generator, len(images), 100, 224)
        shape = random_boxes(generator, len(images), 100, 224)[:, 2:]
        if round_ % 5 == 0:  # exact halves, and nothing to do
            shape = torch.where(
                torch.arange(len(images))[:, None] % 2 == 0, box[:, 2:].div(2).ceil().long(), box[:, 2:]
            )
        made = resized(held, box, shape, margin=0, size=100, largest=100, exact=True)
        for i, ((top, left, height, width), (h, w)) in enumerate(zip(box.tolist(), shape.tolist(), strict=True)):
            patch = images[i, :, top : top + height, left : left + width].permute(1, 2, 0).contiguous().numpy()
            assert np.array_equal(made[i, :h, :, :w].permute(0, 2, 1).numpy(), cv2.resize(patch, (w, h)))


def test_fast_resizing_is_within_a_level(images: Tensor) -> None:
    generator = np.random.default_rng(1)
    box, shape = (random_boxes(generator, len(images), 90, 224) for _ in range(2))
    exact, fast = (
        resized(images, box, shape[:, 2:], margin=0, size=90, largest=90, exact=exact) for exact in (True, False)
    )
    i = torch.arange(90)
    inside = ((i < shape[:, 2:3])[:, :, None] & (i < shape[:, 3:4])[:, None])[:, :, None].expand_as(exact)
    assert (exact - fast)[inside].abs().max() <= 1


def test_margin_leaves_the_edge_out(images: Tensor) -> None:
    box = random_boxes(np.random.default_rng(2), len(images), 60, 224)
    shape = torch.full((len(images), 2), 40)
    whole = resized(images, box, shape, margin=0, size=40, largest=60, exact=True)
    inner = resized(images, box, shape, margin=1, size=38, largest=60, exact=True)
    assert torch.equal(inner, whole[:, 1:-1, :, 1:-1])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_read_and_write(images: Tensor, layout: torch.memory_format) -> None:
    box = random_boxes(np.random.default_rng(3), len(images), 30, 224)
    held = dense(images.contiguous(memory_format=layout)).clone()
    at = places(held, spots(held, box, 30))
    patch = read(held, at)  # [B, 30, 3, 30]
    write(held, at, 255 - patch)
    for i, (top, left, height, width) in enumerate(box.tolist()):
        expected = images[i].clone()
        region = expected[:, top : top + height, left : left + width]
        assert torch.equal(patch[i, :height, :, :width].transpose(0, 1), region)
        region.copy_(255 - region)
        assert torch.equal(held[i], expected)


def test_dense_keeps_the_layout(images: Tensor) -> None:
    interleaved = images.contiguous(memory_format=torch.channels_last)
    assert dense(images) is images
    assert dense(interleaved) is interleaved
    for held in (images, interleaved):
        cropped = held[:, :, 3:100, 5:90]
        assert torch.equal(dense(cropped), cropped)
        assert dense(cropped).stride(1) == (1 if held is interleaved else 97 * 85)
