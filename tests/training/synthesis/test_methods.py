"""What every kind of synthetic anomaly keeps to, and what each does."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tabzoo.errors import InputError
from tabzoo.training.synthesis import (
    SYNTHESES,
    CutPaste,
    CutPasteSettings,
    GridMask,
    GridMaskSettings,
    Mix,
    MixSettings,
    Perlin,
    PerlinSettings,
    Synthetic,
)
from tabzoo.training.synthesis.perlin import perlin_noise


def made(name: str, images: Tensor, class_ids: Tensor, epoch: int = 0, settings: Any = None) -> tuple[Synthetic, Any]:
    method: Any = SYNTHESES[name](class_ids, *images.shape[2:], settings)
    params = method.draw(7, epoch, torch.arange(len(images)))
    return method.apply(images, images[params.source], params), params


@pytest.mark.parametrize("name", SYNTHESES)
def test_local_visible_and_told_by_the_mask(name: str, images: Tensor, class_ids: Tensor) -> None:
    (abnormal, mask), _ = made(name, images, class_ids)
    assert abnormal.dtype == torch.uint8
    assert (abnormal.shape, mask.shape) == (images.shape, (len(images), 1, *images.shape[2:]))
    change = (abnormal.int() - images.int()).abs().sum(dim=1, keepdim=True)
    assert torch.equal(mask, change > 3)
    shares = mask.flatten(1).float().mean(dim=1)
    assert bool((shares > 0).all())
    assert float(shares.mean()) < 0.25


@pytest.mark.parametrize("name", SYNTHESES)
def test_a_sample_depends_on_its_key_alone(name: str, images: Tensor, class_ids: Tensor) -> None:
    method: Any = SYNTHESES[name](class_ids, *images.shape[2:], None)
    ids = torch.tensor([3, 30, 35, 3])  # 35 is image 3 in another round
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


def test_cutpaste_pastes_a_patch_of_the_image_itself(images: Tensor, class_ids: Tensor) -> None:
    _, params = made("cutpaste", images, class_ids)
    assert torch.equal(params.source, torch.arange(len(images)))
    sizes = made("cutpaste", images, class_ids, settings=CutPasteSettings(variant="scar"))[0].mask.flatten(1).sum(dim=1)
    assert int(sizes.max()) <= 16 * 25 * 2  # a scar is small; its turned rectangle a little larger
    with pytest.raises(InputError, match="cutpaste: area_min"):
        CutPasteSettings(area_min=0.5)
    with pytest.raises(InputError, match="too small for scars"):
        CutPaste(class_ids, 20, 20, CutPasteSettings(variant="scar"))


def test_perlin_takes_texture_from_another_class_or_from_given_ones(images: Tensor, class_ids: Tensor) -> None:
    _, params = made("perlin", images, class_ids)
    assert bool((class_ids[params.source] != class_ids).all())
    textures = torch.full((2, 3, *images.shape[2:]), 255, dtype=torch.uint8)
    settings = PerlinSettings(beta_max=0.0, change=0.0)
    method = Perlin(class_ids, *images.shape[2:], settings, textures=textures)
    drawn = method.draw(0, 0, torch.arange(len(images)))
    abnormal, mask = method.apply(images, images, drawn)
    assert bool((abnormal.permute(1, 0, 2, 3)[:, mask[:, 0]] == 255).all())
    with pytest.raises(InputError, match="textures must be"):
        Perlin(class_ids, *images.shape[2:], textures=textures[:, :2])


def test_perlin_noise_against_a_plain_one() -> None:
    """Pixel by pixel, from the definition: gradients at the nodes, faded by 6 t^5 - 15 t^4 + 10 t^3."""
    generator = torch.Generator().manual_seed(0)
    angles = 6.28 * torch.rand(1, 5, 5, generator=generator)
    noise = perlin_noise(angles, torch.tensor([[2, 1]]), 8, 8)[0]
    fade = lambda t: t**3 * (t * (6 * t - 15) + 10)  # noqa: E731
    for y in range(8):
        for x in range(8):
            v, u = y * 4 / 8, x * 2 / 8
            total = 0.0
            for i in (int(v), int(v) + 1):
                for j in (int(u), int(u) + 1):
                    way_y, way_x = v - i, u - j
                    gradient = torch.cos(angles[0, i, j]) * way_y + torch.sin(angles[0, i, j]) * way_x
                    total += float(gradient) * fade(1 - abs(way_y)) * fade(1 - abs(way_x))
            assert float(noise[y, x]) == pytest.approx(2**0.5 * total, abs=1e-5)


def test_mask_drops_whole_blocks(images: Tensor, class_ids: Tensor) -> None:
    settings = GridMaskSettings(block=28, num_blocks=3, fill=9)
    method = GridMask(class_ids, *images.shape[2:], settings)
    params = method.draw(0, 0, torch.arange(len(images)))
    abnormal = method.apply(images, images, params).abnormal
    blocks = (abnormal != images).any(dim=1).unfold(1, 28, 28).unfold(2, 28, 28).flatten(3)  # [B, 8, 8, 784]
    assert bool((blocks.any(dim=3).flatten(1).sum(dim=1) == 3).all())
    filled = (abnormal == 9).all(dim=1).unfold(1, 28, 28).unfold(2, 28, 28).flatten(3)
    assert bool(filled.all(dim=3)[blocks.any(dim=3)].all())


def test_mix_follows_its_weights(images: Tensor, class_ids: Tensor) -> None:
    method = Mix(class_ids, *images.shape[2:], MixSettings(weights={"nsa": 3.0, "perlin": 1.0}))
    choice = method.draw(0, 0, torch.arange(8000)).choice
    assert float((choice == 0).float().mean()) == pytest.approx(0.75, abs=0.02)
    params = method.draw(0, 0, torch.arange(len(images)))
    mixed = method.apply(images, images[params.source], params).abnormal
    for k, name in enumerate(("nsa", "perlin")):
        alone: Any = SYNTHESES[name](class_ids, *images.shape[2:], None)
        drawn = alone.draw(0, 0, torch.arange(len(images)))
        expected = alone.apply(images, images[drawn.source], drawn).abnormal
        assert torch.equal(mixed[params.choice == k], expected[params.choice == k])
    for bad in ({"nonsense": 1.0}, {"nsa": 0.0}, {"nsa": -1.0, "mask": 2.0}):
        with pytest.raises(InputError, match="mix: "):
            MixSettings(weights=bad)


@pytest.mark.gpu
@pytest.mark.parametrize("name", SYNTHESES)
def test_cuda_makes_the_same(name: str, images: Tensor, class_ids: Tensor) -> None:
    method: Any = SYNTHESES[name](class_ids, *images.shape[2:], None)
    params = method.draw(0, 0, torch.arange(len(images)))
    here = method.apply(images, images[params.source], params).abnormal.int()
    there = method.apply(images.cuda(), images[params.source].cuda(), params.to("cuda")).abnormal.cpu().int()
    assert float(((here - there).abs() > 1).float().mean()) < 1e-4
