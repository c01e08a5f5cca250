"""The objective `ranking`: its scores and loss against plain NumPy, its gradient, its batches, and a run that uses it."""

import copy
import json
import os
import re
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from tabzoo.errors import InputError
from tabzoo.synthesis.pairs import Pairs
from tabzoo.training import loop, pretrain, ranking
from tabzoo.training.checkpoint import load_latest_checkpoint
from tabzoo.training.metrics import read_rows
from tabzoo.training.ranking import ScoreRanking, distances_to_others, distances_to_positions, ranking_loss
from tabzoo.training.recipe import Recipe, load_recipe
from tabzoo.training.run import Run
from tabzoo.training.sampling import epoch_samples, one_class_batches
from tabzoo.training.state import State

Array = NDArray[np.float64]
Arguments = Callable[..., list[str]]

RANKING = (
    *("--objective", "ranking", "--batch-norm", "frozen", "--synthesis", "mix", "--optimizer", "adam"),
    *("--lr", "0.001", "--batch-size", "6"),
)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_distances_to_others_against_loops() -> None:
    normal, abnormal = numbers(4, 5, 3), numbers(4, 5, 3, seed=1)
    for patches, found in zip((normal, abnormal), distances_to_others(normal, abnormal), strict=True):
        for image in range(4):
            others = torch.cat([normal[other] for other in range(4) if other != image]).numpy()
            for place in range(5):
                least = np.linalg.norm(others - patches[image, place].numpy(), axis=1).min()
                assert float(found[image, place]) == pytest.approx(least, rel=1e-5)


def test_an_image_never_meets_itself() -> None:
    normal = numbers(4, 5, 3)
    assert all(bool((found > 0.01).all()) for found in distances_to_others(normal, normal))


def test_a_part_of_the_patches_stands_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "_BANK", 8)
    normal = numbers(4, 50, 3)
    few, _ = distances_to_others(normal, normal)
    monkeypatch.setattr(ranking, "_BANK", 1000)
    every, _ = distances_to_others(normal, normal)
    assert bool((few >= every).all())
    assert bool((few > every).any())


def test_distances_to_positions_against_loops() -> None:
    normal, abnormal = numbers(5, 3, 2, 2), numbers(5, 3, 2, 2, seed=1)
    found = distances_to_positions(normal, abnormal)
    shared = normal.var((0, 2, 3)).numpy()
    for maps, of_maps in zip((normal.numpy(), abnormal.numpy()), found, strict=True):
        for image in range(5):
            others = normal[[other for other in range(5) if other != image]].numpy()
            for place, (y, x) in enumerate(np.ndindex(2, 2)):
                mean, variance = others[:, :, y, x].mean(0), others[:, :, y, x].var(0, ddof=1)
                squares = (maps[image, :, y, x] - mean) ** 2 / (0.8 * variance + 0.2 * shared)
                assert float(of_maps[image, place]) == pytest.approx(np.sqrt(squares.mean()), rel=1e-4)


def test_patches_are_those_of_patchcore() -> None:
    """On grids that are not square, and whose sides are not twice each other's."""
    fine, coarse = numbers(2, 3, 8, 6), numbers(2, 4, 5, 3)
    means = [F.avg_pool2d(value, 3, stride=1, padding=1) for value in (fine, coarse)]
    expected = torch.cat((means[0], F.interpolate(means[1], size=(8, 6), mode="bilinear")), 1).flatten(2).mT
    torch.testing.assert_close(ranking._patches([fine, coarse]), expected)


def plain_ranking_loss(normal: Array, abnormal: Array, covered: Array) -> tuple[float, float]:
    most = max(1, int(0.02 * normal.shape[1]))
    scores = [np.sort(np.log(row))[::-1][:most].mean() for row in normal]
    gaps = []
    for row, here in zip(abnormal, covered.astype(bool), strict=True):
        if here.any():
            anomaly = np.sort(np.log(row[here]))[::-1][:most].mean()
            gaps += [anomaly - score for score in scores]
    return float(np.mean([0.25 * np.log1p(np.exp(-4 * gap)) for gap in gaps])), float(np.mean(np.array(gaps) > 0))


def test_ranking_loss_against_numpy() -> None:
    normal = numbers(4, 120).exp()
    abnormal = (numbers(4, 120, seed=1) + torch.tensor([[0.0], [0.0], [2.5], [1.5]])).exp()
    covered = numbers(4, 120, seed=2) > 1
    covered[1] = False  # an anomaly that no place sees is left out
    covered[2] = torch.arange(120) == 7  # and one has less than 2 % of the places
    loss, auroc = ranking_loss(normal, abnormal, covered)
    expected = plain_ranking_loss(normal.numpy(), abnormal.numpy(), covered.numpy().astype(np.float64))
    assert (float(loss), float(auroc)) == pytest.approx(expected, rel=1e-6)
    assert 0 < float(auroc) < 1


