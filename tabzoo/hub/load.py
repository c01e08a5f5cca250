"""Models with weights that are known to be the right ones."""

import logging
import os
from pathlib import Path
from typing import Any

import timm
from torch import nn

from tabzoo.hub.copies import about, check_new, copy_folder, whole_folder
from tabzoo.hub.folders import verify
from tabzoo.hub.proof import build
from tabzoo.hub.sources import find_source

__all__ = ["create_model", "download"]

_log = logging.getLogger(__name__)


def create_model(
    source: str | os.PathLike[str],
    pretrained: bool = True,
    *,
    organisation: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    **timm_kwargs: Any,
) -> nn.Module:
    """`timm.create_model`, with the weights' SHA-256 checked and every tensor of them seen to be in the model.

    Args:
        source: A name of `list_models` or of the local store; a weights folder, such as a run's output, or the file in
            it; or "hf-hub:ORG/NAME@COMMIT", whose own tabzoo.json then says what the weights have to be.
        pretrained: False for random weights: nothing but `timm.create_model(source)`.
        organisation: Take the name from this organisation on the Hub instead; also the variable TABZOO_HUB_ORG. It is
            trusted as far as you trust it.
        cache_dir: For files of the Hub; huggingface_hub's own by default.
        timm_kwargs: Such as features_only, out_indices, in_chans, num_classes.

    Raises:
        InputError: There is nothing of this name.
        WeightsError: The weights can't be had, are not the right ones, or don't fit.
    """
    if not pretrained:
        random: nn.Module = timm.create_model(os.fspath(source), pretrained=False, **timm_kwargs)
        return random
    found = find_source(source, organisation=organisation, cache_dir=_path(cache_dir))
    tensors, digest = found.read()
    model = build(found.config, found.weights, tensors, **timm_kwargs)
    _log.info("%s from %s, SHA-256 %s, licence %s", found.name, found.origin, digest.sha256, found.license)
    return model


def download(
    source: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    organisation: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Makes a weights folder that a machine without network can use, by `tabzoo install` or timm's "local-dir:".

    Args:
        source: As for `create_model`.
        to: The folder, new or empty.
        organisation: As for `create_model`.
        cache_dir: As for `create_model`.

    Raises:
        InputError: There is nothing of this name, or the folder can't be made.
        WeightsError: The weights can't be had or are not the right ones.
    """
    check_new(Path(to))
    found = find_source(source, organisation=organisation, cache_dir=_path(cache_dir), whole=True)
    with whole_folder(Path(to)) as temporary, about(found.weights.parent, temporary):
        copy_folder(found.weights.parent, temporary)
        verify(temporary)
    return Path(to)


def _path(cache_dir: str | os.PathLike[str] | None) -> Path | None:
    return None if cache_dir is None else Path(cache_dir)
