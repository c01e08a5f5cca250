"""A recipe's synthetic anomalies: the settings of its method, its textures, and the maker of its pairs."""

from typing import Any

import torch
from torch import Tensor

from tabzoo.data.cache import open_images
from tabzoo.data.layouts import find_samples
from tabzoo.errors import InputError
from tabzoo.synthesis import (
    METHODS,
    SYNTHESES,
    CutPasteSettings,
    GridMaskSettings,
    MixSettings,
    NsaSettings,
    Perlin,
    PerlinSettings,
    Synthesis,
)
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
    """Returns a maker of pairs with a recipe's crop, normalisation and synthesis.

    Args:
        images: All images.
        members: Indices of the images to make pairs from, [N].
        class_ids: Class of each member, [N].
        recipe: The recipe, with its normalisation resolved.
        device: Where the pairs are made.
        textures: What `open_textures` returns; opened here if the recipe names a folder and none are given.
    """
    textures = open_textures(recipe) if textures is None else textures
    mean, std = recipe.normalisation
    return PairMaker(
        images,
        members,
        class_ids,
        _synthesis(recipe, class_ids, textures),
        crop=recipe.crop,
        device=device,
        mean=mean,
        std=std,
        channels_last=recipe.channels_last,
    )


def _synthesis(recipe: Recipe, class_ids: Tensor, textures: Tensor | None) -> Synthesis[Any]:
    settings = synthesis_settings(recipe)
    if textures is None:
        return SYNTHESES[recipe.synthesis](class_ids, recipe.crop, recipe.crop, settings)
    return Perlin(class_ids, recipe.crop, recipe.crop, settings, textures=textures)


def open_textures(recipe: Recipe) -> Tensor | None:
    """Reads all images of the texture folder, uint8 [T, 3, crop, crop], if the recipe names one."""
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
    """Returns the settings of a recipe's synthesis, of the type that its class takes.

    The settings of all methods are built, so that a wrong value is an error whichever method the recipe uses.

    Raises:
        InputError: A setting is out of range, or belongs to another synthesis; the text names the flag.
    """
    if recipe.mix_weights and recipe.synthesis != "mix":
        raise InputError(f"--mix-weights: only --synthesis mix uses weights; got --synthesis {recipe.synthesis}")
    if recipe.perlin_textures is not None and recipe.synthesis != "perlin":
        raise InputError(
            f"--perlin-textures: only --synthesis perlin uses textures; got --synthesis {recipe.synthesis}"
        )
    settings = _all_settings(recipe)
    return settings if recipe.synthesis == "mix" else settings.of_methods()[recipe.synthesis]


def _all_settings(recipe: Recipe) -> MixSettings:
    """The one mapping from the recipe's flat fields to settings. Settings without a field keep their defaults."""
    return MixSettings(
        weights=recipe.mix_weights or dict.fromkeys(METHODS, 1.0),
        nsa=NsaSettings(
            gamma_shape=recipe.nsa_gamma_shape,
            gamma_scale=recipe.nsa_gamma_scale,
            gamma_lower=recipe.nsa_gamma_lower,
            width_min=recipe.nsa_width_min,
            width_max=recipe.nsa_width_max,
            resize=recipe.nsa_resize,
            resize_min=recipe.nsa_resize_min,
            resize_max=recipe.nsa_resize_max,
            resize_std=recipe.nsa_resize_std,
            shift=recipe.nsa_shift,
            num_patches=recipe.nsa_num_patches,
            blend=recipe.nsa_blend,
            same_source=recipe.nsa_same_source,
        ),
        cutpaste=CutPasteSettings(variant=recipe.cutpaste_variant),
        perlin=PerlinSettings(threshold=recipe.perlin_threshold, beta_max=recipe.perlin_beta_max),
        mask=GridMaskSettings(block=recipe.mask_block, num_blocks=recipe.mask_num_blocks),
    )


def syntheses(recipe: Recipe) -> list[str]:
    """Names of the methods that make a recipe's anomalies; several in a mix."""
    return list(recipe.mix_weights or METHODS) if recipe.synthesis == "mix" else [recipe.synthesis]
