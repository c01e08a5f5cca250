"""`tabzoo fit`: what it prints, and a user's mistakes in one line each."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tabzoo.inspect.__main__ as module
from tabzoo import cli
from tabzoo.inspect.detector import load_detector
from tabzoo.inspect.folder import read_photos


@pytest.fixture
def command(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `tabzoo fit` with small sizes; returns exit code, output and errors."""

    def run(**flags: object) -> tuple[int, str, str]:
        given = {
            "data": photos,
            "class": "nut",
            "backbone": "random:test_resnet",
            "size": 64,
            "output": tmp_path / "out",
        }
        given |= {name.rstrip("_").replace("_", "-"): value for name, value in flags.items()}
        words = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
        try:
            code = cli.main(["fit", *words])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        return code, *capsys.readouterr()

    return run


def test_what_it_prints(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, out, _ = command(padim_channels=20, false_alarms=0.1)
    assert code == 0
    first, threshold, highest, advice, tested, following = out.splitlines()
    assert first.startswith(f"padim of nut, fitted to 12 good photos: {tmp_path / 'out'}, ")
    assert "Of 1,000 good parts expect" in threshold
    assert tested == (
        "On the test photos, which it does not depend on, 4 of 4 defects and 0 of 4 good photos are above it."
    )
    assert following == f"Next: tabzoo score {tmp_path / 'out'} PHOTO|DIR"
    photos = sorted(read_photos(tmp_path / "out"), key=lambda photo: photo.score)
    assert highest == (
        f"The threshold is the score of one photo, {photos[-1].path}; the next highest is {photos[-2].score:.6g}. Look at it: "
        "if it shows a defect or was taken differently, move it out of the folder and fit again."
    )
    assert advice == (
        "If it is good, add 7 good photos, so that no single one decides, or take the next highest score as the threshold: "
        "--false-alarms 0.154."
    )
    assert threshold.startswith(f"Threshold {photos[-1].score:.6g}. ")
    record = load_detector(tmp_path / "out", device="cpu").record
    assert record.settings["channels"] == 20
    assert record.provenance["command"].startswith("tabzoo fit --data ")
    assert record.provenance["command"].endswith("--class nut --backbone random:test_resnet "
        f"--output {tmp_path / 'out'} --size 64 --false-alarms 0.1 --padim-channels 20")  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"class_": "nutt"}, "--class nutt: no such class; there are bolt, nut. Did you mean 'nut'?"),
        ({"class_": None}, "has 2 classes. Type --class with one of bolt, nut."),
        ({"class_": ""}, "--class: '' given, expected a value"),
        ({"method": "rd4ad"}, "--method: 'rd4ad' given, expected padim, patchcore"),
        ({"backbone": "resnet8"}, "--backbone 'resnet8': timm has no such model."),
        ({"false_alarms": 0}, "--false-alarms 0: expected a share above 0 and below 1"),
        ({"false_alarms": 5}, "--false-alarms 5: expected a share above 0 and below 1"),
        ({"shots": 1}, "--shots 1: expected at least 2"),
        ({"shots": 13}, "--shots 13: class nut has only 12 good photos"),
        ({"size": 10**6}, "--size 1000000: expected at most 4096"),
        ({"max_memory": 0}, "--max-memory 0: expected gigabytes, above 0"),
        ({"data": "nowhere"}, "no such folder: nowhere"),
        ({"method": "patchcore", "patchcore_share": 2}, "--patchcore-share 2.0: expected more than 0, at most 1"),
        ({"patchcore_share": 0.5}, "--patchcore-share: no effect with --method padim"),
    ],
)
def test_mistakes(flags: dict[str, object], said: str, command: Callable[..., tuple[int, str, str]]) -> None:
    code, _, errors = command(**flags)
    assert said in errors
    assert "Traceback" not in errors
    assert code == (0 if "no effect" in said else 2)


def test_the_highest_photo_is_named_only_where_it_is_the_threshold(
    command: Callable[..., tuple[int, str, str]],
) -> None:
    code, out, _ = command(false_alarms=0.4)
    assert (code, "Threshold " in out, "the score of one photo" in out) == (0, True, False)


