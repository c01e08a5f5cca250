"""How well scores separate anomalous images and pixels from good ones.

Each metric is an area under a curve of a fraction of anomalous items over the false positive rate (FPR), or a count at a
threshold. An anomalous item contributes to such a curve between the FPR of the good items with higher scores and that of the
good items with at least as high scores. One sort of the good items gives both, and so exact areas, ties included.

AUPRO follows MVTec AD's evaluation: connected regions (8 neighbours) of all images of a class together, all with the same
weight; FPR over all pixels outside regions, including those of good images; up to an FPR of 0.3, scaled to 1.
Public codes compute other quantities under this name, so their numbers can't be compared with these:

- RD4AD's takes 200 thresholds, stops at the last FPR below 0.3 without interpolation and scales by it, and averages over
  images: 0.855 where this one is 0.888 on the same maps.
- SimpleNet's also widens what was found by 5 x 5 pixels: 0.925 where this one is 0.844.
- MVTec AD's own evaluation takes pixels with equal scores one after the other: 0.255 where this one is 0.323, on maps with
  many ties; without ties both are equal.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from tabzoo.errors import InputError
from tabzoo.extras import how_to_install
from tabzoo.scores.rows import METRICS, Metrics

__all__ = [
    "aupro",
    "average_precision",
    "evaluate",
    "f1_max",
    "image_auroc",
    "not_empty",
    "pixel_auroc",
]

Planes: TypeAlias = Tensor | Sequence[Tensor]
"""A plane for each image: [N, H, W], or tensors [H, W] of any sizes."""


def image_auroc(scores: Tensor, labels: Tensor) -> float:
    """Area under the ROC curve.

    Args:
        scores: Of each image, [N].
        labels: 0 good, 1 anomalous, [N], both present.

    Raises:
        InputError: All labels are equal, or a score is not a finite number.
    """
    return _Ranking.of(scores, labels, "image").area()


def average_precision(scores: Tensor, labels: Tensor) -> float:
    """Average precision, the sum over thresholds of precision times gain of recall; arguments as for `image_auroc`."""
    return _Ranking.of(scores, labels, "image").average_precision()


def f1_max(scores: Tensor, labels: Tensor) -> float:
    """The largest F1 score over all thresholds, selected on these same labels; arguments as for `image_auroc`."""
    return _Ranking.of(scores, labels, "image").f1_max()


def pixel_auroc(maps: Planes, masks: Planes) -> float:
    """Area under the ROC curve of all pixels, exact.

    Args:
        maps: Anomaly maps.
        masks: 0 or 1 (anomalous) for each pixel of the maps.

    Raises:
        InputError: No anomalous pixel or no good one, or a score is not a finite number.
    """
    return _Ranking.of(_flat(maps), _flat(masks), "pixel").area()


def aupro(maps: Planes, masks: Planes, *, max_fpr: float = 0.3) -> float:
    """Area under the curve of per-region overlap, regions pooled over all images; arguments as for `pixel_auroc`.

    Args:
        maps: Anomaly maps.
        masks: 0 or 1 (anomalous) for each pixel of the maps.
        max_fpr: False positive rate up to which the area is taken; it is scaled by it.

    Raises:
        InputError: No anomalous pixel or no good one, or a score is not a finite number.
    """
    return _Ranking.of(_flat(maps), _flat(masks), "pixel").area(weights=region_weights(masks), max_fpr=max_fpr)


def region_weights(masks: Planes) -> Tensor:
    """Of each anomalous pixel, in order: 1 / (its region's area x number of regions), [P] float64."""
    try:
        from scipy.ndimage import label
    except ModuleNotFoundError as error:
        raise InputError(f"AUPRO needs SciPy: {how_to_install('benchmark')}") from error
    areas = []
    for mask in masks:
        anomalous = mask.cpu().numpy() != 0
        regions = label(anomalous, structure=np.ones((3, 3)))[0][anomalous]
        areas.append(1 / np.bincount(regions)[regions] if len(regions) else np.zeros(0))
    weights = torch.from_numpy(np.concatenate(areas))
    return weights / weights.sum()  # The weights of all pixels add up to 1.


class _Ranking(NamedTuple):
    """Anomalous items, and how many items score higher than each of them.

    Attributes:
        num_good: Number of good items.
        higher: Good items that score higher, [P] int64.
        level: Good items that score the same, [P] int64.
        recalled: Anomalous items that score at least as high, [P] int64.
    """

    num_good: int
    higher: Tensor
    level: Tensor
    recalled: Tensor

    @classmethod
    def of(cls, scores: Tensor, labels: Tensor, what: str) -> "_Ranking":
        anomalous = labels != 0
        if not bool(torch.isfinite(scores).all()):
            raise InputError(f"{what} scores that are not finite numbers")
        positives, negatives = scores[anomalous].contiguous(), _sorted(scores[~anomalous])
        if not len(positives) or not len(negatives):
            raise InputError(f"no {'anomalous' if len(negatives) else 'good'} {what}")
        not_higher = torch.searchsorted(negatives, positives, right=True)
        below = torch.searchsorted(negatives, positives)
        recalled = len(positives) - torch.searchsorted(_sorted(positives), positives)
        return cls(len(negatives), len(negatives) - not_higher, not_higher - below, recalled)

    def metrics(self, prefix: str) -> dict[str, float]:
        """The metrics that images and pixels have in common, by their names in `Metrics`."""
        return {
            f"{prefix}_auroc": self.area(),
            f"{prefix}_average_precision": self.average_precision(),
            f"{prefix}_f1_max": self.f1_max(),
        }

    def area(self, *, weights: Tensor | None = None, max_fpr: float = 1.0) -> float:
        """Area under the curve of the (weighted) fraction of anomalous items, up to a false positive rate, divided by it."""
        start, width = self.higher.double() / self.num_good, self.level.double() / self.num_good
        reached = (max_fpr - start).clamp(min=0)
        # An item's contribution rises on [start, start + width], a triangle, and is constant afterwards, a rectangle.
        on_slope = torch.minimum(reached, width)
        areas = torch.where(width > 0, on_slope**2 / (2 * width), 0) + (reached - on_slope)
        mean = areas.mean() if weights is None else (areas * weights.to(areas.device)).sum()
        return min(1.0, float(mean) / max_fpr)  # Rounding can make the weights add up to a little more than 1.

    def average_precision(self) -> float:
        return float((self.recalled / (self.recalled + self.higher + self.level).double()).mean())

    def f1_max(self) -> float:
        # Between the scores of two anomalous items F1 only decreases, so their scores are the thresholds to try.
        selected = self.recalled + self.higher + self.level
        return float((2 * self.recalled / (selected + len(selected)).double()).max())


def _sorted(values: Tensor) -> Tensor:
    # NumPy sorts several times faster on a CPU.
    return torch.from_numpy(np.sort(values.numpy())) if values.device.type == "cpu" else values.sort().values


def _flat(planes: Planes) -> Tensor:
    return planes.flatten() if isinstance(planes, Tensor) else torch.cat([plane.flatten() for plane in planes])


def evaluate(
    image_scores: Tensor,
    labels: Tensor,
    maps: Planes | None = None,
    masks: Planes | None = None,
    *,
    has_mask: Tensor | None = None,
    max_fpr: float = 0.3,
) -> Metrics:
    """All metrics of one class.

    Args:
        image_scores: Of each test image, [N].
        labels: 0 good, 1 anomalous, [N].
        maps: Anomaly maps; without them, pixel metrics are undefined.
        masks: 0 or 1 for each pixel of the maps.
        has_mask: Whether an image has a mask, [N]; by default all have. Pixel metrics leave out anomalous images without a
            mask or with an empty one: it is not known which of their pixels are good.
        max_fpr: Of AUPRO.
    """
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    try:
        values |= _Ranking.of(image_scores, labels, "image").metrics("image")
    except InputError as error:
        reasons |= {name: str(error) for name in METRICS if name.startswith("image_")}
    try:
        maps, masks = _with_masks(labels, maps, masks, has_mask)
        ranking = _Ranking.of(_flat(maps), _flat(masks), "pixel")
        values |= ranking.metrics("pixel")
        values["aupro"] = ranking.area(weights=region_weights(masks), max_fpr=max_fpr)
    except InputError as error:
        reasons |= {name: str(error) for name in METRICS if not name.startswith("image_") and name not in values}
    return Metrics(**values, undefined_because=reasons)


def _with_masks(
    labels: Tensor, maps: Planes | None, masks: Planes | None, has_mask: Tensor | None
) -> tuple[Planes, Planes]:
    """Maps and masks of the images for which it is known which pixels are anomalous."""
    anomalous = labels.cpu() != 0
    if not anomalous.any():
        raise InputError("no anomalous image")
    with_mask = anomalous if has_mask is None else anomalous & has_mask.cpu()
    if maps is None or masks is None or not with_mask.any():
        raise InputError(f"no mask for any of {int(anomalous.sum())} anomalous images")
    known = with_mask & not_empty(masks)
    if not known.any():
        raise InputError(f"the masks of all {int(with_mask.sum())} anomalous images are empty at this size")
    if bool((known == anomalous).all()):
        return maps, masks
    keep = (known | ~anomalous).nonzero().flatten().tolist()
    return [maps[i] for i in keep], [masks[i] for i in keep]


def not_empty(masks: Planes) -> Tensor:
    """Whether each has an anomalous pixel, bool [N]."""
    return torch.tensor([bool(mask.any()) for mask in masks])
