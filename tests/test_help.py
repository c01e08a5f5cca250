"""`--help` ends with examples that work, and shells complete what it shows."""

import io
import os
import re
import shlex
import subprocess
from contextlib import redirect_stdout, suppress
from pathlib import Path

import pytest

from tabzoo import cli
from tabzoo.training import pretrain

SUBCOMMANDS = {
    "data": ("check", "show", "industrial", "toy-wafers"),
    "benchmark": ("run", "table", "fid", "embed", "panels", "classify"),
    "cache": ("list", "delete"),
}
ALL = [
    *(command for command in cli.COMMANDS if command not in SUBCOMMANDS),
    *(f"{command} {name}" for command, names in SUBCOMMANDS.items() for name in names),
]
Output = pytest.CaptureFixture[str]


def shown(command: str) -> str:
    with redirect_stdout(io.StringIO()) as box, pytest.raises(SystemExit, match="0"):
        cli.main([*command.split(), "--help"])
    return box.getvalue()


def examples(command: str) -> list[str]:
    before, heading, after = shown(command).partition("\nExamples:\n")
    assert heading, f"tabzoo {command} --help ends without examples"
    assert "options" in before  # all flags come first
    assert not re.search(r"^\W*--", after, re.MULTILINE)
    return [line.removeprefix("  ") for line in after.splitlines()]


@pytest.mark.parametrize("command", ALL)
def test_the_examples_are_accepted_by_the_commands_own_parser(
    command: str, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tabzoo.command.guarded", lambda work: 0)  # what the command does with its options
    monkeypatch.setattr(cli, "guarded", lambda work: 0)
    monkeypatch.setattr(pretrain, "_pretrain", lambda *_: 0)
    lines = examples(command)
    assert 1 <= len(lines) <= 3
    for line in lines:
        assert line.startswith(f"tabzoo {command}")
        assert cli.main(shlex.split(line)[1:]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("command", SUBCOMMANDS)
def test_a_group_of_commands_shows_examples_of_some(command: str) -> None:
    lines = examples(command)
    assert lines == [examples(f"{command} {name}")[0] for name in SUBCOMMANDS[command]][:3]


def test_a_mistake_gets_no_examples(capsys: Output) -> None:
    with pytest.raises(SystemExit):
        cli.main(["data", "check", "--jsn"])
    assert "Examples" not in capsys.readouterr().out


def test_pretrain_begins_with_the_flags_that_most_runs_set() -> None:
    text = shown("pretrain")
    titles = re.findall(r"^\W*([a-z-]+ )?options\W*$", text, re.MULTILINE)
    assert titles[:3] == ["", "most-used ", "running "]
    most_used = text[text.index("most-used options") : text.index("running options")]
    for flag in (
        "--data",
        "--backbone",
        "--init",
        "--objective",
        "--epochs",
        "--batch-size",
        "--lr",
        "--seed",
        "--license",
    ):
        assert re.search(rf"^\W*{flag} ", most_used, re.MULTILINE)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "tabzoo.bash"
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(io.StringIO()) as box, suppress(SystemExit):
        patched.setenv("COLUMNS", "400")  # the help of a wide terminal has flags beside each other
        assert cli.main(["--print-completion", "bash"]) == 0
        assert os.environ["COLUMNS"] == "400"
    path.write_text(box.getvalue())
    return path


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["ben"], {"benchmark"}),
        (["data", ""], {"check", "show", "industrial", "toy-wafers"}),
        (["data", "check", "--w"], {"--white-level", "--workers"}),
        (["pretrain", "--out"], {"--output"}),
        (["pretrain", "--epochs", "3", "--res"], {"--resume", "--resize"}),
        (["pretrain", "--objective", ""], {"tab", "joint", "ranking"}),
        (["pretrain", "--recipe", "qu"], {"quickstart"}),
        (["benchmark", "run", "--budget", ""], {"paper", "quick"}),
        (["publish", "runs/mine", "--l"], {"--license"}),
        (["fit", "--method", "p"], {"padim", "patchcore"}),
        (["nothing", "--x"], set()),
    ],
)
def test_bash_completes(script: Path, typed: list[str], expected: set[str]) -> None:
    words = shlex.join(["tabzoo", *typed])
    program = f"source {script}; COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _tabzoo; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert set(done.stdout.split()) == expected


def test_every_command_is_completed(script: Path) -> None:
    text = script.read_text()
    for command in ALL:
        (line,) = [line for line in text.splitlines() if line.strip().startswith((f"{command}) ", f"'{command}') "))]
        assert "--help" in line


def test_zsh_gets_the_same(script: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setattr(cli, "COMMANDS", {"cache": cli.COMMANDS["cache"]})
    assert cli.main(["--print-completion", "zsh"]) == 0
    text = capsys.readouterr().out
    assert "bashcompinit && bashcompinit\n" in text
    assert "~/.zshrc" in text
    assert "'cache delete') words='--help --older-than --all --dry-run --cache-dir'" in text


@pytest.mark.parametrize("arguments", [[], ["fish"], ["bash", "zsh"]])
def test_another_shell(arguments: list[str], capsys: Output) -> None:
    assert cli.main(["--print-completion", *arguments]) == 2
    assert "expected the name of a shell, bash or zsh" in capsys.readouterr().err
