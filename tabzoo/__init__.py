"""Backbones for industrial visual inspection: importing tabzoo adds its weights to timm as tags."""

from tabzoo._version import __version__
from tabzoo.hub.load import create_model, download
from tabzoo.hub.registry import register
from tabzoo.hub.resolve import list_models

__all__ = ["__version__", "create_model", "download", "list_models"]

register()
