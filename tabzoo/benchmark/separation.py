"""How well a backbone's features separate normal images from defects, class by class, or several classes from each other.

- Silhouette of the two groups (Rousseeuw, 1987): -1 to 1, 0 where they overlap completely.
- Balanced accuracy of the 5 nearest neighbours, under stratified cross-validation: 0.5 is chance.
- AUROC of a linear probe, under the same cross-validation: a logistic regression (L2, C = 1) on features that are standardised
  by the training folds. It never trains on an image that it tests. The interval is the corrected one for repeated
  cross-validation (Nadeau and Bengio, Inference for the generalization error, 2003), since folds share training images.
- Fréchet distance of the normal images to other groups, all three of the same size, since the distance shrinks with more
  images. Networks have features of different scales: relative distances, divided by the variance of the normal images, can be
  compared between them.

Distances are Euclidean; only the probe standardises features. Several classes are compared by the first two numbers alone.
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tabzoo.benchmark.fid import frechet_distance
from tabzoo.benchmark.groups import DEFECT, GROUPS, NORMAL, SOURCE, SYNTHETIC
from tabzoo.errors import count

__all__ = [
    "FOLDS",
    "REPEATS",
    "Interval",
    "Separation",
    "all_equal",
    "average",
    "corrected_interval",
    "difference",
    "separation",
    "separation_of_classes",
]

FOLDS, REPEATS = 5, 10
_NEIGHBOURS = 5
_WANTED = {NORMAL: "good image", SOURCE: "good training image", SYNTHETIC: "synthetic anomaly", DEFECT: "defect"}
_MANY = {SYNTHETIC: "synthetic anomalies"}
Array = NDArray[np.float64]
Ids = NDArray[np.int64]


class Interval(NamedTuple):
    """A mean over folds and its 95 % interval."""

    mean: float
    low: float
    high: float


def _number(about: str) -> Any:
    return field(default=None, metadata={"about": about})


@dataclass(frozen=True, kw_only=True)
class Separation:
    """Of one class, or averaged over classes; None where a number is undefined, and `undefined_because` says why."""

    images: Mapping[str, int]
    """Number of images in each group."""
    silhouette: float | None = _number("silhouette")
    knn_accuracy: float | None = _number("balanced accuracy of the nearest neighbours")
    probe: Array | None = None
    """AUROC of the linear probe in each fold, [REPEATS, folds]."""
    frechet_source: float | None = _number("normal to other good images")
    frechet_synthetic: float | None = _number("normal to synthetic anomalies")
    frechet_defect: float | None = _number("normal to real defects")
    relative_frechet_source: float | None = _number("the same, relative to the variance of the normal images")
    relative_frechet_synthetic: float | None = _number("the same")
    relative_frechet_defect: float | None = _number("the same")
    undefined_because: str = ""

    @property
    def probe_auroc(self) -> Interval | None:
        """Mean AUROC over the folds."""
        return None if self.probe is None else corrected_interval(self.probe, bounds=(0.0, 1.0))


NUMBERS = tuple(entry.name for entry in fields(Separation) if "about" in entry.metadata)


def separation(features: Mapping[str, Array], *, seed: int) -> Separation:
    """The numbers of one class.

    Args:
        features: Group to its features, [n, D]; groups may be missing.
        seed: Of the folds, and of the draw of defects for distances.
    """
    sizes = {group: len(features.get(group, ())) for group in GROUPS}
    lacking = [group for group in (NORMAL, DEFECT, SYNTHETIC) if sizes[group] < 2]
    reasons = [f"{count(sizes[group], _WANTED[group], _MANY.get(group))}; at least 2 needed" for group in lacking]
    found: dict[str, Any] = {}
    if sizes[NORMAL] >= 2 and sizes[DEFECT] >= 2:
        found |= _two_groups(features[NORMAL], features[DEFECT], seed)
    if sizes[NORMAL] >= 2:
        variance = float(features[NORMAL].var(axis=0, ddof=1).sum())
        if all_equal(features[NORMAL]):
            variance = 0.0  # not what rounding leaves of it
            reasons.append("the normal images all have the same features")
        found |= _distances(features, sizes, variance, seed)
    return Separation(images=sizes, **found, undefined_because=", ".join(reasons))


def all_equal(features: Array) -> bool:
    """Whether all images, at least one, have the same features, [N, D]."""
    return bool((features == features[0]).all())


def average(ones: Sequence[Separation]) -> Separation:
    """Averages over the classes for which all numbers are defined; without such a class, over those that have the number."""
    ones = [one for one in ones if not one.undefined_because] or ones
    values: dict[str, Any] = {}
    for name in NUMBERS:
        defined = [value for one in ones if (value := getattr(one, name)) is not None]
        values[name] = float(np.mean(defined)) if defined else None
    probes = [one.probe for one in ones if one.probe is not None]
    folds = min((probe.shape[1] for probe in probes), default=0)
    # Of a class with fewer folds than the others, all classes take as many: the interval needs one number for each fold.
    stacked = np.mean([probe[:, :folds] for probe in probes], axis=0) if probes else None
    images = {group: sum(one.images[group] for one in ones) for group in GROUPS}
    return Separation(images=images, probe=stacked, **values)


def difference(first: Separation, second: Separation) -> Interval | None:
    """AUROC of the second's linear probe minus that of the first's, on the same folds."""
    if first.probe is None or second.probe is None:
        return None
    return corrected_interval(second.probe - first.probe)


def corrected_interval(values: Array, *, bounds: tuple[float, float] = (-math.inf, math.inf)) -> Interval:
    """Mean and 95 % interval of values of repeated cross-validation, [repeats, folds].

    Args:
        values: One for each fold.
        bounds: Least and largest possible value.
    """
    from scipy.stats import t

    number, folds = values.size, values.shape[1]
    # 1 / number alone takes the folds as independent; a test fold is 1 / (folds - 1) of its training images.
    error = math.sqrt((1 / number + 1 / (folds - 1)) * float(values.var(ddof=1)))
    mean, half = float(values.mean()), float(t.ppf(0.975, number - 1)) * error
    return Interval(mean, max(bounds[0], mean - half), min(bounds[1], mean + half))


def separation_of_classes(values: Array, class_ids: Ids, *, seed: int) -> tuple[float | None, float | None]:
    """Silhouette of several classes, and balanced accuracy of the nearest neighbours, where one over their number is chance.

    Args:
        values: Features, [N, D].
        class_ids: Class of each image, [N]. Classes with a single image are left out.
        seed: Of the folds.

    Returns:
        None, None if fewer than two classes have two images.
    """
    several = np.bincount(class_ids)[class_ids] > 1
    _, labels = np.unique(class_ids[several], return_inverse=True)
    if labels.size == 0 or labels.max() < 1:
        return None, None
    return _silhouette(values[several], labels), _knn_accuracy(values[several], labels, seed)


def _two_groups(normal: Array, defects: Array, seed: int) -> dict[str, Any]:
    values, labels = np.concatenate([normal, defects]), np.repeat([0, 1], [len(normal), len(defects)])
    return {
        "silhouette": _silhouette(values, labels),
        "knn_accuracy": _knn_accuracy(values, labels, seed),
        "probe": _probe(values, labels, seed),
    }


def _silhouette(values: Array, labels: Ids) -> float:
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(values, labels))


def _splits(values: Array, labels: Ids, seed: int) -> Iterator[list[tuple[Ids, Ids]]]:
    """Training and test images of each fold, in each repeat; fewer folds where a class has fewer images."""
    from sklearn.model_selection import StratifiedKFold

    folds = min(FOLDS, int(np.bincount(labels).min()))
    for repeat in range(REPEATS):
        yield list(StratifiedKFold(folds, shuffle=True, random_state=(seed + repeat) % 2**31).split(values, labels))


def _knn_accuracy(values: Array, labels: Ids, seed: int) -> float:
    """Balanced accuracy of the nearest neighbours, averaged over the repeats."""
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.neighbors import KNeighborsClassifier

    accuracies = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The number of unique classes")  # with two images of many classes
        for folds in _splits(values, labels, seed):
            predicted = np.empty_like(labels)
            for train, test in folds:
                nearest = KNeighborsClassifier(min(_NEIGHBOURS, len(train)))
                predicted[test] = nearest.fit(values[train], labels[train]).predict(values[test])
            accuracies.append(float(balanced_accuracy_score(labels, predicted)))
    return float(np.mean(accuracies))


def _probe(values: Array, labels: Ids, seed: int) -> Array:
    """AUROC of the linear probe in each fold, [REPEATS, folds]."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    aurocs = []
    for folds in _splits(values, labels, seed):
        of_repeat = []
        for train, test in folds:
            linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
            scores = linear.fit(values[train], labels[train]).decision_function(values[test])
            of_repeat.append(float(roc_auc_score(labels[test], scores)))
        aurocs.append(of_repeat)
    return np.array(aurocs)


def _distances(features: Mapping[str, Array], sizes: Mapping[str, int], variance: float, seed: int) -> dict[str, float]:
    """Distances of the normal images to the other groups; relative ones where the variance is not 0."""
    compared = [group for group in (SOURCE, SYNTHETIC, DEFECT) if sizes[group] >= 2]
    number = min((sizes[group] for group in compared), default=0)
    found: dict[str, float] = {}
    for group in compared:
        chosen = np.sort(np.random.default_rng(seed).permutation(sizes[group])[:number])
        found[f"frechet_{group}"] = distance = _frechet(features[NORMAL], features[group][chosen])
        if variance > 0:
            found[f"relative_frechet_{group}"] = distance / variance
    return found


def _frechet(first: Array, second: Array) -> float:
    """The Fréchet distance, computed in the space that the images span: with 50 images of 1,280 features, 100 times faster."""
    values = np.concatenate([first, second])
    values = values - values.mean(axis=0)
    left, scales, _ = np.linalg.svd(values, full_matrices=False)
    spanned = torch.from_numpy(left * scales)  # distances between images are the same in it
    return frechet_distance(spanned[: len(first)], spanned[len(first) :])
