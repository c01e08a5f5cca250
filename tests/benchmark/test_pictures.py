"""Sheets and ROC curves: their numbers, and that something is drawn."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from tabzoo.benchmark.figures import Panel, draw_roc, draw_sheet, roc
from tabzoo.benchmark.results import Row
from tabzoo.benchmark.summary import group_rows


def test_roc_curve_has_the_area_of_its_scores() -> None:
    rng = np.random.default_rng(0)
    good, anomalous = rng.integers(0, 9, 40), rng.integers(3, 12, 30)  # with ties
    false, true = roc(good.tolist(), anomalous.tolist())
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    expected = roc_auc_score([0] * 40 + [1] * 30, [*good, *anomalous])
    assert np.trapezoid(true, false) == pytest.approx(expected)


def test_pictures(tmp_path: Path, make_row: Callable[..., Row]) -> None:
    rng = np.random.default_rng(0)
    images, masks = rng.integers(0, 256, (3, 16, 16, 3), np.uint8), rng.integers(0, 2, (3, 16, 16), np.uint8)
    panels = [Panel(name, rng.integers(0, 256, (3, 16, 16), np.uint8)) for name in ("random", "mine")]
    draw_sheet(tmp_path / "a" / "sheet.png", "title", images, masks, ["scratch", "hole", "good"], panels)
    draw_sheet(tmp_path / "no_masks.png", "title", images, None, ["scratch", "hole", "good"], panels)
    rows = [make_row(name, of, seed) for name in ("random", "mine") for of in ("nut", "bolt") for seed in (0, 1)]
    rows += [make_row("random", "capsule", image_auroc=None)]
    draw_roc(tmp_path / "roc.png", group_rows(rows)[0])
    sizes = {path.name: np.asarray(Image.open(path)).shape for path in tmp_path.rglob("*.png")}
    assert sizes["sheet.png"][1] > sizes["no_masks.png"][1]
    assert all(np.asarray(Image.open(path)).std() > 1 for path in tmp_path.rglob("*.png"))


def test_no_curve_without_an_auroc(tmp_path: Path, make_row: Callable[..., Row]) -> None:
    draw_roc(tmp_path / "roc.png", group_rows([make_row(image_auroc=None)])[0])
    assert not (tmp_path / "roc.png").exists()
