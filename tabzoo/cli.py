"""The `tabzoo` console script: one name for the modules' own command lines."""

import sys
from collections.abc import Sequence

from tabzoo.models import WEIGHTS

__all__ = ["main"]

_USAGE = """usage: tabzoo COMMAND ...

  pretrain   make a backbone from a folder of good images (tabzoo pretrain --help)
  data       look at a folder of images (tabzoo data --help)
  list       tabzoo's weights, their state and their licence
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command == "pretrain":
        from tabzoo.training.pretrain import main as pretrain  # imported when asked for: it takes seconds

        return pretrain(rest)
    if command == "data":
        from tabzoo.data.__main__ import main as data

        return data(rest)
    if command == "list":
        for weights in WEIGHTS:
            print(f"{weights.name:28}{'published' if weights.published else 'not published yet':20}{weights.license}")
        return 0
    print(_USAGE, end="", file=sys.stdout if command in ("-h", "--help") else sys.stderr)
    return 0 if command in ("-h", "--help") else 2
