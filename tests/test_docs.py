"""README and docs/: every code block runs or is parsed, and every link, file, command and flag exists.

`python tests/test_docs.py` writes docs/commands.md anew, from the table of commands.
"""

import contextlib
import functools
import importlib
import io
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from doc_blocks import (
    LANGUAGES,
    PAGES,
    ROOT,
    anchors_of,
    blocks_of,
    commands_of,
    has,
    links_of,
    prose_of,
    tabzoo_arguments,
)
from forked import run_script

import tabzoo.cli
import tabzoo.command
from tabzoo.benchmark.__main__ import main as benchmark
from tabzoo.data.toy import make_toy_factory
from tabzoo.inspect.__main__ import main as inspect
from tabzoo.training import pretrain

COMMANDS_PAGE = ROOT / "docs" / "commands.md"
RECIPE = ROOT / "tabzoo" / "training" / "recipes" / "quickstart.yaml"
NAMES = {page: str(page.relative_to(ROOT)) for page in PAGES}
MOST_NOT_RUN = 0.42
"""Of the blocks with code, those that are only parsed."""
PROMISES = (
    "python3 -m venv .venv && .venv/bin/pip install -e . && "
    ".venv/bin/python -m tabzoo.training.pretrain --recipe quickstart --output runs/quickstart",
    'python3 -m venv .venv && .venv/bin/pip install -e ".[test]" && .venv/bin/python -m pytest -n 2',
)
FOREIGN = {
    "--index-url",
    "--nproc-per-node",
    "--nodes",
    "--no-index",
    "--find-links",
    "--no-deps",
    "--upgrade",
    "--dest",
}
"""Flags of pip, torchrun and sbatch."""
WITH_SUBCOMMANDS = {
    "tabzoo.data.__main__": ("check", "show", "industrial", "toy-wafers"),
    "tabzoo.benchmark.__main__": ("run", "table", "fid", "classify", "embed", "panels"),
    "tabzoo.data.cache_command": ("list", "delete"),
}

CLASSES = ("capsule", "hex_nut")
PROMPTS = "few.yaml"
TEXTS = "texts.safetensors"
PACKAGES = ("open_clip", "scipy.stats", "sklearn.manifold", "torchmetrics.image.fid")
"""Imported before processes are forked, so that not each of them does it."""

pages = pytest.mark.parametrize("page", PAGES, ids=NAMES.values())


def pretrained(*arguments: str) -> None:
    """An epoch of the quickstart's recipe, with timm's smallest ResNet."""
    flags = ["--backbone", "test_resnet", "--epochs", "1", "--no-benchmark"]
    assert pretrain.main(["--recipe", "quickstart", *flags, *arguments]) == 0


def make_run(folder: Path) -> None:
    pretrained("--data", "photos", "--text-pretrained", TEXTS, "--output", "runs/mine")


def make_quickstart(folder: Path) -> None:
    few = functools.partial(make_toy_factory, train=24, test_good=4, test_defect=8)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tabzoo.training.quickstart.make_toy_factory", few)
        pretrained("--prompts", PROMPTS, "--output", "runs/quickstart")


def make_detector(folder: Path) -> None:
    flags = ["--class", "hex_nut", "--backbone", "random:test_resnet", "--method", "patchcore", "--size", "128"]
    assert inspect(["fit", "--data", "photos", "--output", "detectors/nut", *flags]) == 0


def make_comparison(folder: Path) -> None:
    if not (folder / "runs" / "mine").exists():
        make_run(folder)
    flags = ["--method", "padim", "--resize", "64", "--crop", "64"]
    backbones = ["--backbone", "random:test_resnet", "runs/mine"]
    assert benchmark(["run", "--data", "photos", "--output", "runs/compared", *backbones, *flags]) == 0


