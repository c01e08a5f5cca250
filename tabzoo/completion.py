"""`tabzoo --print-completion bash|zsh`: a script that completes commands, flags and their choices.

It is made of what `--help` of every command shows, and asks nothing of tabzoo while someone types.
"""

import io
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from typing import NamedTuple

__all__ = ["SHELLS", "completion_script"]

SHELLS = ("bash", "zsh")

_COLUMNS = "100"
"""As wide as the help is read: in more columns flags stand beside each other, in fewer they are broken."""
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"
_HEADER = """\
# Completion for tabzoo in {shell}. To use it, once:
#   tabzoo --print-completion {shell} > ~/.tabzoo-completion && echo 'source ~/.tabzoo-completion' >> ~/.{shell}rc
"""
_SCRIPT = """\
_tabzoo() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" command="${{COMP_WORDS[1]}}" words=""
    case "$command" in
        {groups}) [ "$COMP_CWORD" -gt 2 ] && command="$command ${{COMP_WORDS[2]}}" ;;
    esac
    if [ "$COMP_CWORD" -eq 1 ]; then
        words={commands}
    else
        case "$command $before" in
{choices}
        esac
        if [ -z "$words" ]; then
            case "$command" in
{flags}
            esac
        fi
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _tabzoo tabzoo
"""


class _Help(NamedTuple):
    """What the help of a command shows: its subcommands, its flags, and the choices of some of them."""

    subcommands: list[str]
    flags: list[str]
    choices: dict[str, list[str]]


def completion_script(
    shell: str,
    commands: Sequence[str],
    run: Callable[[list[str]], object],
    *,
    more_choices: Mapping[tuple[str, str], Iterable[str]],
) -> str:
    """The script for a shell.

    Args:
        shell: One of `SHELLS`.
        commands: Names of all commands.
        run: Runs a command line, such as ["data", "check", "--help"].
        more_choices: Command and flag to values that its help does not list.
    """
    with _terminal():
        found = {command: _read_help(run, [command]) for command in commands}
        groups = [command for command, shown in found.items() if shown.subcommands]
        for command in groups:
            found |= {f"{command} {name}": _read_help(run, [command, name]) for name in found[command].subcommands}
    choices = {(command, flag): words for command, shown in found.items() for flag, words in shown.choices.items()}
    choices |= {key: list(words) for key, words in more_choices.items()}
    script = _SCRIPT.format(
        groups="|".join(groups),
        commands=_quoted([*commands, "help", "--version", "--help"]),
        choices="\n".join(
            f"            {shlex.quote(f'{command} {flag}')}) words={_quoted(words)} ;;"
            for (command, flag), words in choices.items()
        ),
        # Before its subcommand, a command offers the names of these.
        flags="\n".join(
            f"                {shlex.quote(command)}) words={_quoted(shown.subcommands or shown.flags)} ;;"
            for command, shown in found.items()
        ),
    )
    return _HEADER.format(shell=shell) + (_ZSH if shell == "zsh" else "") + script


@contextmanager
def _terminal() -> Iterator[None]:
    """Within it, help is as in a terminal of `_COLUMNS`, whatever the user's is like."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = _COLUMNS
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        os.environ |= {} if before is None else {"COLUMNS": before}


def _read_help(run: Callable[[list[str]], object], command: list[str]) -> _Help:
    with redirect_stdout(io.StringIO()) as shown, suppress(SystemExit):
        run([*command, "--help"])
    text = re.sub(r"^[│ ]+|[│ ]+$", "", shown.getvalue(), flags=re.MULTILINE)
    usage = text.partition("\n")[0]
    subcommands = re.search(r" \{([\w,-]+)\}$", usage)
    lines = [line for line in text.splitlines() if line.startswith(("--", "-h, --"))]
    flags = [flag for line in lines for flag in re.findall(r"(?:^|, )(--[a-z][a-z0-9-]*)", line.split("  ")[0])]
    choices = re.findall(r"^(--[a-z][a-z0-9-]*) \{([\w,-]+)\}", text, flags=re.MULTILINE)
    return _Help(
        subcommands[1].split(",") if subcommands else [],
        list(dict.fromkeys(flags)),
        {flag: words.split(",") for flag, words in choices},
    )


def _quoted(words: Iterable[str]) -> str:
    return shlex.quote(" ".join(words))
