"""Held-out rows against a plain loop over the same pairs, and what frozen batch-norm leaves as it was."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F

from tabzoo.data.cache import open_images
from tabzoo.data.layouts import find_samples
from tabzoo.synthesis.draws import hold_out
from tabzoo.training import pretrain
from tabzoo.training.anomalies import pair_maker
from tabzoo.training.metrics import read_rows
from tabzoo.training.ranks import Ranks
from tabzoo.training.recipe import Recipe
from tabzoo.training.text import load_text_features

Arguments = Callable[..., list[str]]


def test_held_out_rows_are_the_means_over_held_out_pairs(small: Arguments, tmp_path: Path, toy: Path) -> None:
    """15 images of 45 are held out: batches of 6, the last one of 3, through the trained model in evaluation mode."""
    assert pretrain.main(small("--val-share", "0.33", "--epochs", "1", "--batch-size", "6")) == 0
    out = tmp_path / "out"
    (row,) = read_rows(out / "validation.jsonl")
    samples = find_samples(toy).train_normals()
    class_ids = torch.from_numpy(samples.class_ids).long()
    trained_on, held = hold_out(class_ids, 0.33, seed=0)
    assert (len(trained_on), len(held)) == (33, 15)
    images = open_images(samples, size=40, mode="ram", workers=0)
    recipe = Recipe(resize=40, crop=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    maker = pair_maker(images, held, class_ids[held], recipe, torch.device("cpu"))
    features = load_text_features(out / "text_features.safetensors")
    assert features is not None
    model = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    pairs = maker(0, -1, torch.arange(15))
    for branch, pixels, texts in (
        ("normal", pairs.normal, features.normal),
        ("abnormal", pairs.abnormal, features.abnormal),
    ):
        with torch.no_grad():
            logits = F.normalize(model(pixels), dim=1) @ texts.T / 0.07
        assert row[f"loss_{branch}"] == pytest.approx(F.cross_entropy(logits, pairs.classes).item(), rel=1e-3)
        right = (logits.argmax(dim=1) == pairs.classes).float().mean().item()
        assert row[f"accuracy_{branch}"] == pytest.approx(right)
    assert row["loss"] == pytest.approx((row["loss_normal"] + row["loss_abnormal"]) / 2)
    assert (row["step"], row["epoch"]) == (5, 0)
    card = (out / "README.md").read_text()
    assert "Trained on 33 normal images" in card
    assert "15 more images were held out" in card
    assert "of each that were trained on: brushed steel (11), capsule (11), hex nut (11)." in card
    record = json.loads((out / "tabzoo.json").read_text())["training"]
    assert record["trained_on"] == dict.fromkeys(("brushed_steel", "capsule", "hex_nut"), 11)
    assert record["classes"] == dict.fromkeys(("brushed_steel", "capsule", "hex_nut"), 16)


def test_all_processes_wait_while_the_first_validates(
    small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wait here, and not in the next step, where a collective of GPUs has a time-out."""
    rows: list[int] = []
    validation = tmp_path / "out" / "validation.jsonl"
    monkeypatch.setattr(Ranks, "wait", lambda _: rows.append(len(read_rows(validation))))
    assert pretrain.main(small("--val-share", "0.33", "--epochs", "2")) == 0
    assert rows == [1, 2]  # after each epoch, once its row is written


@pytest.mark.parametrize(("batch_norm", "moved"), [("frozen", False), ("local", True)])
def test_frozen_statistics_stay(small: Arguments, tmp_path: Path, batch_norm: str, moved: bool) -> None:
    torch.manual_seed(3)
    start = timm.create_model("test_resnet", num_classes=0)
    start.train()(torch.rand(8, 3, 32, 32))  # statistics of its own
    safetensors.torch.save_file(start.state_dict(), tmp_path / "init.safetensors")
    flags = ["--init", str(tmp_path / "init.safetensors"), "--batch-norm", batch_norm, "--epochs", "1"]
    assert pretrain.main(small(*flags)) == 0
    trained = safetensors.torch.load_file(tmp_path / "out" / "model.safetensors")
    for key, value in start.state_dict().items():
        is_statistic = key.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(trained[key], value) == (is_statistic and not moved), key