def test_no_anomaly_covers_a_place() -> None:
    normal = numbers(4, 120).exp().requires_grad_()
    loss, auroc = ranking_loss(normal, normal, torch.zeros(4, 120, dtype=torch.bool))
    loss.backward()
    assert (float(loss.detach()), float(auroc)) == (0, 0.5)
    assert normal.grad is not None
    assert float(normal.grad.abs().sum()) == 0


def test_gradients() -> None:
    covered = numbers(4, 9, seed=2) > 0

    def by_patch(normal: Tensor, abnormal: Tensor) -> Tensor:
        torch.manual_seed(0)
        return ranking_loss(*distances_to_others(normal, abnormal), covered)[0]

    def by_position(normal: Tensor, abnormal: Tensor) -> Tensor:
        return ranking_loss(*distances_to_positions(normal, abnormal), covered)[0]

    patches = [numbers(4, 9, 5, seed=seed).requires_grad_() for seed in (0, 1)]
    maps = [numbers(4, 5, 3, 3, seed=seed).requires_grad_() for seed in (0, 1)]
    assert torch.autograd.gradcheck(by_patch, patches)
    assert torch.autograd.gradcheck(by_position, maps)


@pytest.fixture(scope="module")
def objective() -> ScoreRanking:
    torch.manual_seed(0)
    return ScoreRanking(timm.create_model("test_resnet", num_classes=0), name="test_resnet", side=64)


