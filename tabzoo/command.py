"""Running a command: its mistakes become one line and an exit code, and nothing that it prints steers the terminal."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from tabzoo.errors import TabzooError
from tabzoo.plain import PlainFormatter, for_lines, for_terminal

__all__ = ["Parser", "log_to_terminal", "run_command", "say", "show"]


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
