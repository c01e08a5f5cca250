"""The quickstart's recipe from end to end: on its toy factory, and on real images."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from tabzoo.scores.rows import read_rows as read_results
from tabzoo.training import pretrain
from tabzoo.training.metrics import read_rows


def _few_prompts(folder: Path) -> Path:
    path = folder / "few.yaml"
    path.write_text("normal: ['good {c}']\nabnormal: ['damaged {c}']\ntemplates: ['a photo of a {s}.']\n")
    return path


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart with half of its epochs and three sentences a class: what takes longest shows nothing new."""
    folder = tmp_path_factory.mktemp("runs")
    less = ["--epochs", "2", "--prompts", str(_few_prompts(folder))]
    assert pretrain.main(["--recipe", "quickstart", "--output", str(folder / "quickstart"), *less]) == 0
    return folder / "quickstart"


@pytest.mark.slow
def test_quickstart_learns(quickstart: Path) -> None:
    rows, validation = read_rows(quickstart / "metrics.jsonl"), read_rows(quickstart / "validation.jsonl")
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert [row["step"] for row in validation] == [9, 18]
    for row in (rows[-1], validation[-1]):
        assert row["loss"] < 0.7
        for branch in ("normal", "abnormal"):
            assert row[f"accuracy_{branch}"] > 0.9  # chance is 1/6
    assert set(rows[0]) == {
        *("step", "epoch", "loss", "loss_normal", "loss_abnormal", "accuracy_normal", "accuracy_abnormal"),
        *("lr", "images_per_second"),
    }


@pytest.mark.slow
def test_quickstart_output_folder(quickstart: Path) -> None:
    assert sorted(entry.name for entry in quickstart.iterdir()) == [
        *(
            "README.md",
            "benchmark",
            "checkpoints",
            "config.json",
            "figures",
            "image_hashes.txt",
            "metrics.jsonl",
            "model.safetensors",
            "recipe.yaml",
        ),
        *("run.json", "tabzoo.json", "text_features.safetensors", "toy_factory", "validation.jsonl"),
    ]
    assert sorted(path.name for path in (quickstart / "figures").iterdir()) == [
        *("curves.png", "samples.png", "similarity.png")  # what they show: test_figures.py
    ]
    published = ("README.md", "config.json", "tabzoo.json", "recipe.yaml")
    for name in published:
        assert str(quickstart.parent) not in (quickstart / name).read_text()
    record = json.loads((quickstart / "tabzoo.json").read_text())
    content = (quickstart / "model.safetensors").read_bytes()
    assert record["weights"]["size"] == len(content)
    assert record["name"] == "resnet18.quickstart"
    assert record["license"] == "apache-2.0"
    assert record["training"]["classes"] == dict.fromkeys(sorted(record["training"]["classes"]), 60)
    measured = read_results(quickstart / "benchmark")
    assert {(row.backbone, row.class_name) for row in measured} == {
        (backbone, name) for backbone in ("random", "quickstart") for name in record["training"]["classes"]
    }
    config = json.loads((quickstart / "config.json").read_text())
    source = config["pretrained_cfg"]
    assert (config["architecture"], config["num_classes"]) == ("resnet18", 0)
    assert (source["crop_mode"], source["interpolation"], source["mean"][0]) == ("squash", "lanczos", 0.485)
    assert not [key for key in safetensors.torch.load_file(quickstart / "model.safetensors") if key.startswith("fc.")]
    assert not list(quickstart.rglob("*.bin"))


@pytest.mark.slow
def test_timm_loads_the_result(quickstart: Path) -> None:
    saved = safetensors.torch.load_file(quickstart / "model.safetensors")
    whole = timm.create_model(f"local-dir:{quickstart}", pretrained=True)
    assert all(torch.equal(whole.state_dict()[key], saved[key]) for key in saved)
    image = torch.rand(1, 3, 64, 64)
    maps = timm.create_model(f"local-dir:{quickstart}", pretrained=True, features_only=True).eval()(image)
    hidden = whole.eval().forward_features(image)
    torch.testing.assert_close(maps[-1], hidden)
    classifier = timm.create_model(f"local-dir:{quickstart}", pretrained=True, num_classes=3)
    assert torch.equal(classifier.conv1.weight, saved["conv1.weight"])
    data = timm.data.resolve_model_data_config(whole)  # type: ignore[attr-defined]
    assert (tuple(data["input_size"]), data["crop_pct"], data["crop_mode"]) == ((3, 64, 64), 64 / 72, "squash")


@pytest.mark.slow
@pytest.mark.real_data
def test_real_images(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("capsule", "cookie", "pcb_strip"):
        (tmp_path / "data" / name).symlink_to(real_data / "factory" / name)
    arguments = ["--recipe", "quickstart", "--data", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    assert pretrain.main([*arguments, "--epochs", "2", "--prompts", str(_few_prompts(tmp_path))]) == 0
    rows, validation = (read_rows(tmp_path / "out" / f"{name}.jsonl") for name in ("metrics", "validation"))
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    for branch in ("normal", "abnormal"):
        assert validation[-1][f"accuracy_{branch}"] > 2 / 3  # twice chance
