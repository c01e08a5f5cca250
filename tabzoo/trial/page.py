"""The page of a trial: one HTML file that loads nothing."""

import base64
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import torch
from jinja2 import Environment, StrictUndefined

from tabzoo.benchmark.report import MAPS
from tabzoo.machine import hardware, versions
from tabzoo.plain import for_lines, for_path, for_terminal
from tabzoo.scores.compare import Comparison
from tabzoo.system import whole_file
from tabzoo.training.recipe import Recipe
from tabzoo.trial.folder import BENCHMARK, PAGE
from tabzoo.trial.split import Split
from tabzoo.trial.verdict import Verdict, signed

__all__ = ["Page", "Score", "write_page"]

_GRIDS = 3
"""Pictures of anomaly maps; each takes some hundred kilobytes."""
_WIDTH, _LINE = 360, 26  # of the plot and of a line in it, in pixels
_SMALLEST = 0.01
"""Half the range of the plot at least, so that differences within chance look small."""


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
        texts_sha256: Of the text features.
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
    texts_sha256: str
    start_sha256: str
    minutes: float


class _Line(NamedTuple):
    """A line of the plot; `y` and the three places along it are in pixels."""

    name: str
    y: float
    low: float
    middle: float
    high: float
    label: str


def write_page(page: Page, folder: Path) -> None:
    """Writes index.html.

    Args:
        page: What it shows.
        folder: The trial's; grids of anomaly maps are taken from its benchmark.

    Raises:
        WriteError: It can't be written.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = _percent
    environment.filters["signed"] = lambda value: "-" if value is None else signed(value)
    environment.filters["plain"] = for_terminal
    template = resources.files("tabzoo.trial").joinpath("page.html").read_text(encoding="utf-8")
    lines = _plot(page)
    text = environment.from_string(template).render(
        page=page,
        numbers=page.verdict.numbers,
        lines=lines,
        width=_WIDTH,
        height=_LINE * (len(lines) + 1),
        half=_half(page),
        grids=_grids(page, folder / BENCHMARK / MAPS),
        yaml=for_lines(page.recipe.to_yaml()),
        machine={"device": hardware(page.device), "system": platform.platform(), **versions()},
    )
    with whole_file(folder / PAGE) as file:
        file.write_text(text, encoding="utf-8")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _half(page: Page) -> float:
    ends = [end for one in page.by_class.values() for end in (abs(one.low), abs(one.high))]
    return max(_SMALLEST, *ends)


def _plot(page: Page) -> list[_Line]:
    """The difference on all classes and on each, with its interval."""
    half, numbers = _half(page), page.verdict.numbers
    named = [("all classes", numbers), *((name, asdict(one)) for name, one in page.by_class.items())]

    def place(value: float) -> float:
        return round(_WIDTH / 2 * (1 + max(-1.0, min(1.0, value / half))), 1)

    return [
        _Line(
            name=for_terminal(name),
            y=_LINE * (index + 0.5),
            low=place(one["low"]),
            middle=place(one["difference"]),
            high=place(one["high"]),
            label=f"{signed(one['difference'])} ({signed(one['low'])} to {signed(one['high'])})",
        )
        for index, (name, one) in enumerate(named)
    ]


def _grids(page: Page, maps: Path) -> list[tuple[str, str]]:
    """Name and data address of some grids of anomaly maps, if they were drawn."""
    method = page.scores[0].method
    paths = [(name, maps / method / f"{for_path(name)}.png") for name in page.by_class]
    found = [(name, path.read_bytes()) for name, path in paths if path.is_file()][:_GRIDS]
    return [(name, f"data:image/png;base64,{base64.b64encode(content).decode()}") for name, content in found]
