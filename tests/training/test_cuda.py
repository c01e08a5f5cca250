"""Training on a GPU: equal weights every time, the anomalies of the CPU, and no step that waits for the device."""

import functools
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from tabzoo.data.cache import CacheMode, open_images
from tabzoo.data.layouts import find_samples
from tabzoo.synthesis.pairs import PairMaker, Pairs
from tabzoo.training import loop, pretrain
from tabzoo.training.anomalies import pair_maker
from tabzoo.training.metrics import read_rows
from tabzoo.training.recipe import Recipe
from tabzoo.training.run import Run
from tabzoo.training.state import State

pytestmark = pytest.mark.gpu

Arguments = Callable[..., list[str]]
DEVICE = "cuda"
FAST = ("--device", DEVICE, "--amp", "bf16", "--channels-last", "--cache", "device")


def weights(folder: Path) -> dict[str, Tensor]:
    return dict(safetensors.torch.load_file(folder / "model.safetensors"))


def assert_equal_weights(one: Path, other: Path) -> None:
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_rows(folder / "metrics.jsonl")]


def test_cuda_trains_and_makes_the_same_anomalies(small: Arguments, tmp_path: Path) -> None:
    assert pretrain.main(small("--output", str(tmp_path / "cpu"), "--device", "cpu")) == 0
    for name in ("cuda", "again"):
        assert pretrain.main(small("--output", str(tmp_path / name), "--device", DEVICE, "--amp", "off")) == 0
    assert_equal_weights(tmp_path / "cuda", tmp_path / "again")
    first = [read_rows(tmp_path / name / "metrics.jsonl")[0]["loss"] for name in ("cpu", "cuda")]
    assert first[0] == pytest.approx(first[1], rel=1e-3)


def test_a_step_on_cuda_never_waits(small: Arguments, monkeypatch: pytest.MonkeyPatch) -> None:
    original, stream = loop.optimise, PairMaker.stream

    def optimise(run: Run, state: State, pairs: Pairs) -> Tensor:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return original(run, state, pairs)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(loop, "optimise", optimise)
    # Making pairs may wait, in its own thread and stream, and the mode holds for all threads.
    monkeypatch.setattr(PairMaker, "stream", functools.partialmethod(stream, prefetched=False))
    assert pretrain.main(small("--device", DEVICE, "--amp", "bf16", "--channels-last", "--cache", "device")) == 0


@pytest.mark.parametrize("cache", ["device", "ram"])
@pytest.mark.parametrize("synthesis", ["nsa", "mix"])
def test_prefetched_pairs_are_the_direct_ones(toy: Path, synthesis: str, cache: CacheMode) -> None:
    """Made in a thread and a stream of their own, while kernels of the last batch still read the other buffers."""
    device, samples = torch.device(DEVICE), find_samples(toy).train_normals()
    class_ids = torch.from_numpy(samples.class_ids).long()
    images = open_images(samples, size=40, mode=cache, workers=0, device=device)
    settings: dict[str, Any] = {"synthesis": synthesis, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    recipe = Recipe(resize=40, crop=32, channels_last=True, **settings)
    maker = pair_maker(images, torch.arange(48), class_ids, recipe, device)
    batches = [(epoch, ids) for epoch in range(8) for ids in torch.arange(48).split(16)]
    prefetched = []
    for pairs in maker.stream(0, batches, prefetched=True):
        work = pairs.normal.flatten(1)
        for _ in range(50):  # keeps the device busy, so that a buffer written too early would show
            work = work @ (work.T @ work) * 1e-9
        prefetched.append([tensor.clone() for tensor in pairs])
    for (epoch, ids), made in zip(batches, prefetched, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(made, maker(0, epoch, ids), strict=True))


def test_bfloat16_gives_the_same_weights_twice(small: Arguments, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert pretrain.main(small(*FAST, "--output", str(tmp_path / name))) == 0
    assert_equal_weights(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_the_ranking_objective_gives_the_same_weights_twice(small: Arguments, tmp_path: Path, amp: str) -> None:
    more = ("--objective", "ranking", "--batch-norm", "frozen", "--amp", amp)
    for name in ("one", "two"):
        assert pretrain.main(small(*FAST, *more, "--output", str(tmp_path / name))) == 0
    assert_equal_weights(tmp_path / "one", tmp_path / "two")


def test_a_stopped_run_goes_on_to_the_same_weights(
    small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = (*FAST, "--epochs", "3", "--projection", "residual", "--val-share", "0.2")
    assert pretrain.main(small(*more, "--output", str(tmp_path / "whole"))) == 0
    original = loop.optimise

    def optimise(run: Run, state: State, pairs: Pairs) -> Tensor:
        if state.step == 3:
            signal.raise_signal(signal.SIGINT)
        return original(run, state, pairs)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "optimise", optimise)
        assert pretrain.main(small(*more)) == 128 + signal.SIGINT
    assert pretrain.main(small(*more, "--resume")) == 0
    assert_equal_weights(tmp_path / "whole", tmp_path / "out")


def test_float16_after_an_overflow_in_the_first_steps(
    small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pretrain.main(small("--device", DEVICE, "--output", str(tmp_path / "float32"))) == 0
    scaler = functools.partial(torch.amp.GradScaler, init_scale=2.0**20)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    assert pretrain.main(small("--device", DEVICE, "--amp", "fp16")) == 0
    assert all(value.isfinite().all() for value in weights(tmp_path / "out").values())
    assert losses(tmp_path / "out")[0] == pytest.approx(losses(tmp_path / "float32")[0], rel=1e-2)
    assert max(losses(tmp_path / "out")) < 2 * losses(tmp_path / "out")[0]


def test_a_compiled_backbone_starts_as_a_plain_one(small: Arguments, tmp_path: Path) -> None:
    assert pretrain.main(small(*FAST, "--output", str(tmp_path / "plain"))) == 0
    assert pretrain.main(small(*FAST, "--compile")) == 0
    assert losses(tmp_path / "out")[0] == pytest.approx(losses(tmp_path / "plain")[0], rel=1e-2)
