"""Running a command: a user's mistake becomes one line and an exit code.

Control characters are printed in a visible form.
"""

import dataclasses
import io
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from types import MappingProxyType
from typing import Annotated, Any, Protocol, Union

import tyro

from tabzoo.errors import TabzooError
from tabzoo.flags import parse
from tabzoo.plain import PlainFormatter, for_lines, for_terminal
from tabzoo.progress import showing

__all__ = [
    "Command",
    "called_from_python",
    "guarded",
    "log_to_terminal",
    "print_anything",
    "run_command",
    "run_commands",
    "say",
    "show",
    "typed",
]


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
    return guarded(command.run)


def run_command(kind: type[Command], argv: Sequence[str] | None, *, prog: str) -> int:
    """Runs a command line without subcommands, as `run_commands` runs one with them."""
    command: Command = parse(kind, argv, prog=prog)
    return guarded(command.run)


def guarded(work: Callable[[], int | None]) -> int:
    """Does some work and returns its exit code; a user's mistake, a full disk or Ctrl-C becomes a line and a code."""
    print_anything()
    log_to_terminal(logging.WARNING)
    try:
        with showing():
            code = work() or 0
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


@contextmanager
def called_from_python(*, show: bool) -> Iterator[None]:
    """Within it, a command does its work for a caller from Python: it prints and shows progress if asked to, else nothing.

    Warnings go to `logging`, as ever. What other threads print to stdout meanwhile is dropped too.
    """
    with showing(show), nullcontext() if show else redirect_stdout(io.StringIO()):
        yield


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


def typed(prog: str, command: Any, *, positional: Sequence[str] = ()) -> str:
    """What to type to get a command again: its name or names, and all its values that differ from the defaults.

    Args:
        prog: What a user types first, with the subcommand if there is one.
        command: A dataclass whose fields are flags.
        positional: Fields without a flag.
    """
    first: list[str] = []
    flags: list[str] = []
    for entry in dataclasses.fields(command):
        value = getattr(command, entry.name)
        if value == entry.default:
            continue
        texts = [str(value)] if isinstance(value, str) or not isinstance(value, Sequence) else [*map(str, value)]
        if entry.name in positional:
            first += texts
        else:
            flags += [f"--{entry.name.replace('_', '-')}", *texts]
    return f"{prog} {shlex.join([*first, *flags])}"


def _close_output() -> None:
    """Drops what can't be written to stdout, which Python would complain of once more at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
