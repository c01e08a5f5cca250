"""Rules for the names of weights, ARCHITECTURE.TAG as in timm, and of their licences."""

import os
import re

import timm

from tabzoo.errors import InputError, did_you_mean
from tabzoo.hub.record import NAME

__all__ = ["LICENSE", "check_name", "is_timms"]

LICENSE = re.compile(r"(?=.{1,200}\Z)[A-Za-z0-9.+() -]*[A-Za-z0-9][A-Za-z0-9.+() -]*")
"""The form of an SPDX licence expression."""


def check_name(name: str) -> None:
    """Checks that a name can become a new tag of one of timm's architectures.

    Raises:
        InputError: It can't.
    """
    match = NAME.fullmatch(name)
    if not match:
        raise InputError(
            f"{name!r} is not a valid name: expected ARCHITECTURE.TAG in lower-case letters, digits and _, such as "
            f"resnet18.my_factory"
        )
    architecture, tag = match.groups()
    if not timm.is_model(architecture):
        hint = did_you_mean(architecture, timm.list_models())
        raise InputError(f"{name}: timm {timm.__version__} has no architecture {architecture}.{hint}")
    if "vit" in tag:
        raise InputError(f"{name}: a tag cannot contain 'vit': anomalib treats such names as transformers")
    if is_timms(name):
        raise InputError(f"{name}: timm already has weights of this name; choose another tag")


def is_timms(name: str) -> bool:
    """Whether timm itself has weights of this name."""
    architecture = name.split(".")[0]
    if name not in timm.list_models(f"{architecture}.*", include_tags=True):
        return False
    config = timm.get_pretrained_cfg(name)
    # The file of a name that tabzoo registered is a path object; timm's own configurations have a string or None.
    return config is not None and not isinstance(config.file, os.PathLike)
