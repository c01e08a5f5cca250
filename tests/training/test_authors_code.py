"""Three things of the authors' code: mixed-up text features, no shuffling, folder names in the prompts."""

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tabzoo.synthesis.pairs import Pairs
from tabzoo.training import figures, loop, pretrain
from tabzoo.training.metrics import read_rows
from tabzoo.training.ranks import Ranks
from tabzoo.training.recipe import Recipe
from tabzoo.training.run import Run
from tabzoo.training.sampling import epoch_samples
from tabzoo.training.state import State
from tabzoo.training.text import laid_out, load_text_features

Arguments = Callable[..., list[str]]
Array = NDArray[np.float32]

THREE = ("--text-layout", "authors", "--sampling", "sequential", "--class-words", "folder")
CLASSES = ("brushed_steel", "capsule", "hex_nut")
FACTOR = 2.6592600369327783  # of the .authors recipes


def their_rows(features: Tensor) -> Array:
    """What their prompt code makes of class features: they are stacked as columns, then reshaped to rows."""
    stacked = np.stack([of_class.numpy() for of_class in features], axis=1)  # [D, C]
    return stacked.reshape(stacked.shape[1], stacked.shape[0])


def like_clip(classes: int) -> Tensor:
    """Unit features whose cosine between classes is about 0.75, [C, 512]."""
    generator = torch.Generator().manual_seed(2)
    shared, own = torch.randn(512, generator=generator), torch.randn(classes, 512, generator=generator)
    return F.normalize(0.75**0.5 * shared + 0.25**0.5 * own, dim=-1)


def least_loss(texts: Tensor) -> float:
    """The lowest mean cross entropy that unit embeddings can reach, an embedding for each class."""
    embeddings = texts.clone().requires_grad_()
    optimizer = torch.optim.Adam([embeddings], lr=0.02)
    for _ in range(200):
        loss = F.cross_entropy(FACTOR * F.normalize(embeddings, dim=-1) @ texts.T, torch.arange(len(texts)))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("classes", [1, 2, 15])
def test_text_layout_is_their_reshape(classes: int) -> None:
    features = like_clip(classes)
    assert np.array_equal(laid_out(features, "authors").numpy(), their_rows(features))
    assert torch.equal(laid_out(features, "rows"), features)


def test_their_layout_loses_the_own_text_and_lowers_the_least_loss() -> None:
    features = like_clip(15)
    mixed = laid_out(features, "authors")
    own = F.cosine_similarity(mixed, features)
    assert own.abs().max() < 0.15
    unit = F.normalize(mixed, dim=-1)
    assert (unit @ unit.T - torch.eye(15)).abs().mean() < 0.2  # 0.75 between the classes' own features
    assert least_loss(features) == pytest.approx(1.52, abs=0.05)
    assert least_loss(mixed) == pytest.approx(0.65, abs=0.1)


class Repeat(Dataset[int]):
    """As their data set: the index modulo the length of the list."""

    def __init__(self, listing: list[int], times: int) -> None:
        self.listing, self.times = listing, times

    def __len__(self) -> int:
        return self.times * len(self.listing)

    def __getitem__(self, index: int) -> int:
        return self.listing[index % len(self.listing)]


