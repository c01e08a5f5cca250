"""The threshold of good photos, and what is said of it."""

import logging

import numpy as np
import pytest
from scipy import stats

from tabzoo.errors import InputError
from tabzoo.inspect.threshold import assign_folds, beta_quantile, choose_threshold, more_photos


@pytest.mark.parametrize(("a", "b"), [(1, 1), (1, 31), (2, 98), (30, 2971), (7, 3), (400, 600)])
def test_quantiles_of_beta(a: int, b: int) -> None:
    for p in (0.05, 0.5, 0.95):
        assert beta_quantile(p, a, b) == pytest.approx(stats.beta.ppf(p, a, b), rel=1e-9)


def scores(n: int) -> np.ndarray:
    return np.random.default_rng(n).permutation(n).astype(np.float32)


@pytest.mark.parametrize(
    ("n", "asked", "above"), [(99, 0.01, 0), (199, 0.01, 1), (300, 0.01, 2), (9, 0.5, 4), (40, 0.05, 1)]
)
def test_so_many_good_photos_are_above(n: int, asked: float, above: int) -> None:
    threshold = choose_threshold(scores(n), asked=asked, folds=10)
    assert (scores(n) > threshold.value).sum() == above
    assert threshold.false_alarms_expected == pytest.approx(1000 * (above + 1) / (n + 1), abs=1e-3)
    assert threshold.false_alarms_expected <= 1000 * asked + 1e-6
    assert threshold.words.startswith("Of 1,000 good parts expect ")
    assert threshold.quantile == pytest.approx((n - above) / n, abs=1e-6)


@pytest.mark.parametrize(
    ("n", "asked", "more", "rate"),
    [(10, 0.01, 89, 0.182), (98, 0.01, 1, 0.021), (99, 0.01, 100, 0.02), (198, 0.01, 1, 0.011), (2, 0.05, 17, 0.667)],
)
def test_the_advice_does_what_it_says(n: int, asked: float, more: int, rate: float) -> None:
    """So many photos more, or so many more false alarms."""
    few = choose_threshold(scores(n), asked=asked, folds=10)
    assert few.value == n - 1  # the highest score
    words = more_photos(few)
    assert words.startswith(f"add {more} good photo")
    assert words.endswith(f"--false-alarms {rate:g}")
    enough = choose_threshold(scores(n + more), asked=asked, folds=10)
    assert ("too few" in few.words, "too few" in enough.words) == ("needs" in words, False)
    assert "needs" in words or enough.quantile < 1
    assert choose_threshold(scores(n), asked=rate, folds=10).value == n - 2  # the next highest


def test_too_few_photos_for_what_is_asked() -> None:
    threshold = choose_threshold(scores(41), asked=0.01, folds=10)
    assert threshold.value == 40
    assert threshold.words == (
        "41 different good photos are too few for --false-alarms 0.01, which needs 99. The threshold is the largest score of a "
        "good photo: of 1,000 good parts expect 1 to 71 false alarms (90 % interval; 24 on average)."
    )


@pytest.mark.parametrize(("n", "asked"), [(30, 0.01), (150, 0.02)])
def test_the_interval_holds_the_real_rate_nine_times_out_of_ten(n: int, asked: float) -> None:
    """Scores are uniform in [0, 1], so the real rate of false alarms is 1 - threshold."""
    rng, inside, rates = np.random.default_rng(0), 0, []
    for _ in range(2000):
        threshold = choose_threshold(rng.random(n).astype(np.float32), asked=asked, folds=10)
        rates.append(1000 * (1 - threshold.value))
        inside += threshold.false_alarms_low <= rates[-1] <= threshold.false_alarms_high
    assert inside / 2000 == pytest.approx(0.9, abs=0.025)
    assert np.mean(rates) == pytest.approx(threshold.false_alarms_expected, rel=0.08)


def test_equal_scores_are_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert choose_threshold(np.full(30, 2.5, np.float32), asked=0.1, folds=10).value == 2.5
    assert "all 30 good photos have the same score, 2.5" in caplog.text


def test_two_photos_always_have_the_same_score(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert choose_threshold(np.full(2, 2.5, np.float32), asked=0.1, folds=2).value == 2.5
    assert "same score" not in caplog.text


def test_folds() -> None:
    hashes = [*range(30), 4, 4, 7]
    folds = assign_folds(hashes, list(range(33))[::-1], usual=5)
    assert sorted(set(folds.tolist())) == list(range(5))
    assert folds[[30, 31]].tolist() == [folds[4]] * 2
    assert folds[32] == folds[7]
    assert np.bincount(folds[:30]).tolist() == [6] * 5
    assert sorted(assign_folds(list(range(20)), list(range(20)), usual=5).tolist()) == list(range(20))  # each by itself
    for alike in ([3], [3, 3, 3]):
        with pytest.raises(InputError, match="at least 2 different ones"):
            assign_folds(alike, list(range(len(alike))), usual=5)
