"""Verdicts in words: what they rest on, and when there is none."""

import dataclasses
from collections.abc import Callable

import pytest

from tabzoo.benchmark.table import to_markdown
from tabzoo.benchmark.verdicts import compare_parts, judge, judge_tests
from tabzoo.scores.compare import compare
from tabzoo.scores.rows import Row

Make = Callable[..., Row]


def rows_of(make_row: Make, name: str, *, shift: float, **changes: object) -> list[Row]:
    """Rows of two classes, with defects that stand out as much as `shift` says."""
    return [
        make_row(name, of, seed, shift=shift, **{"data_sha256": of, **changes})
        for of in ("nut", "bolt")
        for seed in (0, 1)
    ]


def test_better_worse_and_no_difference(make_row: Make) -> None:
    start = rows_of(make_row, "start", shift=1.0)
    others = {"mine": 4.0, "bad": -1.0, "same": 1.05}
    rows = start + [row for name, shift in others.items() for row in rows_of(make_row, name, shift=shift)]
    verdicts = judge(rows, "start", list(others))
    assert [one.verdict for one in verdicts] == ["better", "worse", "no difference"]
    better, worse, same = (one.sentence for one in verdicts)
    for sentence, words in (
        (better, "Better than start: "),
        (worse, "Worse than start: "),
        (same, "No difference from start beyond chance: "),
    ):
        assert sentence.startswith(words)
        assert sentence.endswith("on 40 good and 60 defective photos of 2 classes, with padim, seeds 0, 1.")
    comparison = compare(start, [[row for row in rows if row.backbone == "mine"]])
    assert verdicts[0].comparison == comparison
    points = [f"{100 * value:.1f}" for value in (comparison.difference, comparison.low, comparison.high)]
    assert "{} points more image AUROC (95 % interval {} to {})".format(*points) in better
    bad = verdicts[1].comparison
    assert bad is not None
    assert f"{-100 * bad.difference:.1f} points less image AUROC (95 % interval {-100 * bad.high:.1f} to" in worse


def test_tables_end_with_the_verdicts(make_row: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each kind of test apart, with the first backbone of the order as baseline."""
    rows = [row for name, shift in (("mine", 4.0), ("start", 1.0)) for row in rows_of(make_row, name, shift=shift)]
    rows += [dataclasses.replace(row, test="synthetic:perlin", key=f"{row.key}-s") for row in rows]
    table = to_markdown(rows, order=["start"])
    (real,) = judge([row for row in rows if row.test == "real"], "start", ["mine"])
    (made,) = judge([row for row in rows if row.test != "real"], "start", ["mine"])
    heading = "Verdict on synthetic anomalies (perlin), a proxy"
    assert judge_tests(rows, ["start"]) == {"Verdict": [real], heading: [made]}
    assert table.endswith(f"\n\nVerdict:\n\n- mine: {real.sentence}\n\n{heading}:\n\n- mine: {made.sentence}\n")
    assert "Verdict" not in to_markdown([row for row in rows if row.backbone == "mine"])  # nothing to compare with
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # without SciPy
    assert "Verdict" not in to_markdown(rows, order=["start"])


def test_several_backbones_need_stronger_evidence(make_row: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """With three backbones, a p-value of 2 % is no verdict, and the sentence says why the interval leaves out 0."""
    from tabzoo.benchmark import verdicts as module

    def weak(start: object, runs: object) -> object:
        return dataclasses.replace(compare(start, runs), p_value=0.02)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "compare", weak)
    rows = [row for name in ("start", "a", "b", "c") for row in rows_of(make_row, name, shift=1 + (name != "start"))]
    (alone,) = judge(rows, "start", ["a"])
    assert alone.verdict == "better"
    for one in judge(rows, "start", ["a", "b", "c"]):
        assert one.verdict == "no difference"
        assert "No difference from start beyond chance" in one.sentence
        assert "several backbones" in one.sentence


def test_transductive_rows_and_proxies_are_said(make_row: Make) -> None:
    rows = rows_of(make_row, "start", shift=1.0, test="synthetic:perlin")
    rows += rows_of(make_row, "mine", shift=1.0, test="synthetic:perlin")
    rows[-1] = dataclasses.replace(rows[-1], transductive=True)
    (verdict,) = judge(rows, "start", ["mine"])
    assert "40 good photos and 60 synthetic anomalies (perlin), which are a proxy for real defects" in verdict.sentence
    assert "Transductive: mine was pre-trained on images of bolt, so" in verdict.sentence


def test_methods_count_together_and_each_alone(make_row: Make) -> None:
    groups = [
        rows_of(make_row, "start", shift=1.0, method=method) + rows_of(make_row, "mine", shift=shift, method=method)
        for method, shift in (("padim", 5.0), ("patchcore", -3.0))
    ]
    (verdict,) = judge([row for rows in groups for row in rows], "start", ["mine"])
    assert "with padim and patchcore, seeds 0, 1" in verdict.sentence
    parts = compare_parts(groups, "start")
    assert [part.comparison and part.comparison.verdict for part in parts] == ["better", "worse"]


def test_other_architectures_are_compared_with_the_baselines_rows_of_the_method(make_row: Make) -> None:
    """Their layers have other names, so that their rows are in other tables."""
    start = rows_of(make_row, "start", shift=1.0)
    mine = rows_of(make_row, "mine", shift=5.0, settings={"layers": ["blocks.1"]})
    other = rows_of(make_row, "start", shift=1.0, method="patchcore")
    (part,) = compare_parts([start, mine, other], "start")
    assert part.comparison == compare(start, [mine])


def test_what_can_not_be_compared_has_a_reason(make_row: Make) -> None:
    start = rows_of(make_row, "start", shift=1.0)
    twice = [
        *start,
        *rows_of(make_row, "mine", shift=1.0),
        *rows_of(make_row, "mine", shift=1.0, settings={"resize": 9}),
    ]
    (verdict,) = judge(twice, "start", ["mine"])
    assert (verdict.verdict, verdict.comparison) == ("not compared", None)
    assert "this folder holds several settings of padim" in verdict.sentence
    elsewhere = rows_of(make_row, "mine", shift=1.0, data_sha256="other photos")
    (verdict,) = judge([*start, *elsewhere], "start", ["mine"])
    assert "were not tested on the same images" in verdict.sentence
    (part,) = compare_parts([[*start, *elsewhere]], "start")
    assert part.comparison is None
    assert "were not tested on the same images" in part.why_not
    undefined = rows_of(make_row, "mine", shift=1.0, image_auroc=None)
    (verdict,) = judge([*start, *undefined], "start", ["mine"])
    assert verdict.sentence.startswith("Not compared with start: nothing to compare")
