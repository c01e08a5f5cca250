"""Anomalies with other image sizes, precision settings and settings at their limits; what may never change."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tabzoo.errors import InputError
from tabzoo.synthesis import (
    SYNTHESES,
    CutPaste,
    CutPasteSettings,
    GridMask,
    GridMaskSettings,
    Mix,
    MixSettings,
    Nsa,
    NsaSettings,
    Perlin,
    PerlinSettings,
)


@pytest.mark.parametrize("name", SYNTHESES)
@pytest.mark.parametrize("sides", [(64, 64), (300, 96), (70, 260)])
def test_other_sizes_of_images(name: str, sides: tuple[int, int], make_images: Callable[..., Tensor]) -> None:
    images = make_images(8, *sides, seed=1)
    method: Any = SYNTHESES[name](torch.arange(8) % 2, *sides)
    params = method.draw(0, 0, torch.arange(24))
    normal, source = images[torch.arange(24) % 8], images[params.source]
    abnormal, mask = method.apply(normal, source, params)
    assert torch.equal(mask, (abnormal.int() - normal.int()).abs().sum(1, keepdim=True) > 3)
    assert mask.flatten(1).any(1).all()
    for held in (torch.channels_last, torch.contiguous_format):
        again = method.apply(normal.contiguous(memory_format=held), source.contiguous(memory_format=held), params)
        assert torch.equal(again.abnormal, abnormal)
        assert again.abnormal.is_contiguous(memory_format=held)


@pytest.mark.parametrize("name", SYNTHESES)
def test_autocast_and_lower_precision_change_nothing(name: str, images: Tensor, class_ids: Tensor) -> None:
    images, class_ids = images[::4], class_ids[::4]
    method: Any = SYNTHESES[name](class_ids, 224, 224)
    params = method.draw(0, 0, torch.arange(8))
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
def test_inputs_are_not_changed_and_results_can_be_trained_on(name: str, images: Tensor, class_ids: Tensor) -> None:
    images, class_ids = images[::4], class_ids[::4]
    method: Any = SYNTHESES[name](class_ids, 224, 224)
    params = method.draw(0, 0, torch.arange(8))
    normal, source = images.clone(), images[params.source].clone()
    made = method.apply(normal, source, params)
    assert torch.equal(normal, images)
    assert torch.equal(source, images[params.source])
    assert not made.abnormal.is_inference()
    weight = torch.ones(3, 3, 1, 1, requires_grad=True)
    torch.nn.functional.conv2d(made.abnormal[:1].float(), weight).sum().backward()


@pytest.mark.parametrize("name", SYNTHESES)
def test_images_of_another_type_or_shape_are_refused(name: str, images: Tensor, class_ids: Tensor) -> None:
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


def test_draws_never_change() -> None:
    """They decide every published run."""
    classes, ids = torch.arange(30) % 4, torch.arange(3)
    nsa = Nsa(classes, 224, 224).draw(1, 2, ids)
    assert nsa.source.tolist() == [8, 13, 14]
    assert nsa.cut[:, 0, 0].tolist() == [[0, 0, 50, 72], [71, 72, 90, 32], [12, 156, 70, 68]]
    assert nsa.paste[:, 0, 0].tolist() == [[133, 141, 31, 45], [11, 193, 45, 16], [87, 129, 44, 43]]
    assert nsa.mixed.tolist() == [True, False, False]
    cutpaste = CutPaste(classes, 224, 224, CutPasteSettings(variant="union")).draw(1, 2, ids)
    assert cutpaste.cut[:, 0].tolist() == [[10, 170, 99, 37], [36, 181, 14, 7], [0, 14, 19, 12]]
    assert cutpaste.paste[:, 0].tolist() == [[120, 70, 99, 37], [14, 32, 16, 15], [136, 190, 21, 15]]
    assert cutpaste.rotation[:, 1].tolist() == pytest.approx([0, -0.679822, 0.131206], rel=1e-5)
    assert cutpaste.lift.tolist() == pytest.approx([-0.0179945, 0.0503510, 0.0837539], rel=1e-5)
    perlin = Perlin(classes, 224, 224).draw(1, 2, ids)
    assert perlin.source.tolist() == [19, 11, 28]
    assert perlin.scales.tolist() == [[3, 3], [2, 2], [0, 2]]
    assert perlin.angles[:, 0, 0].tolist() == pytest.approx([0.911165, 0.681115, 5.884909], rel=1e-5)
    assert perlin.rotations.flatten().tolist() == pytest.approx(
        [-0.705678, 0, -0.251277, 0, 1.178039, 0.669275], rel=1e-5
    )
    assert perlin.beta.tolist() == pytest.approx([0.503505, 0.631407, 0.0487091], rel=1e-5)
    assert perlin.tone_curves[:, 0, 100].tolist() == [128, 65, 64]
    mask = GridMask(classes, 224, 224).draw(1, 2, ids)
    assert mask.corners[0, 0].tolist() == [[208, 32], [208, 16], [128, 192], [160, 192]]
    assert Mix(classes, 224, 224).draw(1, 2, torch.arange(8)).choice.tolist() == [3, 3, 0, 0, 1, 2, 1, 3]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            NsaSettings(),
            {
                **{"gamma_shape": 2.0, "gamma_scale": 0.07, "gamma_lower": 0.05, "width_min": 0.05, "width_max": 0.2},
                **{"resize": True, "resize_min": 0.7, "resize_max": 1.3, "resize_std": 0.5, "shift": True},
                **{"num_patches": 1, "blend": "mix", "same_source": False, "retries": 2},
            },
        ),
        (
            CutPasteSettings(),
            {
                **{"variant": "patch", "area_min": 0.02, "area_max": 0.09, "aspect_min": 0.2, "scar_width": (2, 16)},
                **{"scar_height": (10, 25), "scar_angle": 45.0, "jitter": 0.1, "retries": 4},
            },
        ),
        (
            PerlinSettings(),
            {"scales": 6, "max_angle": 90.0, "threshold": 0.65, "beta_max": 0.8, "change_probability": 5 / 11},
        ),
        (GridMaskSettings(), {"block": 16, "num_blocks": 4, "fill": 0, "retries": 4}),
        (
            MixSettings(),
            {
                "weights": {"nsa": 1.0, "cutpaste": 1.0, "perlin": 1.0, "mask": 1.0},
                **{"nsa": dataclasses.asdict(NsaSettings()), "cutpaste": dataclasses.asdict(CutPasteSettings())},
                **{"perlin": dataclasses.asdict(PerlinSettings()), "mask": dataclasses.asdict(GridMaskSettings())},
            },
        ),
    ],
)
def test_defaults_never_change(settings: Any, expected: dict[str, object]) -> None:
    """They are the TAB authors' values, used by every published run."""
    assert dataclasses.asdict(settings) == expected


