"""Perlin anomalies: the noise, its region, and the texture with its operations."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from tabzoo.errors import InputError
from tabzoo.synthesis import Perlin, PerlinParams, PerlinSettings
from tabzoo.synthesis.draws import uniforms
from tabzoo.synthesis.perlin import STREAM, _blend_region, _mirrored, _rotate, _tone_curves, perlin_noise

COUNT = 5000
PLAIN = PerlinSettings(max_angle=0.0, beta_max=0.0, change_probability=0.0)


# --- noise


def test_noise_against_a_plain_one() -> None:
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
                    offset_y, offset_x = v - i, u - j
                    gradient = torch.cos(angles[0, i, j]) * offset_y + torch.sin(angles[0, i, j]) * offset_x
                    total += float(gradient) * fade(1 - abs(offset_y)) * fade(1 - abs(offset_x))
            assert float(noise[y, x]) == pytest.approx(2**0.5 * total, abs=1e-5)


def test_noise_is_rotated_around_its_centre() -> None:
    noise = torch.rand(1, 20, 20)
    assert torch.allclose(_rotate(noise, torch.zeros(1)), noise, atol=1e-5)
    quarter = _rotate(noise, torch.full((1,), torch.pi / 2))
    assert any(torch.allclose(quarter, noise.rot90(k, (1, 2)), atol=1e-4) for k in (1, 3))


# --- draws


@pytest.fixture(scope="module")
def drawn() -> PerlinParams:
    return Perlin(torch.arange(40) % 4, 64, 64).draw(0, 0, torch.arange(COUNT))


def test_draws_are_distributed_as_documented(drawn: PerlinParams) -> None:
    scales = np.bincount((drawn.scales @ torch.tensor([6, 1])).numpy(), minlength=36)
    assert scipy.stats.chisquare(scales).pvalue > 1e-3  # 1, 2, 4 ... 32 cells along each axis, independently
    for values, low, high in (
        (drawn.beta, 0, 0.8),
        (drawn.rotations[:, 0], -math.pi / 2, math.pi / 2),
        (drawn.angles[(drawn.scales[:, 0] >= 2) & (drawn.scales[:, 1] >= 3), 3, 7], 0, 2 * math.pi),
        (drawn.rotations[drawn.rotations[:, 1] != 0, 1], -math.pi / 4, math.pi / 4),
    ):
        assert scipy.stats.kstest((values.double().numpy() - low) / (high - low), "uniform").pvalue > 1e-3
    changed = drawn.rotations[:, 1] != 0, (drawn.tone_curves[:, 0] != torch.arange(256)).any(1)
    # Gamma, brightness and inverting always change levels; half of the time solarising, an eighth posterising does not.
    for fraction, expected in zip(changed, (5 / 11, 1 - (6 / 11) ** 3 * (1 - 5 / 22) * (1 - 35 / 88)), strict=True):
        assert scipy.stats.binomtest(int(fraction.sum()), COUNT, expected).pvalue > 1e-3
    series = torch.stack([drawn.beta, *drawn.rotations.unbind(1), *drawn.scales.unbind(1), drawn.angles[:, 0, 0]])
    assert (torch.corrcoef(series.double()) - torch.eye(6)).abs().max() < 5 / COUNT**0.5


def test_angles_are_drawn_where_a_sample_has_nodes(drawn: PerlinParams) -> None:
    """The numbers do not depend on how many are needed."""
    everywhere = 2 * math.pi * uniforms(0, 0, torch.arange(COUNT), 33 * 33, stream=STREAM + 100).view(-1, 33, 33)
    y, x = (torch.arange(33) <= 2 ** scale[:, None] for scale in drawn.scales.unbind(1))
    assert torch.equal(drawn.angles, (everywhere * y[:, :, None] * x[:, None, :]).float())


def test_colours_are_changed_as_documented(drawn: PerlinParams) -> None:
    colours = drawn.colours.double()
    saturation = torch.linalg.det(colours).sqrt()  # hue is a rotation, and saturation scales two of three axes
    same = (saturation - 1).abs() < 1e-5
    assert scipy.stats.binomtest(int(same.sum()), COUNT, 6 / 11).pvalue > 1e-3
    assert scipy.stats.kstest(saturation[~same].numpy() - 0.5, "uniform").pvalue > 1e-3
    angles = torch.rad2deg(torch.acos(((colours[same].diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1)))
    hues = angles[angles > 0.1]
    assert scipy.stats.binomtest(len(hues), len(angles), 5 / 11).pvalue > 1e-3
    assert scipy.stats.kstest(hues.numpy() / 72, "uniform").pvalue > 1e-3  # a fifth of a circle in either direction


def test_textures_are_images_of_another_class_or_given_ones(images: Tensor, class_ids: Tensor) -> None:
    params = Perlin(class_ids, 224, 224).draw(7, 0, torch.arange(len(images)))
    assert bool((class_ids[params.source] != class_ids).all())
    levels = torch.tensor([60, 120, 240], dtype=torch.uint8)
    textures = levels[:, None, None, None].expand(3, 3, 224, 224)
    method = Perlin(class_ids, 224, 224, PLAIN, textures=textures)
    params = method.draw(0, 0, torch.arange(len(images)))
    assert params.texture.unique().tolist() == [0, 1, 2]
    abnormal, mask = method.apply(images, images, params)
    assert mask.flatten(1).any(1).all()
    assert (abnormal == levels[params.texture][:, None, None, None])[mask.expand_as(abnormal)].all()
    with pytest.raises(InputError, match="textures must be"):
        Perlin(class_ids, 224, 224, textures=textures[:, :2])


# --- pixels


def test_white_over_black_shows_region_and_beta() -> None:
    black = torch.zeros(64, 3, 64, 64, dtype=torch.uint8)
    method = Perlin(torch.arange(64) % 2, 64, 64, PerlinSettings(max_angle=0.0, change_probability=0.0))
    params = method.draw(0, 0, torch.arange(64))
    noise = perlin_noise(params.angles, params.scales, 64, 64)
    highest, lowest = noise.amax((1, 2), keepdim=True), noise.amin((1, 2), keepdim=True)
    assert 5 < (highest > 0.65).sum() < 59  # both cases occur
    region = noise > torch.where(highest > 0.65, 0.65, 0.9 * highest + 0.1 * lowest)
    expected = torch.floor(255 * (1 - params.beta[:, None, None]) + 0.5) * region
    abnormal, mask = method.apply(black, 255 - black, params)
    assert (abnormal.float() - expected[:, None]).abs().max() <= 1
    assert torch.equal(mask[:, 0], region)


def test_regions_are_never_empty(images: Tensor, class_ids: Tensor) -> None:
    """Noise of one cell seldom reaches the threshold; the lowered threshold takes its peak."""
    method = Perlin(class_ids, 224, 224, PerlinSettings(scales=1, change_probability=0.0))
    params = method.draw(0, 0, torch.arange(32))
    made = method.apply(images, 255 - images, params)
    assert made.mask.flatten(1).any(1).all()


def test_the_texture_is_rotated_and_coloured(images: Tensor, class_ids: Tensor) -> None:
    """On square images a rotation by 90 degrees is exact; channels change places, and each has its own tone curve."""
    method = Perlin(class_ids, 224, 224, PLAIN)
    params = method.draw(0, 0, torch.arange(len(images)))
    source = images[params.source]
    for angle, quarters in ((0.0, 0), (math.pi / 2, 1), (-math.pi / 2, -1)):
        rotations = torch.tensor([0.0, angle]).expand(len(images), 2)
        made = method.apply(images, source, dataclasses.replace(params, rotations=rotations))
        expected = source.rot90(-quarters, (2, 3))
        assert torch.equal(made.abnormal[made.mask.expand_as(source)], expected[made.mask.expand_as(source)])
    tone_curves = (torch.arange(256) // torch.tensor([[1], [2], [4]])).to(torch.uint8).repeat(len(images), 1, 1)
    colours = torch.eye(3).roll(1, 0).expand(len(images), 3, 3)  # each channel moves to the next one's place
    made = method.apply(images, source, dataclasses.replace(params, tone_curves=tone_curves, colours=colours))
    expected = (source // torch.tensor([1, 2, 4], dtype=torch.uint8)[:, None, None]).roll(1, 1)
    assert torch.equal(made.abnormal[made.mask.expand_as(source)], expected[made.mask.expand_as(source)])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_all_pixels_equal_a_list_of_them(images: Tensor, class_ids: Tensor, layout: torch.memory_format) -> None:
    """The code for GPUs and the code for CPUs, both on the CPU."""
    params = Perlin(class_ids, 224, 224).draw(1, 0, torch.arange(32))
    noise = perlin_noise(params.angles, params.scales, 224, 224)
    texture = images[params.source].contiguous(memory_format=layout)
    made = [images.clone(memory_format=layout) for _ in range(2)]
    masks = [_blend_region(made[k], texture, noise > 0.4, params, as_list=bool(k)) for k in range(2)]
    assert masks[0].any()
    assert torch.equal(*made)
    assert torch.equal(*masks)


def test_the_texture_is_mirrored_at_its_edges() -> None:
    for side in (7, 8):
        offsets = torch.arange(-side, 2 * side) - (side - 1) / 2
        assert _mirrored(offsets, side).tolist() == np.pad(np.arange(side), side, mode="symmetric").tolist()


def test_tone_curves_against_plain_ones() -> None:
    """Each operation alone, then all of them."""
    level = np.arange(256.0)
    powers = np.stack([255 * (level / 255) ** gamma for gamma in (0.5, 1.0, 2.0)])
    bright = np.clip(1.2 * level - 18, 0, 255)
    solarised = np.where(level >= 80, 255 - level, level)
    coarse = level // 16 * 16
    all_of_them = np.clip(1.2 * powers - 18, 0, 255)
    all_of_them = np.where(all_of_them >= 80, 255 - all_of_them, all_of_them)
    all_of_them = 255 - all_of_them // 16 * 16
    amounts = torch.tensor([[0.0, 0.5, 1.0, 1.0, 0.2, 0.5, 0.4, 0.55]], dtype=torch.float64)
    for changes, expected in (
        ("", level),
        ("g", powers),
        ("b", bright),
        ("s", solarised),
        ("p", coarse),
        ("i", 255 - level),
        ("gbspi", all_of_them),
    ):
        made = _tone_curves(torch.tensor([[change in changes for change in "gbspi"]]), amounts)
        assert np.array_equal(made[0].numpy(), np.broadcast_to(np.rint(expected), (3, 256)))
    amounts[0, 6] = 0.6  # the coin: half of the time solarising does nothing
    assert np.array_equal(
        _tone_curves(torch.tensor([[False, False, True, False, False]]), amounts)[0, 0].numpy(), level
    )
