"""Is one backbone better: the difference, its interval, its p-value, and how often they claim what is not there."""

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tabzoo.errors import InputError
from tabzoo.scores.compare import RUN_FREEDOM, RUN_SD, Comparison, compare, compare_metric, holm
from tabzoo.scores.rows import Row

MakeRow = Callable[..., Row]


@pytest.fixture(scope="module")
def simulate() -> ModuleType:
    path = Path(__file__).parents[2] / "training" / "evidence" / "simulate.py"
    spec = importlib.util.spec_from_file_location("simulate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def some(make_row: MakeRow) -> tuple[list[Row], list[Row]]:
    """Two classes, methods and seeds of a baseline, and of a candidate."""

    def of(name: str, shift: float) -> list[Row]:
        return [
            make_row(name, class_name, seed, shift=shift, method=method)
            for class_name in ("nut", "bolt")
            for method in ("padim", "patchcore")
            for seed in (0, 1)
        ]

    return of("a", 1.0), of("b", 1.5)


def test_the_difference_is_that_of_the_metric(some: tuple[list[Row], list[Row]]) -> None:
    baseline, candidate = some
    found = compare(baseline, [candidate])
    aurocs = [np.mean([row.image_auroc for row in rows]) for rows in some]  # type: ignore[arg-type]
    assert found.difference == pytest.approx(aurocs[1] - aurocs[0], abs=1e-12)
    assert (found.good, found.defective, found.classes, found.training_runs) == (40, 60, 2, 1)
    assert compare_metric(baseline, [candidate], "image_auroc").difference == pytest.approx(found.difference, abs=1e-12)


def test_classes_count_the_same_whatever_seeds_they_have(some: tuple[list[Row], list[Row]]) -> None:
    baseline, candidate = ([row for row in rows if row.class_name == "nut" or row.seed == 0] for rows in some)
    by_class = [
        compare(baseline, [[row for row in candidate if row.class_name == name]]).difference for name in ("nut", "bolt")
    ]
    assert compare(baseline, [candidate]).difference == pytest.approx(np.mean(by_class), abs=1e-12)


def test_variance_of_one_run_is_delongs(make_row: MakeRow) -> None:
    """With an image more that has no difference, on either side."""
    first, second = make_row("a", "nut"), make_row("b", "nut", shift=1.3)

    def share(row: Row, kind: str, of: str, sign: int) -> np.ndarray:
        return np.array([np.mean([sign * (x - y) > 0 for y in row.scores[of]]) for x in row.scores[kind]])  # type: ignore[operator]

    anomalous = share(second, "anomalous", "good", 1) - share(first, "anomalous", "good", 1)
    good = share(second, "good", "anomalous", -1) - share(first, "good", "anomalous", -1)
    parts = [np.var([*shares, 0], ddof=1) / len(shares) for shares in (anomalous, good)]
    freedom = sum(parts) ** 2 / sum(part**2 / (count - 1) for part, count in zip(parts, (30, 20), strict=True))
    found = compare([first], [[second]])
    stats = pytest.importorskip("scipy.stats")
    assert found.high - found.difference == pytest.approx(stats.t.ppf(0.975, freedom) * sum(parts) ** 0.5, rel=1e-9)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(found.difference) / sum(parts) ** 0.5, freedom), rel=1e-9)


@pytest.mark.parametrize("shift", [0.2, 0.9, 1.3, 1.6, 2.5])
def test_interval_p_value_and_verdict_agree_and_turn_with_the_arms(make_row: MakeRow, shift: float) -> None:
    first, second = make_row("a", "nut"), make_row("b", "nut", shift=shift)
    found, turned = compare([first], [[second]]), compare([second], [[first]])
    outside = found.low > 0 or found.high < 0
    assert outside == (found.p_value < 0.05) == (found.verdict != "no difference")
    assert (turned.difference, turned.low, turned.high) == pytest.approx((-found.difference, -found.high, -found.low))
    assert turned.p_value == pytest.approx(found.p_value)
    turn = {"better": "worse", "worse": "better", "no difference": "no difference"}
    assert turned.verdict == turn[found.verdict]
    if found.verdict != "no difference":
        assert (found.verdict == "better") == (found.difference > 0)


