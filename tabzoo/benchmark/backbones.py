"""What is known of a backbone beside its weights: what it was trained on, and with which synthetic anomalies."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tabzoo.errors import InputError, did_you_mean
from tabzoo.training.recipe import SYNTHESES, load_recipe

__all__ = ["Backbone", "find_backbones", "unseen_synthesis"]

_KINDS = tuple(name for name in SYNTHESES if name != "mix")


class Backbone(NamedTuple):
    """A backbone to measure."""

    name: str
    """What tables call it."""
    source: str
    """What the feature extractor is built from: `random[:ARCHITECTURE]`, a timm name, `hf-hub:...` or `local-dir:...`."""
    trained_on: dict[str, int]
    """Class to good images it was pre-trained on, as far as its folder says."""
    syntheses: tuple[str, ...]
    """Kinds of synthetic anomalies it was pre-trained with."""


def find_backbones(names: Sequence[str]) -> list[Backbone]:
    """The backbones that a user names; a folder is called by its name, or by its path where two have the same.

    Raises:
        InputError: A folder that is not there or holds no backbone, or the same backbone twice.
    """
    if double := {name for name in names if names.count(name) > 1}:
        raise InputError(f"--backbone: {', '.join(sorted(double))} is given more than once")
    found = [_find(name) for name in names]
    labels = [backbone.name for backbone in found]
    return [b._replace(name=given) if labels.count(b.name) > 1 else b for b, given in zip(found, names, strict=True)]


def unseen_synthesis(backbones: Iterable[Backbone]) -> str:
    """A kind of synthetic anomaly that none of the backbones was trained with, the one most like real defects first.

    Raises:
        InputError: They have seen every kind.
    """
    seen = {kind for backbone in backbones for kind in backbone.syntheses}
    unseen = [kind for kind in _KINDS if kind not in seen]
    if not unseen:
        raise InputError(
            f"--test synthetic: these backbones were trained with every kind of anomaly ({', '.join(_KINDS)}), so none is left "
            f"that would be new to all of them. Name fewer backbones, or test on real defects."
        )
    return unseen[0]


def _find(name: str) -> Backbone:
    given = name.removeprefix("local-dir:")
    folder = Path(given)
    if not folder.is_dir():
        if name != given or folder.is_absolute() or given.startswith(("./", "../")):
            raise InputError(f"--backbone {name}: no such folder{_nearest(folder)}")
        return Backbone(name, name, {}, ())
    if not (folder / "config.json").is_file():
        raise InputError(
            f"--backbone {name}: this folder holds no backbone (config.json, model.safetensors). If it is a run that was "
            f"stopped, finish it with --resume."
        )
    record, recipe = folder / "tabzoo.json", folder / "recipe.yaml"
    try:
        classes = json.loads(record.read_text(encoding="utf-8"))["training"]["classes"] if record.is_file() else {}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{record}: not what a run of tabzoo writes: {error}") from error
    return Backbone(folder.resolve().name, f"local-dir:{folder}", classes, _syntheses(recipe))


def _nearest(folder: Path) -> str:
    siblings = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
    return did_you_mean(folder.name, siblings)


def _syntheses(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    recipe = load_recipe(str(path))
    return tuple(recipe.mix_weights or _KINDS) if recipe.synthesis == "mix" else (recipe.synthesis,)
