"""Drift: the test against SciPy and by enumeration, false warnings of long streams, and how soon a change is found."""

import itertools
import re

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from tabzoo.inspect.drift import LEVEL, Drift, ks_distance, ks_p_value
from tabzoo.inspect.threshold import choose_threshold

Scores = NDArray[np.float64]


def drift_of(rng: np.random.Generator, photos: int, *, asked: float = 0.01, level: float = LEVEL) -> Drift:
    good = rng.gamma(4, size=photos).astype(np.float32)
    return Drift(good, choose_threshold(good, asked=asked, folds=10).value, level=level)


@pytest.mark.parametrize(
    ("known", "new", "shift"),
    [(2, 1, 0), (5, 7, 2), (7, 5, -2), (40, 50, 0.3), (39, 800, 1), (200, 100, -1), (100, 100, 2), (1000, 800, 0.4)],
)
def test_the_p_value_is_scipys(known: int, new: int, shift: float) -> None:
    rng = np.random.default_rng([known, new])
    one, other = rng.normal(size=known), rng.normal(size=new) + shift
    expected = ks_2samp(one, other, method="exact")
    assert ks_p_value(one, other) == pytest.approx(expected.pvalue, rel=1e-9)
    assert abs(ks_distance(one, other)) == pytest.approx(expected.statistic)


def test_the_p_value_is_the_share_of_all_orders() -> None:
    one, other = np.array([1.0, 2.5, 3.0]), np.array([2.0, 4.0, 5.0, 6.0])
    distance = abs(ks_distance(one, other))
    values = np.concatenate([one, other])
    chosen = [list(rows) for rows in itertools.combinations(range(7), 3)]
    distances = [abs(ks_distance(values[rows], np.delete(values, rows))) for rows in chosen]
    assert ks_p_value(one, other) == pytest.approx(np.mean(np.array(distances) >= distance - 1e-12))
    assert ks_p_value(np.ones(30), np.ones(50)) == 1


def test_streams_in_which_nothing_changes_are_rarely_warned_about() -> None:
    """At a level of 0.2, so that 250 streams can tell: that each look has its share is what the level stands for."""
    warned = 0
    for stream in range(250):
        rng = np.random.default_rng([stream, 5])
        drift = drift_of(rng, (12, 40, 150)[stream % 3], asked=(0.01, 0.05)[stream % 2], level=0.2)
        warned += drift.update(rng.gamma(4, size=900).astype(np.float32)) is not None
    assert 5 <= warned <= 50


def until_found(seed: int, photos: int, *, before: int, shift: float) -> float:
    """Number of photos after a change until a warning; the standard deviation is 2."""
    rng = np.random.default_rng([seed, photos])
    drift = drift_of(rng, photos)
    assert drift.update(rng.gamma(4, size=before).astype(np.float32)) is None
    changed = (rng.gamma(4) + shift for _ in range(1000))
    return next((number for number, score in enumerate(changed, start=1) if drift.update(score)), np.inf)


@pytest.mark.parametrize(
    ("photos", "before", "shift"),
    [(150, 0, 2), (150, 1000, -2), (150, 1000, 2), (40, 1000, 2), (40, 1000, -2), (12, 2000, 2)],
)
def test_a_change_by_one_standard_deviation_is_found_within_some_hundred_photos(
    photos: int, before: int, shift: float
) -> None:
    found = sorted(until_found(seed, photos, before=before, shift=shift) for seed in range(12))
    assert found[5] <= 150
    assert found[10] <= 300


def test_a_warning_says_what_and_comes_once() -> None:
    rng = np.random.default_rng(0)
    drift = drift_of(rng, 200)
    words = drift.update(5 + rng.gamma(4, size=100) / 10)
    assert words is not None
    assert re.fullmatch(
        r"the scores of the last 50 good photos are higher than those of the good photos that the detector was fitted to "
        r"\(Kolmogorov-Smirnov test, p = \de-\d\d\)\. Has the camera, the lamp or the lens changed\?",
        words,
    )
    first, later = rng.normal(size=300), rng.normal(size=2000) - 2
    drift = Drift(rng.normal(size=200), 5.0)
    assert drift.update(first) is None
    lines = {number: line for number, score in enumerate(later, start=301) if (line := drift.update(score))}
    assert min(lines) <= 400
    assert all("are lower than those of the first 200 good photos" in line for line in lines.values())
    assert all(after >= 2 * before for before, after in itertools.pairwise(lines))


def test_lower_scores_than_those_of_the_fit_are_no_drift() -> None:
    """Out-of-fold scores are a little higher than those of the detector that is fitted to all photos."""
    rng = np.random.default_rng(4)
    drift = Drift(rng.normal(size=400), 5.0)
    assert drift.update(rng.normal(size=3000) - 0.5) is None
    assert drift.update(rng.normal(size=200) + 2) is not None


def test_photos_above_the_threshold_do_not_count() -> None:
    known = np.random.default_rng(1).normal(size=300)
    drift = Drift(known, float(np.sort(known)[-4]))
    assert drift.update(np.full(1000, 50.0)) is None
    assert drift.count == 0
    assert drift.update(known[known <= np.sort(known)[-4]]) is None
    assert drift.count == 297


def test_scores_that_are_all_equal_are_no_drift() -> None:
    drift = Drift(np.ones(40), 1.0)
    assert drift.update(np.ones(500)) is None


def test_one_by_one_is_as_all_at_once() -> None:
    rng = np.random.default_rng(2)
    known, stream = rng.normal(size=60), rng.normal(size=700) + np.linspace(0, 2, 700)
    threshold = float(known.max())
    one, all_of_them = Drift(known, threshold), Drift(known, threshold)
    lines = [line for score in stream if (line := one.update(score))]
    assert all_of_them.update(stream) == lines[-1]
    assert one.count == all_of_them.count


def test_many_known_scores_are_thinned() -> None:
    rng = np.random.default_rng(3)
    drift = Drift(known := rng.normal(size=20_000), float(known.max()))
    assert drift.update(rng.normal(size=2000)) is None
    assert drift.update(rng.normal(size=200) + 1) is not None
