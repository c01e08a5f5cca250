"""Backbones for industrial visual inspection: importing tabzoo adds its weights to timm as tags."""

import importlib
import signal
import sys
from typing import TYPE_CHECKING, Any

from tabzoo._version import __version__

try:
    from tabzoo.hub.load import create_model, download
    from tabzoo.hub.registry import register
    from tabzoo.hub.resolve import list_models
except KeyboardInterrupt:  # torch and timm take seconds
    if sys.argv[:1] != ["-m"]:  # what Python has there until the package of `python -m tabzoo` is imported
        raise
    print("\nStopped.", file=sys.stderr)
    raise SystemExit(128 + signal.SIGINT) from None

if TYPE_CHECKING:
    from tabzoo.inspect.detector import load_detector

__all__ = ["__version__", "create_model", "download", "list_models", "load_detector"]

register()


def __getattr__(name: str) -> Any:
    if name == "load_detector":  # imported when asked for: detectors take seconds to import
        return importlib.import_module("tabzoo.inspect.detector").load_detector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
