"""The `tabzoo` console script: one name for the modules' own command lines."""

import importlib
import sys
from collections.abc import Sequence

from tabzoo._version import __version__
from tabzoo.command import say
from tabzoo.errors import did_you_mean

__all__ = ["main"]

# Imported when asked for: training takes seconds to import.
_MODULES = {
    "pretrain": "tabzoo.training.pretrain",
    "data": "tabzoo.data.__main__",
    "benchmark": "tabzoo.benchmark.__main__",
    "trial": "tabzoo.trial.__main__",
}
# Subcommands of one module, which is given their names too.
_HUB = "tabzoo.hub.__main__"
_HUB_COMMANDS = ("list", "info", "download", "verify", "install", "uninstall", "convert", "publish")

# The same.
_INSPECT = "tabzoo.inspect.__main__"
_INSPECT_COMMANDS = ("fit", "score", "export")

_USAGE = """usage: tabzoo COMMAND ...

  pretrain   make a backbone from a folder of good images
  data       look at a folder of images
  benchmark  measure backbones (PaDiM, RD4AD and others) and synthetic anomalies
  fit        make a detector from good photos: a folder that judges new ones
  score      score photos with a detector: good or defective
  export     write a detector or a backbone as an ONNX file, with a proof that it agrees
  trial      is pre-training worth it on your photos? a verdict and a page
  list       tabzoo's weights and those installed: state and licence
  info       show everything known about some weights
  download   download weights into a folder, for machines without network
  verify     verify a weights folder against its record
  install    install weights under a name on this machine
  uninstall  remove installed weights
  convert    convert a checkpoint of the authors to a weights folder
  publish    publish a weights folder to the Hugging Face Hub

tabzoo COMMAND --help tells more.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in _MODULES:
        return int(importlib.import_module(_MODULES[command]).main(rest))
    if command in _HUB_COMMANDS:
        return int(importlib.import_module(_HUB).main(arguments))
    if command in _INSPECT_COMMANDS:
        return int(importlib.import_module(_INSPECT).main(arguments, prog="tabzoo"))
    if command in ("-h", "--help"):
        print(_USAGE, end="")
        return 0
    if command == "--version":
        print(f"tabzoo {__version__}")
        return 0
    known = (*_MODULES, *_INSPECT_COMMANDS, *_HUB_COMMANDS)
    say(
        f"error: no command {command!r}; there are {', '.join(known)}.{did_you_mean(command, known)}\nSee tabzoo --help"
    )
    return 2
