"""Epochs and held-out images."""

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tabzoo.synthesis.draws import hold_out
from tabzoo.training.sampling import epoch_samples

CLASSES = torch.tensor([0] * 10 + [1] * 3 + [2] * 7)


@given(seed=st.integers(0, 2**40), epoch=st.integers(0, 1000), repeats=st.integers(1, 4))
def test_uniform_takes_every_image_in_every_round(seed: int, epoch: int, repeats: int) -> None:
    samples = epoch_samples(CLASSES, seed=seed, epoch=epoch, sampling="uniform", repeats=repeats)
    assert sorted(samples.tolist()) == list(range(20 * repeats))


@given(seed=st.integers(0, 2**40), epoch=st.integers(0, 1000), repeats=st.integers(1, 3))
def test_balanced_takes_every_class_equally_often(seed: int, epoch: int, repeats: int) -> None:
    samples = epoch_samples(CLASSES, seed=seed, epoch=epoch, sampling="balanced", repeats=repeats)
    assert len(set(samples.tolist())) == len(samples)  # the same image again is another sample
    each = -(-20 * repeats // 3)
    assert Counter(CLASSES[samples % 20].tolist()) == {0: each, 1: each, 2: each}
    for class_id in range(3):  # and within a class every image as often as the others, give or take one
        counts = Counter(image for image in (samples % 20).tolist() if CLASSES[image] == class_id)
        members = int((CLASSES == class_id).sum())
        assert max(counts.values()) - min([*counts.values(), 0 if len(counts) < members else 10**9]) <= 1


def test_epochs_differ_and_repeat_by_seed() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return epoch_samples(CLASSES, seed=seed, epoch=epoch, sampling="uniform", repeats=1).tolist()  # type: ignore[no-any-return]

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_balanced_epochs_take_other_images_and_mix_the_classes() -> None:
    chosen = set()
    for seed, epoch in ((0, 0), (0, 1), (0, 2), (1, 0), (2, 0)):
        samples = epoch_samples(CLASSES, seed=seed, epoch=epoch, sampling="balanced", repeats=1)
        chosen.add(frozenset(i for i in samples.tolist() if i < 10))  # 7 of the first class's 10 images
        classes = CLASSES[samples % 20].tolist()
        assert sum(a != b for a, b in itertools.pairwise(classes)) > 8  # 2 where class follows class, 13 if shuffled
    assert len(chosen) == 5


@pytest.mark.parametrize(("share", "held"), [(0.0, [0, 0, 0]), (0.2, [2, 0, 1]), (0.34, [3, 1, 2]), (0.99, [9, 2, 6])])
def test_hold_out_takes_its_share_of_every_class(share: float, held: list[int]) -> None:
    train, out = hold_out(CLASSES, share, seed=4)
    assert sorted(torch.cat((train, out)).tolist()) == list(range(20))
    assert [int((CLASSES[out] == class_id).sum()) for class_id in range(3)] == held


def test_held_out_images_are_drawn_by_the_seed() -> None:
    held = [hold_out(CLASSES, 0.2, seed=seed)[1].tolist() for seed in range(100)]
    assert hold_out(CLASSES, 0.2, seed=7)[1].tolist() == held[7]
    counts = Counter(image for images in held for image in images)
    # Two of the first class's ten, none of the second's three, one of the third's seven.
    assert sorted(counts) == [*range(10), *range(13, 20)]
    assert max(counts.values()) < 40
