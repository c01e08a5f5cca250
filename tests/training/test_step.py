"""Algorithm 1's step against a plain loop in torch, written here, over the same pairs: weights and logged metrics."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabzoo.data.cache import open_images
from tabzoo.data.layouts import find_samples
from tabzoo.synthesis.pairs import Pairs
from tabzoo.training import log, loop, pretrain
from tabzoo.training.anomalies import pair_maker
from tabzoo.training.heads import BRANCHES, ProjectionHeads
from tabzoo.training.metrics import read_rows
from tabzoo.training.recipe import Recipe
from tabzoo.training.run import Run
from tabzoo.training.sampling import epoch_samples
from tabzoo.training.state import State
from tabzoo.training.text import load_text_features

Arguments = Callable[..., list[str]]

# 48 images in batches of 16: three steps an epoch.
BATCH, STEPS_AN_EPOCH, LR, MOMENTUM, WEIGHT_DECAY, SEED = 16, 3, 0.01, 0.8, 0.01, 7


class Case(NamedTuple):
    objective: str = "tab"
    reduction: str = "mean"
    projection: str = "none"
    micro_batch: int = 0
    learn_temperature: bool = False
    schedule: str = "cosine"
    text_layout: str = "rows"
    sampling: str = "uniform"
    epochs: int = 2

    def flags(self) -> list[str]:
        values = self._asdict()
        learn = ["--learn-temperature"] if values.pop("learn_temperature") else []
        return [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", str(value))] + learn


CASES = [
    Case(),
    Case(objective="joint", schedule="constant"),
    Case(micro_batch=6),  # 16 images in parts of 6, 5 and 5
    Case(objective="joint", micro_batch=6, projection="residual", reduction="sum", learn_temperature=True),
    Case(projection="residual", reduction="sum", learn_temperature=True),
    Case(projection="linear", objective="joint", learn_temperature=True),
    # One epoch: a batch of one class has so little spread that batch-norm magnifies rounding errors from step to step.
    Case(projection="residual", reduction="sum", text_layout="authors", sampling="sequential", epochs=1),
    Case(objective="joint", micro_batch=6, text_layout="authors"),
]


class Plain:
    """Algorithm 1 with nothing but torch: SGD with momentum by hand, losses as the paper writes them."""

    def __init__(self, case: Case, backbone: nn.Module, texts: tuple[Tensor, Tensor], temperature: float) -> None:
        self.case, self.backbone, self.texts = case, backbone.train(), texts
        torch.manual_seed(SEED)
        self.heads = ProjectionHeads(case.projection, 96, 96).train()  # type: ignore[arg-type]
        self.temperature = torch.tensor(temperature, requires_grad=case.learn_temperature)
        self.trained = [*self.backbone.parameters(), *self.heads.parameters()]
        self.trained += [self.temperature] if case.learn_temperature else []
        self.velocity = [torch.zeros_like(weight) for weight in self.trained]

    def cross_entropy(self, images: Tensor, classes: Tensor, branch: str) -> tuple[Tensor, Tensor]:
        normal, abnormal = self.texts
        embeddings = self.heads(self.backbone(images), branch)
        unit = embeddings / embeddings.norm(dim=1, keepdim=True)
        if self.case.objective == "tab":
            texts, targets = (normal if branch == "normal" else abnormal), classes
        else:
            texts = torch.cat([normal, abnormal])
            targets = classes + (0 if branch == "normal" else len(normal))
        logits = self.temperature * (unit @ texts.T)
        right = logits.argmax(dim=1) == targets
        return -F.log_softmax(logits, dim=1)[range(len(targets)), targets].mean(), right.float().mean()

    def step(self, pairs: Pairs, rate: float) -> dict[str, float]:
        for weight in self.trained:
            weight.grad = None
        sums = dict.fromkeys(("loss_normal", "loss_abnormal", "accuracy_normal", "accuracy_abnormal"), 0.0)
        parts = math.ceil(BATCH / (self.case.micro_batch or BATCH))
        pieces = (tensor.tensor_split(parts) for tensor in pairs)
        for normal, abnormal, _, classes in zip(*pieces, strict=True):
            share = len(classes) / BATCH
            loss_n, right_n = self.cross_entropy(normal, classes, "normal")
            loss_a, right_a = self.cross_entropy(abnormal, classes, "abnormal")
            loss = (loss_n + loss_a) / 2 if self.case.reduction == "mean" else loss_n + loss_a
            (share * loss).backward()
            for key, value in zip(sums, (loss_n, loss_a, right_n, right_a), strict=True):
                sums[key] += share * value.item()
        with torch.no_grad():
            for weight, velocity in zip(self.trained, self.velocity, strict=True):
                assert weight.grad is not None
                velocity.mul_(MOMENTUM).add_(weight.grad + WEIGHT_DECAY * weight)
                weight.sub_(rate * velocity)
        total = sums["loss_normal"] + sums["loss_abnormal"]
        return {"loss": total / 2 if self.case.reduction == "mean" else total, **sums, "lr": rate}


def rate(case: Case, step: int) -> float:
    return (
        LR if case.schedule == "constant" else LR * (1 + math.cos(math.pi * step / (case.epochs * STEPS_AN_EPOCH))) / 2
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(str(value) for value in case))
def test_training_is_the_plain_loop(
    case: Case, small: Arguments, tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(F, "dropout", lambda values, *_, **__: values)  # the heads' only draw
    torch.manual_seed(3)
    backbone = timm.create_model("test_resnet", num_classes=0)
    safetensors.torch.save_file(backbone.state_dict(), tmp_path / "init.safetensors")
    settings = {"lr": LR, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY, "seed": SEED, "temperature": 5.0}
    flags = [word for key, value in settings.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    assert pretrain.main(small("--init", str(tmp_path / "init.safetensors"), *flags, *case.flags())) == 0
    out = tmp_path / "out"

    samples = find_samples(toy).train_normals()
    class_ids = torch.from_numpy(samples.class_ids).long()
    images = open_images(samples, size=40, mode="ram", workers=0)
    recipe = Recipe(resize=40, crop=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), channels_last=True)
    maker = pair_maker(images, torch.arange(48), class_ids, recipe, torch.device("cpu"))
    features = load_text_features(out / "text_features.safetensors")
    assert features is not None
    texts = features.normal, features.abnormal
    if case.text_layout == "authors":  # as their code does it, class by class
        columns = [np.stack([row.numpy() for row in rows], axis=1) for rows in texts]
        texts = tuple(torch.from_numpy(stacked.reshape(stacked.shape[1], stacked.shape[0])) for stacked in columns)
    plain = Plain(case, backbone, texts, temperature=5.0)
    rows = read_rows(out / "metrics.jsonl")
    assert len(rows) == case.epochs * STEPS_AN_EPOCH
    for step, row in enumerate(rows):
        epoch, index = divmod(step, STEPS_AN_EPOCH)
        order = torch.arange(48)
        if case.sampling == "uniform":
            order = epoch_samples(class_ids, seed=SEED, epoch=epoch, sampling="uniform", repeats=1)
        pairs = maker(SEED, epoch, order[index * BATCH : (index + 1) * BATCH])
        assert not torch.equal(pairs.normal, pairs.abnormal)
        expected = plain.step(pairs, rate(case, step))
        assert {key: row[key] for key in expected} == pytest.approx(expected, rel=1e-3, abs=1e-6)
        assert (row["step"], row["epoch"]) == (step + 1, epoch)
    trained = safetensors.torch.load_file(out / "model.safetensors")
    start = safetensors.torch.load_file(tmp_path / "init.safetensors")
    for key, value in plain.backbone.state_dict().items():
        torch.testing.assert_close(trained[key], value, rtol=1e-3, atol=1e-4)
        assert not torch.equal(trained[key], start[key]), key


def test_images_per_second_counts_both_branches(
    small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is the test's: a step takes half a second, a step that is logged one second more."""
    seconds = [0.0]

    class Clock:
        @staticmethod
        def perf_counter() -> float:
            return seconds[0]

    original = loop.optimise

    def optimise(run: Run, state: State, pairs: Pairs) -> Tensor:
        seconds[0] += 0.5 if state.step % 2 == 0 else 1.5
        return original(run, state, pairs)

    monkeypatch.setattr(log, "time", Clock)
    monkeypatch.setattr(loop, "optimise", optimise)
    assert pretrain.main(small("--log-every", "2")) == 0
    rates = [row["images_per_second"] for row in read_rows(tmp_path / "out" / "metrics.jsonl")]
    assert rates == [len(BRANCHES) * BATCH * 2 / 2.0] * 3
