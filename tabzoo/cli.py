"""The `tabzoo` console script: one name for the modules' own command lines."""

import argparse
import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from tabzoo.errors import TabzooError
from tabzoo.plain import PlainFormatter, for_lines, for_terminal

__all__ = ["Parser", "log_to_terminal", "main", "run_command", "say", "show"]

# Imported when asked for: training takes seconds to import.
_MODULES = {
    "pretrain": "tabzoo.training.pretrain",
    "data": "tabzoo.data.__main__",
    "benchmark": "tabzoo.benchmark.__main__",
}
# Subcommands of one module, which is given their names too.
_HUB = "tabzoo.hub.__main__"
_HUB_COMMANDS = ("list", "info", "download", "verify", "install", "uninstall", "convert", "publish")

_USAGE = """usage: tabzoo COMMAND ...

  pretrain   make a backbone from a folder of good images
  data       look at a folder of images
  benchmark  measure backbones (PaDiM, RD4AD and others) and synthetic anomalies
  list       tabzoo's weights and those installed: state and licence
  info       all that is known of some weights
  download   make a folder that a machine without network can use
  verify     are the weights in a folder what its record says
  install    make weights known by a name on this machine
  uninstall  take installed weights away
  convert    make a weights folder of a checkpoint of the authors
  publish    make a weights folder a version of a Hub repository

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
    asked = command in ("-h", "--help")
    print(_USAGE, end="", file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


class Parser(argparse.ArgumentParser):
    """A parser whose messages show what was typed as `say` does; its subcommands' parsers are of this class too."""

    def error(self, message: str) -> NoReturn:
        """Tells of a mistake and exits with code 2."""
        super().error(for_lines(message))


def run_command(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Runs the command that a parser's `run` default names; a user's mistake becomes one line and exit code 2."""
    options = parser.parse_args(argv)
    log_to_terminal(logging.WARNING)
    try:
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except TabzooError as error:
        say(f"error: {error}")
        return 2
    except BrokenPipeError:  # `| head`: nobody reads on
        _close_output()
        return 1
    except OSError as error:  # such as a full disk, a folder that went away
        say(f"error: {error}")
        _close_output()
        return 2
    except KeyboardInterrupt:
        say("\nStopped.")
        return 128 + signal.SIGINT


def say(message: str) -> None:
    """Prints a message on stderr, nothing in which can steer the terminal."""
    print(for_lines(message), file=sys.stderr)


def show(line: str) -> None:
    """Prints a line on stdout, nothing in which can steer the terminal or begin another line."""
    print(for_terminal(line))


def log_to_terminal(level: int) -> None:
    """Has log messages of this level and above printed as `say` prints."""
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter())
    logging.basicConfig(level=level, handlers=[handler])


def _close_output() -> None:
    """Drops what can't be written to stdout, which Python would complain of once more at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
