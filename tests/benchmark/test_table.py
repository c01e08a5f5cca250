"""Means, spreads, differences and what a table says of them."""

import csv
import io
from collections.abc import Callable

import numpy as np
import pytest

from tabzoo.benchmark.summary import group_rows, latest_rows, summarise
from tabzoo.benchmark.table import to_csv, to_markdown
from tabzoo.scores.bootstrap import auroc_differences, interval
from tabzoo.scores.rows import Row

MakeRow = Callable[..., Row]


def cells(table: str, name: str) -> list[str]:
    """Of the first line that begins with this name."""
    line = next(line for line in table.splitlines() if line.startswith(f"| {name} "))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_mean_and_spread_over_seeds(make_row: MakeRow) -> None:
    rows = [make_row("random", "nut", seed, image_auroc=value) for seed, value in enumerate((0.7, 0.8, 0.9))]
    line = summarise(group_rows(rows)[0], "image_auroc")[0]
    assert line.cells[0] is not None
    assert line.cells[0].mean == pytest.approx(0.8)
    assert line.cells[0].sd == pytest.approx(np.std([0.7, 0.8, 0.9], ddof=1))
    assert cells(to_markdown(rows), "nut") == ["80.0 ± 10.0"]
    assert cells(to_markdown(rows[:1]), "nut") == ["70.0"]


def test_averages_leave_out_what_is_undefined(make_row: MakeRow) -> None:
    rows = [
        make_row("random", "nut", image_auroc=0.6),
        make_row("random", "bolt", image_auroc=0.8),
        make_row("random", "capsule", image_auroc=None, undefined_because={"image_auroc": "no defects"}),
    ]
    table = to_markdown(rows)
    assert cells(table, "average (2)") == ["70.0"]
    assert cells(table, "capsule") == ["undefined"]
    assert "Undefined: image AUROC of capsule, no defects." in table


def test_texture_and_object_averages_of_mvtec(make_row: MakeRow) -> None:
    values = {"carpet": 0.5, "tile": 0.7, "bottle": 0.9}
    rows = [make_row("random", name, image_auroc=value) for name, value in values.items()]
    table = to_markdown(rows)
    for name, value in (("texture average (2)", "60.0"), ("object average (1)", "90.0"), ("average (3)", "70.0")):
        assert cells(table, name) == [value]
    assert "texture average" not in to_markdown([*rows, make_row("random", "nut")])


def test_the_average_spreads_as_the_averages_of_each_seed(make_row: MakeRow) -> None:
    values = {("nut", 0): 0.6, ("nut", 1): 0.8, ("bolt", 0): 0.9, ("bolt", 1): 0.7}
    rows = [make_row("random", name, seed, image_auroc=value) for (name, seed), value in values.items()]
    assert cells(to_markdown(rows), "average (2)") == ["75.0 ± 0.0"]


def test_averages_are_over_the_seeds_that_all_classes_have(make_row: MakeRow) -> None:
    values = {("nut", 0): 0.6, ("nut", 1): 0.9, ("bolt", 0): 0.8}
    rows = [make_row("random", name, seed, image_auroc=value) for (name, seed), value in values.items()]
    assert cells(to_markdown(rows), "average (2)") == ["70.0"]


def brute_force(first: Row, second: Row, draws: int) -> list[float]:
    """Resamples good and anomalous images, the same for both rows, and counts pairs in the right order, draw by draw."""
    rng = np.random.default_rng(7)
    rows = [[np.array(row.scores[kind]) for kind in ("good", "anomalous")] for row in (first, second)]
    differences = []
    for _ in range(draws):
        good, anomalous = (rng.integers(0, len(scores), len(scores)) for scores in rows[0])
        a, b = ((bad[anomalous][:, None] > fine[good]).mean() for fine, bad in rows)
        differences.append(b - a)
    return differences


def test_bootstrap_against_brute_force(make_row: MakeRow) -> None:
    first, second = make_row("random", "nut", shift=0.3), make_row("tab", "nut", shift=1.5)
    draws = auroc_differences([(first, second)])
    assert draws is not None
    expected = brute_force(first, second, 4000)
    assert draws.mean() == pytest.approx(np.mean(expected), abs=0.01)
    assert draws.std() == pytest.approx(np.std(expected), rel=0.08)
    assert interval(draws) == pytest.approx(np.quantile(expected, (0.025, 0.975)), abs=0.02)
    assert interval(np.arange(1001.0)) == pytest.approx((25, 975))


def test_bootstrap_counts_ties_as_half(make_row: MakeRow) -> None:
    equal = make_row("random", scores={"good": [1.0, 1.0], "anomalous": [1.0]}, image_auroc=0.5)
    apart = make_row("tab", scores={"good": [0.0, 0.0], "anomalous": [1.0]}, image_auroc=1.0)
    draws = auroc_differences([(equal, apart)])
    assert draws is not None
    assert np.allclose(draws, 0.5)


