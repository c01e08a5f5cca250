"""How certain a difference of image AUROCs is: a paired bootstrap over the test images.

The good and the anomalous images of a class are resampled with replacement, the same ones for both backbones and, where
the test images are the same, for all seeds. Seeds are not resampled: tables show their standard deviation instead.
"""

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tabzoo.scores.rows import Row

__all__ = ["DRAWS", "Array", "auroc_differences", "auroc_interval", "interval", "wins"]

DRAWS = 1000
Array = NDArray[np.float64]


def auroc_differences(pairs: Sequence[tuple[Row, Row]]) -> Array | None:
    """Differences of image AUROC, second minus first, mean over the pairs, in each of `DRAWS` bootstrap samples.

    Args:
        pairs: Rows of one class, a pair for each seed.

    Returns:
        [DRAWS], or None when an AUROC is undefined or a pair was not tested on the same images.
    """
    by_images: dict[tuple[str, int | None], list[Array]] = {}
    for first, second in pairs:
        if first.test_images != second.test_images or first.image_auroc is None or second.image_auroc is None:
            return None
        by_images.setdefault(first.test_images, []).append(wins(second) - wins(first))
    if not by_images:
        return None
    total = np.zeros(DRAWS)
    for images, differences in by_images.items():
        rng = np.random.default_rng(zlib.crc32(repr(images).encode()))  # does not depend on what else is in the table
        total += len(differences) * _resampled(np.mean(differences, axis=0), rng)
    return total / len(pairs)


def auroc_interval(rows: Sequence[Row]) -> tuple[float, float] | None:
    """95 % interval of the image AUROC, averaged over seeds and then over classes; None where no class has one.

    Args:
        rows: Of one backbone, method and setting: a row for each class and seed.
    """
    by_class: dict[str, list[Row]] = {}
    for row in rows:
        if row.image_auroc is not None:
            by_class.setdefault(row.class_name, []).append(row)
    if not by_class:
        return None
    total = np.zeros(DRAWS)
    for name, of_class in by_class.items():
        rng = np.random.default_rng(zlib.crc32(name.encode(errors="replace")))
        by_images: dict[tuple[int, ...], list[Array]] = {}
        for row in of_class:
            by_images.setdefault((won := wins(row)).shape, []).append(won)
        total += sum(len(won) * _resampled(np.mean(won, axis=0), rng) for won in by_images.values()) / len(of_class)
    return interval(total / len(by_class))


def interval(draws: Array) -> tuple[float, float]:
    """The middle 95 % of the draws."""
    low, high = np.percentile(draws, (2.5, 97.5))
    return float(low), float(high)


def wins(row: Row) -> Array:
    """1 where an anomalous image scores above a good one, 1/2 at a tie, [A, G], averaged over draws of support images.

    The mean is the AUROC, or its average over the draws.
    """
    good, anomalous = (np.atleast_2d(row.scores[kind]) for kind in ("good", "anomalous"))
    good, anomalous = good[:, None, :], anomalous[:, :, None]
    won: Array = ((anomalous > good) + 0.5 * (anomalous == good)).mean(axis=0)
    return won


def _resampled(won: Array, rng: np.random.Generator) -> Array:
    """The mean of `won` [A, G] with rows and columns resampled with replacement, [DRAWS]."""
    counts = [rng.multinomial(size, np.full(size, 1 / size), size=DRAWS) for size in won.shape]
    drawn: Array = ((counts[0] @ won) * counts[1]).sum(axis=1) / won.size
    return drawn
