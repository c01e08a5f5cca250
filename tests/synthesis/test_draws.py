"""Keyed random numbers: what they depend on, and whether they look random."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tabzoo.errors import InputError
from tabzoo.synthesis.draws import ClassPool, GammaTable, integers, permutation, uniforms

WORD = 2**64


def plain_uniform(seed: int, epoch: int, sample_id: int, column: int, stream: int) -> float:
    """The same number in plain Python integers."""

    def mix(x: int) -> int:
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % WORD
        x = (x ^ x >> 27) * 0x94D049BB133111EB % WORD
        return x ^ x >> 31

    golden = 0x9E3779B97F4A7C15
    key = 0
    for word in (seed, stream, epoch):
        key = mix((key + golden + word) % WORD)
    state = mix((mix((sample_id + golden) % WORD) + key) % WORD)
    return float(((mix((state + golden * (column + 1)) % WORD) >> 12) + 0.5) / 2**52)


@given(
    seed=st.integers(-(2**70), 2**70),
    epoch=st.integers(0, 2**40),
    ids=st.lists(st.integers(0, 2**62), min_size=1, max_size=5),
    stream=st.integers(0, 1000),
)
def test_equals_plain_integers(seed: int, epoch: int, ids: list[int], stream: int) -> None:
    u = uniforms(seed, epoch, torch.tensor(ids), 3, stream=stream)
    assert u.dtype == torch.float64
    assert u.tolist() == [[plain_uniform(seed, epoch, i, c, stream) for c in range(3)] for i in ids]


def test_numbers_never_change() -> None:
    # A change of these changes every run of every recipe.
    assert uniforms(0, 0, torch.tensor([0, 1]), 2, stream=1).tolist() == [
        [0.07816230943838132, 0.38240028902044065],
        [0.20685595330900897, 0.7973539830239705],
    ]
    assert permutation(7, 3, 8, stream=2).tolist() == [2, 7, 1, 5, 4, 0, 6, 3]


def test_depends_on_the_sample_alone() -> None:
    ids = torch.randperm(1000)
    together = uniforms(5, 2, ids, 7, stream=3)
    parts = torch.cat([uniforms(5, 2, part, 7, stream=3) for part in ids.split(37)])
    assert torch.equal(together, parts)
    assert torch.equal(together[:, :4], uniforms(5, 2, ids, 4, stream=3))
    assert torch.equal(together[ids.argsort()], uniforms(5, 2, torch.arange(1000), 7, stream=3))


def test_numbers_are_uniform_and_distinct() -> None:
    u = uniforms(0, 0, torch.arange(300_000), 1, stream=1)[:, 0]
    assert 0 < u.min() < 3e-5
    assert 1 - 3e-5 < u.max() < 1
    assert len(u.unique()) == len(u)
    assert stats.kstest(u.numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(uniforms(0, 0, torch.tensor([5]), 100_000, stream=1)[0].numpy(), "uniform").pvalue > 1e-3


def test_neighbours_are_independent() -> None:
    n = 100_000
    ids = torch.arange(n)
    series = [uniforms(0, 0, ids, 2, stream=1)[:, c] for c in range(2)]
    series += [uniforms(*key, ids, 1, stream=1)[:, 0] for key in ((1, 0), (0, 1), (1, 1), (2**40, 0))]
    series += [uniforms(0, 0, ids, 1, stream=2)[:, 0], uniforms(0, 0, ids + 1, 1, stream=1)[:, 0]]
    correlation = torch.corrcoef(torch.stack(series)) - torch.eye(len(series))
    assert correlation.abs().max() < 5 / n**0.5
    for a, b in itertools.pairwise(series):  # dependence without correlation: 16 x 16 cells must be equally frequent
        counts = np.histogram2d(a, b, bins=16, range=[[0, 1], [0, 1]])[0]
        assert stats.chisquare(counts.ravel()).pvalue > 1e-4


def test_one_bit_changes_half_of_the_bits() -> None:
    ids = torch.arange(4096)
    base = (uniforms(3, 4, ids, 1, stream=1)[:, 0] * 2**52).long()
    for bit in range(0, 40, 3):
        for other in (
            uniforms(3, 4, ids ^ (1 << bit), 1, stream=1),
            uniforms(3 ^ (1 << bit), 4, ids, 1, stream=1),
            uniforms(3, 4 ^ (1 << bit), ids, 1, stream=1),
        ):
            flipped = (other[:, 0] * 2**52).long() ^ base
            fraction = sum(((flipped >> b) & 1).double().mean().item() for b in range(52)) / 52
            assert abs(fraction - 0.5) < 0.01


@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_permutation(n: int) -> None:
    order = permutation(1, 2, n, stream=0)
    assert order.sort().values.tolist() == list(range(n))
    assert n < 7 or not torch.equal(order, permutation(1, 3, n, stream=0))


def test_permutations_of_three_are_equally_likely() -> None:
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(1200):
        key = tuple(permutation(0, epoch, 3, stream=0).tolist())
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 6
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


@given(u=st.floats(1e-17, 1 - 2**-53), low=st.integers(-5, 5), span=st.integers(1, 10**6))
def test_integers_stay_inside(u: float, low: int, span: int) -> None:
    i = integers(torch.tensor([u], dtype=torch.float64), low, low + span)
    assert low <= int(i) < low + span


class TestClassPool:
    CLASSES = torch.tensor([7, 3, 7, 7, -1, 3, 9])  # unsorted, with gaps; -1 and 9 have one image

    def test_same_class_and_each_image_equally_often(self) -> None:
        pool = ClassPool(self.CLASSES)
        u = uniforms(0, 0, torch.arange(3000), 1, stream=1)[:, 0]
        for image, others in {0: {2, 3}, 2: {0, 3}, 1: {5}, 4: {4}, 6: {6}}.items():
            picked, counts = pool.pick(u, torch.full((3000,), image)).unique(return_counts=True)
            assert set(picked.tolist()) == others
            assert len(others) == 1 or stats.chisquare(counts.numpy()).pvalue > 1e-3

    def test_another_class_and_each_image_equally_often(self) -> None:
        pool = ClassPool(self.CLASSES)
        u = uniforms(0, 0, torch.arange(6000), 1, stream=1)[:, 0]
        for image in range(7):
            picked, counts = pool.pick_other(u, torch.full((6000,), image)).unique(return_counts=True)
            assert set(picked.tolist()) == {i for i in range(7) if self.CLASSES[i] != self.CLASSES[image]}
            assert stats.chisquare(counts.numpy()).pvalue > 1e-3

    def test_single_class_has_no_other(self) -> None:
        pool, images = ClassPool(torch.zeros(5, dtype=torch.int64)), torch.arange(5)
        u = torch.full((5,), 0.99, dtype=torch.float64)
        assert torch.equal(pool.pick_other(u, images), pool.pick(u, images))
        assert (pool.pick(u, images) != images).all()

    def test_bad_classes(self) -> None:
        with pytest.raises(InputError, match=r"class_ids must be integers \[N\]; got torch.float32"):
            ClassPool(torch.zeros(3))


class TestGamma:
    @pytest.mark.parametrize("shape", [0.3, 1.0, 2.0, 3.7, 40.0])
    def test_distribution(self, shape: float) -> None:
        u, v = uniforms(0, 0, torch.arange(20_000), 2, stream=9).unbind(1)
        assert stats.kstest(GammaTable(shape)(u, v).numpy(), stats.gamma(shape).cdf).pvalue > 1e-3

    @pytest.mark.parametrize("shape", [0.3, 1.0, 3.7, 40.0])
    def test_table_holds_the_quantiles(self, shape: float) -> None:
        u = torch.linspace(1e-4, 1 - 1e-6, 999, dtype=torch.float64)
        error = GammaTable(shape)(u, u).numpy() - stats.gamma(shape).ppf(u.numpy())
        assert np.abs(error).max() < 1e-3 * shape**0.5

    def test_shape_must_be_positive(self) -> None:
        with pytest.raises(InputError, match="gamma_shape must be above 0; got -1"):
            GammaTable(-1)


def test_integers_reach_both_ends_equally_often() -> None:
    values = integers(uniforms(0, 0, torch.arange(20_000), 1, stream=1)[:, 0], 3, 10)
    assert values.unique().tolist() == list(range(3, 10))
    assert stats.chisquare(torch.bincount(values - 3).numpy()).pvalue > 1e-3


@pytest.mark.gpu
def test_cuda_draws_the_same() -> None:
    ids = torch.arange(10_000)
    assert torch.equal(uniforms(1, 2, ids.cuda(), 5, stream=3).cpu(), uniforms(1, 2, ids, 5, stream=3))