def test_bootstrap_pairs_images_not_seeds(make_row: MakeRow) -> None:
    pairs = [(make_row("random", "nut", seed), make_row("tab", "nut", seed, shift=1.2)) for seed in (0, 1)]
    both, alone = auroc_differences(pairs), auroc_differences(pairs[:1])
    assert both is not None
    assert alone is not None
    assert both.mean() == pytest.approx(np.mean([b.image_auroc - a.image_auroc for a, b in pairs]), abs=0.02)  # type: ignore[operator]
    other_images = make_row("tab", "nut", data_sha256="other")
    assert auroc_differences([(pairs[0][0], other_images)]) is None
    synthetic = [make_row("tab", "nut", seed, test="synthetic:mask") for seed in (0, 1)]
    assert synthetic[0].test_images != synthetic[1].test_images


def test_differences_are_to_the_first_backbone(make_row: MakeRow) -> None:
    rows = [
        make_row(name, "nut", seed, image_auroc=value) for name, value in (("a", 0.5), ("b", 0.75)) for seed in (0, 1)
    ]
    lines = cells(to_markdown(rows), "nut")
    assert lines[0] == "50.0 ± 0.0"
    assert lines[2].startswith("+25.0 [")
    turned = to_markdown(rows, order=["b", "a"])
    assert "a - b" in turned
    assert cells(turned, "nut")[2].startswith("-25.0 [")
    pixel = to_markdown(rows).split("pixel AUROC, %")[1]
    assert cells(pixel, "nut")[2] == "+0.0"  # no interval


def test_what_was_not_run_is_no_zero(make_row: MakeRow) -> None:
    rows = [make_row("a", "nut"), make_row("a", "bolt"), make_row("b", "nut")]
    table = to_markdown(rows)
    assert cells(table, "bolt")[1:] == ["not run", "-"]
    assert "average (1)" in table


def test_only_the_latest_state_of_the_images_counts(make_row: MakeRow) -> None:
    rows = [make_row("a", "nut", image_auroc=0.5, data_sha256="old"), make_row("a", "nut", 1, image_auroc=0.9)]
    assert cells(to_markdown(latest_rows(rows)[0]), "nut") == ["90.0"]


def test_settings_shots_and_tests_make_tables_of_their_own(make_row: MakeRow) -> None:
    rows = [make_row(), make_row(shots=4), make_row(test="synthetic:cutpaste"), make_row(settings={"crop": 64})]
    table = to_markdown(rows)
    assert table.count("## padim on factory") == 4
    assert "4 good training images" in table
    assert "**PROXY: synthetic cutpaste anomalies on held-out good images, not real defects.**" in table
    assert table.count("PROXY") == 1


def test_short_trainings_and_draws_are_said(make_row: MakeRow) -> None:
    quick, whole = ({"steps": steps, "draws": 3, "crop": 64} for steps in (8, None))
    table = to_markdown([make_row(method="regad", shots=4, settings=quick)])
    assert "**SHORT: each training ends after 8 steps, earlier than its authors' training.**" in table
    assert "Few-shot: means over 3 draws of the good images" in table
    assert "SHORT" not in to_markdown([make_row(method="regad", shots=4, settings=whole)])
    assert "nothing is selected on test data." in table
    oracle = to_markdown([make_row(oracle_image_auroc=0.9)])
    assert "nothing is selected on test data, except in columns called oracle." in oracle


def test_notes(make_row: MakeRow) -> None:
    rows = [make_row(backbone, name) for backbone in ("random", "tab") for name in ("nut", "bolt")]
    rows[2] = make_row("tab", "nut", transductive=True)
    table = to_markdown(rows)
    assert "nothing is selected on test data" in table
    assert "Tested on (good + anomalous images): bolt 20 + 30, nut 20 + 30." in table
    assert "t: transductive, tab was pre-trained on images of nut." in table
    assert cells(table, "nut")[1].endswith(" t")
    assert not cells(table, "bolt")[1].endswith(" t")
    assert cells(table, "average (2)")[1].endswith(" t")  # of which one is


def test_csv_holds_every_number(make_row: MakeRow) -> None:
    rows = [make_row("random", "nut"), make_row("tab", "nut", aupro=None)]
    lines = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert len(lines) == 7 * 2 * 2 - 2  # metrics, backbones, class and average; AUPRO has no average
    by_name = {(line["metric"], line["class"], line["backbone"]): line for line in lines}
    assert float(by_name["image_auroc", "nut", "random"]["mean"]) == rows[0].image_auroc
    assert by_name["aupro", "nut", "tab"]["mean"] == ""
    assert by_name["image_auroc", "nut", "tab"]["low"] != ""