MAKERS: Mapping[str, Callable[[Path], None]] = {
    "runs/mine": make_run,
    "runs/quickstart": make_quickstart,
    "detectors/nut": make_detector,
    "runs/compared": make_comparison,
}
"""What a page can ask for, in the order in which it is made."""


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory,
    make_text_file: Callable[..., Path],
    draw_nothing: Callable[[pytest.MonkeyPatch], None],
) -> Path:
    """A folder with all that pages ask for, made once."""
    for package in PACKAGES:
        importlib.import_module(package)
    folder = tmp_path_factory.mktemp("docs")
    make_toy_factory(folder / "photos", seed=0, size=64, train=40, test_good=8, test_defect=8, classes=CLASSES)
    sentences = "normal: ['good {c}']\nabnormal: ['damaged {c}']\ntemplates: ['a photo of a {s}.']\n"
    (folder / PROMPTS).write_text(sentences)
    make_text_file(*CLASSES, text_model="ViT-S-16-alt").rename(folder / TEXTS)
    wanted = set().union(*map(has, PAGES))
    assert wanted <= MAKERS.keys()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(io.StringIO()),
        pytest.MonkeyPatch.context() as patched,
    ):
        draw_nothing(patched)
        for name, make in MAKERS.items():
            if name in wanted and not (folder / name).exists():
                make(folder)
    return folder


@pages
def test_code_runs(page: Path, made: Path, sketches: None, tmp_path: Path) -> None:
    for name in (PROMPTS, TEXTS):
        shutil.copy(made / name, tmp_path)
    for name in ("photos", *has(page)):
        shutil.copytree(made / name, tmp_path / name)
    for number, block in enumerate(blocks_of(page)):
        if block.language not in LANGUAGES or block.not_run:
            continue
        script = tmp_path / f".block{number}"
        script.write_text(block.as_tested(), encoding="utf-8")
        command = ["python"] if block.language == "python" else ["bash", "-euo", "pipefail"]
        if block.language == "python":  # `python` has to be the one of `run_script`
            script.with_suffix(".sh").write_text(f"python {script.name}\n")
            script, command = script.with_suffix(".sh"), ["bash"]
        variables = {"PYTHONPATH": str(ROOT), "TABZOO_HOME": str(tmp_path / ".home")}
        done = run_script([*command, script.name], folder=tmp_path, variables=variables)
        assert done.returncode == block.exit_code, f"{block.place}\n{block.as_tested()}\n{done.stdout}\n{done.stderr}"


def test_few_blocks_are_not_run() -> None:
    blocks = [block for page in PAGES for block in blocks_of(page) if block.language in LANGUAGES]
    left_out = [block.place for block in blocks if block.not_run]
    assert len(left_out) <= MOST_NOT_RUN * len(blocks), f"{len(left_out)} of {len(blocks)}: {left_out}"


@pages
def test_languages_are_known(page: Path) -> None:
    for block in blocks_of(page):
        assert block.language in (*LANGUAGES, "text", "yaml", "json"), f"{block.place}: {block.language!r}"
        if block.language == "python":
            compile(block.text, block.place, "exec")


@pytest.fixture
def parse_only(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], int]:
    """Parses the words after `python -m` with the command's own parser, and does nothing."""
    monkeypatch.setattr(tabzoo.command, "guarded", lambda work: 0)
    monkeypatch.setattr(tabzoo.cli, "guarded", lambda work: 0)
    monkeypatch.setattr(pretrain, "_pretrain", lambda *_: 0)

    def parse(words: list[str]) -> int:
        module, *arguments = words
        arguments = [str(RECIPE) if word.endswith((".yaml", ".yml")) else word for word in arguments]
        if module == "tabzoo":
            return tabzoo.cli.main(arguments)
        found = importlib.import_module(module)
        main = found.main if hasattr(found, "main") else importlib.import_module(f"{module}.__main__").main
        return int(main(arguments))

    return parse


