"""Registration of weights with timm, as tags of its own architectures.

timm has no public function that adds a tag to a known architecture: `register_model` replaces all tags of one. So
`register` changes the four private tables of timm's registry that hold a tag, once their form is checked. The file in a
registered configuration is a lazy path: timm asks for the file name only when it loads the weights.
"""

import logging
import os
from collections.abc import Callable, MutableSequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
from timm.models import PretrainedCfg, _registry

from tabzoo.errors import WeightsError, brief
from tabzoo.hub import store, table
from tabzoo.hub.names import is_timms
from tabzoo.hub.resolve import pretrained_cfg, resolve_name

__all__ = ["LazyPath", "register"]

_log = logging.getLogger(__name__)


class LazyPath(os.PathLike[str]):
    """The verified weights file of a name, resolved when timm asks for it: errors occur there, not at the import.

    Not a dataclass: timm copies its configurations with `dataclasses.asdict`, which would make a dict of it.

    Args:
        name: Of the weights.
        resolve: From a name to the file.
    """

    def __init__(self, name: str, resolve: Callable[[str], Path]) -> None:
        self.name, self._resolve = name, resolve

    def __fspath__(self) -> str:
        return str(self._resolve(self.name))

    def __str__(self) -> str:
        # By this ending timm chooses safetensors; any other file it reads with torch.load.
        return f"{self.name}/model.safetensors"

    def __repr__(self) -> str:
        return f"tabzoo weights {self.name}"


def register() -> None:
    """Adds tabzoo's weights and those of the local store to timm's registry; a second call changes nothing.

    Raises:
        WeightsError: The registry of this timm has another form.
    """
    for weights in table.WEIGHTS:
        _register(weights.name, pretrained_cfg(weights), available=weights.published)
    for entry in store.installed():
        if is_timms(entry.name):
            _log.warning("%s in the local store is not used: timm now has weights of this name", entry.name)
        else:
            _register(entry.name, entry.folder.config, available=True)


def _register(name: str, config: PretrainedCfg, *, available: bool) -> None:
    architecture, tag = name.split(".", 1)
    tags, default = _tables(architecture)
    config = replace(config, tag=tag, file=LazyPath(name, _file))  # type: ignore[arg-type]  # any path will do
    _registry._model_pretrained_cfgs[name] = config
    default.cfgs[tag] = config
    # Appended, never first: timm takes the first tag as the architecture's default.
    if name not in tags:
        tags.append(name)
    if tag not in default.tags:
        default.tags.append(tag)
    # `_model_has_pretrained`, which list_models(pretrained=True) shows, contains names whose weights can be loaded.
    (_registry._model_has_pretrained.add if available else _registry._model_has_pretrained.discard)(name)


def _file(name: str) -> Path:
    try:
        return resolve_name(name).verified_file()
    except (
        ValueError,
        OSError,
    ) as error:  # timm's os.path.isfile would take them for a missing file, without a message
        raise WeightsError(brief(error)) from error


def _tables(architecture: str) -> tuple[MutableSequence[str], Any]:
    """The names and the default configuration of an architecture, once all types are checked."""
    try:
        names = _registry._model_with_tags[architecture]
        default: Any = _registry._model_default_cfgs[architecture]  # timm's annotation is wrong
        known = (
            isinstance(_registry._model_pretrained_cfgs, dict)
            and isinstance(_registry._model_has_pretrained, set)
            and isinstance(names, MutableSequence)
            and isinstance(default.tags, MutableSequence)
            and isinstance(default.cfgs, dict)
        )
    except (AttributeError, KeyError):
        known = False
    if not known:
        raise WeightsError(
            f"timm {timm.__version__} keeps its model registry in a form that tabzoo does not know, so its weights can't "
            f"be registered. Install a timm release that tabzoo is tested with, or load a weights folder, which needs no "
            f'registration: timm.create_model("local-dir:DIR", pretrained=True)'
        )
    return names, default
