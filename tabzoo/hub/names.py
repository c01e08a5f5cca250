"""Rules for the names of weights, ARCHITECTURE.TAG as timm has them."""

import re

import timm

from tabzoo.errors import InputError, did_you_mean
from tabzoo.hub.lazy import LazyPath

__all__ = ["NAME", "check_name", "is_timms"]

NAME = re.compile(r"([a-z0-9_]+)\.([a-z0-9_]+)")
"""A timm name with tag, as tabzoo allows them."""


def check_name(name: str) -> None:
    """Sees that a name can be a tag of timm's beside its own.

    Raises:
        InputError: It can't.
    """
    match = NAME.fullmatch(name)
    if not match:
        raise InputError(
            f"{name!r} can't be a name: expected ARCHITECTURE.TAG in small letters, digits and _, such as resnet18.my_factory"
        )
    architecture, tag = match.groups()
    if not timm.is_model(architecture):
        hint = did_you_mean(architecture, timm.list_models())
        raise InputError(f"{name}: timm {timm.__version__} has no architecture {architecture}.{hint}")
    if "vit" in tag:
        raise InputError(f"{name}: a tag cannot contain 'vit': anomalib treats such names as transformers")
    if is_timms(name):
        raise InputError(f"{name} is the name of weights of timm's own; choose another tag")


def is_timms(name: str) -> bool:
    """Whether timm itself has weights of this name."""
    architecture = name.split(".")[0]
    if name not in timm.list_models(f"{architecture}.*", include_tags=True):
        return False
    config = timm.get_pretrained_cfg(name)
    return config is not None and not isinstance(config.file, LazyPath)
