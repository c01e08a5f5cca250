"""The `tabzoo` command: what it answers at once, what it hands on, and what it says of mistakes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tabzoo import cli
from tabzoo.data.cache import open_images
from tabzoo.data.entries import stored_entries
from tabzoo.data.layouts import find_samples
from tabzoo.locks import lock

Output = pytest.CaptureFixture[str]

WITHOUT_TORCH = """
import sys
import tabzoo_console
codes = []
for arguments in (["list"], ["--version"], ["help"], ["lst"], []):
    sys.argv = ["tabzoo", *arguments]
    codes.append(tabzoo_console.main())
print(codes, [name for name in ("torch", "timm") if name in sys.modules])
sys.argv = ["tabzoo", "info", "resnet18.tab_mvtec"]
tabzoo_console.main()
import tabzoo
print(tabzoo.list_models() != [], "timm" in sys.modules)
"""


def test_the_console_script_imports_torch_only_where_it_is_needed() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=True)
    assert "\n[0, 0, 0, 2, 0] []\n" in done.stdout
    assert done.stdout.endswith("\nTrue True\n")  # the package is whole after a command that needs it
    assert "resnet18.tab_mvtec" in done.stdout
    assert "Did you mean 'list'?" in done.stderr


def test_the_module_runs_the_same(capsys: Output) -> None:
    done = subprocess.run([sys.executable, "-m", "tabzoo", "lst"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith("Did you mean 'list'?\nSee python -m tabzoo --help\n")


def test_ctrl_c_while_python_imports_the_package(tmp_path: Path) -> None:
    """`python -m tabzoo` imports torch before any line of `__main__.py` runs."""
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt")
    search = os.pathsep.join([str(tmp_path), str(Path(cli.__file__).parents[1])])
    run = {"env": os.environ | {"PYTHONPATH": search}, "capture_output": True, "text": True, "check": False}
    done = subprocess.run([sys.executable, "-m", "tabzoo", "fit"], **run)  # type: ignore[call-overload]
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nStopped.\n")
    done = subprocess.run([sys.executable, "-c", "import tabzoo"], **run)  # type: ignore[call-overload]
    assert "KeyboardInterrupt" in done.stderr  # the program that imports it decides


def test_the_version_names_what_numbers_depend_on(capsys: Output) -> None:
    assert cli.main(["--version"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("tabzoo 0", "torch 2", "timm 1", "huggingface_hub", "Python 3", "CPU: "))


@pytest.mark.parametrize("arguments", [[], ["help"], ["--help"], ["-h"], ["help", "nothing"]])
def test_help_lists_all_commands(arguments: list[str], capsys: Output) -> None:
    assert cli.main(arguments) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in cli.COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lst"], "error: no command 'lst'. Did you mean 'list'?\nSee tabzoo --help\n"),
        (["benchmrk", "run"], "error: no command 'benchmrk'. Did you mean 'benchmark'?\nSee tabzoo --help\n"),
        (["helpp"], "error: no command 'helpp'. Did you mean 'help'?\nSee tabzoo --help\n"),
        (
            ["data", "chek"],
            "error: no command 'chek'; there are check, show, industrial, toy-wafers. Did you mean 'check'?\n"
            "See tabzoo data --help\n",
        ),
        (
            ["benchmark", "run", "--metod", "padim"],
            "error: --metod: no such flag. Did you mean --method?\nSee tabzoo benchmark run --help\n",
        ),
        (
            ["pretrain", "--recipie", "quickstart"],
            "error: --recipie: no such flag. Did you mean --recipe?\nSee tabzoo pretrain --help\n",
        ),
        (["trial", "--dta=x"], "error: --dta: no such flag. Did you mean --data?\nSee tabzoo trial --help\n"),
        (["instal"], "error: no command 'instal'. Did you mean 'install'?\nSee tabzoo --help\n"),
        (["verify", "--jsn"], "error: --jsn: no such flag. Did you mean --json?\nSee tabzoo verify --help\n"),
        (
            ["cache", "lst"],
            "error: no command 'lst'; there are list, delete. Did you mean 'list'?\nSee tabzoo cache --help\n",
        ),
        (
            ["cache", "delete"],
            "error: name entries, or type --older-than DAYS, or --all; `tabzoo cache list` shows the entries\n",
        ),
    ],
)
def test_mistakes_get_the_nearest_name(arguments: list[str], said: str, capsys: Output) -> None:
    try:
        code = cli.main(arguments)
    except SystemExit as ended:
        code = int(ended.code or 0)
    assert (code, capsys.readouterr().err) == (2, said)


@pytest.mark.parametrize("command", ["data", "benchmark", "info", "cache", "doctor"])
def test_usage_names_what_was_typed(command: str, capsys: Output) -> None:
    with pytest.raises(SystemExit):
        cli.main(["help", command])
    assert capsys.readouterr().out.startswith(f"usage: tabzoo {command} ")


def test_doctor_shows_no_secret(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "hf_secret" not in shown
    assert all(word in shown for word in ("HF_TOKEN", "torch ", "cores", "GPU", "free there", "does not answer"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache of two folders of images."""
    for name in ("bolts", "nuts"):
        folder = tmp_path / name / "part" / "train" / "good"
        folder.mkdir(parents=True)
        for index in range(2):
            Image.fromarray(np.full((9, 9, 3), 40 * index, np.uint8)).save(folder / f"{index}.png")
        open_images(find_samples(tmp_path / name), size=8, cache_dir=tmp_path / "cache", workers=0)
    return tmp_path / "cache"


