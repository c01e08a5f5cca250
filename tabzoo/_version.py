"""The version, and nothing else: what writes it into a file imports no more than this."""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("tabzoo")
except PackageNotFoundError:  # run from a checkout that is not installed, as torch.hub does
    __version__ = "0+checkout"
