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
    from tabzoo.benchmark.from_python import benchmark_backbones
    from tabzoo.inspect.detector import load_detector
    from tabzoo.training.from_python import pretrain

__all__ = [
    "__version__",
    "benchmark_backbones",
    "create_model",
    "download",
    "list_models",
    "load_detector",
    "pretrain",
]

register()


def __getattr__(name: str) -> Any:
    # Imported when asked for: they take seconds to import.
    if name == "benchmark_backbones":
        return importlib.import_module("tabzoo.benchmark.from_python").benchmark_backbones
    if name == "load_detector":
        return importlib.import_module("tabzoo.inspect.detector").load_detector
    if name == "pretrain":
        return importlib.import_module("tabzoo.training.from_python").pretrain
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
