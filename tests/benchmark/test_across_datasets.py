"""Tables over data sets: which lines they have, and that nothing is mixed that differs in more than the data set."""

from collections.abc import Callable

import pytest

from tabzoo.benchmark.paper import OBJECTS, TEXTURES
from tabzoo.benchmark.table import to_markdown
from tabzoo.scores.bootstrap import auroc_differences, interval
from tabzoo.scores.rows import Row

MakeRow = Callable[..., Row]


def across(rows: list[Row]) -> str:
    return to_markdown(rows, across_datasets=True)


def lines(table: str) -> dict[str, list[str]]:
    """Line's name to cells, of the first metric."""
    first = table.split("image AUROC, %:\n\n")[1].split("\n\n")[0]
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in first.splitlines()]
    return {name: cells for name, *cells in split[2:]}


@pytest.fixture
def paper_form(make_row: MakeRow) -> list[Row]:
    """Table 4's data sets with two backbones: tab is 0.1 better on MVTec AD, 0.2 on BTAD 01, equal on KSDD2."""
    classes = [("MVTec AD", name, 0.8, 0.9) for name in (*TEXTURES, *OBJECTS)]
    classes += [
        ("BTAD", "01", 0.5, 0.7),
        ("BTAD", "02", 0.6, 0.6),
        ("BTAD", "03", 1.0, 0.9),
        ("KSDD2", "KSDD2", 0.9, 0.9),
    ]
    return [
        make_row(
            *(backbone, name),
            dataset=dataset,
            image_auroc=value,
            transductive=backbone == "tab" and dataset == "MVTec AD",
        )
        for dataset, name, *values in classes
        for backbone, value in zip(("imagenet", "tab"), values, strict=True)
    ]


def test_many_classes_are_averaged_and_few_are_listed(paper_form: list[Row]) -> None:
    table = across(paper_form)
    assert table.count("## ") == 1
    assert "## padim across data sets, all good training images" in table
    found = {name: cells[:2] for name, cells in lines(table).items()}
    assert found == {
        "MVTec AD average (15)": ["80.0", "90.0 t"],
        "BTAD 01": ["50.0", "70.0"],
        "BTAD 02": ["60.0", "60.0"],
        "BTAD 03": ["100.0", "90.0"],
        "BTAD average (3)": ["70.0", "73.3"],
        "KSDD2": ["90.0", "90.0"],
    }
    assert "| data set " in table
    assert "- BTAD, seeds 0. Tested on (good + anomalous images): 01 20 + 30, 02 20 + 30, 03 20 + 30." in table
    assert "t: transductive, tab was pre-trained on images of carpet, grid," in table
    assert all(f"{metric}, %:" in table for metric in ("image AUROC", "pixel AUROC", "AUPRO"))


def test_differences_have_their_intervals(paper_form: list[Row]) -> None:
    found = lines(across(paper_form))
    pair = [row for row in paper_form if row.dataset == "KSDD2"]
    draws = auroc_differences([(pair[0], pair[1])])
    assert draws is not None
    low, high = interval(draws)
    assert found["KSDD2"][2] == f"+0.0 [{100 * low:+.1f}, {100 * high:+.1f}]"
    assert found["BTAD average (3)"][2].startswith("+3.3 [")


def test_classes_of_one_name_in_two_data_sets_stay_apart(make_row: MakeRow) -> None:
    rows = [make_row("a", "01", dataset=name, image_auroc=value) for name, value in (("BTAD", 0.5), ("mine", 0.7))]
    assert lines(across(rows)) == {"BTAD 01": ["50.0"], "mine 01": ["70.0"]}


def test_what_was_not_run_on_a_data_set_is_said(make_row: MakeRow) -> None:
    rows = [make_row(name, "KSDD2", dataset="KSDD2", image_auroc=0.5) for name in ("a", "b")]
    rows += [make_row("b", name, dataset="MVTec AD", image_auroc=0.9) for name in OBJECTS]
    for found in (lines(across(rows)), lines(to_markdown(rows[::-1], order=["a"], across_datasets=True))):
        assert found["MVTec AD average (10)"] == ["not run", "90.0", "-"]
        assert found["KSDD2"][:2] == ["50.0", "50.0"]
        assert found["KSDD2"][2].startswith("+0.0 [")


def test_an_average_of_nothing_is_no_missing_line(make_row: MakeRow) -> None:
    rows = [make_row("a", name, dataset="MVTec AD", image_auroc=None) for name in OBJECTS]
    rows += [make_row("a", "KSDD2", dataset="KSDD2", image_auroc=0.5)]
    assert lines(across(rows)) == {"MVTec AD average": ["undefined"], "KSDD2": ["50.0"]}


def test_only_the_data_set_may_differ(make_row: MakeRow) -> None:
    rows = [
        make_row(dataset=dataset, **changes)  # type: ignore[arg-type]
        for dataset in ("one", "two")
        for changes in ({}, {"method": "rd4ad"}, {"shots": 4}, {"test": "synthetic:mask"}, {"settings": {"crop": 64}})
    ]
    table = across(rows)
    assert table.count("## ") == 5
    assert table.count("## padim across data sets, all good training images") == 3
    assert table.count("PROXY") == 1
    assert "\n\ncrop 64." in table