def test_verdicts(make_row: MakeRow) -> None:
    bad, fine = make_row("a", "nut", shift=0.0), make_row("b", "nut", shift=3.0)
    assert compare([bad], [[fine]]).verdict == "better"
    assert compare([fine], [[bad]]).verdict == "worse"
    same = compare([fine], [[fine]])
    assert (same.verdict, same.difference, same.low, same.high, same.p_value) == ("no difference", 0, 0, 0, 1)


def test_few_images_prove_nothing(make_row: MakeRow) -> None:
    def of(good: list[float], anomalous: list[float]) -> Row:
        images = {"fitted": 9, "good": len(good), "anomalous": len(anomalous)}
        return make_row("a", scores={"good": good, "anomalous": anomalous}, images=images)

    for count in (1, 2):
        found = compare([of([1.0] * count, [0.0] * count)], [[of([0.0] * count, [1.0] * count)]])
        assert (found.difference, found.verdict) == (1, "no difference")
        assert (found.low < 0, found.high) == (True, 1)


def test_only_rows_on_both_sides_and_in_all_runs_count(some: tuple[list[Row], list[Row]]) -> None:
    baseline, candidate = some
    few = [row for row in candidate if (row.class_name, row.method, row.seed) == ("nut", "padim", 1)]
    assert compare(baseline, [candidate, few]).difference == compare(baseline, [few, candidate]).difference
    alone = compare([row for row in baseline if row.class_name == "nut"], [few])
    assert compare(baseline, [candidate, few]).difference == pytest.approx(alone.difference, abs=1e-12)
    assert (alone.good, alone.classes) == (20, 1)
    undefined = [replace(row, image_auroc=None) for row in candidate if row.class_name == "bolt"]
    assert compare(baseline, [few + undefined]) == alone


def test_order_of_rows_does_not_matter(some: tuple[list[Row], list[Row]]) -> None:
    baseline, candidate = some
    assert compare(baseline[::-1], [candidate]) == compare(baseline, [candidate[::-1]])


def test_what_cannot_be_compared(some: tuple[list[Row], list[Row]], make_row: MakeRow) -> None:
    baseline, candidate = some
    with pytest.raises(
        InputError, match=r"nothing to compare.*same class, method, seed.*nut with padim, seed 0.*screw"
    ):
        compare(baseline, [[make_row("b", "screw")]])
    with pytest.raises(InputError, match="no training run"):
        compare(baseline, [])
    with pytest.raises(InputError, match="nut with padim, seed 0: two rows"):
        compare([*baseline, replace(baseline[0], key="f" * 16)], [candidate])
    with pytest.raises(InputError, match="nut with padim, seed 0: .*not tested on the same images"):
        compare(baseline, [[replace(candidate[0], data_sha256="other")]])
    fewer = [replace(row, scores={"good": [0.0], "anomalous": [1.0]}) for row in (baseline[1], candidate[1])]
    with pytest.raises(InputError, match="nut: methods or seeds .* same number"):
        compare([baseline[0], fewer[0]], [[candidate[0], fewer[1]]])
    with pytest.raises(InputError, match="1 class to compare; expected two at least"):
        compare(baseline, [candidate[:1]], over_classes=True)
    with pytest.raises(ValueError, match="'auroc' given; expected one of image_auroc"):
        compare_metric(baseline, [candidate], "auroc")


def test_draws_of_support_images_are_averaged(make_row: MakeRow) -> None:
    first = make_row("a")
    draws = {kind: [scores, scores] for kind, scores in first.scores.items()}
    second = make_row("b", shift=2.0)
    twice = {kind: [scores, scores] for kind, scores in second.scores.items()}
    found = compare([replace(first, scores=draws)], [[replace(second, scores=twice)]])  # type: ignore[arg-type]
    assert found == compare([first], [[second]])


def test_runs_that_differ_widen_the_interval(make_row: MakeRow) -> None:
    def half(*shifts: float) -> float:
        found = compare([first], [[make_row("b", "nut", shift=shift)] for shift in shifts])
        return found.difference - found.low

    first = make_row("a", "nut")
    assert half(0.5, 2.5) > 1.3 * half(1.5, 1.5)


