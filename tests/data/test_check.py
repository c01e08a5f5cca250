"""The report on a folder, and the Industrial dataset's table."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tabzoo import cli
from tabzoo.data.__main__ import main
from tabzoo.data.check import FEW_IMAGES, compare
from tabzoo.data.industrial import INDUSTRIAL, industrial_csv
from tabzoo.data.toy import make_toy_factory
from tabzoo.errors import InputError


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub answers, as far as the command knows."""
    monkeypatch.setattr("tabzoo.data.__main__.hub_answers", lambda: True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_toy_factory(
        tmp_path / "factory", size=40, train=FEW_IMAGES, test_good=2, test_defect=2, classes=("capsule", "wood_grain")
    )


def checked(folder: Path, capsys: pytest.CaptureFixture[str], code: int) -> dict[str, object]:
    assert main(["check", str(folder), "--json"]) == code
    report: dict[str, object] = json.loads(capsys.readouterr().out)
    return report


def test_a_clean_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = checked(folder, capsys, 0)
    assert report["layout"] == "mvtec"
    assert report["total"] == 2 * (FEW_IMAGES + 2 + 2)
    assert report["problems"] == []
    capsule = report["classes"]["capsule"]  # type: ignore[index]
    assert capsule["train"] == {"good": FEW_IMAGES}
    assert capsule["test"]["good"] == 2
    assert sum(capsule["test"].values()) == 4
    assert capsule["masks"] == 2


def test_for_people(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "layout mvtec, 18 images, 2 classes" in shown
    assert "40x40 RGB" in shown
    command = shown.splitlines()[-1]
    assert command.endswith(f"--recipe tf_efficientnet_lite0.ranking --data {folder} --output runs/mine")
    assert shown.startswith(f"{folder}: layout")
    assert f"  tabzoo fit --data {folder} --class capsule --backbone" in shown
    (folder / "wood_grain").rename(folder.parent / "elsewhere")
    assert cli.main(["data", "check", str(folder)]) == 0
    only = capsys.readouterr().out
    assert "--class capsule" not in only.replace("--class-names", "")
    assert "--objective" not in only  # the recipe can train on one class


def test_without_network_the_next_command_needs_none(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tabzoo.data.__main__.hub_answers", lambda: False)
    assert main(["check", str(folder)]) == 0
    demo, why, weights = [line.strip() for line in capsys.readouterr().out.splitlines()[-3:]]
    assert demo.endswith(f"--recipe quickstart --data {folder} --output runs/demo")
    assert "demo" in why
    assert "model.safetensors of https://huggingface.co/timm/tf_efficientnet_lite0.in1k" in why
    assert weights.endswith(f"--data {folder} --init model.safetensors --output runs/mine")
    (folder / "wood_grain").rename(folder.parent / "elsewhere")
    assert main(["check", str(folder)]) == 0
    demo, _, weights = capsys.readouterr().out.splitlines()[-3:]
    assert "--objective joint" in demo  # one class: the objective of the quickstart that can train on it
    assert "--objective" not in weights


def test_classes_whose_names_are_no_words_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(folder)]) == 0
    assert "note:" not in capsys.readouterr().out
    (folder / "capsule").rename(folder / "01")
    (folder / "wood_grain").rename(folder / "pn-4711")
    assert main(["check", str(folder)]) == 0
    assert "--class-names 01 'metal nut' pn-4711 'steel bracket'\n" in capsys.readouterr().out


def test_every_kind_of_problem(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = folder / "capsule" / "train" / "good"
    (good / "000.png").write_bytes(b"")
    Image.open(good / "001.png").save(folder / "capsule" / "test" / "good" / "000.png", compress_level=9)
    for index in range(3):
        (folder / "wood_grain" / "train" / "good" / f"{index:03}.png").unlink()
    masks = sorted((folder / "wood_grain" / "ground_truth").rglob("*.png"))
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(masks[0])
    Image.fromarray(np.full((20, 40), 255, np.uint8)).save(masks[1])
    sorted((folder / "capsule" / "ground_truth").rglob("*.png"))[0].unlink()
    problems = checked(folder, capsys, 1)["problems"]
    found = sorted((problem["kind"], problem["message"]) for problem in problems)  # type: ignore[attr-defined]
    kinds = [kind for kind, _ in found]
    assert kinds == ["duplicate", "mask", "mask", "mask", "small", "unreadable"]
    text = " ".join(message for _, message in found)
    for part in (
        "the same image as capsule/train/good/001.png",
        "is empty",
        "40x20, the image 40x40",
        "without a mask",
        "2 good",
    ):
        assert part in text


def test_defects_too_small_for_the_benchmark(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = sorted((folder / "capsule" / "ground_truth").rglob("*.png"))[0]
    mask = np.zeros((1024, 1024), np.uint8)
    mask[512, 512] = 255  # one of 16 pixels that become one at 256 px, not the one that is sampled
    Image.fromarray(mask).save(file)
    image = folder / "capsule" / "test" / file.parent.name / file.name.replace("_mask", "")
    Image.open(image).resize((1024, 1024)).save(image)
    (problem,) = checked(folder, capsys, 1)["problems"]  # type: ignore[misc]
    assert problem["kind"] == "mask"
    assert f"its mask {file.name} is empty at 256 px" in problem["message"]
    assert "--resize" in problem["message"]


def test_images_that_come_out_dark(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """12 bits in files of 16."""
    for file in (folder / "capsule").rglob("t*/**/*.png"):
        grey = np.asarray(Image.open(file).convert("L"), dtype=np.uint16)
        Image.fromarray(16 * grey).save(file)
    (problem,) = checked(folder, capsys, 1)["problems"]  # type: ignore[misc]
    assert problem["kind"] == "levels"
    assert "pixel values of 1 class (capsule) range from" in problem["message"]
    assert "--white-level 4095" in problem["message"]
    assert main(["check", str(folder)]) == 1
    assert " --white-level 4095 --output runs/mine\n" in capsys.readouterr().out
    assert main(["check", str(folder), "--white-level", "4080"]) == 0
    assert " --white-level 4080 --output runs/mine\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workers", "0"], "--workers 0: expected the number of threads, at least 1"),
        (["--workers=-1"], "--workers -1: expected"),
        (["--white-level", "0"], "--white-level 0: expected"),
        (["--white-level", "nan"], "--white-level nan: expected"),
    ],
)
def test_values_out_of_range(folder: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(folder), *flags]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_a_folder_without_images_is_not_sent_to_the_same_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").touch()
    assert main(["check", str(tmp_path)]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: no images under {tmp_path}: expected")
    assert "tabzoo data check" not in shown


def test_what_is_left_out_is_said_once(
    folder: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "capsule" / "train" / "good" / "new.heic").touch()
    assert main(["check", str(folder)]) == 0
    assert capsys.readouterr().out.count("left out, not a supported format: 1 .heic") == 1
    assert not caplog.records
    checked(folder, capsys, 0)
    assert "left out, not a supported format: 1 .heic" in caplog.text  # JSON has no notes


def test_flags_that_are_off_have_no_second_form(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("check", "industrial"):
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        assert "--no-" not in capsys.readouterr().out


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [[], ["--root", "folder", "--manifest"]], ids=len)
def test_industrial_takes_one_of_two_flags(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["industrial", *flags]) == 2
    assert capsys.readouterr().err == "error: expected either --root DIR or --manifest\n"


def test_every_spelling_of_the_flags(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--layout=mvtec", "--workers", "1", "--json", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)["layout"] == "mvtec"
    assert main(["industrial", "--manifest"]) == 0
    assert capsys.readouterr().out == industrial_csv()
    (tmp_path / "empty").mkdir()
    assert main(["industrial", f"--root={tmp_path / 'empty'}", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["complete"], len(report["classes"])) == (False, 30)
    assert report["classes"][0].keys() == {"name", "images", "source", "license", "found", "state"}
    for flags in (["check", str(folder), "--workers", "x"], ["check"], ["check", str(folder), "--lay"]):
        with pytest.raises(SystemExit) as ended:
            main(flags)
        assert ended.value.code == 2


def test_industrial_table() -> None:
    assert len(INDUSTRIAL) == 30
    assert sum(entry.images for entry in INDUSTRIAL) == 17_393
    assert list(INDUSTRIAL) == sorted(INDUSTRIAL)
    shipped = Path(__file__).parents[2] / "training" / "industrial" / "manifest.csv"
    assert shipped.read_text() == industrial_csv()


def test_industrial_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixel = Image.new("L", (1, 1))
    for name, count in (("Plaid", 20), ("Upholstery", 19), ("Hazelnut Toy", 35)):
        (tmp_path / name).mkdir()
        for index in range(count):
            pixel.save(tmp_path / name / f"{index}.png")
    states = {standing.entry.name: standing.state for standing in compare(tmp_path)}
    assert [states[name] for name in ("Plaid", "Upholstery", "Hazelnut Toy", "Tile")] == [
        "complete",
        "short",
        "more",
        "missing",
    ]
    assert main(["industrial", "--root", str(tmp_path)]) == 1
    assert "1 of 30 classes complete; 74 of 17393 images." in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert {standing.state for standing in compare(tmp_path / "empty")} == {"missing"}
    with pytest.raises(InputError, match="no such folder"):
        compare(tmp_path / "nowhere")


@pytest.mark.real_data
def test_real_packs(real_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = checked(real_data / "factory", capsys, 0)
    classes = report["classes"]
    assert report["total"] == 1485
    assert sum(entry["train"]["good"] for entry in classes.values()) == 899  # type: ignore[attr-defined]
    assert {name: entry["masks"] for name, entry in classes.items() if entry["masks"]} == {  # type: ignore[attr-defined]
        "cookie": 32,
        "pcb_layout": 50,
        "pcb_strip": 40,
    }
    native = checked(real_data / "native" / "mvtec", capsys, 0)
    assert native["total"] == 120
