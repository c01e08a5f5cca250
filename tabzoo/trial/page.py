"""The page of a trial: one HTML file that loads nothing."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import torch

from tabzoo.benchmark.report import MAPS
from tabzoo.machine import hardware, versions
from tabzoo.pages import embed_file, interval_plot, write_html
from tabzoo.plain import for_lines, for_path
from tabzoo.scores.compare import Comparison
from tabzoo.training.recipe import Recipe
from tabzoo.trial.folder import BENCHMARK, PAGE
from tabzoo.trial.split import Split
from tabzoo.trial.verdict import Verdict

__all__ = ["Page", "Score", "write_page"]

_GRIDS = 3
"""Pictures of anomaly maps; each takes some hundred kilobytes."""


class Score(NamedTuple):
    """Means over seeds and training runs for a class and a method, in [0, 1], or None where a metric is undefined."""

    class_name: str
    method: str
    start: float | None
    result: float | None
    start_pixel: float | None
    result_pixel: float | None


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a page shows.

    Attributes:
        verdict: On top.
        by_class: Class to its comparison.
        scores: A line of the table each.
        notes: What was decided or left out.
        data: Folder of the photos, as given.
        split: How they were used.
        recipe: What the results were trained with.
        device: Where it was computed.
        texts_sha256: Of the text features; None with an objective without texts.
        start_sha256: Of the start's weights, as rows have it.
        minutes: That the trial took.
    """

    verdict: Verdict
    by_class: Mapping[str, Comparison]
    scores: Sequence[Score]
    notes: Sequence[str]
    data: str
    split: Split
    recipe: Recipe
    device: torch.device
    texts_sha256: str | None
    start_sha256: str
    minutes: float


def write_page(page: Page, folder: Path) -> None:
    """Writes index.html.

    Args:
        page: What it shows.
        folder: The trial's; grids of anomaly maps are taken from its benchmark.

    Raises:
        WriteError: It can't be written.
    """
    write_html(
        folder / PAGE,
        "tabzoo.trial/page.html",
        page=page,
        numbers=page.verdict.numbers,
        plot=interval_plot([("all classes", _comparison(page)), *page.by_class.items()]),
        grids=_grids(page, folder / BENCHMARK / MAPS),
        yaml=for_lines(page.recipe.to_yaml()),
        machine={"device": hardware(page.device), "system": platform.platform(), **versions()},
    )


def _comparison(page: Page) -> Comparison:
    """The comparison that decided, which stands in the verdict's numbers."""
    return Comparison(**{entry.name: page.verdict.numbers[entry.name] for entry in fields(Comparison)})


def _grids(page: Page, maps: Path) -> list[tuple[str, str]]:
    """Name and data address of some grids of anomaly maps, if they were drawn."""
    method = page.scores[0].method
    paths = [(name, maps / method / f"{for_path(name)}.png") for name in page.by_class]
    return [(name, embed_file(path)) for name, path in paths if path.is_file()][:_GRIDS]
