"""The backbones that the page offers: those whose weights are on this machine, so that it works without network."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache

from tabzoo.backbones import check_name
from tabzoo.detectors.extractor import timm_name
from tabzoo.errors import InputError
from tabzoo.hub.overview import overview
from tabzoo.hub.record import WEIGHTS as FILE
from tabzoo.hub.table import WEIGHTS

__all__ = ["RANDOM", "backbones_here", "checked_backbones"]

RANDOM = "random"
"""Weights that nothing was learned with: the baseline, which needs no file."""
_TIMM = "models--timm--"
"""How the Hub's cache names the repositories of timm's weights."""


def checked_backbones(given: Sequence[str]) -> list[str]:
    """The backbones given, each once.

    Raises:
        InputError: No such model or folder.
        WeightsError: A name of the Hub is given, the Hub does not answer, and its cache has no copy.
    """
    for name in given:
        timm_name(name)
    return list(dict.fromkeys(given))


def backbones_here() -> list[str]:
    """Installed weights, tabzoo's and timm's weights in the Hub's cache, and `RANDOM` as the last one."""
    installed = [one.name for one in overview() if one.state == "installed"]
    return list(dict.fromkeys([*installed, *_published_here(), *_timms_here(), RANDOM]))


def _published_here() -> Iterator[str]:
    for weights in WEIGHTS:
        release = weights.release
        if release and isinstance(try_to_load_from_cache(release.repository, FILE, None, release.commit), str):
            yield weights.name


def _timms_here() -> Iterator[str]:
    """Names of timm whose weights are in the Hub's cache."""
    for folder in sorted(Path(constants.HF_HUB_CACHE).glob(f"{_TIMM}*")):
        name = folder.name.removeprefix(_TIMM)
        try:
            check_name(name)
        except InputError:  # a repository of another kind
            continue
        if isinstance(try_to_load_from_cache(f"timm/{name}", "model.safetensors"), str):
            yield name
