"""Pairs of normal images and anomalies, as the backbone takes them."""

import time

import numpy as np
import pytest
import torch
from torch import Tensor

from tabzoo.synthesis import make_synthesis
from tabzoo.synthesis.pairs import PairMaker, Pairs

CLASSES = torch.tensor([0, 0, 0, 1, 1, 1, 1])
SIDE, CROP = 40, 32
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


class Memory:
    """Random images, as `ImageSource`."""

    def __init__(self, count: int) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
        self.pixels = torch.from_numpy(pixels)

    def batch(self, indices: Tensor) -> Tensor:
        return self.pixels[indices]


def maker(members: Tensor | None = None, *, channels_last: bool = False) -> tuple[PairMaker, Memory]:
    memory, members = Memory(7), torch.arange(7) if members is None else members
    classes = CLASSES[members]
    options = {"crop": CROP, "device": torch.device("cpu"), "mean": MEAN, "std": STD, "channels_last": channels_last}
    return PairMaker(memory, members, classes, make_synthesis("nsa", classes, CROP), **options), memory  # type: ignore[arg-type]


@pytest.mark.parametrize("channels_last", [False, True])
def test_normalised_as_torchvision_would(channels_last: bool) -> None:
    pairs, memory = maker(channels_last=channels_last)
    ids = torch.tensor([5, 0, 3])
    got = pairs(1, 0, ids)
    cropped = memory.pixels[ids][:, 4:36, 4:36].permute(0, 3, 1, 2)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    torch.testing.assert_close(got.normal, (cropped / 255 - mean) / std, rtol=1e-5, atol=2e-6)
    assert got.normal.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    assert got.classes.tolist() == [1, 0, 1]
    raw = pairs.raw(1, 0, ids)
    torch.testing.assert_close(got.abnormal, (raw.abnormal / 255 - mean) / std, rtol=1e-5, atol=2e-6)
    changed = (raw.abnormal.int() - raw.normal.int()).abs().amax(dim=1, keepdim=True) > 0
    assert not (raw.mask.bool() & ~changed).any()


def test_a_pair_depends_on_seed_epoch_and_sample_alone() -> None:
    pairs, _ = maker()
    together = pairs.raw(1, 2, torch.tensor([0, 3, 6, 10])).abnormal.clone()
    for row, sample in enumerate((0, 3, 6, 10)):
        assert torch.equal(pairs.raw(1, 2, torch.tensor([sample])).abnormal[0], together[row])
    assert not torch.equal(together[1], together[3])  # samples 3 and 10: the same image in two repeats
    assert not torch.equal(pairs.raw(1, 3, torch.tensor([0])).abnormal[0], together[0])
    assert not torch.equal(pairs.raw(2, 2, torch.tensor([0])).abnormal[0], together[0])


def test_sources_are_members() -> None:
    members = torch.tensor([1, 2, 4, 6])
    pairs, memory = maker(members=members)
    asked: list[int] = []
    original = memory.batch

    def batch(indices: Tensor) -> Tensor:
        asked.extend(indices.tolist())
        return original(indices)

    memory.batch = batch  # type: ignore[method-assign]
    for epoch in range(20):
        pairs.raw(0, epoch, torch.arange(4))
    assert set(asked) == set(members.tolist())


def test_prefetched_pairs_are_the_same_and_stay_while_they_are_used() -> None:
    pairs, _ = maker(channels_last=True)
    batches = [(epoch, torch.tensor([epoch, 5, 2])) for epoch in range(5)]

    def copied(batch: Pairs) -> list[Tensor]:
        return [tensor.clone() for tensor in batch]

    plain = [copied(batch) for batch in pairs.stream(1, batches)]
    prefetched = []
    for batch in pairs.stream(1, batches, prefetched=True):
        first = copied(batch)
        time.sleep(0.02)  # meanwhile the next batch is written
        assert all(torch.equal(a, b) for a, b in zip(first, batch, strict=True))
        prefetched.append(first)
    for one, other in zip(plain, prefetched, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
