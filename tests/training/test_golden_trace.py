"""Losses and accuracies of the first 20 steps of one run, as they were written down: a change of any number shows.

The images, initial weights and text features are made here from integers, so that the trace depends on tabzoo and torch
alone. `python tests/training/test_golden_trace.py` writes it anew; CONTRIBUTING.md says what that means.
"""

import json
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
from PIL import Image

from tabzoo.training import pretrain
from tabzoo.training.metrics import read_rows
from tabzoo.training.prompts import load_prompts
from tabzoo.training.text import TextFeatures

TRACE = Path(__file__).with_name("golden_trace.json")
STEPS, CLASSES, IMAGES, SIZE, WIDTH = 20, 4, 10, 40, 96
COLUMNS = ("loss", "loss_normal", "loss_abnormal", "accuracy_normal", "accuracy_abnormal", "lr")


def scrambled(count: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Numbers in [-1, 1] from an integer hash: the same on every machine and with every version of a library."""
    numbers = (np.arange(count, dtype=np.uint64) + np.uint64(seed * 1_000_003)) * np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return (numbers >> np.uint64(40)).astype(np.float64) / 2**23 - 1


def make_images(root: Path) -> Path:
    """Classes of stripes, blocks, rings and checks, in whole grey levels and at the size that is trained on."""
    y, x = np.mgrid[:SIZE, :SIZE]
    patterns = (x * 6, (x // 8 + y // 8) * 40, ((x - 20) ** 2 + (y - 20) ** 2) // 3, (x * y) // 6)
    for number, pattern in enumerate(patterns):
        folder = root / f"class_{number}" / "train" / "good"
        folder.mkdir(parents=True)
        for i in range(IMAGES):
            noise = (scrambled(SIZE * SIZE * 3, 100 * number + i) * 12).astype(np.int64).reshape(SIZE, SIZE, 3)
            pixels = (pattern[..., None] * (2 + np.arange(3)) // 2 + 9 * i + noise) % 256
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return root


def make_start(path: Path) -> Path:
    """Initial weights: hashed numbers, scaled as He et al. do."""
    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    for seed, (key, value) in enumerate(state.items()):
        if value.ndim > 1:
            scale = math.sqrt(6 / value[0].numel())
            state[key] = torch.from_numpy(scale * scrambled(value.numel(), seed)).float().view_as(value)
        elif value.is_floating_point():
            state[key] = torch.ones_like(value) if key.endswith(("weight", "running_var")) else torch.zeros_like(value)
    safetensors.torch.save_file(state, path)
    return path


def make_texts(path: Path) -> Path:
    """Text features with what CLIP's have in common: a cosine of about 0.7 between classes."""
    shared = torch.from_numpy(scrambled(WIDTH, 7)) * 1.5
    own = torch.from_numpy(scrambled(2 * CLASSES * WIDTH, 8)).view(2, CLASSES, WIDTH)
    normal, abnormal = F.normalize(shared + own, dim=-1).float()
    words = {f"class_{number}": f"class {number}" for number in range(CLASSES)}
    made = {"text_model": "ViT-B-16", "text_pretrained": "made_up", "prompts_sha256": load_prompts("tab").digest()}
    TextFeatures(normal=normal, abnormal=abnormal, words=words, **made).save(path)
    return path


def train(folder: Path) -> list[dict[str, float]]:
    """The rows of a run of 20 steps, with everything that the recipe of a published backbone has, in float32."""
    flags = {
        **{"recipe": "resnet18.tab_mvtec", "data": make_images(folder / "data"), "output": folder / "out"},
        **{"backbone": "test_resnet", "init": make_start(folder / "init.safetensors"), "amp": "off", "device": "cpu"},
        **{"text-pretrained": make_texts(folder / "texts.safetensors"), "resize": SIZE, "crop": 32},
        **{"batch-size": 8, "epochs": 4, "lr": 0.003, "temperature": 8, "seed": 11},
        **{"cache": "ram", "workers": 0, "log-every": 1},
    }
    # The trace was written with ImageNet's numbers; test_resnet's own are others.
    statistics = ["--mean", "0.485", "0.456", "0.406", "--std", "0.229", "0.224", "0.225"]
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    assert pretrain.main([*words, *statistics]) == 0
    return [{key: row[key] for key in COLUMNS} for row in read_rows(folder / "out" / "metrics.jsonl")]


@pytest.mark.usefixtures("sketches")
def test_the_first_steps_are_as_written_down(tmp_path: Path) -> None:
    rows, expected = train(tmp_path), json.loads(TRACE.read_text())
    assert len(rows) == len(expected) == STEPS
    for step, (row, golden) in enumerate(zip(rows, expected, strict=True), start=1):
        # Rounding differs between CPUs, and grows from step to step.
        tolerance = 1e-4 if step <= 5 else 1e-2
        assert row == pytest.approx(golden, rel=tolerance), f"step {step}; see CONTRIBUTING.md"


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        lines = [json.dumps({key: float(f"{value:.7g}") for key, value in row.items()}) for row in train(Path(name))]
    TRACE.write_text("[\n" + ",\n".join(lines) + "\n]\n")
