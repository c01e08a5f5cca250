"""The `tabzoo` console script: one name for the modules' own command lines."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from tabzoo.errors import TabzooError
from tabzoo.models import WEIGHTS

__all__ = ["main", "run_command"]

# Imported when asked for: training takes seconds to import.
_MODULES = {
    "pretrain": "tabzoo.training.pretrain",
    "data": "tabzoo.data.__main__",
    "benchmark": "tabzoo.benchmark.__main__",
}

_USAGE = """usage: tabzoo COMMAND ...

  pretrain   make a backbone from a folder of good images
  data       look at a folder of images
  benchmark  measure synthetic anomalies
  list       tabzoo's weights, their state and their licence

tabzoo COMMAND --help tells more.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in _MODULES:
        return int(importlib.import_module(_MODULES[command]).main(rest))
    if command == "list":
        for weights in WEIGHTS:
            print(f"{weights.name:28}{'published' if weights.published else 'not published yet':20}{weights.license}")
        return 0
    asked = command in ("-h", "--help")
    print(_USAGE, end="", file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


def run_command(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Runs the command that a parser's `run` default names; a user's mistake becomes one line and exit code 2."""
    options = parser.parse_args(argv)
    try:
        return int(options.run(options))
    except TabzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
