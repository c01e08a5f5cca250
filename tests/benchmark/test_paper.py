"""The published numbers: read right, and shown beside ours."""

from collections.abc import Callable

import numpy as np
import pytest

from tabzoo.benchmark.paper import OBJECT_AVERAGE, OBJECTS, OVERALL, TEXTURE_AVERAGE, TEXTURES, published
from tabzoo.benchmark.results import Row
from tabzoo.benchmark.table import to_markdown

MakeRow = Callable[..., Row]

METHODS = [("padim", None), ("rd4ad", None), ("simplenet", None), ("regad", 4), ("regad", 8)]


@pytest.mark.parametrize(("method", "shots"), METHODS)
def test_averages_follow_from_the_classes(method: str, shots: int | None) -> None:
    table = published(method, shots)
    assert set(table) == {*TEXTURES, *OBJECTS, TEXTURE_AVERAGE, OBJECT_AVERAGE, OVERALL}
    for average, classes in ((TEXTURE_AVERAGE, TEXTURES), (OBJECT_AVERAGE, OBJECTS), (OVERALL, (*TEXTURES, *OBJECTS))):
        mean = np.mean([table[name] for name in classes], axis=0)
        assert table[average] == pytest.approx(mean, abs=0.25)  # the paper's own averages are off by up to 0.2


def test_numbers_stand_in_their_columns() -> None:
    assert published("padim", None)[OVERALL] == (90.55, 92.64)
    assert published("simplenet", None)["screw"] == (70.10, 90.57)
    assert published("regad", 4)["grid"] == (91.20, 85.90)
    assert published("regad", 8)["zipper"] == (94.00, 93.10)
    assert published("patchcore", None) == {}
    assert published("padim", 4) == {}


def test_table_against_paper(make_row: MakeRow) -> None:
    rows = [make_row("random", name) for name in ("carpet", "bottle")] + [
        make_row(method="patchcore", class_name="carpet")
    ]
    table = to_markdown(rows, against_paper=True)
    assert "paper: TAB" in table.split("pixel AUROC, %")[0]
    assert table.count("paper: TAB") == 1  # PatchCore and the other metrics are not in Table 2
    carpet = next(line for line in table.splitlines() if line.startswith("| carpet"))
    assert carpet.endswith("|           98.40 |      99.30 |")
    assert "90.55" not in table  # the average of two classes is not that of fifteen
    every = to_markdown([make_row("random", name) for name in (*TEXTURES, *OBJECTS)], against_paper=True)
    for average in (
        "|           90.55 |      92.64 |",
        "|           96.40 |      97.19 |",
        "|           87.63 |      90.37 |",
    ):
        assert average in every
    assert "paper" not in to_markdown(rows)
