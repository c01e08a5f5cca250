"""A trial from a folder of photos to verdict and page."""

import csv
import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from PIL import Image
from safetensors.torch import load_file
from timm.models import save_for_hf

from tabzoo.cli import main as tabzoo
from tabzoo.training import loop
from tabzoo.training.recipe import Recipe, load_recipe
from tabzoo.trial import run as module
from tabzoo.trial import settings
from tabzoo.trial import train as training
from tabzoo.trial.__main__ import main

Trial = Callable[..., list[str]]
CLASSES = ("brushed_steel", "capsule", "hex_nut")


def listed(out: Path) -> list[dict[str, str]]:
    with (out / "images.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def verdict(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "verdict.json").read_text())
    return content


@pytest.mark.slow
def test_with_real_defects(toy: Path, trial: Trial, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = tmp_path / "factory", tmp_path / "out"
    shutil.copytree(toy, data)
    shutil.rmtree(data / "capsule/test")  # trained on, but not tested
    shutil.rmtree(data / "hex_nut/test/good")  # a quarter of the training photos takes its place
    test_photo = data / "brushed_steel/test/good/000.png"
    shutil.copy(test_photo, data / "brushed_steel/train/good/copy.png")
    code = tabzoo(["trial", *trial(data, CLASSES)])
    found, printed = verdict(out), capsys.readouterr()
    assert code == found["exit_code"] == {"better": 0, "no difference": 10, "worse": 11}[found["verdict"]]
    assert found["sentence"] in printed.out
    assert found["numbers"]["test"] == "real"
    assert list(found["numbers"]["by_class"]) == ["brushed_steel", "hex_nut"]
    assert found["numbers"]["training_runs"] == 2
    assert found["numbers"]["methods"] == {"padim": [0, 1, 2], "patchcore": [0, 1, 2]}
    assert (found["numbers"]["good"], found["numbers"]["defective"]) == (2 + 4, 6)
    assert "defective photos of 2 classes, 2 training runs." in found["sentence"]
    assert "Trained on but not tested, no real defects: 1 class (capsule)." in printed.err
    assert "Left out of training: 1 photo whose file is also among the test photos." in printed.err
    assert "min left for the whole trial" in printed.err
    rows = listed(out)
    train = {row["path"] for row in rows if row["split"] == "train"}
    assert len(train) == 16 + 16 + 12
    assert not train & {row["path"] for row in rows if row["split"] == "test"}
    assert len(list((out / "runs/seed_1").glob("model.safetensors"))) == 1
    hashes = set((out / "runs/seed_0/image_hashes.txt").read_text().split())  # what the training saw
    tested = [row["path"] for row in rows if row["split"] == "test"]
    assert len(hashes) == len(train)
    assert not hashes & {hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] for path in tested}
    assert "factory" in (out / "index.html").read_text()
    # The same command again does nothing, and says the same.
    before = (out / "verdict.json").stat().st_mtime_ns
    assert main(trial(data, CLASSES)) == code
    assert (out / "verdict.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_photos_that_cannot_be_read(
    toy: Path, trial: Trial, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    data, out = tmp_path / "photos", tmp_path / "out"
    for name in CLASSES[:2]:
        shutil.copytree(toy / name, data / name)
    broken = data / "brushed_steel/train/good/001.png"
    broken.write_bytes(b"no photo")
    for path in (data / "capsule/test").rglob("*.png"):
        path.write_bytes(b"")
    assert main(trial(data, CLASSES[:2], "--seeds", "0")) in (0, 10, 11)
    page, found = (out / "index.html").read_text(), verdict(out)
    assert found["numbers"]["train"] == 31
    assert list(found["numbers"]["by_class"]) == ["brushed_steel"]
    assert "Trained on 31 good photos" in page
    assert "Left out of training: 1 photo that can&#39;t be read." in page
    assert "Not tested, too few of its test photos can be read: 1 class (capsule)." in page
    assert caplog.text.count(f"left out: {broken}") == 1
    for path in (data / "brushed_steel/test").rglob("*.png"):
        path.write_bytes(b"")
    assert main(trial(data, CLASSES[:2], "--seeds", "0", "--overwrite")) == 2
    assert "no class has good and defective test photos that can be read" in capsys.readouterr().err


@pytest.mark.slow
def test_without_defects(toy: Path, trial: Trial, tmp_path: Path) -> None:
    data, out = tmp_path / "photos", tmp_path / "out"
    for name in CLASSES[:2]:
        shutil.copytree(toy / name / "train/good", data / name)
    assert main(trial(data, CLASSES[:2], "--seeds", "3")) in (0, 10, 11)
    found = verdict(out)
    assert found["numbers"]["test"] == "synthetic:cutpaste"  # the recipe trains with nsa
    assert "8 good photos and 8 synthetic anomalies (cutpaste), which are a proxy for real defects" in found["sentence"]
    assert "one training run" in found["sentence"]
    rows = listed(out)
    train = [row for row in rows if row["split"] == "train"]
    assert len(train) == 2 * 12
    sizes = set()
    for row in rows:
        if row["split"] == "test" and row["label"] == "defective":
            made, mask = (np.asarray(Image.open(out / row[name])) for name in ("path", "mask"))
            good = np.asarray(Image.open(str(out / row["path"]).replace("synthetic_cutpaste", "good")))
            changed = (made != good).any(-1)
            assert changed.any()
            assert not changed[mask == 0].any() or (np.abs(made[mask == 0].astype(int) - good[mask == 0]).max() <= 3)
            assert not changed[:4].any()  # anomalies are inside the crop
            sizes |= {made.shape, good.shape}
    assert sizes == {(40, 40, 3)}
    page = (out / "index.html").read_text()
    assert "a proxy" in page
    assert "How much another training run would differ" in page


@pytest.mark.slow
def test_one_class_takes_joint(toy: Path, trial: Trial, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "one" / "capsule"
    shutil.copytree(toy / "capsule", data)
    assert main(trial(data, ["capsule"], "--seeds", "0")) in (0, 10, 11)
    assert "One class: the objective is joint" in capsys.readouterr().err
    assert "objective: joint" in (tmp_path / "out/runs/seed_0/recipe.yaml").read_text()


@pytest.mark.slow
def test_a_recipe_of_the_paper(
    toy: Path, trial: Trial, make_text_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a folder with a mean of its own, whose embedding has another width than the texts."""
    data, start, out = tmp_path / "photos", tmp_path / "start", tmp_path / "out"
    model = timm.create_model("test_resnet", num_classes=0, pretrained_cfg_overlay={"mean": (0.4,) * 3})
    save_for_hf(model, start, safe_serialization=True)
    for name in CLASSES[:2]:
        shutil.copytree(toy / name, data / name)
    small = load_recipe("resnet18.tab_mvtec").replace(resize=40, crop=32, epochs=1, batch_norm="frozen")
    monkeypatch.setattr(settings, "load_recipe", lambda _: small)
    narrow = make_text_file(*CLASSES[:2], width=64)
    flags = trial(data, CLASSES[:2], "--backbone", str(start), "--text-pretrained", str(narrow), "--seeds", "0")
    flags = [word for word in flags if word not in ("--recipe", str(tmp_path / "tiny.yaml"))]
    assert main(flags) == 10
    trained = load_recipe(str(out / "runs/seed_0/recipe.yaml"))
    assert (trained.mean, trained.projection, trained.license) == ((0.4,) * 3, "linear", "unspecified")
    assert (trained.batch_norm, trained.batch_size) == ("frozen", 16)
    after = load_file(out / "runs/seed_0/model.safetensors")
    assert (after["bn1.running_mean"] == model.state_dict()["bn1.running_mean"]).all()
    found, page = verdict(out), (out / "index.html").read_text()
    assert "Batches of 16 photos, not 512 as in the recipe." in page
    assert "a linear projection is trained" in page
    assert found["use"] == str(start)
    assert found["sentence"].endswith("or a --recipe with a higher lr.")
    assert 0 < found["numbers"]["runs"][0]["change"] < 0.001


@pytest.mark.slow
def test_the_default_recipe(
    toy: Path, trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ranks, and so needs no texts and works with one class."""
    data, out = tmp_path / "one", tmp_path / "out"
    shutil.copytree(toy / "capsule", data / "capsule")
    asked = []

    def small(name: str) -> Recipe:
        asked.append(name)
        return load_recipe(name).replace(
            backbone="test_resnet", init="random", resize=40, crop=32, batch_size=6, amp="off", mean=None, std=None
        )

    monkeypatch.setattr(settings, "load_recipe", small)
    flags = trial(data, ["capsule"], "--seeds", "0")
    for flag in ("--recipe", "--text-pretrained"):
        place = flags.index(flag)
        del flags[place : place + 2]
    assert main(flags) in (0, 10, 11)
    assert asked == ["tf_efficientnet_lite0.ranking"]
    assert "objective: ranking" in (out / "runs/seed_0/recipe.yaml").read_text()
    assert "text" not in verdict(out)["sentence"]
    assert "text features" not in (out / "index.html").read_text()
    capsys.readouterr()
    assert main([*flags, "--overwrite", "--text-pretrained", "untrained"]) == 2
    assert "the recipe's objective ranking needs no texts" in capsys.readouterr().err


@pytest.mark.slow
def test_stopped_and_continued(
    toy: Path, trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped within the second training run and, with another signal, while the results are tested."""
    data, out = tmp_path / "photos", tmp_path / "out"
    for name in CLASSES[:2]:
        shutil.copytree(toy / name, data / name)
    arguments = trial(data, CLASSES[:2])
    code = main(arguments)
    whole = verdict(out)
    shutil.rmtree(out)
    steps = []

    def optimise(*given: Any) -> Any:
        steps.append(1)
        if len(steps) == 6:  # four steps a run
            os.kill(os.getpid(), signal.SIGTERM)
        return loop_optimise(*given)

    loop_optimise = loop.optimise
    monkeypatch.setattr(loop, "optimise", optimise)
    capsys.readouterr()
    assert main([*arguments, "--overwrite"]) == 128 + signal.SIGTERM
    said = capsys.readouterr().err
    assert f"To continue:\n  python -m tabzoo.trial --data {data}" in said
    assert "--overwrite" not in said
    plan = json.loads((out / "trial.json").read_text())["plan"]
    assert (out / "runs/seed_0/tabzoo.json").exists()
    assert not (out / "runs/seed_1/tabzoo.json").exists()
    monkeypatch.setattr(module, "conclude", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
    assert main(arguments) == 128 + signal.SIGINT
    monkeypatch.undo()
    assert len(steps) == 8
    monkeypatch.setattr(training, "build_run", None)  # both runs are finished
    assert main(arguments) == code
    assert json.loads((out / "trial.json").read_text())["plan"] == plan
    assert verdict(out) == whole