def batch_of(size: int = 5, side: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    normal = numbers(size, 3, side, side).float()
    mask = torch.zeros(size, 1, side, side)
    mask[:, :, 16:48, 16:48] = 1
    return normal, normal + 3 * mask * numbers(size, 3, side, side, seed=1).float(), mask


@torch.no_grad()
def test_without_a_change_of_weights_there_is_no_drift(objective: ScoreRanking) -> None:
    found = objective(*batch_of())
    assert float(found.drift) == 0
    assert float(found.loss) == pytest.approx(float(found.nearest + found.position))
    assert float(found.auroc) > 0.9  # the anomalies are glaring


def test_the_loss_is_the_sum_of_its_terms(objective: ScoreRanking) -> None:
    changed = copy.deepcopy(objective)
    with torch.no_grad():
        for value in changed.backbone.parameters():
            value.mul_(1.1)
        found = changed(*batch_of())
    assert float(found.drift) > 0.01
    assert float(found.loss) == pytest.approx(float(found.nearest + found.position + 0.3 * found.drift))


@torch.no_grad()
def test_places_covered_at_least_by_half_are_an_anomalys(
    objective: ScoreRanking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mask of 10 x 16 pixels: 3 x 4 places with stride 4, the last row by half; 1 x 2 with 8; one with 16, by 10 / 16."""
    seen, original = [], ranking_loss

    def ranked(normal: Tensor, abnormal: Tensor, covered: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(covered.flatten(1).sum(1).unique().tolist())
        return original(normal, abnormal, covered)

    monkeypatch.setattr(ranking, "ranking_loss", ranked)
    normal, abnormal, mask = batch_of()
    mask[:] = 0
    mask[:, :, 16:26, 32:48] = 1
    objective(normal, abnormal, mask)
    assert seen == [[12], [2], [1], [2]]  # three layers by position, then the nearest patches


def test_drift_counts_only_what_was_not_changed() -> None:
    first = numbers(8, 3, 4, 4)
    cover = torch.zeros(4, 4, 4)
    cover[:, :2] = 1
    maps = first.clone()
    maps[4:, :, :2] += 5  # anomalies may move where they are
    assert float(ranking._drift(maps, first, cover)) == 0
    maps[0, 1, 3, 3] += 2
    expected = 4 / float(first[:4, 1].var()) / first.numel()
    assert float(ranking._drift(maps, first, cover)) == pytest.approx(expected, rel=1e-4)


def test_only_what_the_maps_depend_on_is_trained(objective: ScoreRanking) -> None:
    objective(*batch_of()).loss.backward()
    trained = {name: value.grad is not None for name, value in objective.backbone.named_parameters()}
    assert trained == {name: value.requires_grad for name, value in objective.backbone.named_parameters()}
    assert {name.split(".")[0] for name, value in trained.items() if not value} == {"layer4"}
    assert not any(value.requires_grad for value in objective.start.parameters())
    assert not objective.train().backbone.training  # batch-norm keeps its statistics


def test_interpolated_weights(objective: ScoreRanking) -> None:
    changed = copy.deepcopy(objective)
    with torch.no_grad():
        for value in changed.backbone.parameters():
            value.add_(1)
    start, end = changed.start.state_dict(), changed.backbone.state_dict()
    names = [name for name, _ in changed.backbone.named_parameters()]
    for fraction in (0.25, 1.0):
        found = changed.interpolated(fraction).state_dict()
        assert all(torch.equal(found[name], torch.lerp(start[name], end[name], fraction)) for name in names)
    assert all(torch.equal(found[name], end[name]) for name in names)


def test_a_backbone_without_such_maps() -> None:
    with pytest.raises(InputError, match="--backbone test_vit: --objective ranking needs maps of strides 4, 8 and 16"):
        ScoreRanking(timm.create_model("test_vit", num_classes=0), name="test_vit", side=160)


@pytest.mark.parametrize(("sampling", "repeats"), [("uniform", 1), ("uniform", 2), ("balanced", 1), ("sequential", 2)])
def test_batches_hold_one_class_and_no_image_twice(sampling: str, repeats: int) -> None:
    class_ids = torch.tensor([0] * 13 + [1] * 5 + [2] * 9)
    orders = []
    for epoch in (0, 1):
        order = epoch_samples(class_ids, seed=3, epoch=epoch, sampling=sampling, repeats=repeats)  # type: ignore[arg-type]
        found = one_class_batches(order, class_ids, 4, seed=3, epoch=epoch, shuffled=sampling != "sequential")
        orders.append(found)
        assert not set(found.tolist()) - set(order.tolist())
        for batch in found.view(-1, 4) % len(class_ids):
            assert len(set(batch.tolist())) == 4
            assert len(class_ids[batch].unique()) == 1
        if sampling != "balanced":
            assert Counter(class_ids[found % len(class_ids)].tolist()) == {
                0: 12 * repeats,
                1: 4 * repeats,
                2: 8 * repeats,
            }
    assert len(orders[0]) == len(orders[1])
    assert torch.equal(*orders) == (sampling == "sequential")


def test_batches_of_classes_take_turns() -> None:
    class_ids = torch.arange(4).repeat_interleave(40)
    order = epoch_samples(class_ids, seed=0, epoch=0, sampling="uniform", repeats=1)
    found = class_ids[one_class_batches(order, class_ids, 4, seed=0, epoch=0, shuffled=True).view(-1, 4)[:, 0]]
    assert int((found.diff() != 0).sum()) > 10  # 3 if class follows class


def test_a_run(small: Arguments, tmp_path: Path) -> None:
    arguments = small(*RANKING, "--val-share", "0.3", "--text-pretrained", "no/such/file.pt")  # no text is needed
    assert pretrain.main(arguments) == 0
    out = tmp_path / "out"
    rows, held_out = read_rows(out / "metrics.jsonl"), read_rows(out / "validation.jsonl")
    # 16 images of each of 3 classes, 4 of them held out: two batches of 6 of each class an epoch.
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert rows[0]["drift"] == 0 < rows[-1]["drift"]
    assert len(held_out) == 2
    assert 0 <= held_out[-1]["auroc"] <= 1
    record = json.loads((out / "tabzoo.json").read_text())
    assert record["text"] is None
    card = (out / "README.md").read_text()
    assert "own objective `ranking`" in card
    assert "TAB" not in card.split("##")[0]
    assert "on other classes no gain was found" in " ".join(card.split())
    assert "objective `tab`" not in card
    assert not (out / "figures" / "similarity.png").exists()
    model = timm.create_model(f"local-dir:{out}", pretrained=True, features_only=True, out_indices=(1, 2, 3))
    assert [value.shape[1] for value in model(torch.zeros(1, 3, 64, 64))] == model.feature_info.channels()


def test_a_part_of_the_change_is_written(small: Arguments, tmp_path: Path) -> None:
    assert pretrain.main(small(*RANKING, "--interpolation", "0.5")) == 0
    saved = load_latest_checkpoint(tmp_path / "out" / "checkpoints")
    assert saved is not None
    name = "layer1.0.conv1.weight"
    start, end = (saved["modules"][f"{module}.{name}"] for module in ("start", "backbone"))
    half = load_file(tmp_path / "out" / "model.safetensors")[name]
    torch.testing.assert_close(half, (start + end) / 2)
    assert float((half - start).abs().max()) > 1e-4


def stop_before(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by Ctrl+C: the step is done, and the run saved."""
    optimise = loop.optimise

    def stopping(run: Run, state: State, pairs: Pairs) -> Tensor:
        if state.step == step:
            os.kill(os.getpid(), signal.SIGINT)
        return optimise(run, state, pairs)

    monkeypatch.setattr(loop, "optimise", stopping)


def test_equal_seeds_and_a_stop_give_equal_weights(
    small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pretrain.main(small(*RANKING)) == 0
    again = small(*RANKING, "--output", str(tmp_path / "again"))
    with monkeypatch.context() as patched:
        stop_before(2, patched)
        assert pretrain.main(again) == 128 + signal.SIGINT
    assert pretrain.main([*again, "--resume"]) == 0
    weights, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "again"))
    assert all(torch.equal(value, resumed[name]) for name, value in weights.items())


def test_a_resumed_run_is_still_held_near_the_initial_weights(
    small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of `--init`: neither the weights of the checkpoint nor new ones of the seed."""
    torch.manual_seed(1)
    initial = timm.create_model("test_resnet", num_classes=0).state_dict()
    save_file(initial, tmp_path / "init.safetensors")
    arguments = small(*RANKING, "--init", str(tmp_path / "init.safetensors"))
    with monkeypatch.context() as patched:
        stop_before(2, patched)
        assert pretrain.main(arguments) == 128 + signal.SIGINT
    assert pretrain.main([*arguments, "--resume"]) == 0
    saved = load_latest_checkpoint(tmp_path / "out" / "checkpoints")
    assert saved is not None
    modules = saved["modules"]
    assert all(torch.equal(modules[f"start.{name}"], value) for name, value in initial.items())
    assert not torch.equal(modules["backbone.layer1.0.conv1.weight"], initial["layer1.0.conv1.weight"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--batch-norm", "local"), "--batch-norm: local given, expected frozen with objective ranking"),
        (("--micro-batch", "2"), "--micro-batch: 2 given, expected 0 with objective ranking"),
        (("--interpolation", "0"), "--interpolation: 0.0 given, expected a fraction above 0, at most 1"),
        (
            ("--interpolation", "0.5", "--objective", "tab"),
            "expected 1 with objective tab: only ranking keeps the initial",
        ),
        (("--compile",), "--compile: True given, expected False with objective ranking"),
        (("--batch-size", "3"), "--batch-size 3: --objective ranking needs at least 4 images a step"),
        (("--val-share", "0.85"), "has 3 images to train on; .* Add images, type a smaller --val-share, or remove"),
        (("--val-share", "0.95"), "has 1 image to train on"),
    ],
)
def test_what_it_cannot_work_with(
    small: Arguments, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], message: str
) -> None:
    assert pretrain.main(small(*RANKING, *flags)) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(message, error), error


def test_too_few_held_out_images(
    small: Arguments, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of each class: there is nothing to score it by, which is said at the start."""
    assert pretrain.main(small(*RANKING, "--val-share", "0.1")) == 0
    said = caplog.text + capsys.readouterr().err
    assert "--val-share 0.1: fewer than 4 images of each class are held out" in said
    assert read_rows(tmp_path / "out" / "validation.jsonl") == []


@pytest.mark.parametrize(("number", "sizes"), [(3, []), (5, [5]), (8, [4, 4]), (9, [5, 4]), (11, [6, 5])])
def test_held_out_images_are_not_dropped(number: int, sizes: list[int]) -> None:
    class Stub:
        class_ids = torch.zeros(number, dtype=torch.long)

        def __len__(self) -> int:
            return number

    class FourABatch:
        batch_size, _ranks_scores = 4, True

    parts = Run.batches_of(FourABatch(), Stub())  # type: ignore[arg-type]
    assert [len(part) for part in parts] == sizes
    assert sum(map(len, parts)) in (0, number)


def test_random_weights_are_not_told_to_take_what_the_objective_refuses(
    small: Arguments, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain.main(small(*RANKING, "--init", "random")) == 0
    said = " ".join((caplog.text + capsys.readouterr().err).split())
    assert "Start from pretrained weights: --objective ranking only adapts them." in said
    assert "--batch-norm local" not in said


def test_recipes_that_ship() -> None:
    recipe = load_recipe("tf_efficientnet_lite0.ranking")
    assert recipe.objective == "ranking"
    assert recipe.mean == (0.5, 0.5, 0.5)  # timm's for these weights
    assert not Recipe.replace(recipe, lr=1.0).needs_texts
