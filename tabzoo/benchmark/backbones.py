"""What is known of a backbone beside its weights: what it was trained on, and with which synthetic anomalies."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tabzoo.errors import InputError, WeightsError, brief, did_you_mean
from tabzoo.hub.config import read_json
from tabzoo.hub.files import Digest
from tabzoo.hub.folders import RECORD, WEIGHTS
from tabzoo.training.recipe import SYNTHESES, load_recipe

__all__ = ["Backbone", "find_backbones", "unseen_synthesis"]

_KINDS = tuple(name for name in SYNTHESES if name != "mix")


class Backbone(NamedTuple):
    """A backbone to measure.

    Attributes:
        name: What tables call it.
        trained_on: Class to number of good images it was pre-trained on, as far as its folder says.
        syntheses: Kinds of synthetic anomalies it was pre-trained with.
        source: What its feature extractor is built from, see `features.build_extractor`.
    """

    name: str
    trained_on: dict[str, int]
    syntheses: tuple[str, ...]
    source: str


def find_backbones(names: Sequence[str]) -> list[Backbone]:
    """The backbones that a user names; a folder is called by its name, or by its path where two have the same.

    Raises:
        InputError: A folder that is not there, or the same name twice.
        WeightsError: Weights that differ from what the folder's tabzoo.json says.
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
    folder = Path(name.removeprefix("local-dir:"))
    if not folder.is_dir():
        if len(folder.parts) > 1 and ":" not in name:
            siblings = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
            raise InputError(f"--backbone {name}: no such folder.{did_you_mean(folder.name, siblings)}")
        return Backbone(name, {}, (), name)
    record, recipe = folder / RECORD, folder / "recipe.yaml"
    classes: dict[str, int] = {}
    expected = None
    if record.is_file():
        try:
            content = read_json(record)
            classes, expected = content["training"]["classes"], content.get("weights", {}).get("sha256")
            if not all(isinstance(count, int) for count in classes.values()):
                raise ValueError("training.classes: expected numbers of images")
        except (WeightsError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{record}: not what a run of tabzoo writes: {brief(error)}") from error
    weights = folder / WEIGHTS
    # Weights that were changed would get the record's name, classes and kinds of anomalies.
    if expected and weights.is_file() and (found := Digest.of(weights).sha256) != expected:
        raise WeightsError(
            f"--backbone {name}: {WEIGHTS} was changed: its SHA-256 is {found}, {record.name} says {expected}. Restore it, or "
            f"remove {record.name} to measure the weights as they are."
        )
    return Backbone(folder.resolve().name, classes, _syntheses(recipe), name)


def _syntheses(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    recipe = load_recipe(str(path))
    return tuple(recipe.mix_weights or _KINDS) if recipe.synthesis == "mix" else (recipe.synthesis,)