def run_on(class_ids: Tensor, *, size: int = 1, **settings: Any) -> Run:
    nothing: Any = None
    return Run(
        recipe=Recipe(sampling="sequential", **settings),
        folder=Path(),
        device=torch.device("cpu"),
        samples=nothing,
        hashes=nothing,
        text=nothing,
        pairs=cast(Any, SimpleNamespace(class_ids=class_ids)),
        ranks=Ranks(size=size),
    )


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("class_ids", [[0] * 10 + [1] * 3 + [2] * 8, [2, 0, 1, 1, 0, 2, 2, 0] * 3])
def test_sequential_batches_are_those_of_their_loader(class_ids: list[int], repeats: int, size: int) -> None:
    images = len(class_ids)
    listing = [image for of in range(3) for image in range(images) if class_ids[image] == of]
    theirs = list(DataLoader(Repeat(listing, repeats), batch_size=8, shuffle=False, drop_last=True))
    run = run_on(torch.tensor(class_ids), size=size, repeats=repeats, batch_size=8, epochs=2, seed=5)
    batches = list(run.batches(0))
    assert [epoch for epoch, _ in batches] == [0] * len(theirs) + [1] * len(theirs)
    for (_, ours), expected in zip(batches, theirs + theirs, strict=True):
        assert torch.equal(ours % images, expected)
        shares = [Ranks(rank=rank, size=size).share(ours) for rank in range(size)]
        assert torch.equal(torch.cat(shares), ours)
    # An image that comes again in the epoch is another sample, with another anomaly.
    order = run.order(0)
    assert len(set(order.tolist())) == repeats * images
    assert (order // images).tolist() == sorted((order // images).tolist())


def test_a_sequential_order_does_not_depend_on_seed_or_epoch() -> None:
    class_ids = torch.tensor([0, 0, 1, 1, 1])
    orders = {
        tuple(epoch_samples(class_ids, seed=seed, epoch=epoch, sampling="sequential", repeats=2).tolist())
        for seed in range(3)
        for epoch in range(3)
    }
    assert orders == {tuple(range(10))}


def test_images_that_no_batch_has_are_told(small: Arguments, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert pretrain.main(small("--sampling", "sequential", "--epochs", "1", "--batch-size", "20")) == 0
    assert "--sampling sequential: the last 8 of 48 images are never trained on" in caplog.text
    caplog.clear()
    for more in (["--sampling", "uniform"], ["--sampling", "sequential", "--repeats", "2"]):
        assert pretrain.main(small("--epochs", "1", "--batch-size", "20", "--overwrite", *more)) == 0
    assert "never trained on" not in caplog.text


def test_a_run_with_all_three_is_resumed_to_the_same(
    small: Arguments, make_text_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also from a file of features that has more classes, in another order."""
    one = make_text_file(*CLASSES, words={name: name for name in CLASSES})
    features = load_text_features(one)
    assert features is not None
    others = {name: name for name in ("hex_nut", "washer", "brushed_steel", "capsule")}
    rows = [2, 0, 0, 1]
    more = make_text_file(*others, words=others, normal=features.normal[rows], abnormal=features.abnormal[rows])
    flags = [*THREE, "--projection", "residual", "--repeats", "2"]
    assert pretrain.main(small(*flags, "--text-pretrained", str(one), "--output", str(tmp_path / "whole"))) == 0

    original = loop.optimise

    def stopping(run: Run, state: State, pairs: Pairs) -> Tensor:
        if state.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return original(run, state, pairs)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "optimise", stopping)
        assert pretrain.main(small(*flags, "--text-pretrained", str(more))) == 128 + signal.SIGINT
    kept = load_text_features(tmp_path / "out" / "text_features.safetensors")
    assert kept is not None
    assert torch.equal(kept.normal, features.normal)  # as they are, not as the loss takes them
    assert torch.equal(kept.abnormal, features.abnormal)
    assert kept.words == {name: name for name in CLASSES}
    assert pretrain.main(small(*flags, "--text-pretrained", str(more), "--resume")) == 0
    whole, resumed = (safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in ("whole", "out"))
    assert all(torch.equal(resumed[key], value) for key, value in whole.items())


def test_a_run_of_the_older_recipe_is_not_resumed_with_the_new_one(
    small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The settings are named, not the words of a class, which differ too."""
    original = loop.optimise

    def stopping(run: Run, state: State, pairs: Pairs) -> Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        return original(run, state, pairs)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "optimise", stopping)
        assert pretrain.main(small()) == 128 + signal.SIGINT
    capsys.readouterr()
    assert pretrain.main(small(*THREE, "--resume")) == 2
    message = capsys.readouterr().err
    for change in ("text_layout rows -> authors", "sampling uniform -> sequential", "class_words words -> folder"):
        assert change in message
    assert "started with another recipe" in message
    assert pretrain.main(small("--resume")) == 0
    assert pretrain.main(small("--text-layout", "authors", "--resume")) == 0
    assert "other settings: text_layout rows, not authors." in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["rows", "authors"])
def test_what_a_run_says_of_its_texts(
    layout: str, small: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: dict[str, Tensor] = {}
    monkeypatch.setattr(figures, "draw_similarity", lambda path, panels, *_: shown.update(panels))
    assert pretrain.main(small("--text-layout", layout, "--epochs", "1")) == 0
    out, mixed = tmp_path / "out", layout == "authors"
    assert ("no class was aligned with its own text" in capsys.readouterr().out) == mixed
    assert ("No class was aligned with its own text" in (out / "README.md").read_text()) == mixed
    assert ("made_up, reshaped across classes" in (out / "config.json").read_text()) == mixed
    assert f'"layout": "{layout}"' in (out / "tabzoo.json").read_text()
    assert all(("reshaped" in title) == mixed for title in shown)
    assert len(shown) == 2
    assert read_rows(out / "metrics.jsonl")
