"""Reading, resizing and writing many rectangles at once, compared with one by one."""

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from tabzoo.synthesis.patches import crop_and_resize, dense, memory_offsets, pixel_indices, read_pixels, write_pixels


def random_boxes(generator: np.random.Generator, count: int, largest: int, side: int) -> Tensor:
    """int64 [count, 4]: top, left, height, width; some of them touch the image's bottom right corner."""
    size = generator.integers(2, largest + 1, (count, 2))
    corner = generator.integers(0, side - size + 1)
    corner[::4] = side - size[::4]
    return torch.from_numpy(np.concatenate([corner, size], 1))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_resizing_is_opencvs(images: Tensor, layout: torch.memory_format) -> None:
    generator = np.random.default_rng(0)
    held = images.contiguous(memory_format=layout)
    for round_ in range(10):
        box = random_boxes(generator, len(images), 100, 224)
        shape = random_boxes(generator, len(images), 100, 224)[:, 2:]
        if round_ % 5 == 0:  # exactly half the size, and the same size
            shape = torch.where(
                torch.arange(len(images))[:, None] % 2 == 0, box[:, 2:].div(2).ceil().long(), box[:, 2:]
            )
        made = crop_and_resize(held, box, shape, margin=0, size=100)
        for i, ((top, left, height, width), (h, w)) in enumerate(zip(box.tolist(), shape.tolist(), strict=True)):
            patch = images[i, :, top : top + height, left : left + width].permute(1, 2, 0).contiguous().numpy()
            assert np.array_equal(made[i, :h, :, :w].permute(0, 2, 1).numpy(), cv2.resize(patch, (w, h)))


def test_margin_leaves_out_the_edge(images: Tensor) -> None:
    box = random_boxes(np.random.default_rng(2), len(images), 60, 224)
    shape = torch.full((len(images), 2), 40)
    together = crop_and_resize(images, box, shape, margin=0, size=40)
    inner = crop_and_resize(images, box, shape, margin=1, size=38)
    assert torch.equal(inner, together[:, 1:-1, :, 1:-1])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_read_and_write(images: Tensor, layout: torch.memory_format) -> None:
    box = random_boxes(np.random.default_rng(3), len(images), 30, 224)
    held = dense(images.contiguous(memory_format=layout)).clone()
    offsets = memory_offsets(held, pixel_indices(held, box, 30))
    patch = read_pixels(held, offsets)  # [B, 30, 3, 30]
    write_pixels(held, offsets, 255 - patch)
    for i, (top, left, height, width) in enumerate(box.tolist()):
        expected = images[i].clone()
        region = expected[:, top : top + height, left : left + width]
        assert torch.equal(patch[i, :height, :, :width].transpose(0, 1), region)
        region.copy_(255 - region)
        assert torch.equal(held[i], expected)


def test_dense_keeps_the_memory_format(images: Tensor) -> None:
    interleaved = images.contiguous(memory_format=torch.channels_last)
    assert dense(images) is images
    assert dense(interleaved) is interleaved
    for held in (images, interleaved):
        cropped = held[:, :, 3:100, 5:90]
        assert torch.equal(dense(cropped), cropped)
        assert dense(cropped).stride(1) == (1 if held is interleaved else 97 * 85)
