"""Accuracy, F1 of classes and of basic patterns, and how certain a difference of two backbones is."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["DRAWS", "Agreement", "compare", "confusion_matrix", "evaluate", "f1_of_patterns"]

DRAWS = 1000
Ids = NDArray[np.int64]
Array = NDArray[np.float64]


class Agreement(NamedTuple):
    """How predictions agree with the truth, in [0, 1].

    Attributes:
        accuracy: Fraction of the images whose class is right.
        macro_f1: Mean over the classes.
        f1: Of each class, [K]; 0 for a class of which nothing is right.
    """

    accuracy: float
    macro_f1: float
    f1: Array


def confusion_matrix(truth: Ids, predicted: Ids, classes: int) -> NDArray[np.int64]:
    """Number of images of each true class (row) that are predicted as each class (column), [K, K]."""
    return np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


def evaluate(truth: Ids, predicted: Ids, classes: int) -> Agreement:
    """Accuracy and F1; the mean is over the classes that occur in either."""
    matrix = confusion_matrix(truth, predicted, classes).astype(np.float64)
    right, total = np.diag(matrix), matrix.sum(axis=0) + matrix.sum(axis=1)
    f1 = np.divide(2 * right, total, out=np.zeros(classes), where=total > 0)
    return Agreement(float(right.sum() / len(truth)), float(f1[total > 0].mean()), f1)


def f1_of_patterns(truth: Ids, predicted: Ids, patterns: Mapping[str, NDArray[np.bool_]]) -> dict[str, float | None]:
    """F1 of each basic pattern: whether the predicted class has it, against whether the true class has it.

    Args:
        truth: Class of each image, [N].
        predicted: The same.
        patterns: Pattern to the classes that have it, [K].

    Returns:
        None for a pattern that no class has.
    """
    found: dict[str, float | None] = {}
    for name, having in patterns.items():
        true, said = having[truth], having[predicted]
        total = int(true.sum() + said.sum())
        found[name] = float(2 * (true & said).sum() / total) if total else None
    return found


def compare(truth: Ids, first: Ids, second: Ids, classes: int, *, seed: int) -> tuple[Array, Array]:
    """Differences of accuracy and of macro-F1, second minus first, in paired bootstrap samples of the test images.

    The images of each class are resampled with replacement, the same ones for both.

    Args:
        truth: Class of each test image, [N].
        first: Predictions of the baseline, [N].
        second: Predictions of the other, [N].
        classes: Number of classes.
        seed: Of the draws.

    Returns:
        [DRAWS] each.
    """
    weights = _resampled(truth, np.random.default_rng([seed, len(truth), classes]))
    scores = [_weighted(weights, truth, predicted, classes) for predicted in (first, second)]
    return scores[1][0] - scores[0][0], scores[1][1] - scores[0][1]


def _resampled(truth: Ids, rng: np.random.Generator) -> Array:
    """How often each image occurs in each sample, [DRAWS, N]."""
    weights = np.zeros((DRAWS, len(truth)))
    for class_id in np.unique(truth):
        rows = np.flatnonzero(truth == class_id)
        weights[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=DRAWS)
    return weights


def _weighted(weights: Array, truth: Ids, predicted: Ids, classes: int) -> tuple[Array, Array]:
    """Accuracy and macro-F1 in each sample, [DRAWS] each."""
    true, said = np.eye(classes)[truth], np.eye(classes)[predicted]
    right, total = weights @ (true * said), weights @ (true + said)
    f1 = np.divide(2 * right, total, out=np.zeros_like(right), where=total > 0)
    return right.sum(axis=1) / weights.sum(axis=1), f1.sum(axis=1) / (total > 0).sum(axis=1)
