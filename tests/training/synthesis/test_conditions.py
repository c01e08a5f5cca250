"""Anomalies under other conditions: sizes of images, precision settings, the wrong images, no waiting for a device."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tabzoo.errors import InputError
from tabzoo.training.synthesis import SYNTHESES, GridMask, GridMaskSettings, Nsa, NsaSettings, Perlin, PerlinSettings
from tabzoo.training.synthesis.perlin import _turned


@pytest.mark.parametrize("name", SYNTHESES)
@pytest.mark.parametrize("sides", [(64, 64), (300, 96), (70, 260)])
def test_other_sizes_of_images(name: str, sides: tuple[int, int], make_images: Callable[..., Tensor]) -> None:
    images = make_images(8, *sides, seed=1)
    method: Any = SYNTHESES[name](torch.arange(8) % 2, *sides)
    params = method.draw(0, 0, torch.arange(80))
    normal, source = images[torch.arange(80) % 8], images[params.source]
    abnormal, mask = method.apply(normal, source, params)
    assert torch.equal(mask, (abnormal.int() - normal.int()).abs().sum(1, keepdim=True) > 3)
    assert mask.flatten(1).any(1).float().mean() > 0.98
    for held in (torch.channels_last, torch.contiguous_format):
        again = method.apply(normal.contiguous(memory_format=held), source.contiguous(memory_format=held), params)
        assert torch.equal(again.abnormal, abnormal)
        assert again.abnormal.is_contiguous(memory_format=held)


@pytest.mark.parametrize("name", SYNTHESES)
def test_autocast_and_lower_precision_change_nothing(name: str, images: Tensor, class_ids: Tensor) -> None:
    method: Any = SYNTHESES[name](class_ids, 224, 224)
    params = method.draw(0, 0, torch.arange(32))
    expected = method.apply(images, images[params.source], params)
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            made = method.apply(images, images[params.source], params)
    finally:
        torch.set_float32_matmul_precision(precision)
    assert torch.equal(made.abnormal, expected.abnormal)
    assert torch.equal(made.mask, expected.mask)


@pytest.mark.parametrize("name", SYNTHESES)
def test_images_are_left_alone_and_results_are_ordinary(name: str, images: Tensor, class_ids: Tensor) -> None:
    method: Any = SYNTHESES[name](class_ids, 224, 224)
    params = method.draw(0, 0, torch.arange(32))
    normal, source = images.clone(), images[params.source].clone()
    made = method.apply(normal, source, params)
    assert torch.equal(normal, images)
    assert torch.equal(source, images[params.source])
    assert not made.abnormal.is_inference()
    weight = torch.ones(3, 3, 1, 1, requires_grad=True)
    torch.nn.functional.conv2d(made.abnormal.float(), weight).sum().backward()


@pytest.mark.parametrize("name", SYNTHESES)
def test_the_wrong_images(name: str, images: Tensor, class_ids: Tensor) -> None:
    method: Any = SYNTHESES[name](class_ids, 224, 224)
    params = method.draw(0, 0, torch.arange(4))
    few = images[:4]
    for normal, source, text in (
        (few[:, :, :200], few, r"normal images must be uint8 \[4, 3, 224, 224\]; got torch.uint8 \[4, 3, 200, 224\]"),
        (few, few.float(), r"source images must be uint8 .*; got torch.float32"),
        (few, few[:3], "source images must be"),
    ):
        with pytest.raises(InputError, match=text):
            method.apply(normal, source, params)


def test_draws_stay_as_they_are() -> None:
    """These decide every published run: they may not change."""
    params = Nsa(torch.arange(30) % 4, 224, 224).draw(1, 2, torch.arange(3))
    assert params.source.tolist() == [8, 13, 14]
    assert params.cut[:, 0, 0].tolist() == [[0, 0, 50, 72], [71, 72, 90, 32], [12, 156, 70, 68]]
    assert params.paste[:, 0, 0].tolist() == [[133, 141, 31, 45], [11, 193, 45, 16], [87, 129, 44, 43]]
    assert params.mixed.tolist() == [True, False, False]


def test_black_images_get_other_blocks() -> None:
    """Half of the image is black already: dropping blocks there changes nothing."""
    images = torch.zeros(200, 3, 64, 64, dtype=torch.uint8)
    images[:, :, 32:] = 200
    method = GridMask(torch.zeros(200, dtype=torch.int64), 64, 64, GridMaskSettings(num_blocks=1, retries=6))
    params = method.draw(0, 0, torch.arange(200))
    mask = method.apply(images, images, params).mask
    assert mask.flatten(1).any(1).float().mean() > 0.97
    assert int(mask[:, :, :32].sum()) == 0


def test_perlin_regions_are_never_empty(images: Tensor, class_ids: Tensor) -> None:
    """Noise of one cell seldom reaches the threshold: the lowered one takes its peak."""
    method = Perlin(class_ids, 224, 224, PerlinSettings(scales=1, change=0.0))
    params = method.draw(0, 0, torch.arange(32))
    made = method.apply(images, 255 - images, params)
    assert made.mask.flatten(1).any(1).all()


def test_noise_is_turned_around_its_centre() -> None:
    noise = torch.rand(1, 20, 20)
    assert torch.allclose(_turned(noise, torch.zeros(1)), noise, atol=1e-5)
    quarter = _turned(noise, torch.full((1,), torch.pi / 2))
    assert any(torch.allclose(quarter, noise.rot90(k, (1, 2)), atol=1e-4) for k in (1, 3))


def test_many_patches_and_largest_sizes(images: Tensor, class_ids: Tensor) -> None:
    nsa = Nsa(class_ids, 224, 224, NsaSettings(num_patches=4, width_max=0.49, resize=False, shift=False))
    params = nsa.draw(0, 0, torch.arange(32))
    abnormal, mask = nsa.apply(images, images[params.source], params)
    assert mask.flatten(1).float().mean(1).max() > 0.2
    assert (abnormal != images).any(1, keepdim=True)[mask].all()


@pytest.mark.gpu
@pytest.mark.parametrize("name", SYNTHESES)
def test_cuda_never_waits(name: str, images: Tensor, class_ids: Tensor) -> None:
    method: Any = SYNTHESES[name](class_ids, 224, 224)
    params = method.draw(0, 0, torch.arange(32)).to("cuda")
    normal, source = images.cuda(), images[params.source.cpu()].cuda()
    method.apply(normal, source, params)  # makes the tables
    torch.cuda.set_sync_debug_mode("error")
    try:
        method.apply(normal, source, params)
    finally:
        torch.cuda.set_sync_debug_mode("default")
