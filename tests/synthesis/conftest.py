"""Images that look natural enough for blending: random fields whose spectrum falls off like that of photos."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

NUM_CLASSES, PER_CLASS, SIDE = 4, 8, 224


def natural_images(count: int, height: int, width: int, seed: int) -> Tensor:
    """uint8 [count, 3, height, width] with coloured clouds, edges and a little noise; no two alike."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    falloff = 1 / np.maximum(np.hypot(fy, fx), 1 / max(height, width)) ** 1.2
    images = []
    for _ in range(count):
        spectrum = np.fft.rfft2(rng.normal(size=(4, height, width))) * falloff
        fields = np.fft.irfft2(spectrum, s=(height, width))
        fields /= fields.std((1, 2), keepdims=True)
        colours = rng.uniform(-1, 1, (3, 3)) @ fields[:3].reshape(3, -1)
        edges = np.where(fields[3] > rng.uniform(-1, 1), 1.0, -1.0) * rng.uniform(0, 1, (3, 1, 1))
        image = 128 + 35 * colours.reshape(3, height, width) + 30 * edges + rng.normal(0, 3, (3, height, width))
        images.append(image)
    return torch.from_numpy(np.clip(np.stack(images), 0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def images() -> Tensor:
    """uint8 [32, 3, 224, 224], eight images of each of four classes."""
    return natural_images(NUM_CLASSES * PER_CLASS, SIDE, SIDE, seed=0)


@pytest.fixture(scope="session")
def class_ids() -> Tensor:
    return torch.arange(NUM_CLASSES).repeat_interleave(PER_CLASS)


@pytest.fixture(scope="session")
def make_images() -> Callable[..., Tensor]:
    return natural_images
