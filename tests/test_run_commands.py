"""Dataclasses as command lines: what they are given, and what a user's mistakes look like."""

import io
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
import tyro

from tabzoo.command import run_command, run_commands
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
    most: int | None = None
    """Largest count."""
    share: float = 0.5
    """Fraction."""
    word: str | None = None
    """A word."""
    loud: bool = False
    """Print more."""

    def __post_init__(self) -> None:
        if self.share > 1:
            raise InputError(f"--share {self.share:g}: expected at most 1")

    def run(self) -> int:
        if self.data == "missing":
            raise InputError("missing: no such folder")
        print(self.data, self.kind, self.seeds, repr(self.word))
        return 3


@dataclass(frozen=True, kw_only=True)
class Other:
    """Do something else."""

    def run(self) -> int:
        return 0


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Need two flags."""

    folder: str
    """Where from."""
    output: str
    """Where to."""

    def run(self) -> int:
        """Does nothing."""
        return 0


def run(*arguments: str) -> int:
    return run_commands({"count": Count, "other": Other}, arguments, prog="python -m things", description="Things.")


def test_flags_become_fields_and_the_code_is_returned(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("count", "folder", "--seeds", "1", "2", "--kind=some") == 3
    assert capsys.readouterr().out == "folder some (1, 2) None\n"
    assert run("other") == 0


def test_an_error_of_the_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("count", "missing") == 2
    assert capsys.readouterr().err == "error: missing: no such folder\n"


@pytest.mark.parametrize("columns", ["30", "200"])
@pytest.mark.parametrize(
    ("arguments", "said", "see"),
    [
        (["count", "d", "--zzz", "1"], "--zzz: no such flag.", " count"),
        (["count", "d", "--seed", "1"], "--seed: no such flag. Did you mean --seeds?", " count"),
        (["count", "d", "--kind", "soma"], "--kind: 'soma' given, expected all, some. Did you mean 'some'?", " count"),
        (["count", "d", "--kind", "none"], "--kind: 'none' given, expected all, some", " count"),
        (["count", "d", "--most", "x"], "--most: 'x' given, expected a whole number", " count"),
        (["count", "d", "--most", "None"], "--most: 'None' given, expected a whole number", " count"),
        (["count", "d", "--share", "x"], "--share: 'x' given, expected a number", " count"),
        (["count", "d", "--share", "2"], "--share 2: expected at most 1", " count"),
        (["count", "d", "--seeds", "a"], "--seeds: expected --seeds [INT [INT ...]]", " count"),
        (
            ["count", "d", "--share"],
            "--share: a value is missing. One that begins with a dash is typed as --share=VALUE",
            " count",
        ),
        (
            ["count", "d", "--loud", "yes"],
            "unexpected argument 'yes': the flag before it takes no value, or fewer",
            " count",
        ),
        (["count"], "missing: DIR", " count"),
        (["count", "d", "--x\x1b[31m"], r"--x\x1b[31m: no such flag.", " count"),
        (["cont"], "no command 'cont'; there are count, other. Did you mean 'count'?", ""),
        ([], "a command is missing: count, other", ""),
    ],
)
def test_wrong_arguments_are_told_in_a_line(
    arguments: list[str],
    said: str,
    see: str,
    columns: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {said}\nSee python -m things{see} --help\n"


def test_a_mistyped_flag_of_a_command_without_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_command(Needs, ["--folder", "d", "--ouput", "x"], prog="needs")
    said = "error: --ouput: no such flag. Did you mean --output?\nSee needs --help\n"
    assert capsys.readouterr() == ("", said)


def test_none_is_a_word_like_any_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("count", "None", "--word", "None") == 3
    assert capsys.readouterr().out == "None all (0,) 'None'\n"


def test_what_the_output_can_not_encode_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert run("count", "1 \u00b1 2") == 3
    assert raw.getvalue().startswith(b"1 \\xb1 2 all")


def test_help_is_the_docstrings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("count", "--help")
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("Count things.", "Folder to look at.", "Which things.", "--seeds"))
