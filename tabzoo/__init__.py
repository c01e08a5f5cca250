"""Backbones for industrial visual inspection: importing tabzoo adds its weights to timm as tags."""

from importlib.metadata import PackageNotFoundError, version

from tabzoo.hub.load import create_model, download
from tabzoo.models import list_models, register

__all__ = ["__version__", "create_model", "download", "list_models"]

try:
    __version__ = version("tabzoo")
except PackageNotFoundError:  # run from a checkout that is not installed, as torch.hub does
    __version__ = "0+checkout"

register()
