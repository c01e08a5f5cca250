"""Running a command: a user's mistake becomes one line and an exit code.

Control characters are printed in a visible form.
"""

import io
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Protocol, Union

import tyro

from tabzoo.errors import TabzooError
from tabzoo.flags import parse
from tabzoo.plain import PlainFormatter, for_lines, for_terminal

__all__ = ["Command", "log_to_terminal", "print_anything", "run_commands", "say", "show"]


class Command(Protocol):
    """A subcommand: a frozen dataclass whose fields are its flags and whose docstrings are its help."""

    def run(self) -> int:
        """Does the work and returns the exit code."""


def run_commands(
    commands: Mapping[str, type[Command]],
    argv: Sequence[str] | None,
    *,
    prog: str,
    description: str,
    elsewhere: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Runs the subcommand that the arguments name; a user's mistake becomes one line and exit code 2.

    Args:
        commands: Name of each subcommand to its dataclass.
        argv: The arguments; those of the process if not given.
        prog: What a user types before them.
        description: The first lines of `--help`.
        elsewhere: Flags that a user may expect to the sentence that says what to do instead.
    """
    named = [Annotated[kind, tyro.conf.subcommand(name, prefix_name=False)] for name, kind in commands.items()]
    union: Any = Union[tuple(named)]  # noqa: UP007
    command: Command = parse(union, argv, prog=prog, commands=commands, elsewhere=elsewhere, description=description)
    print_anything()
    log_to_terminal(logging.WARNING)
    try:
        code = command.run()
        sys.stdout.flush()
        return code
    except TabzooError as error:
        say(f"error: {error}")
        return 2
    except BrokenPipeError:  # `| head`: nobody reads any more
        _close_output()
        return 1
    except OSError as error:  # such as a full disk, or a folder that disappeared
        say(f"error: {error}")
        _close_output()
        return 2
    except KeyboardInterrupt:
        say("\nStopped.")
        return 128 + signal.SIGINT


def say(message: str) -> None:
    """Prints a message on stderr, with control characters made visible."""
    print(for_lines(message), file=sys.stderr)


def show(line: str) -> None:
    """Prints a line on stdout, with control characters and line ends made visible."""
    print(for_terminal(line))


def log_to_terminal(level: int) -> None:
    """Has log messages of this level and above printed as `say` prints."""
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter())
    logging.basicConfig(level=level, handlers=[handler])


def print_anything() -> None:
    """Has stdout print what its encoding lacks as an escape: a name, or the sign in 1 \u00b1 2, must not end a command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _close_output() -> None:
    """Drops what can't be written to stdout, which Python would complain of once more at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
