"""The one centre crop of training, FID and benchmark."""

import pytest
import torch
from torchvision.transforms import CenterCrop

from tabzoo.data.images import centre_crop, crop_edges


@pytest.mark.parametrize(
    ("size", "side", "edges"), [(256, 224, (16, 240)), (7, 4, (1, 5)), (8, 3, (2, 5)), (5, 5, (0, 5))]
)
def test_an_odd_margin_cuts_off_less_at_the_start(size: int, side: int, edges: tuple[int, int]) -> None:
    assert crop_edges(size, side) == edges


@pytest.mark.parametrize(("size", "side", "later"), [(256, 224, 0), (329, 288, 0), (95, 64, 1), (257, 224, 0)])
def test_where_torchvisions_crop_starts(size: int, side: int, later: int) -> None:
    rows = torch.arange(size).expand(1, size, size)
    assert int(CenterCrop(side)(rows)[0, 0, 0]) == crop_edges(size, side)[0] + later


@pytest.mark.parametrize("shape", [(2, 7, 7), (2, 7, 7, 3)])
def test_crops_are_views_of_the_middle(shape: tuple[int, ...]) -> None:
    squares = torch.arange(torch.Size(shape).numel()).view(shape)
    cropped = centre_crop(squares, 4)
    assert torch.equal(cropped, squares[:, 1:5, 1:5])
    assert cropped.data_ptr() == squares[:, 1, 1].data_ptr()
