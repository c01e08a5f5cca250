"""What holds for every kind of synthetic anomaly, and what each method does."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import scipy.stats
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
    NsaSettings,
    Params,
    PerlinSettings,
    Synthetic,
    cutpaste,
    mask,
    mix,
    nsa,
    perlin,
)


def made(name: str, images: Tensor, class_ids: Tensor, epoch: int = 0, settings: Any = None) -> tuple[Synthetic, Any]:
    method: Any = SYNTHESES[name](class_ids, *images.shape[2:], settings)
    params = method.draw(7, epoch, torch.arange(len(images)))
    return method.apply(images, images[params.source], params), params


@pytest.mark.parametrize("name", SYNTHESES)
def test_anomalies_are_local_visible_and_in_the_mask(name: str, images: Tensor, class_ids: Tensor) -> None:
    (abnormal, mask), _ = made(name, images, class_ids)
    assert abnormal.dtype == torch.uint8
    assert (abnormal.shape, mask.shape) == (images.shape, (len(images), 1, *images.shape[2:]))
    change = (abnormal.int() - images.int()).abs().sum(dim=1, keepdim=True)
    assert torch.equal(mask, change > 3)
    fractions = mask.flatten(1).float().mean(dim=1)
    assert bool((fractions > 0).all())
    assert float(fractions.mean()) < 0.25


@pytest.mark.parametrize("name", SYNTHESES)
def test_a_sample_depends_on_its_key_alone(name: str, images: Tensor, class_ids: Tensor) -> None:
    method: Any = SYNTHESES[name](class_ids, *images.shape[2:], None)
    ids = torch.tensor([3, 30, 35, 3])  # 35 is image 3 in another repeat
    params = method.draw(1, 2, ids)
    members = ids % len(images)
    together = method.apply(images[members], images[params.source], params).abnormal
    assert torch.equal(together[0], together[3])
    assert not torch.equal(together[0], together[2])
    for row in range(3):
        alone = method.draw(1, 2, ids[row : row + 1])
        assert int(alone.source) == int(params.source[row])
        single = method.apply(images[members[row : row + 1]], images[alone.source], alone).abnormal
        assert torch.equal(single[0], together[row])
    interleaved = images.contiguous(memory_format=torch.channels_last)
    again = method.apply(interleaved[members], interleaved[params.source], params).abnormal
    assert torch.equal(again, together)


def tensors(params: Params) -> dict[str, Tensor]:
    """What was drawn, by name; for a mix also what was drawn by each method."""
    named = {field.name: getattr(params, field.name) for field in dataclasses.fields(params)}
    named.pop("samples", None)
    for i, inner in enumerate(named.pop("methods", ())):
        named |= {f"{i}.{name}": value for name, value in tensors(inner).items()}
    return named


@pytest.mark.parametrize("name", SYNTHESES)
def test_all_draws_change_with_seed_epoch_and_repeat(name: str, class_ids: Tensor) -> None:
    settings: Any = {"nsa": NsaSettings(num_patches=2), "cutpaste": CutPasteSettings(variant="union")}
    method: Any = SYNTHESES[name](class_ids, 64, 64, settings.get(name, None))
    repeats = 5 + len(class_ids) * torch.arange(64)
    drawn = tensors(method.draw(1, 2, repeats))
    varying = {key for key, value in drawn.items() if not torch.equal(value, value[:1].expand_as(value))}
    assert len(varying) >= {"nsa": 5, "cutpaste": 5, "perlin": 7, "mask": 1, "mix": 14}[name]
    for other in (method.draw(2, 2, repeats), method.draw(1, 3, repeats)):
        assert not [key for key, value in tensors(other).items() if key in varying and torch.equal(value, drawn[key])]


def test_cutpaste_pastes_a_patch_of_the_image_itself(images: Tensor, class_ids: Tensor) -> None:
    _, params = made("cutpaste", images, class_ids)
    assert torch.equal(params.source, torch.arange(len(images)))
    sizes = made("cutpaste", images, class_ids, settings=CutPasteSettings(variant="scar"))[0].mask.flatten(1).sum(dim=1)
    assert int(sizes.max()) <= 16 * 25 * 2  # a scar is small; its rotated rectangle is a little larger
    with pytest.raises(InputError, match="too small for scars"):
        CutPaste(class_ids, 20, 20, CutPasteSettings(variant="scar"))


@pytest.mark.parametrize(
    ("settings", "name", "values"),
    [
        (CutPasteSettings, "variant", ["x"]),
        (CutPasteSettings, "area_min", [0, 0.5]),
        (CutPasteSettings, "area_max", [1]),
        (CutPasteSettings, "aspect_min", [0, 1.1]),
        (CutPasteSettings, "scar_width", [(0, 16), (16, 2)]),
        (CutPasteSettings, "scar_height", [(0, 16), (16, 2)]),
        (CutPasteSettings, "scar_angle", [-1, 91]),
        (CutPasteSettings, "jitter", [-0.1, 0.6]),
        (CutPasteSettings, "retries", [-1]),
        (PerlinSettings, "scales", [0, 9]),
        (PerlinSettings, "max_angle", [-1, 181]),
        (PerlinSettings, "threshold", [0, 1]),
        (PerlinSettings, "beta_max", [-0.1, 1]),
        (PerlinSettings, "change_probability", [-0.1, 1.1]),
        (GridMaskSettings, "block", [0]),
        (GridMaskSettings, "num_blocks", [0]),
        (GridMaskSettings, "fill", [-1, 256]),
        (GridMaskSettings, "retries", [-1]),
    ],
)
def test_settings_out_of_range_are_refused(settings: Any, name: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(InputError, match=f"^--[a-z]+-{name.replace('_', '-')} .*: expected "):
            settings(**{name: value})


def test_mask_needs_room_for_its_blocks(class_ids: Tensor) -> None:
    GridMask(class_ids, 32, 47, GridMaskSettings(num_blocks=4))
    with pytest.raises(InputError, match="num_blocks is 5, but images of 32 x 47 hold only 2 x 2 blocks of 16 px"):
        GridMask(class_ids, 32, 47, GridMaskSettings(num_blocks=5))


def test_mask_fills_complete_blocks(images: Tensor, class_ids: Tensor) -> None:
    settings = GridMaskSettings(block=28, num_blocks=3, fill=9)
    method = GridMask(class_ids, *images.shape[2:], settings)
    params = method.draw(0, 0, torch.arange(len(images)))
    abnormal = method.apply(images, images, params).abnormal
    blocks = (abnormal != images).any(dim=1).unfold(1, 28, 28).unfold(2, 28, 28).flatten(3)  # [B, 8, 8, 784]
    assert bool((blocks.any(dim=3).flatten(1).sum(dim=1) == 3).all())
    filled = (abnormal == 9).all(dim=1).unfold(1, 28, 28).unfold(2, 28, 28).flatten(3)
    assert bool(filled.all(dim=3)[blocks.any(dim=3)].all())


def test_mask_fills_every_block_equally_often() -> None:
    corners = GridMask(torch.arange(3), 64, 48, GridMaskSettings(retries=2)).draw(0, 0, torch.arange(4000)).corners
    blocks = (corners // 16 @ torch.tensor([3, 1])).flatten(1)  # [B, 3 attempts x 4 blocks] of the 4 x 3 there are
    assert torch.equal(blocks.sort(1).values, torch.arange(12).expand(4000, 12))
    for block in blocks.unbind(1):
        assert scipy.stats.chisquare(np.bincount(block)).pvalue > 1e-4


def test_mix_follows_its_weights_and_settings(images: Tensor, class_ids: Tensor) -> None:
    settings: dict[str, Any] = {"perlin": PerlinSettings(scales=2), "cutpaste": CutPasteSettings(variant="scar")}
    weights = {"nsa": 0.0, "perlin": 3.0, "cutpaste": 1.0}
    method = Mix(class_ids, 224, 224, MixSettings(weights=weights, **settings))
    choice = method.draw(0, 0, torch.arange(8000)).choice
    assert scipy.stats.binomtest(int((choice == 0).sum()), 8000, 0.75).pvalue > 1e-3
    ids = 3 * len(images) + torch.arange(len(images))
    params = method.draw(1, 2, ids)
    mixed = method.apply(images, images[params.source], params)
    for k, name in enumerate(("perlin", "cutpaste")):
        alone: Any = SYNTHESES[name](class_ids, 224, 224, settings[name])
        drawn = alone.draw(1, 2, ids)
        expected = alone.apply(images, images[drawn.source], drawn)
        assert (params.choice == k).any()
        assert torch.equal(params.source[params.choice == k], drawn.source[params.choice == k])
        assert torch.equal(mixed.abnormal[params.choice == k], expected.abnormal[params.choice == k])
        assert torch.equal(mixed.mask[params.choice == k], expected.mask[params.choice == k])
    for bad in ({"nonsense": 1.0}, {}, {"nsa": 0.0}, {"nsa": -1.0, "mask": 2.0}, {"nsa": float("inf")}):
        with pytest.raises(InputError, match="mix_weights: "):
            MixSettings(weights=bad)


@pytest.mark.parametrize("few", [torch.tensor([30, 2, 2, 17, 5]), slice(7, 20)])
def test_some_of_a_mix(images: Tensor, class_ids: Tensor, few: Tensor | slice) -> None:
    method = Mix(class_ids, 224, 224)
    params = method.draw(0, 0, torch.arange(len(images)))
    made = method.apply(images, images[params.source], params)
    some = method.apply(images[few], images[params[few].source], params[few])
    assert len(params[few]) == len(some.mask)
    assert torch.equal(some.abnormal, made.abnormal[few])
    assert torch.equal(some.mask, made.mask[few])


def test_methods_share_no_random_numbers() -> None:
    """In a mix, the choice of a method must be independent of what that method draws."""
    streams = [module.STREAM for module in (nsa, cutpaste, perlin, mask, mix)] + [perlin.STREAM + 100]
    assert len(set(streams)) == len(streams)


@pytest.mark.gpu
@pytest.mark.parametrize("name", SYNTHESES)
def test_cuda_makes_the_same(name: str, images: Tensor, class_ids: Tensor) -> None:
    method: Any = SYNTHESES[name](class_ids, *images.shape[2:], None)
    params = method.draw(0, 0, torch.arange(len(images)))
    here = method.apply(images, images[params.source], params).abnormal.int()
    there = method.apply(images.cuda(), images[params.source].cuda(), params.to("cuda")).abnormal.cpu().int()
    assert float(((here - there).abs() > 1).float().mean()) < 1e-4
