"""Where a backbone's weights come from: the images it was pre-trained on, and the synthetic anomalies."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tabzoo.benchmark.paper import OBJECTS, TEXTURES
from tabzoo.data.decoding import Hashes
from tabzoo.errors import InputError, WeightsError, brief, did_you_mean
from tabzoo.hub import store
from tabzoo.hub.files import Digest, read_json
from tabzoo.hub.folder import HASHES
from tabzoo.hub.record import RECORD, WEIGHTS
from tabzoo.strict_yaml import read_yaml
from tabzoo.synthesis import SYNTHESES

__all__ = ["Backbone", "find_backbones", "unseen_synthesis"]

_PUBLISHED_ON: dict[str, tuple[str, ...]] = {"resnet18.tab_mvtec": (*TEXTURES, *OBJECTS)}
"""Weights without a run's record, such as the authors', and the classes they were trained on."""
_KINDS = tuple(name for name in SYNTHESES if name != "mix")


class Backbone(NamedTuple):
    """A backbone to measure.

    Attributes:
        name: What tables call it.
        trained_on: Classes it was pre-trained on, if its folder or its name tells.
        syntheses: Kinds of synthetic anomalies it was pre-trained with.
        source: What its feature extractor is built from, see `extractor.build_extractor`.
        hashes: Of the files of the images it was pre-trained on; None where its folder does not tell.
    """

    name: str
    trained_on: tuple[str, ...]
    syntheses: tuple[str, ...]
    source: str
    hashes: Hashes | None = None

    def saw(self, class_name: str, hashes: Hashes) -> bool:
        """Whether it was pre-trained on one of these files; if that is unknown, on a class of this name."""
        return class_name in self.trained_on if self.hashes is None else bool(np.isin(hashes, self.hashes).any())


def find_backbones(names: Sequence[str]) -> list[Backbone]:
    """The backbones that a user names; a folder is called by its name, or by its path if two have the same name.

    Raises:
        InputError: A folder that does not exist, or the same name twice.
        WeightsError: Weights that differ from the checksum in the folder's tabzoo.json.
    """
    if double := {name for name in names if names.count(name) > 1}:
        raise InputError(f"--backbone: {', '.join(sorted(double))} is given more than once")
    found = [_find(name) for name in names]
    labels = [backbone.name for backbone in found]
    return [b._replace(name=given) if labels.count(b.name) > 1 else b for b, given in zip(found, names, strict=True)]


def unseen_synthesis(backbones: Iterable[Backbone]) -> str:
    """A kind of synthetic anomaly that none of the backbones was trained with, the one most like real defects first.

    Raises:
        InputError: They were trained with every kind.
    """
    seen = {kind for backbone in backbones for kind in backbone.syntheses}
    unseen = [kind for kind in _KINDS if kind not in seen]
    if not unseen:
        raise InputError(
            f"--test synthetic: these backbones were trained with every kind of anomaly ({', '.join(_KINDS)}), so none "
            f"is new to all of them. Give fewer backbones, or test on real defects."
        )
    return unseen[0]


def _find(name: str) -> Backbone:
    folder = Path(name.removeprefix("local-dir:"))
    if folder.is_dir():
        return _of_folder(folder, name)._replace(name=folder.resolve().name)
    if entry := store.find(name):
        return _of_folder(entry.folder.path, name)
    if len(folder.parts) > 1 and ":" not in name:
        siblings = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise InputError(f"--backbone {name}: no such folder.{did_you_mean(folder.name, siblings)}")
    return Backbone(name, _PUBLISHED_ON.get(re.split("[:/]", name)[-1].partition("@")[0], ()), (), name)


def _of_folder(folder: Path, name: str) -> Backbone:
    record = folder / RECORD
    try:
        content: dict[str, Any] = read_json(record) if record.is_file() else {"converted_from": None}
        if "converted_from" in content:  # not written by a run
            content["training"] = {"classes": _PUBLISHED_ON.get(content.get("name", ""), ())}
        training: dict[str, Any] = content["training"]
        classes, expected = tuple(training["classes"]), content.get("weights", {}).get("sha256")
    except (WeightsError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{record}: not written by a run of tabzoo: {brief(error)}") from error
    # Else, changed weights would be measured under the record's name, classes and kinds of anomalies.
    of_hashes = training.get("image_hashes_sha256")
    for path, said in ((folder / WEIGHTS, expected), (folder / HASHES, of_hashes)):
        if said and path.is_file() and (found := Digest.of(path).sha256) != said:
            raise WeightsError(
                f"--backbone {name}: {path.name} was changed: its SHA-256 is {found}, but {RECORD} says {said}. Restore it, or "
                f"remove {RECORD} to measure the weights as they are."
            )
    return Backbone(
        name, classes, _syntheses(training, folder / "recipe.yaml"), name, _hashes(folder / HASHES, of_hashes)
    )


def _hashes(path: Path, said: str | None) -> Hashes | None:
    """None if they are missing, as in copies made by older versions."""
    if said is None or not path.is_file():
        return None
    try:
        return np.array([int(line, 16) for line in path.read_text(encoding="ascii").split()], dtype=np.uint64)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: not written by a run of tabzoo: {error}") from error


def _syntheses(training: dict[str, Any], recipe: Path) -> tuple[str, ...]:
    """Kinds of anomalies, from the record; runs of older versions have them only in their recipe."""
    found = training.get("syntheses")
    if found is None and recipe.is_file():
        try:
            content = read_yaml(recipe.read_text(encoding="utf-8"))
            found = (
                content["synthesis"] if content["synthesis"] != "mix" else list(content.get("mix_weights") or _KINDS)
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{recipe}: not written by a run of tabzoo: {brief(error)}") from error
    return (found,) if isinstance(found, str) else tuple(found or ())
