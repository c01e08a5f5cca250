"""Pairs of normal images and anomalies, as the backbone sees them."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tabzoo.errors import InputError
from tabzoo.synthesis import SETTINGS, SYNTHESES, make_synthesis
from tabzoo.synthesis.pairs import PairMaker, Pairs
from tabzoo.training.anomalies import _settings, _synthesis, open_textures, pair_maker, syntheses
from tabzoo.training.recipe import Recipe


class Memory:
    """Random images, as `ImageSource`."""

    def __init__(self, count: int, size: int) -> None:
        self.pixels = torch.from_numpy(
            np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        )

    def batch(self, indices: Tensor) -> Tensor:
        return self.pixels[indices]


RECIPE = Recipe(resize=40, crop=32)
CLASSES = torch.tensor([0, 0, 0, 1, 1, 1, 1])


def maker(recipe: Recipe = RECIPE, members: Tensor | None = None) -> tuple[PairMaker, Memory]:
    memory = Memory(7, recipe.resize)
    members = torch.arange(7) if members is None else members
    return pair_maker(memory, members, CLASSES[members], recipe, torch.device("cpu")), memory


@pytest.mark.parametrize("channels_last", [False, True])
def test_normalised_as_torchvision_would(channels_last: bool) -> None:
    pairs, memory = maker(RECIPE.replace(channels_last=channels_last))
    ids = torch.tensor([5, 0, 3])
    got = pairs(1, 0, ids)
    cropped = memory.pixels[ids][:, 4:36, 4:36].permute(0, 3, 1, 2)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (RECIPE.mean, RECIPE.std))
    torch.testing.assert_close(got.normal, (cropped / 255 - mean) / std, rtol=1e-5, atol=2e-6)
    assert got.normal.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    assert got.classes.tolist() == [1, 0, 1]
    raw = pairs.raw(1, 0, ids)
    torch.testing.assert_close(got.abnormal, (raw.abnormal / 255 - mean) / std, rtol=1e-5, atol=2e-6)
    changed = (raw.abnormal.int() - raw.normal.int()).abs().amax(dim=1, keepdim=True) > 0
    assert not (raw.mask.bool() & ~changed).any()


def test_a_pair_depends_on_seed_epoch_and_sample_alone() -> None:
    pairs, _ = maker()
    together = pairs.raw(1, 2, torch.tensor([0, 3, 6, 10])).abnormal.clone()
    for row, sample in enumerate((0, 3, 6, 10)):
        assert torch.equal(pairs.raw(1, 2, torch.tensor([sample])).abnormal[0], together[row])
    assert not torch.equal(together[1], together[3])  # samples 3 and 10: the same image in two rounds
    assert not torch.equal(pairs.raw(1, 3, torch.tensor([0])).abnormal[0], together[0])
    assert not torch.equal(pairs.raw(2, 2, torch.tensor([0])).abnormal[0], together[0])


def test_perlin_textures_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "dots").mkdir()
    Image.new("RGB", (50, 50), (250, 0, 0)).save(tmp_path / "dots" / "red.png")
    recipe = RECIPE.replace(synthesis="perlin", perlin_textures=str(tmp_path), crop=40)
    textures = open_textures(recipe)
    assert textures.shape == (1, 3, 40, 40)
    assert textures[0, :, 20, 20].tolist() == [250, 0, 0]
    pairs, _ = maker(recipe)
    drawn = pairs.synthesis.draw(0, 0, torch.arange(7))
    assert torch.equal(drawn.source, torch.arange(7))  # no other image is asked for
    assert bool(pairs.raw(0, 0, torch.arange(7)).mask.flatten(1).any(dim=1).all())
    with pytest.raises(InputError, match="only --synthesis perlin uses textures"):
        maker(recipe.replace(synthesis="nsa"))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_recipes_defaults_are_the_methods_own(name: str) -> None:
    assert _settings(Recipe(), name) == SETTINGS[name]()


def test_sources_are_taken_from_the_members_alone() -> None:
    members = torch.tensor([1, 2, 4, 6])
    pairs, memory = maker(members=members)
    asked: list[int] = []
    original = memory.batch

    def batch(indices: Tensor) -> Tensor:
        asked.extend(indices.tolist())
        return original(indices)

    memory.batch = batch  # type: ignore[method-assign]
    for epoch in range(20):
        pairs.raw(0, epoch, torch.arange(4))
    assert set(asked) == set(members.tolist())


def test_pairs_made_ahead_are_the_same_and_stay_while_they_are_used() -> None:
    pairs, _ = maker(RECIPE.replace(channels_last=True))
    batches = [(epoch, torch.tensor([epoch, 5, 2])) for epoch in range(5)]

    def copied(batch: Pairs) -> list[Tensor]:
        return [tensor.clone() for tensor in batch]

    plain = [copied(batch) for batch in pairs.stream(1, batches)]
    made_ahead = []
    for batch in pairs.stream(1, batches, ahead=True):
        first = copied(batch)
        time.sleep(0.02)  # the next batch is written meanwhile
        assert all(torch.equal(a, b) for a, b in zip(first, batch, strict=True))
        made_ahead.append(first)
    for one, other in zip(plain, made_ahead, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", SYNTHESES)
def test_a_recipe_that_says_nothing_takes_the_methods_own_settings(name: str) -> None:
    """What the benchmark tests with and measures the FID of is what a recipe trains with."""
    recipe = RECIPE.replace(synthesis=name)
    classes = torch.tensor([0, 1, 0, 1])
    assert make_synthesis(name, classes, recipe.crop).settings == _synthesis(recipe, classes, None).settings


def test_names_of_a_recipes_methods() -> None:
    assert syntheses(RECIPE.replace(synthesis="perlin")) == ["perlin"]
    assert set(syntheses(RECIPE.replace(synthesis="mix"))) == set(SETTINGS)
    assert syntheses(RECIPE.replace(synthesis="mix", mix_weights={"nsa": 1.0, "mask": 2.0})) == ["nsa", "mask"]
