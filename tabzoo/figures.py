"""Writes figures, whose texts may be names from outside; for papers also as SVG and at the width of a column."""

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.text import Text

from tabzoo.system import whole_file

__all__ = ["COLUMN", "PAGE", "fitting", "paper_style", "save_figure", "save_for_paper", "wrapped"]

COLUMN = 85 / 25.4
"""Width of a paper's column, in inches."""
PAGE = 178 / 25.4
"""Width of both columns with the gap between them, in inches."""
_DPI = 300
_STYLE: dict[Any, Any] = {
    **{"font.size": 7, "axes.titlesize": 7, "axes.labelsize": 7, "legend.fontsize": 7, "figure.titlesize": 7},
    **{"xtick.labelsize": 6, "ytick.labelsize": 6, "axes.linewidth": 0.5, "xtick.major.width": 0.5},
    **{"ytick.major.width": 0.5, "lines.linewidth": 1.0, "svg.hashsalt": "tabzoo"},
}


@contextmanager
def paper_style() -> Iterator[None]:
    """Within it, figures are made with texts of 6 and 7 points and thin lines, to be printed at their own size."""
    with matplotlib.rc_context(_STYLE):
        yield


def wrapped(name: str, letters: int) -> str:
    """A name in lines of at most so many letters, broken after one of `. _ - : / ,` or a blank where that is possible."""
    lines = [""]
    for part in re.findall(r"[^._:/, -]*(?:[._:/, -]+|$)", name):
        for piece in (part[i : i + letters] for i in range(0, len(part), letters)):
            if lines[-1] and len(lines[-1] + piece.rstrip()) > letters:
                lines.append("")
            lines[-1] += piece
    return "\n".join(line.strip() for line in lines)


def fitting(words: Iterable[str], inches: float) -> float:
    """Points at which the longest of the words is not longer than that, at least 4 and at most 6."""
    return min(6.0, max(4.0, 72 * inches / (0.58 * max(map(len, words)))))


def save_figure(figure: Figure, path: Path, *, dpi: int, tight: bool = False) -> None:
    """Writes a figure as PNG; a class called `$x_{$` is shown as it is written.

    Args:
        figure: Its texts are changed to show "$" as it is, not as a formula.
        path: File to write.
        dpi: Resolution.
        tight: Fit the axes to the figure first.

    Raises:
        WriteError: It can't be written.
    """
    _save(figure, path, "png", dpi=dpi, tight=tight)


def save_for_paper(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG with 300 dots an inch and as SVG; the same figure gives the same bytes.

    Args:
        figure: As for `save_figure`; its pictures are scaled to 300 dots an inch in the SVG too.
        path: File to write, without its ending.

    Raises:
        WriteError: One can't be written.
    """
    with matplotlib.rc_context({"svg.hashsalt": _STYLE["svg.hashsalt"]}):  # the ids in an SVG are random without it
        for kind in ("png", "svg"):
            _save(figure, path.with_name(f"{path.name}.{kind}"), kind, dpi=_DPI, tight=False)


def _save(figure: Figure, path: Path, kind: str, *, dpi: int, tight: bool) -> None:
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    with warnings.catch_warnings(), whole_file(path) as file:
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names in other scripts show as boxes
        if tight:
            figure.tight_layout()
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(file, dpi=dpi, format=kind, metadata=metadata)