def aged(cache: Path, name: str, days: float) -> Path:
    (entry,) = cache.glob(f"{name}-8-*")
    then = time.time() - days * 86_400
    os.utime(entry / "index.json", (then, then))
    return entry


def test_the_cache_is_listed_by_last_use(cache: Path, capsys: Output) -> None:
    aged(cache, "nuts", 3.5)
    assert cli.main(["cache", "list", "--cache-dir", str(cache)]) == 0
    nuts, bolts, total = capsys.readouterr().out.splitlines()
    assert "3 days ago  nuts-8-" in nuts
    assert nuts.endswith(f"(2 files of {cache.parent / 'nuts'})")
    assert "today  bolts-8-" in bolts
    assert total.startswith("2 entries, 0.0 MB")


def test_using_an_entry_keeps_it_young(cache: Path) -> None:
    aged(cache, "nuts", 3.5)
    open_images(find_samples(cache.parent / "nuts"), size=8, cache_dir=cache, workers=0)
    assert all(time.time() - entry.used < 3600 for entry in stored_entries(cache))


def test_old_entries_are_deleted_and_others_are_not(cache: Path, capsys: Output) -> None:
    old, other = aged(cache, "nuts", 3.5), cache / "notes"
    other.mkdir()
    assert cli.main(["cache", "delete", "--older-than", "4", "--cache-dir", str(cache)]) == 0
    assert capsys.readouterr().out == "0 entries, 0.0 MB\n"
    assert cli.main(["cache", "delete", "--older-than", "3", "--dry-run", "--cache-dir", str(cache)]) == 0
    assert old.is_dir()
    assert cli.main(["cache", "delete", "--older-than", "3", "--cache-dir", str(cache)]) == 0
    assert f"deleted {old.name} " in capsys.readouterr().out
    assert [entry.folder.name[:5] for entry in stored_entries(cache)] == ["bolts"]
    assert cli.main(["cache", "delete", "--all", "--cache-dir", str(cache)]) == 0
    assert stored_entries(cache) == []
    assert other.is_dir()


def test_an_entry_is_deleted_by_name_damaged_or_not(cache: Path, capsys: Output) -> None:
    entry = aged(cache, "nuts", 0)
    (entry / "index.json").write_text("{")
    assert cli.main(["cache", "list", "--cache-dir", str(cache)]) == 0
    assert "unknown" in (line := capsys.readouterr().out.splitlines()[0])
    assert line.endswith(f"{entry.name}  (damaged)")
    assert cli.main(["cache", "delete", entry.name[:-1], "--cache-dir", str(cache)]) == 2
    assert f"Did you mean '{entry.name}'?" in capsys.readouterr().err
    assert cli.main(["cache", "delete", entry.name, "--cache-dir", str(cache)]) == 0
    assert not entry.exists()


def test_an_entry_that_another_process_builds_is_waited_for(cache: Path) -> None:
    entry = aged(cache, "nuts", 0)
    code = f"from tabzoo.data.entries import delete_entry; from pathlib import Path; delete_entry(Path({str(entry)!r}))"
    with lock(entry):
        other = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
        assert other.stderr is not None
        assert "waiting for another process" in other.stderr.readline()
        assert entry.is_dir()
    assert other.wait(60) == 0
    assert not entry.exists()


def test_odd_cache_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setenv("TABZOO_CACHE", str(tmp_path / "none"))
    assert cli.main(["cache", "list"]) == 0
    assert capsys.readouterr().out == "0 entries, 0.0 MB\n"
    assert cli.main(["cache", "list", "--cache-dir", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == f"error: --cache-dir {tmp_path / 'none'}: no such folder\n"
