"""The published numbers: read right, and shown beside ours."""

from collections.abc import Callable

import numpy as np
import pytest

from tabzoo.benchmark.paper import IMAGES, OBJECT_AVERAGE, OBJECTS, OVERALL, TEXTURE_AVERAGE, TEXTURES, paper_numbers
from tabzoo.benchmark.table import to_markdown
from tabzoo.scores.rows import Row

MakeRow = Callable[..., Row]

DETECTORS = [("padim", None), ("rd4ad", None), ("simplenet", None), ("regad", 4), ("regad", 8)]


@pytest.mark.parametrize(("method", "shots"), DETECTORS)
def test_averages_follow_from_the_classes(method: str, shots: int | None) -> None:
    table = paper_numbers(method, shots)
    assert set(table) == {*TEXTURES, *OBJECTS, TEXTURE_AVERAGE, OBJECT_AVERAGE, OVERALL}
    for average, classes in ((TEXTURE_AVERAGE, TEXTURES), (OBJECT_AVERAGE, OBJECTS), (OVERALL, (*TEXTURES, *OBJECTS))):
        mean = np.mean([table[name] for name in classes], axis=0)
        assert table[average] == pytest.approx(mean, abs=0.25)  # the paper's own averages are off by up to 0.2


def test_numbers_stand_in_their_columns() -> None:
    assert paper_numbers("padim", None)[OVERALL] == (90.55, 92.64)
    assert paper_numbers("simplenet", None)["screw"] == (70.10, 90.57)
    assert paper_numbers("regad", 4)["grid"] == (91.20, 85.90)
    assert paper_numbers("regad", 8)["zipper"] == (94.00, 93.10)
    assert paper_numbers("patchcore", None) == {}
    assert paper_numbers("padim", 4) == {}


@pytest.fixture
def mvtec_row(make_row: MakeRow) -> MakeRow:
    """A row of a class of MVTec AD, with its numbers of images."""

    def make(class_name: str, **changes: object) -> Row:
        train, good, anomalous = IMAGES[class_name]
        images = {"fitted": train, "good": good, "anomalous": anomalous}
        return make_row(**{"class_name": class_name, "images": images} | changes)

    return make


def test_numbers_of_images_of_mvtec_ad() -> None:
    assert set(IMAGES) == {*TEXTURES, *OBJECTS}
    assert np.array(list(IMAGES.values())).sum(axis=0).tolist() == [3629, 467, 1258]


def test_table_against_paper(mvtec_row: MakeRow) -> None:
    rows = [mvtec_row("carpet"), mvtec_row("bottle"), mvtec_row("carpet", method="patchcore")]
    table = to_markdown(rows, against_paper=True)
    assert "paper: TAB" in table.split("pixel AUROC, %")[0]
    assert table.count("paper: TAB") == 1  # PatchCore and the other metrics are not in Table 2
    carpet = next(line for line in table.splitlines() if line.startswith("| carpet"))
    assert carpet.endswith("|           98.40 |      99.30 |")
    assert "90.55" not in table  # the average of two classes is not that of fifteen
    every = to_markdown([mvtec_row(name) for name in (*TEXTURES, *OBJECTS)], against_paper=True)
    for average in (
        "|           90.55 |      92.64 |",
        "|           96.40 |      97.19 |",
        "|           87.63 |      90.37 |",
    ):
        assert average in every
    assert "paper" not in to_markdown(rows)


@pytest.mark.parametrize(
    "changes",
    [
        {"images": {"fitted": 219, "good": 23, "anomalous": 108}},
        {"images": {"fitted": 219, "good": 22, "anomalous": 109}},
        {"images": {"fitted": 218, "good": 23, "anomalous": 109}},
        {"test": "synthetic:mask"},
    ],
)
def test_other_classes_of_the_same_name_are_not_the_papers(changes: dict[str, object], mvtec_row: MakeRow) -> None:
    """A capsule of another data set, or part of MVTec AD's, does not stand beside the paper's capsule."""
    others = [mvtec_row("bottle"), mvtec_row("capsule", **changes)]
    table = to_markdown(others, against_paper=True)
    assert "87.80" not in table
    if "test" not in changes:  # else a table of its own
        assert next(line for line in table.splitlines() if line.startswith("| capsule")).endswith("- |          - |")
    assert "numbers of images are not MVTec AD's: capsule of factory." in table
    whole = [mvtec_row(name) for name in (*TEXTURES, *OBJECTS) if name != "capsule"] + others[1:]
    assert "90.55" not in to_markdown(whole, against_paper=True)
    assert "paper: TAB" not in to_markdown(others[1:], against_paper=True)
