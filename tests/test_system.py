"""Calls that only POSIX has: made in one module; without them, a run trains, stops and resumes in the same way."""

import ast
import errno
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import pytest
from torch import Tensor

from tabzoo import system
from tabzoo.data.cache import open_images
from tabzoo.data.layouts import find_samples
from tabzoo.synthesis.pairs import Pairs
from tabzoo.training import loop, pretrain
from tabzoo.training.run import Run
from tabzoo.training.state import State

PACKAGE = Path(system.__file__).parent
MODULES = ("fcntl", "msvcrt", "resource", "pwd", "grp", "termios")
CALLS = (
    *("O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "fork", "forkpty", "geteuid", "getuid", "getgid", "getegid", "setsid"),
    *(
        "getpgid",
        "getpgrp",
        "killpg",
        "waitpid",
        "sched_getaffinity",
        "getloadavg",
        "sysconf",
        "statvfs",
        "pread",
        "pwrite",
    ),
    *(
        "posix_fallocate",
        "fchmod",
        "fchown",
        "chown",
        "mkfifo",
        "uname",
        "SIGHUP",
        "SIGKILL",
        "SIGQUIT",
        "SIGUSR1",
        "alarm",
    ),
)


def posix_only(file: Path) -> Iterator[str]:
    """What a file names that not every system has: as a module, an attribute or a text given to getattr, with its line."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name in MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            names = [node.module]
        elif isinstance(node, ast.Attribute) and node.attr in CALLS:
            names = [node.attr]
        elif isinstance(node, ast.Constant) and node.value in (*CALLS, "nt", "win32", "/proc"):
            names = [str(node.value)]
        yield from (f"{file.relative_to(PACKAGE)}:{getattr(node, 'lineno', 0)} {name}" for name in names)


def test_they_are_all_in_one_module() -> None:
    files = [file for file in PACKAGE.rglob("*.py") if file != Path(system.__file__)]
    assert [found for file in files for found in posix_only(file)] == []
    assert list(posix_only(Path(system.__file__)))


@pytest.fixture
def without_posix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """As on a system without them: no such modules and functions, and folders can't be opened.

    It takes `tmp_path` so that this is deleted after it: from Python 3.13 on, `shutil.rmtree` needs what is missing here.
    """
    original = os.open

    def opened(path: Any, *arguments: Any, **named: Any) -> int:
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return original(path, *arguments, **named)

    def no_locks(*_: object, **__: object) -> bool:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "resource", None)
        patch.setattr(filelock, "lock_descriptor", no_locks)
        for name in {*CALLS} - {"statvfs", "uname"}:  # which the standard library calls on systems that have them
            for module in (os, signal):
                patch.delattr(module, name, raising=False)
        patch.setattr(os, "open", opened)
        importlib.reload(system)
        assert system.resource is None
        yield
    importlib.reload(system)


def test_without_them_a_run_trains_stops_and_goes_on_to_the_same_weights(
    small: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    disk = ["--cache", "disk", "--save-every", "2"]
    assert pretrain.main(small(*disk, "--output", str(tmp_path / "whole"), "--cache-dir", str(tmp_path / "a"))) == 0
    request.getfixturevalue("without_posix")
    original = loop.optimise

    def optimise(run: Run, state: State, pairs: Pairs) -> Tensor:
        if state.step == 3:
            signal.raise_signal(signal.SIGINT)
        return original(run, state, pairs)

    disk += ["--cache-dir", str(tmp_path / "b")]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "optimise", optimise)
        assert pretrain.main(small(*disk)) == 130
    assert (tmp_path / "out" / "checkpoints" / "step_00000004.json").is_file()
    assert pretrain.main(small(*disk, "--resume")) == 0
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


def test_without_them_images_are_opened_and_links_are_not(without_posix: None, toy: Path, tmp_path: Path) -> None:
    assert len(open_images(find_samples(toy), size=8, cache_dir=tmp_path / "cache", progress=False))
    assert system.num_cores() == os.cpu_count()
    assert system.process_use() is None
    assert system.stop_signals() == [signal.SIGINT, signal.SIGTERM]
    (tmp_path / "link").symlink_to(toy / "nothing")
    with pytest.raises(OSError, match="symbolic links"):
        system.open_no_link(tmp_path / "link", create=True)


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_whole_files_are_readable_as_the_umask_allows(tmp_path: Path) -> None:
    """safetensors writes files that only their owner can read."""
    former = os.umask(0o027)
    try:
        with system.whole_file(tmp_path / "weights.safetensors") as file:
            file.write_bytes(b"")
            file.chmod(0o600)
    finally:
        os.umask(former)
    assert (tmp_path / "weights.safetensors").stat().st_mode & 0o777 == 0o640
