"""Metrics against scikit-learn and a brute-force AUPRO, and what is undefined."""

import math
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import label as label_regions
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from torch import Tensor

from tabzoo.benchmark.metrics import (
    aupro,
    average_precision,
    evaluate,
    f1_max,
    image_auroc,
    pixel_auroc,
)
from tabzoo.errors import InputError
from tabzoo.extras import how_to_install
from tabzoo.scores.rows import Metrics

PIXELS = ("pixel_auroc", "pixel_average_precision", "pixel_f1_max", "aupro")
IMAGES = ("image_auroc", "image_average_precision", "image_f1_max")


def planes(seed: int, *, levels: int | None, count: int = 6, side: int = 24) -> tuple[Tensor, Tensor]:
    """Maps that see some of the regions in the masks, with many equal values if `levels` is small."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(count, side, side, dtype=torch.uint8)
    for mask in masks[: count - 2]:
        for top, left, height, width in torch.randint(1, side // 2, (3, 4), generator=generator).tolist():
            mask[top : top + height, left : left + width] = 1
    masks[0, -1, -1] = 1  # a region of one pixel
    maps = (
        torch.randn(count, side, side, generator=generator) + masks * torch.rand(count, 1, 1, generator=generator) * 2
    )
    return (maps if levels is None else (maps * levels).round() / levels), masks


def brute_force_aupro(maps: NDArray[np.float32], masks: NDArray[np.uint8], max_fpr: float) -> float:
    """The curve's points one threshold at a time, then trapezoids up to the limit, the last one cut."""
    regions = [
        (i, labelled == number)
        for i, mask in enumerate(masks)
        for labelled, amount in [label_regions(mask, structure=np.ones((3, 3)))]
        for number in range(1, amount + 1)
    ]
    fpr, overlap = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        above = maps >= threshold
        fpr.append(float(above[masks == 0].mean()))
        overlap.append(float(np.mean([above[i][region].mean() for i, region in regions])))
    at_limit = np.interp(max_fpr, fpr, overlap)
    points = [(x, y) for x, y in zip(fpr, overlap, strict=True) if x < max_fpr] + [(max_fpr, float(at_limit))]
    area = sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(points))
    return area / max_fpr


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40))
def test_image_metrics_are_scikit_learns(items: list[tuple[int, bool]]) -> None:
    scores, labels = (torch.tensor(values) for values in zip(*items, strict=True))
    scores = scores.float()
    if len(set(labels.tolist())) < 2:
        with pytest.raises(InputError, match=r"no (good|anomalous) image"):
            image_auroc(scores, labels)
        return
    assert image_auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert average_precision(scores, labels) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    precision, recall, _ = precision_recall_curve(labels, scores)
    best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    assert f1_max(scores, labels) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("levels", [None, 2, 20])
