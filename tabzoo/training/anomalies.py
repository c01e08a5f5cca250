"""A recipe's synthetic anomalies: the settings of its method, its textures, and the pairs made with them."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from tabzoo.data.cache import open_images
from tabzoo.data.layouts import find_samples
from tabzoo.errors import InputError
from tabzoo.synthesis import SETTINGS, SYNTHESES, MixSettings, Perlin, Synthesis
from tabzoo.synthesis.pairs import ImageSource, PairMaker
from tabzoo.training.recipe import Recipe

__all__ = ["open_textures", "pair_maker", "syntheses", "synthesis_settings"]


def pair_maker(
    images: ImageSource,
    members: Tensor,
    class_ids: Tensor,
    recipe: Recipe,
    device: torch.device,
    *,
    textures: Tensor | None = None,
) -> PairMaker:
    """Makes pairs as a recipe says.

    Args:
        images: All images.
        members: Which of them the pairs are made of, [N].
        class_ids: Class of each of the members, [N].
        recipe: Crop, normalisation and synthesis.
        device: Where the pairs are made.
        textures: As `open_textures` gives them; opened here if the recipe names some and none are given.
    """
    textures = open_textures(recipe) if textures is None else textures
    return PairMaker(
        images,
        members,
        class_ids,
        _synthesis(recipe, class_ids, textures),
        crop=recipe.crop,
        device=device,
        mean=recipe.mean,
        std=recipe.std,
        channels_last=recipe.channels_last,
    )


def _synthesis(recipe: Recipe, class_ids: Tensor, textures: Tensor | None) -> Synthesis[Any]:
    settings = synthesis_settings(recipe)
    if textures is None:
        return SYNTHESES[recipe.synthesis](class_ids, recipe.crop, recipe.crop, settings)
    return Perlin(class_ids, recipe.crop, recipe.crop, settings, textures=textures)


def open_textures(recipe: Recipe) -> Tensor | None:
    """All images of the texture folder, uint8 [T, 3, crop, crop], if the recipe names one."""
    if recipe.perlin_textures is None:
        return None
    samples = find_samples(recipe.perlin_textures)
    images = open_images(
        samples,
        size=recipe.crop,
        cache_dir=recipe.cache_dir,
        workers=recipe.workers,
        white_level=recipe.white_level,
    )
    return images.batch(torch.arange(len(images))).permute(0, 3, 1, 2).contiguous()


def synthesis_settings(recipe: Recipe) -> Any:
    """The settings of a recipe's way to make anomalies.

    Raises:
        InputError: One is out of range, or is another way's; the text names the flag.
    """
    if recipe.mix_weights and recipe.synthesis != "mix":
        raise InputError(f"--mix-weights: only --synthesis mix uses weights; got --synthesis {recipe.synthesis}")
    if recipe.perlin_textures is not None and recipe.synthesis != "perlin":
        raise InputError(
            f"--perlin-textures: only --synthesis perlin uses textures; got --synthesis {recipe.synthesis}"
        )
    of_each = {name: _settings(recipe, name) for name in SETTINGS}  # all, so that no wrong value goes unseen
    if recipe.synthesis != "mix":
        return of_each[recipe.synthesis]
    return MixSettings(weights=recipe.mix_weights or dict.fromkeys(SETTINGS, 1.0), settings=of_each)


def _settings(recipe: Recipe, name: str) -> Any:
    """A method's settings: the recipe's fields that begin with its name, and its own defaults for the rest."""
    kind = SETTINGS[name]
    given = {entry.name: f"{name}_{entry.name}" for entry in dataclasses.fields(kind)}
    return kind(**{key: getattr(recipe, value) for key, value in given.items() if hasattr(recipe, value)})


def syntheses(recipe: Recipe) -> list[str]:
    """Names of the methods that make a recipe's anomalies; several in a mix."""
    return list(recipe.mix_weights or SETTINGS) if recipe.synthesis == "mix" else [recipe.synthesis]
