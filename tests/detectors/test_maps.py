"""Upsampling and smoothing in one against PyTorch and SciPy one after the other."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from tabzoo.detectors.maps import smooth_upsample


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("grid", "size"), [((14, 14), (56, 56)), ((7, 5), (30, 21)), ((1, 2), (9, 9)), ((56, 56), (224, 224))]
)
def test_upsampling_and_smoothing(grid: tuple[int, int], size: tuple[int, int], align_corners: bool) -> None:
    values = torch.rand(3, *grid, generator=torch.Generator().manual_seed(1))
    up = F.interpolate(values[:, None].double(), size=size, mode="bilinear", align_corners=align_corners)[:, 0]
    expected = np.stack([gaussian_filter(plane, sigma=4) for plane in up.numpy()])
    np.testing.assert_allclose(smooth_upsample(values, size, align_corners=align_corners).numpy(), expected, rtol=1e-5)