@pages
def test_commands_can_be_parsed(
    page: Path, parse_only: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    for block in blocks_of(page):
        for words in commands_of(block.text) if block.language == "bash" else ():
            if (typed := tabzoo_arguments(words)) is not None:
                try:
                    code = parse_only(typed)
                except SystemExit as ended:
                    code = int(ended.code or 0)
                assert code == 0, f"{block.place}: {' '.join(words)}\n{capsys.readouterr().err}"
            elif "/" in words[0] and words[0].endswith((".sh", ".py")):
                assert (ROOT / words[0]).is_file(), f"{block.place}: {words[0]}"
            if "python" in words[0] and re.fullmatch(r"[\w/]+/\w+\.py", words[1:2][0] if words[1:] else ""):
                assert (ROOT / words[1]).is_file(), f"{block.place}: {words[1]}"


@pytest.fixture(scope="module")
def known_flags() -> set[str]:
    """The flags of all commands, as their help shows them where lines are long."""
    shown, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "400"
    for name, module in tabzoo.cli.COMMANDS.items():
        for sub in WITH_SUBCOMMANDS.get(module, ("",)):
            with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
                tabzoo.cli.main([name, *filter(None, [sub]), "--help"])
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        importlib.import_module("tabzoo.training.figures.__main__").main(["--help"])
    os.environ.pop("COLUMNS") if columns is None else os.environ.update(COLUMNS=columns)
    flags = set(re.findall(r"--[a-z][a-z0-9-]*", shown.getvalue()))
    assert len(flags) > 150
    return flags | {"--version", "--help"}


@pages
def test_flags_in_sentences_exist(page: Path, known_flags: set[str]) -> None:
    named = {
        flag
        for code in re.findall(r"`([^`\n]+)`", prose_of(page))
        if not re.match(r"(pip|python perf|mkdocs|ruff|pytest|sbatch|\S+\.sh)\b", code)
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", code)
    }
    assert named - known_flags - FOREIGN == set()


@pages
def test_commands_in_sentences_exist(page: Path) -> None:
    named = set(re.findall(r"`tabzoo ([a-z]+)", prose_of(page)))
    assert named <= {*tabzoo.cli.COMMANDS, "help"}


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for link in links_of(page):
        path, _, anchor = link.partition("#")
        target = page if not path else (page.parent / path).resolve()
        assert target.exists(), f"{NAMES[page]}: {link}"
        assert target.is_relative_to(ROOT), f"{NAMES[page]}: {link} is outside of the repository"
        assert not anchor or anchor in anchors_of(target), f"{NAMES[page]}: {link} has no such heading"


def test_readme_keeps_its_promises_and_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in PROMISES:
        assert f"\n{command}\n" in text
    assert len(text.splitlines()) <= 180
    assert max(map(text.find, PROMISES)) < len("\n".join(text.splitlines()[:75]))


def test_pictures_are_small() -> None:
    for picture in (ROOT / "docs" / "images").glob("*.png"):
        assert picture.stat().st_size < 150_000, picture.name


def commands_page() -> str:
    """docs/commands.md: a table for each group of commands."""
    lines = [
        "# Commands",
        "",
        "`tabzoo COMMAND --help` lists every flag of a command, `tabzoo help` this list, and `tabzoo --version` the versions.",
        "`python -m tabzoo COMMAND` is the same. Made by `python tests/test_docs.py` from the table in `tabzoo/cli.py`.",
    ]
    for title, group in tabzoo.cli._GROUPS.items():
        lines += ["", f"## {title}", "", "| command | what it does |", "|---|---|"]
        lines += [f"| `tabzoo {name}` | {about} |" for name, (_, about) in group.items()]
    return "\n".join([*lines, ""])


def test_the_page_of_commands_is_that_of_the_table() -> None:
    assert COMMANDS_PAGE.read_text(encoding="utf-8") == commands_page(), "type: python tests/test_docs.py"


if __name__ == "__main__":
    COMMANDS_PAGE.write_text(commands_page(), encoding="utf-8")
    print(f"{os.path.relpath(COMMANDS_PAGE)} written", file=sys.stderr)