def test_variance_of_runs_is_moderated(make_row: MakeRow) -> None:
    """Two runs of the same weights: what is added to the variance of one is the expected part alone."""
    first, second = make_row("a", "nut"), make_row("b", "nut", shift=1.5)
    one, two = compare([first], [[second]]), compare([first], [[second], [second]])
    stats = pytest.importorskip("scipy.stats")
    parts = [
        np.var(np.append(gain, 0), ddof=1) / len(gain)
        for gain in (wins_of(first, second).mean(1), wins_of(first, second).mean(0))
    ]
    run = RUN_FREEDOM * RUN_SD**2 / (1 + RUN_FREEDOM) / 2
    variance = sum(parts) + run
    freedom = variance**2 / (parts[0] ** 2 / 29 + parts[1] ** 2 / 19 + run**2 / (1 + RUN_FREEDOM))
    assert two.high - two.difference == pytest.approx(stats.t.ppf(0.975, freedom) * variance**0.5, rel=1e-9)
    assert two.difference == one.difference


def wins_of(first: Row, second: Row) -> np.ndarray:
    won = [np.array(row.scores["anomalous"])[:, None] > np.array(row.scores["good"]) for row in (first, second)]
    return won[1].astype(float) - won[0]


def test_over_classes(make_row: MakeRow) -> None:
    names = ("nut", "bolt", "screw", "pin")
    baseline = [make_row("a", name) for name in names]
    mixed = [make_row("b", name, shift=shift) for name, shift in zip(names, (3.0, 3.0, 1.0, 0.5), strict=True)]
    images, classes = compare(baseline, [mixed]), compare(baseline, [mixed], over_classes=True)
    by_class = [b.image_auroc - a.image_auroc for a, b in zip(baseline, mixed, strict=True)]  # type: ignore[operator]
    test = pytest.importorskip("scipy.stats").ttest_1samp(by_class, 0)
    assert classes.p_value == pytest.approx(test.pvalue)
    assert (classes.low, classes.high) == pytest.approx(test.confidence_interval())
    assert images.high - images.low < classes.high - classes.low
    assert compare_metric(baseline, [mixed], "image_auroc").p_value == pytest.approx(test.pvalue)
    # Classes that happen to agree do not make it surer than their images do.
    alike = [replace(row, class_name=name, data_sha256=name) for name in names for row in mixed[2:3]]
    start = [replace(row, class_name=name, data_sha256=name) for name in names for row in baseline[2:3]]
    images, classes = compare(start, [alike]), compare(start, [alike], over_classes=True)
    assert classes.high - classes.low > images.high - images.low > 0


def test_holm() -> None:
    # By hand: 0.01 * 3; 0.02 * 2; 0.03 * 1 is less than the one before it.
    assert holm({"c": 0.03, "a": 0.01, "b": 0.02}) == pytest.approx({"c": 0.04, "a": 0.03, "b": 0.04})
    assert list(holm({"c": 0.03, "a": 0.01})) == ["c", "a"]
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1, "b": 1}
    assert holm({}) == {}


@pytest.mark.parametrize("settings", [{}, {"runs": 2, "run_sd": 0.005}, {"classes": 3, "good": 40, "defective": 50}])
def test_what_is_there_is_found_and_little_else(simulate: ModuleType, settings: dict[str, float]) -> None:
    found = simulate.claims(simulate.Case(baseline=0.88, candidate=0.91, **settings), 200)
    assert found.better > 0.8
    assert found.worse == 0
    for auroc in (0.88, 0.91):
        nothing = simulate.claims(simulate.Case(baseline=auroc, candidate=auroc, **settings), 200)
        assert nothing.better + nothing.worse <= 0.09


def test_false_claims_where_runs_or_classes_differ(simulate: ModuleType) -> None:
    """Here an interval over images alone claims something in 16 and more of 100 trials."""
    for settings in (
        {"runs": 2, "run_sd": 0.01},
        {"classes": 3, "class_sd": 0.02, "good": 40, "defective": 50, "over_classes": True},
    ):
        nothing = simulate.claims(simulate.Case(baseline=0.88, candidate=0.88, **settings), 200)
        assert nothing.better + nothing.worse <= 0.09


def test_comparison_is_plain_data() -> None:
    values = {"difference": 0.1, "low": 0.0, "high": 0.2, "good": 1, "defective": 1, "classes": 1, "training_runs": 1}
    assert Comparison(p_value=0.05, **values).verdict == "no difference"  # type: ignore[arg-type]
    assert Comparison(p_value=0.0499, **values).verdict == "better"  # type: ignore[arg-type]
