"""Output folders: nothing of an old run or of the user's is lost, and one process writes at a time."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import filelock
import pytest

from tabzoo.data import entries
from tabzoo.locks import lock
from tabzoo.training import loop, pretrain
from tabzoo.training.run_folder import RunFolder

Arguments = Callable[..., list[str]]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert pretrain.main(arguments) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message[message.index("error: ") :]


@pytest.fixture
def finished(small: Arguments, tmp_path: Path) -> Path:
    """A finished run, with a file of the user's beside its own."""
    assert pretrain.main(small("--epochs", "1")) == 0
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    return tmp_path / "out"


@pytest.mark.parametrize(
    "mistake",
    [
        ("--data", "no/such/folder"),
        ("--init", "no/such.safetensors"),
        ("--text-pretrained", "no/such.safetensors"),
        ("--optimizer", "adamm"),
        ("--device", "cuda"),
        ("--strict", "--nsa-width-max", "0.6"),
    ],
    ids=lambda mistake: mistake[0],
)
def test_a_mistake_loses_nothing_of_the_old_run(
    mistake: tuple[str, ...], finished: Path, small: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(finished)
    refused(small("--overwrite", *mistake), capsys)
    assert content(finished) == before
    assert pretrain.main(small("--overwrite", "--epochs", "1", "--seed", "5")) == 0  # and it can be replaced
    after = content(finished)
    assert after.keys() == before.keys()
    assert after["model.safetensors"] != before["model.safetensors"]
    assert after["thesis.txt"] == b"mine"


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("init", "model.safetensors"),
        ("text-pretrained", "text_features.safetensors"),
        ("data", "toy_factory"),
        ("data", "toy_factory/capsule"),
        ("recipe", "recipe.yaml"),
    ],
)
def test_inputs_inside_what_would_go_are_refused(
    flag: str, name: str, finished: Path, small: Arguments, toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(toy, finished / "toy_factory")
    before = content(finished)
    message = refused(small("--overwrite", f"--{flag}", str(finished / name)), capsys)
    assert f"--{flag} {finished / name}: is part of the run in {finished} that --overwrite replaces" in message
    assert content(finished) == before


@pytest.mark.parametrize("flag", ["--overwrite", "--resume"])
def test_a_folder_that_is_no_run_is_left_alone(
    flag: str, small: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (out / "figures").mkdir(parents=True)
    for name in ("README.md", "config.json", "figures/plot.png"):
        (out / name).write_text("mine")
    before = content(out)
    message = refused(small(flag), capsys)
    assert (
        f"--output {out}: is not a run of tabzoo: it has no run.json, but README.md, config.json, figures. Name"
        in message
    )
    assert content(out) == before


def test_refused_runs_leave_no_folder(small: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(small("--data", "no/such/folder"), capsys)
    refused(small("--data", "no/such/folder", "--output", str(tmp_path / "a" / "b" / "c")), capsys)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    refused(small("--data", "no/such/folder"), capsys)
    assert list((tmp_path / "out").iterdir()) == []  # the user's own empty folder stays


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[int]:
    """A process that holds the folder `out`; its number."""
    ready, done = os.pipe(), os.pipe()
    if (process := os.fork()) == 0:
        with suppress(BaseException), RunFolder(tmp_path / "out", resume=False, overwrite=False, inputs={}) as held:
            held.begun()
            os.write(ready[1], b".")
            os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    yield process
    os.write(done[1], b".")
    os.waitpid(process, 0)
    for descriptor in (*ready, *done):
        os.close(descriptor)


@pytest.mark.parametrize("flags", [[], ["--resume"], ["--overwrite"]], ids=str)
def test_a_second_run_is_told_who_writes(
    flags: list[str], beside: int, small: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(small(*flags), capsys)
    assert f"--output {tmp_path / 'out'}: process {beside} on " in message
    assert "writes into it" in message
    assert (tmp_path / "out" / ".lock").exists()


def test_the_lock_is_gone_when_the_run_is(finished: Path) -> None:
    assert not (finished / ".lock").exists()


def test_without_locks_runs_start(small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object, **__: object) -> bool:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(filelock, "lock_descriptor", no_locks)
    assert pretrain.main(small("--epochs", "1")) == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert not (tmp_path / "out" / ".lock").exists()


def test_a_planted_link_does_not_empty_its_target(
    small: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").symlink_to(precious)
    assert "can't be written into: .lock" in refused(small("--resume"), capsys)
    (tmp_path / ".entry.lock").symlink_to(precious)
    with lock(tmp_path / "entry") as locked:
        assert not locked
    (tmp_path / ".entry.tmp").mkdir()
    entries._remove_remains(tmp_path)
    assert (tmp_path / ".entry.tmp").is_dir()  # nobody's remains, as far as a link can tell
    assert precious.read_text() == "precious"


def test_a_link_in_place_of_the_old_run_is_not_followed(
    small: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "recipe.yaml").write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".replaced").symlink_to(tmp_path / "elsewhere")
    assert f"{tmp_path / 'out' / '.replaced'}: is a link. Remove it." in refused(small("--resume"), capsys)
    assert (tmp_path / "elsewhere" / "recipe.yaml").read_text() == "precious"


@pytest.mark.parametrize("new_has_begun", [False, True])
def test_a_start_that_was_killed_is_put_right(new_has_begun: bool, finished: Path) -> None:
    before = content(finished)

    def start() -> None:
        folder = RunFolder(finished, resume=False, overwrite=True, inputs={})
        folder.__enter__()
        (finished / "recipe.yaml").write_text("the new run's")
        if new_has_begun:
            (finished / "run.json").write_text("{}")

    if (process := os.fork()) == 0:
        with suppress(BaseException):
            start()
        os._exit(0)  # without leaving the context, as if killed
    os.waitpid(process, 0)
    assert (finished / ".replaced").is_dir()
    with RunFolder(finished, resume=True, overwrite=False, inputs={}) as folder:
        folder.begun()
    assert not (finished / ".replaced").exists()
    if new_has_begun:
        assert (finished / "recipe.yaml").read_text() == "the new run's"
    else:
        assert content(finished) == before


def test_ctrl_c_while_figures_are_drawn(
    small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tabzoo.training.figures.draw_curves", interrupted)
        assert pretrain.main(small()) == 130
    message = capsys.readouterr().err
    assert "Stopped after the last step; all steps are saved. To continue:" in message
    assert message.splitlines()[-1].endswith("--resume")
    monkeypatch.setattr(loop, "optimise", None)  # no further step is needed
    assert pretrain.main(small("--resume")) == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize("inside", [".", "new", "capsule/train"])
def test_a_run_inside_its_own_images_is_an_error(
    inside: str, small: Arguments, toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(toy.rglob("*"))
    output = str(toy / inside)
    assert f"--output {output}: is inside --data {toy}." in refused(small("--output", output), capsys)
    assert sorted(toy.rglob("*")) == before