@pytest.mark.parametrize(
    "method",
    [
        Nsa(torch.zeros(32, dtype=torch.int64), 224, 224, NsaSettings(blend="normal")),
        CutPaste(torch.zeros(32, dtype=torch.int64), 224, 224),
    ],
)
def test_every_attempt_has_places_of_its_own(method: Any, images: Tensor) -> None:
    params = method.draw(0, 0, torch.arange(32))
    moved = dataclasses.replace(params, cut=params.cut.roll(-1, -2), paste=params.paste.roll(-1, -2))
    second, first = (
        method._make(images, images[params.source], params, 1),
        method._make(images, images[params.source], moved, 0),
    )
    assert torch.equal(second.abnormal, first.abnormal)


def test_other_blocks_are_masked_where_the_first_were_black() -> None:
    """Half of the image is black already: masking blocks there changes nothing."""
    images = torch.zeros(200, 3, 64, 64, dtype=torch.uint8)
    images[:, :, 32:] = 200
    method = GridMask(torch.zeros(200, dtype=torch.int64), 64, 64, GridMaskSettings(num_blocks=1, retries=6))
    params = method.draw(0, 0, torch.arange(200))
    mask = method.apply(images, images, params).mask
    assert mask.flatten(1).any(1).float().mean() > 0.97
    assert int(mask[:, :, :32].sum()) == 0


def test_many_patches_and_largest_sizes(make_images: Callable[..., Tensor]) -> None:
    images = make_images(16, 160, 160, seed=2)
    settings = NsaSettings(num_patches=4, width_max=0.49, resize=False, shift=False)
    nsa = Nsa(torch.arange(16) % 4, 160, 160, settings)
    params = nsa.draw(0, 0, torch.arange(16))
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
