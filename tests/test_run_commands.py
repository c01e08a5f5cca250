"""Dataclasses as command lines: what they are given, and what a user's mistakes look like."""

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
import tyro

from tabzoo.command import run_commands
from tabzoo.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Count:
    """Count things."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DIR")]
    """Folder to look at."""
    kind: Literal["all", "some"] = "all"
    """Which things."""
    seeds: tuple[int, ...] = (0,)
    """Seed values."""

    def run(self) -> int:
        if self.data == "missing":
            raise InputError("missing: no such folder")
        print(self.data, self.kind, self.seeds)
        return 3


@dataclass(frozen=True, kw_only=True)
class Other:
    """Do something else."""

    def run(self) -> int:
        return 0


def run(*arguments: str) -> int:
    return run_commands({"count": Count, "other": Other}, arguments, prog="python -m things", description="Things.")


def test_flags_become_fields_and_the_code_is_returned(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("count", "folder", "--seeds", "1", "2", "--kind=some") == 3
    assert capsys.readouterr().out == "folder some (1, 2)\n"
    assert run("other") == 0


def test_an_error_of_the_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("count", "missing") == 2
    assert capsys.readouterr().err == "error: missing: no such folder\n"


@pytest.mark.parametrize("columns", ["30", "200"])
@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (["count", "d", "--sed", "1"], "error: Unrecognized options: --sed, 1"),
        (["count", "d", "--kind", "none"], "error: invalid choice 'none' for argument '--kind'. Expected one of"),
        (["count"], "error: Missing from python -m things count: DIR Folder to look at. (required)"),
        (["count", "d", "--x\x1b[31m"], r"error: Unrecognized options: --x\x1b[31m"),
        (["cont"], "error: Unrecognized options: cont"),
        ([], "error: Expected one of {count, other}."),
    ],
)
def test_wrong_arguments_are_plain_lines(
    arguments: list[str],
    first: str,
    columns: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(first)
    assert lines[-1].startswith("For full helptext, run")
    assert not any(border in line for border in "│╭╰─" for line in lines)


def test_help_is_the_docstrings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("count", "--help")
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("Count things.", "Folder to look at.", "Which things.", "--seeds"))
