"""Sheets and ROC curves: what is drawn where, and what they say."""

from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import roc_auc_score, roc_curve

from tabzoo.benchmark import measure, report
from tabzoo.benchmark.options import Options
from tabzoo.benchmark.report import Panel, draw_grid, draw_roc, roc
from tabzoo.benchmark.run import run
from tabzoo.benchmark.summary import group_rows
from tabzoo.data.images import read_image, read_mask
from tabzoo.data.layouts import find_samples
from tabzoo.data.samples import TEST
from tabzoo.scores.rows import Row, read_rows


def test_roc_curve_has_the_area_of_its_scores() -> None:
    rng = np.random.default_rng(0)
    good, anomalous = rng.integers(0, 9, 40), rng.integers(3, 12, 30)  # with ties
    false, true = roc(good.tolist(), anomalous.tolist())
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    expected = roc_auc_score([0] * 40 + [1] * 30, [*good, *anomalous])
    assert np.trapezoid(true, false) == pytest.approx(expected)


@pytest.mark.parametrize("masked", [True, False])
def test_each_picture_is_in_its_place_on_a_sheet(masked: bool, drawn: list[Figure], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 16, 16, 3), np.uint8)
    masks = rng.integers(0, 2, (3, 16, 16), np.uint8)
    panels = [Panel(name, rng.integers(0, 256, (3, 16, 16), np.uint8)) for name in ("random", "mine")]
    path = tmp_path / "new" / "sheet.png"
    draw_grid(path, "the title", images, masks if masked else None, ["scratch", "hole", "good"], panels)
    expected = {"image": images}
    if masked:
        expected["mask"] = np.stack([255 * masks] * 3, axis=-1)
    expected |= {panel.title: matplotlib.colormaps["inferno"](panel.maps, bytes=True)[..., :3] for panel in panels}
    (figure,) = drawn
    (axis,) = figure.axes
    assert figure.get_suptitle() == "the title"
    assert [label.get_text() for label in axis.get_xticklabels()] == list(expected)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["scratch", "hole", "good"]
    canvas = np.asarray(axis.images[0].get_array())
    for x, column in zip(axis.get_xticks(), expected.values(), strict=True):
        for y, tile in zip(axis.get_yticks(), column, strict=True):
            left, top = (int(at // 22 * 22) for at in (x, y))  # 16 px and a gap of 6
            assert np.array_equal(canvas[top : top + 16, left : left + 16], tile)
    with Image.open(path) as picture:
        assert min(picture.size) > 300


def test_a_curve_for_each_backbone_and_seed(make_row: Callable[..., Row], drawn: list[Figure], tmp_path: Path) -> None:
    rows = [make_row(name, of, seed) for name in ("random", "mine") for of in ("nut", "bolt") for seed in (0, 1)]
    rows += [make_row("random", "capsule", image_auroc=None)]
    draw_roc(tmp_path / "roc.png", group_rows(rows)[0])
    (figure,) = drawn
    assert (tmp_path / "roc.png").is_file()
    assert (figure.get_supxlabel(), figure.get_supylabel()) == ("false positive rate", "true positive rate")
    panels = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_title() for axis in panels] == ["bolt", "nut"]
    assert [text.get_text() for text in panels[0].get_legend().get_texts()] == ["random", "mine"]
    for axis in panels:
        *curves, chance = axis.lines
        of_class = [row for row in rows if row.class_name == axis.get_title()]
        assert np.array_equal(chance.get_xydata(), [(0, 0), (1, 1)])
        assert [curve.get_color() for curve in curves] == ["C0", "C0", "C1", "C1"]
        for curve, row in zip(curves, of_class, strict=True):
            labels = [0] * len(row.scores["good"]) + [1] * len(row.scores["anomalous"])
            false, true, _ = roc_curve(labels, [*row.scores["good"], *row.scores["anomalous"]], drop_intermediate=False)
            assert np.allclose(curve.get_xydata(), np.stack([false, true], axis=1))


def test_a_curve_for_each_draw(make_row: Callable[..., Row], drawn: list[Figure], tmp_path: Path) -> None:
    draws = {"good": [[0.0, 1.0], [0.0, 0.0]], "anomalous": [[0.5], [1.0]]}
    draw_roc(tmp_path / "roc.png", group_rows([make_row(shots=2, scores=draws)])[0])
    (figure,) = drawn
    *curves, _chance = figure.axes[0].lines
    points = [[(0, 0), (0.5, 0), (0.5, 1), (1, 1)], [(0, 0), (0, 1), (1, 1)]]
    assert [curve.get_xydata().tolist() for curve in curves] == [[list(point) for point in one] for one in points]


def test_no_curve_without_an_auroc(tmp_path: Path, make_row: Callable[..., Row]) -> None:
    draw_roc(tmp_path / "roc.png", group_rows([make_row(image_auroc=None)])[0])
    assert not (tmp_path / "roc.png").exists()


def test_a_runs_sheet_shows_the_test_images_and_their_maps(
    options: Callable[..., Options], toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, torch.Tensor] = {}
    sheets: list[tuple[object, ...]] = []
    keep = measure.keep_maps
    monkeypatch.setattr(measure, "keep_maps", lambda *given: (kept.update({given[1]: given[3]}), keep(*given)))
    monkeypatch.setattr(report, "draw_grid", lambda *given: sheets.append(given))
    names = ["random:test_resnet", "random:resnet10t"]
    run(options(backbone=names, classes=["capsule"], seeds=[1, 0]), progress=False)
    ((path, title, images, masks, labels, panels),) = sheets  # of the first seed
    assert path == tmp_path / "out" / "maps" / "padim" / "capsule.png"
    assert "seed 1" in str(title)
    files = sorted((toy / "capsule" / "test").glob("*/*.png"))
    defects, good = ([file for file in files if (file.parent.name == "good") == which] for which in (False, True))
    shown = [*defects, *good]
    assert labels == [file.parent.name for file in shown]
    edge = slice(4, 36)  # 32 of 40 px
    for image, mask, file in zip(images, masks, shown, strict=True):  # type: ignore[call-overload]
        assert np.array_equal(image, read_image(file, size=40, resampling="lanczos")[edge, edge])
        mask_file = toy / "capsule" / "ground_truth" / file.parent.name / f"{file.stem}_mask.png"
        assert np.array_equal(
            mask, read_mask(mask_file, size=40)[edge, edge] if file in defects else np.zeros((32, 32))
        )
    rows = {row.backbone: row for row in read_rows(tmp_path / "out") if row.seed == 1}
    samples = find_samples(toy)
    tested = np.flatnonzero((samples.split == TEST) & (samples.class_ids == samples.classes.index("capsule")))
    order = [[samples.path(i) for i in tested.tolist()].index(file) for file in shown]
    for panel, name in zip(panels, names, strict=True):  # type: ignore[call-overload]
        row = rows[name]
        assert row.image_auroc is not None
        assert panel.title == f"{name}\nimage AUROC {100 * row.image_auroc:.1f}"
        maps = kept[row.key][order].numpy()
        low, high = maps.min(), np.quantile(maps, 0.995)
        levels = np.clip(255 * (maps - low) / (high - low), 0, 255)
        assert np.abs(panel.maps - levels).max() <= 0.51
