"""Writes figures, whose texts may be names from outside."""

import warnings
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.text import Text

from tabzoo.system import whole_file

__all__ = ["save_figure"]


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
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    with warnings.catch_warnings(), whole_file(path) as file:
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names in other scripts show as boxes
        if tight:
            figure.tight_layout()
        figure.savefig(file, dpi=dpi, format="png")
