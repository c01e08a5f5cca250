"""How scores of classes and seeds become one number: for the benchmark's tables and for model cards alike."""

from collections.abc import Iterable, Mapping
from statistics import fmean

from tabzoo.scores.rows import Row

__all__ = ["averages_by_seed", "scores_by_class"]


def averages_by_seed(scores: Mapping[str, Mapping[int, float | None]]) -> list[float]:
    """The average over classes for each seed.

    Args:
        scores: Class to seed to score, None where it is undefined.

    Returns:
        One average for each seed that all classes have and for which none of the scores is undefined, in the order of the
        seeds. An average over seeds that only some classes have would change with the choice of classes.
    """
    if not scores:
        return []
    seeds = set.intersection(*(set(by_seed) for by_seed in scores.values()))
    values = [[by_seed[seed] for by_seed in scores.values()] for seed in sorted(seeds)]
    return [
        fmean(defined) for of_seed in values if len(defined := [v for v in of_seed if v is not None]) == len(of_seed)
    ]


def scores_by_class(rows: Iterable[Row], metric: str) -> dict[str, dict[int, float | None]]:
    """Class to seed to score, of rows that differ in class and seed alone."""
    scores: dict[str, dict[int, float | None]] = {}
    for row in rows:
        scores.setdefault(row.class_name, {})[row.seed] = getattr(row, metric)
    return scores
