"""A disk that is full, read-only or over quota: one line with the path, and nothing half-written."""

import errno
import os
import re
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors import SafetensorError
from server import HubServer
from small import contents

from tabzoo import cli
from tabzoo.errors import WriteError
from tabzoo.hub.files import write_json
from tabzoo.hub.folder import write_folder

Output = pytest.CaptureFixture[str]
CODES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def fails(code: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.pt"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("code", "call"),
    [*((code, "shutil.copyfileobj") for code in CODES), *((errno.ENOSPC, name) for name in ("os.fsync", "os.replace"))],
)
def test_install_and_download(
    code: int,
    call: str,
    small_folder: Path,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
) -> None:
    monkeypatch.setattr(call, fails(code))
    for command, final in (
        (["install", "test_resnet.full", str(small_folder)], home / "weights" / "test_resnet.full"),
        (["download", f"local-dir:{small_folder}", "--to", str(tmp_path / "full" / "out")], tmp_path / "full" / "out"),
    ):
        assert cli.main(command) == 2
        # The first file that is written through the patched functions.
        named = final / "installed.json" if command[0] == "install" and call.startswith("os.") else final
        assert capsys.readouterr().err == f"error: {named}: can't be written: {os.strerror(code)}\n"
        assert list(final.parent.iterdir()) == []


def test_convert(checkpoint: Path, tmp_path: Path, capsys: Output) -> None:
    """The real thing, as far as one may make it: files can't grow beyond a megabyte."""
    command = ["convert", str(checkpoint), "--to", str(tmp_path / "out" / "mine"), "--name", "resnet18.mine"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))  # Python ignores the signal that comes with it
    try:
        assert cli.main(command) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    message = capsys.readouterr().err
    assert message.startswith(f"error: {tmp_path / 'out' / 'mine' / 'model.safetensors'}: can't be written: ")
    assert "File too large" in message
    assert message.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("message", ["I/O error: No space left on device (os error 28)", "anything else"])
def test_weights_that_can_not_be_written_name_the_file(
    message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError(message)

    monkeypatch.setattr("tabzoo.hub.folder.save_file", full)
    with pytest.raises(WriteError, match=re.escape(f"{tmp_path / 'model.safetensors'}: can't be written: {message}")):
        write_folder(tmp_path, {}, {}, name="", provenance={}, made_by="", facts="")
    assert list(tmp_path.iterdir()) == []


def test_json_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "run.json", {"steps": 1})
    before = contents(tmp_path)
    monkeypatch.setattr(Path, "replace", fails(errno.EDQUOT))
    with pytest.raises(OSError, match="quota"):
        write_json(tmp_path / "run.json", {"steps": 2})
    assert contents(tmp_path) == before


@pytest.mark.parametrize("code", CODES)
def test_the_hubs_cache(
    code: int, hub: HubServer, small_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    commit = hub.commit("org/name", contents(small_folder))
    monkeypatch.setattr("tabzoo.hub.remote.hf_hub_download", fails(code))
    cache = tmp_path / "cache"
    command = ["download", f"hf-hub:org/name@{commit}", "--to", str(tmp_path / "out"), "--cache-dir", str(cache)]
    assert cli.main(command) == 2
    message = capsys.readouterr().err
    assert (
        f"tabzoo.json was not downloaded completely: {cache} can't be written to: {os.strerror(code)}. Free" in message
    )
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_uninstall(small_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    assert cli.main(["install", "test_resnet.kept", str(small_folder)]) == 0
    capsys.readouterr()
    monkeypatch.setattr(shutil, "rmtree", fails(errno.EROFS))
    assert cli.main(["uninstall", "test_resnet.kept"]) == 2
    path = home / "weights" / "test_resnet.kept"
    assert capsys.readouterr().err == f"error: {path}: can't be removed: Read-only file system\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_that_can_not_be_written_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert cli.main(["list"]) == 2
    assert capsys.readouterr().err == "error: [Errno 28] No space left on device\n"


def test_stopping_leaves_nothing(
    small_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfileobj", stop)
    assert cli.main(["install", "test_resnet.stopped", str(small_folder)]) == 130
    assert capsys.readouterr().err == "\nStopped.\n"
    assert list((home / "weights").iterdir()) == []


def test_folders_in_use_are_refused_before_anything_is_read(
    small_folder: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setattr("tabzoo.hub.load.resolve", fails(errno.EIO))
    monkeypatch.setattr(torch, "load", fails(errno.EIO))
    for command in (
        ["download", str(small_folder), "--to"],
        ["convert", str(checkpoint), "--name", "resnet18.x", "--to"],
    ):
        for used in (tmp_path, checkpoint, Path("/")):
            assert cli.main([*command, str(used)]) == 2
            assert capsys.readouterr().err == f"error: {used}: already exists. Name a folder that is new or empty.\n"
