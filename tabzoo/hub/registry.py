"""Registration of weights with timm, as tags of stock architectures.

timm has no public call that adds a tag to an architecture it already knows. `register` therefore changes the four tables
of its registry that such a tag lives in, after checking that they look as expected. The weights' source is a lazy path:
timm turns it into a file name only when weights are asked for, so what happens then, errors included, is ours.
"""

import logging
from collections.abc import MutableSequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
from timm.models import PretrainedCfg, _registry

from tabzoo.errors import WeightsError
from tabzoo.hub import store, table
from tabzoo.hub.lazy import LazyPath
from tabzoo.hub.names import is_timms
from tabzoo.hub.sources import named_source, pretrained_cfg

__all__ = ["register"]

_log = logging.getLogger(__name__)


def register() -> None:
    """Adds tabzoo's weights and those of the local store to timm's registry; doing so again changes nothing.

    Raises:
        WeightsError: This timm keeps its registry in another form.
    """
    for weights in table.WEIGHTS:
        _register(weights.name, pretrained_cfg(weights), here=weights.published)
    for entry in store.installed():
        if is_timms(entry.name):
            _log.warning("%s in the local store is left out: timm has weights of this name by now", entry.name)
        else:
            _register(entry.name, entry.folder.config, here=True)


def _register(name: str, config: PretrainedCfg, *, here: bool) -> None:
    architecture, tag = name.split(".", 1)
    tags, default = _tables(architecture)
    config = replace(config, tag=tag, file=LazyPath(name, _file))  # type: ignore[arg-type]  # any path will do
    _registry._model_pretrained_cfgs[name] = config
    default.cfgs[tag] = config
    # Appended, never put first: timm takes the first tag as the architecture's default.
    if name not in tags:
        tags.append(name)
    if tag not in default.tags:
        default.tags.append(tag)
    # `_model_has_pretrained`, what list_models(pretrained=True) shows, names weights that can be had.
    (_registry._model_has_pretrained.add if here else _registry._model_has_pretrained.discard)(name)


def _file(name: str) -> Path:
    return named_source(name).checked()


def _tables(architecture: str) -> tuple[MutableSequence[str], Any]:
    """The names and the default configuration of an architecture, once their types are seen to be what we know."""
    try:
        names = _registry._model_with_tags[architecture]
        default: Any = _registry._model_default_cfgs[architecture]  # timm annotates it as what it is not
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
            f"be registered. Install a timm release that tabzoo names as tested, or load a folder with "
            f'timm.create_model("local-dir:DIR", pretrained=True), which needs no registration.'
        )
    return names, default