def test_ctrl_c_while_a_command_is_imported(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    assert cli.main(["fit", "--help"], prepare=interrupt) == 130
    assert capsys.readouterr().err == "\nStopped.\n"


def test_a_plain_folder_of_photos(command: Callable[..., tuple[int, str, str]], photos: Path, tmp_path: Path) -> None:
    plain = tmp_path / "tuesday"
    shutil.copytree(photos / "nut" / "train" / "good", plain)
    code, out, errors = command(data=plain, class_=None)
    assert (code, errors.count("error")) == (0, 0)
    assert out.startswith("padim of tuesday, fitted to 12 good photos")
    assert "test photos" not in out


def test_too_few_photos(command: Callable[..., tuple[int, str, str]], photos: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    source = photos / "nut" / "train" / "good"
    shutil.copy(source / "000.png", few / "a.png")
    code, _, errors = command(data=few, class_=None)
    assert code == 2
    assert "1 good photo: a threshold needs at least 2 different ones. Add good photos." in errors
    shutil.copy(source / "000.png", few / "b.png")
    assert "2 good photos, all of them copies of one: a threshold needs" in command(data=few, class_=None)[2]
    assert not (tmp_path / "out").exists()
    shutil.copy(source / "001.png", few / "c.png")
    code, out, _ = command(data=few, class_=None)
    assert code == 0
    assert "2 different good photos are too few for --false-alarms 0.01, which needs 99." in out
    only_defects = tmp_path / "part"
    shutil.copytree(photos / "nut" / "test", only_defects / "nut" / "test")
    shutil.copytree(photos / "nut" / "test" / "hole", only_defects / "nut" / "train" / "hole")
    code, _, errors = command(data=only_defects, output=tmp_path / "second")
    assert (code, errors) == (
        2,
        f"error: --data {only_defects}: no good photos to fit to in class nut; found 4 good photos to test with, 4 defective "
        f"photos to test with, 4 defective photos to train on. Put good photos into {only_defects}/nut/train/good, and fit "
        "again.\n",
    )
    _, _, errors = command(data=only_defects / "nut", class_=None, output=tmp_path / "second")
    assert f"Put good photos into {only_defects}/nut/train/good, and fit again." in errors
    table = tmp_path / "photos.csv"
    table.write_text("path,class,split,label\npart/nut/test/good/000.png,nut,test,good\n")
    _, _, errors = command(data=table, output=tmp_path / "second")
    assert "found 1 good photo to test with. Add lines with split train and label good, and fit again." in errors


def test_photos_that_look_alike(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "flat"
    folder.mkdir()
    for i in range(4):  # the same pixels in different files
        Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(folder / f"{i}.png", compress_level=i)
    for method in ("padim", "patchcore"):
        caplog.clear()
        code, out, _ = command(data=folder, class_=None, method=method, output=tmp_path / method)
        assert (code, "Threshold " in out) == (0, True)
        assert "all 4 good photos have the same score, " in caplog.text


def test_licences_that_forbid_commercial_use_are_named(
    command: Callable[..., tuple[int, str, str]], make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    weights = make_folder("test_resnet.tab_here", license="cc-by-nc-sa-4.0")
    _, _, errors = command(backbone=weights)
    assert (
        "The licence of the backbone's weights, cc-by-nc-sa-4.0, forbids commercial use, also of this detector."
        in errors
    )
    assert load_detector(tmp_path / "out", device="cpu").record.backbone["license"] == "cc-by-nc-sa-4.0"


def test_names_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for run, prog in ((cli.main, "tabzoo fit"), (module.main, "python -m tabzoo.inspect fit")):
        with pytest.raises(SystemExit):
            run(["fit", "--nothing"])
        assert f"See {prog} --help" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["fit", "--help"])
    assert "usage: tabzoo fit" in capsys.readouterr().out


OFFLINE = """
import socket, sys
def refuse(*_, **__):
    raise AssertionError("the network was used")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import tabzoo
assert "tabzoo.inspect" not in sys.modules and "tabzoo.detectors" not in sys.modules
detector = tabzoo.load_detector(sys.argv[1])
print(detector(sys.argv[2]).scores[0].item())
"""


def test_it_needs_neither_network_nor_zoo_nor_caches(
    command: Callable[..., tuple[int, str, str]], make_folder: Callable[..., Path], photos: Path, tmp_path: Path
) -> None:
    weights = shutil.copytree(make_folder("test_resnet.tab_here"), tmp_path / "weights")  # of timm alone
    config = (weights / "config.json").read_text()
    (weights / "config.json").write_text(
        config.replace('"num_classes": 0,', '"num_classes": 0, "model_args": {"output_stride": 16},', 1)
    )
    command(backbone=weights, method="patchcore", padim_channels=None)
    photo = photos / "nut" / "test" / "hole" / "001.png"
    detector = load_detector(tmp_path / "out", device="cpu")
    assert detector.record.backbone["arguments"] == {"output_stride": 16}
    shutil.rmtree(weights)
    place = shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    caches = ("HOME", "HF_HOME", "TORCH_HOME", "TABZOO_HOME", "TABZOO_CACHE", "XDG_CACHE_HOME")
    empty = dict.fromkeys(caches, str(tmp_path / "empty"))
    process = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(place), str(photo)],
        env={**os.environ, **empty, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert float(process.stdout) == detector(photo).scores[0]