def test_pixel_auroc_is_scikit_learns(levels: int | None) -> None:
    maps, masks = planes(1, levels=levels)
    expected = roc_auc_score(masks.flatten(), maps.flatten())
    assert pixel_auroc(maps, masks) == pytest.approx(expected, abs=1e-12)
    assert pixel_auroc(list(maps), list(masks)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("max_fpr", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("levels", [None, 1, 2, 20])
def test_aupro_is_the_brute_force_one(levels: int | None, max_fpr: float) -> None:
    for seed in range(3):
        maps, masks = planes(seed, levels=levels, side=12 if levels is None else 24)
        expected = brute_force_aupro(maps.numpy(), masks.numpy(), max_fpr)
        assert aupro(maps, masks, max_fpr=max_fpr) == pytest.approx(expected, abs=1e-9)


def test_aupro_of_known_maps() -> None:
    masks = torch.zeros(2, 10, 10)
    masks[0, :2, :2] = masks[0, 5:, 5:] = masks[1, 0, 0] = 1  # three regions, the first two in one image
    masks[1, 1, 1] = 1  # touches the third at a corner: the same region
    assert aupro(masks.clone(), masks) == 1.0
    assert aupro(1 - masks, masks) == 0.0
    assert aupro(masks * torch.tensor([1.0, 0.0]).view(2, 1, 1) + 1e-3 * (1 - masks), masks) == pytest.approx(2 / 3)
    # Nothing is known: the overlap grows with the false positive rate, to 0.3 at 0.3.
    assert aupro(torch.zeros(2, 10, 10), masks) == pytest.approx(0.15)


def test_planes_of_different_sizes() -> None:
    (small_maps, small_masks), (large_maps, large_masks) = planes(0, levels=8), planes(1, levels=8, side=40)
    maps, masks = [*small_maps, *large_maps], [*small_masks, *large_masks]
    flat_maps, flat_masks = (torch.cat([plane.flatten() for plane in group]) for group in (maps, masks))
    assert pixel_auroc(maps, masks) == pytest.approx(roc_auc_score(flat_masks, flat_maps), abs=1e-12)
    # Where there is nothing, larger planes change the rate of false alarms alone: put all into planes of one size.
    padded = [F.pad(plane, (0, 40 - plane.shape[1], 0, 40 - plane.shape[0]), value=-99) for plane in maps]
    padded_masks = [F.pad(plane, (0, 40 - plane.shape[1], 0, 40 - plane.shape[0])) for plane in masks]
    share = sum(int((mask == 0).sum()) for mask in masks) / sum(int((mask == 0).sum()) for mask in padded_masks)
    expected = aupro(torch.stack(padded), torch.stack(padded_masks), max_fpr=0.3 * share)
    assert aupro(maps, masks) == pytest.approx(expected, abs=1e-9)


def references(scores: Tensor, labels: Tensor, maps: Tensor, masks: Tensor) -> dict[str, float]:
    """All measures by scikit-learn, and AUPRO by brute force up to 0.3."""
    values = {"aupro": brute_force_aupro(maps.numpy(), masks.numpy(), 0.3)}
    for what, truth, ranked in (("image", labels, scores), ("pixel", masks.flatten(), maps.flatten())):
        precision, recall, _ = precision_recall_curve(truth, ranked)
        values[f"{what}_auroc"] = roc_auc_score(truth, ranked)
        values[f"{what}_average_precision"] = average_precision_score(truth, ranked)
        values[f"{what}_f1_max"] = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    return values


def measures(found: Metrics) -> dict[str, float | None]:
    return {name: getattr(found, name) for name in (*IMAGES, *PIXELS)}


def test_evaluate_gathers_all() -> None:
    maps, masks = planes(3, levels=8, count=10)
    labels, scores = masks.amax(dim=(1, 2)), maps.mean(dim=(1, 2))
    found = evaluate(scores, labels, maps, masks)
    assert found.undefined_because == {}
    assert measures(found) == pytest.approx(references(scores, labels, maps, masks), abs=1e-9)


@pytest.mark.parametrize("empty", [False, True])
def test_anomalous_images_without_a_mask_are_left_out_of_the_pixels(empty: bool) -> None:
    """Also those of whose masks nothing is left at this size."""
    maps, masks = planes(4, levels=8)
    labels, scores = masks.amax(dim=(1, 2)), maps.amax(dim=(1, 2))
    has_mask = labels.bool().clone()
    has_mask[1] = empty
    masks[1] *= not empty
    kept = [0, 2, 3, 4, 5]
    found = measures(evaluate(scores, labels, maps, masks, has_mask=has_mask))
    expected = references(scores, labels, maps, masks)
    expected |= {
        name: value for name, value in references(scores, labels, maps[kept], masks[kept]).items() if name in PIXELS
    }
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("change", "undefined", "reason"),
    [
        ({"labels": torch.zeros(6)}, IMAGES, "no anomalous image"),
        ({"labels": torch.zeros(6)}, PIXELS, "no anomalous image"),
        ({"labels": torch.ones(6)}, IMAGES, "no good image"),
        ({"masks": None}, PIXELS, "no mask for any of 4 anomalous images"),
        ({"maps": None}, PIXELS, "no mask for any of 4 anomalous images"),
        ({"has_mask": torch.zeros(6, dtype=torch.bool)}, PIXELS, "no mask for any of 4 anomalous images"),
        ({"masks": torch.zeros(6, 24, 24)}, PIXELS, "the masks of all 4 anomalous images are empty at this size"),
        ({"masks": torch.ones(6, 24, 24)}, PIXELS, "no good pixel"),
        ({"maps": torch.full((6, 24, 24), math.nan)}, PIXELS, "pixel scores that are not finite numbers"),
        ({"image_scores": torch.full((6,), math.inf)}, IMAGES, "image scores that are not finite numbers"),
    ],
)
def test_what_is_undefined_says_why(change: dict[str, Tensor], undefined: tuple[str, ...], reason: str) -> None:
    maps, masks = planes(5, levels=8)
    given = {"image_scores": maps.amax(dim=(1, 2)), "labels": masks.amax(dim=(1, 2)), "maps": maps, "masks": masks}
    found = evaluate(**(given | change))
    for name in undefined:
        assert getattr(found, name) is None
        assert found.undefined_because[name] == reason
    for name in {*PIXELS, *IMAGES} - set(found.undefined_because):
        assert 0 <= getattr(found, name) <= 1


def test_without_scipy_only_aupro_is_undefined(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, masks = planes(5, levels=8)
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    found = evaluate(maps.amax(dim=(1, 2)), masks.amax(dim=(1, 2)), maps, masks)
    assert found.undefined_because == {"aupro": f"AUPRO needs SciPy: {how_to_install('benchmark')}"}
    assert found.aupro is None
    assert found.pixel_auroc == pytest.approx(roc_auc_score(masks.flatten(), maps.flatten()), abs=1e-12)


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    maps, masks = planes(6, levels=8)
    labels, scores = masks.amax(dim=(1, 2)), maps.amax(dim=(1, 2))
    expected = evaluate(scores, labels, maps, masks)
    found = evaluate(*(value.cuda() for value in (scores, labels, maps, masks)))
    for name in (*IMAGES, *PIXELS):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-6)
