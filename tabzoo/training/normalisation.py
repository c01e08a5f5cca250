"""What images are normalised by: the mean and std that a user or a recipe states, else the backbone's own.

Weights work as they should only on images that are normalised as in their training. Most of timm's are ImageNet's, many
are not, so a recipe that states nothing takes the backbone's own pretrained configuration.
"""

import logging
from collections.abc import Mapping
from typing import Any

from tabzoo.backbones import own_normalisation
from tabzoo.errors import InputError, TabzooError
from tabzoo.training.recipe import NORMALISATION, Recipe

__all__ = ["as_words", "resolve_normalisation"]

_log = logging.getLogger(__name__)

_SAME = 0.001  # a number that was typed with three digits is meant to be the configuration's


def resolve_normalisation(settings: Recipe, *, named: Recipe, begun: Recipe | None = None) -> Recipe:
    """The settings with mean and std filled in, and one line or warning where a user may have expected others.

    Args:
        settings: The settings; mean and std are None where they are not stated for this backbone.
        named: The recipe that was named, whose mean and std belong to its own backbone.
        begun: The recipe of the run that is resumed. A run keeps what it began with.

    Raises:
        InputError: No such backbone, or its configuration holds values out of range.
        WeightsError: The configuration is needed, but can't be fetched or read.
    """
    stated = _stated(settings)
    kept = _stated(begun) if begun and begun.backbone == settings.backbone else {}
    known = kept | stated
    complete = len(known) == len(NORMALISATION)
    if complete and settings.init == "random":  # no weights that expect anything
        return settings.replace(**known)
    try:
        own = dict(zip(NORMALISATION, own_normalisation(settings.backbone), strict=True))
        checked = _stated(settings.replace(**own))
    except TabzooError as error:
        if complete:
            return settings.replace(**known)
        if isinstance(error, InputError) and str(error).startswith(NORMALISATION):
            raise InputError(
                f"--backbone {settings.backbone}: its pretrained configuration says {str(error).rstrip('.')}. Type --mean "
                f"and --std."
            ) from error
        raise
    resolved = settings.replace(**checked | known)
    _tell(resolved, checked, stated=stated, kept=kept, of_recipe=_stated(named))
    return resolved


def as_words(values: Mapping[str, Any]) -> str:
    """Those of mean and std that are there, as they are typed: "mean 0.5 0.5 0.5 and std 0.5 0.5 0.5"."""
    return " and ".join(
        f"{key} {' '.join(f'{value:.6g}' for value in values[key])}" for key in NORMALISATION if values.get(key)
    )


def _stated(recipe: Recipe) -> dict[str, Any]:
    return {key: value for key in NORMALISATION if (value := getattr(recipe, key)) is not None}


def _unlike(given: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the given values that are not the backbone's own."""
    return {
        key: values
        for key, values in given.items()
        if any(abs(one - other) > _SAME for one, other in zip(values, own[key], strict=True))
    }


def _tell(
    resolved: Recipe, own: dict[str, Any], *, stated: dict[str, Any], kept: dict[str, Any], of_recipe: dict[str, Any]
) -> None:
    by_hand = _unlike({key: values for key, values in stated.items() if kept.get(key) != values}, own)
    begun = _unlike({key: values for key, values in kept.items() if key not in stated}, own)
    replaced = _unlike({key: values for key, values in of_recipe.items() if key not in stated | kept}, own)
    if by_hand and resolved.init != "random":
        flags = " and ".join(f"--{key}" for key in by_hand)
        _log.warning(
            "Images are normalised by %s, as given, but the pretrained configuration of %s says %s. For its own, leave out "
            "%s; in a recipe file, remove %s.",
            *(as_words(by_hand), resolved.backbone, as_words({key: own[key] for key in by_hand}), flags),
            "these lines" if len(by_hand) > 1 else "this line",
        )
    if begun and resolved.init != "random":
        _log.warning(
            "This run began with %s, and keeps it; the pretrained configuration of %s says %s. For its own, type --overwrite.",
            *(as_words(begun), resolved.backbone, as_words({key: own[key] for key in begun})),
        )
    if replaced:
        print(
            f"Images are normalised by {as_words({key: own[key] for key in replaced})}, the pretrained configuration of "
            f"{resolved.backbone}; the recipe's {as_words(replaced)} belong to its own backbone."
        )
