"""Localisation figures: image, anomaly map of each backbone, mask (the paper's Figures 5 and 6)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tabzoo.benchmark.kept_maps import Kept
from tabzoo.figures import COLUMN, PAGE, fitting, paper_style, save_for_paper, wrapped

__all__ = ["BRIGHTEST", "HIGH", "LOW", "can_scale", "draw_localisation", "scaled"]

LOW, HIGH = 0.5, 0.999
"""Levels of the quantiles of good images that become 0 and 1."""
BRIGHTEST = 2.0
"""What is shown as the brightest colour, on that scale."""
_COLOURS = "inferno"  # light and dark for people with any colour vision
_BAR = 0.52  # inches


def can_scale(kept: Kept) -> bool:
    """Whether the row has good images, and their maps are not constant."""
    return bool(kept.quantiles) and kept.quantiles[HIGH] > kept.quantiles[LOW]


def scaled(kept: Kept) -> NDArray[np.float32]:
    """Maps on the scale of the backbone's good images: 0 is their median pixel, 1 is above 99.9 % of their pixels."""
    low, high = kept.quantiles[LOW], kept.quantiles[HIGH]
    values: NDArray[np.float32] = ((kept.maps - low) / (high - low)).astype(np.float32)
    return values


def draw_localisation(path: Path, kept: Mapping[str, Kept]) -> None:
    """A line for each image: image, map of each backbone, and mask if there are masks.

    Args:
        path: Files to write, without their endings.
        kept: Backbone to what was kept of its row, all of the same images.
    """
    first = next(iter(kept.values()))
    masked, lines = bool(first.has_mask.any()), len(first.kinds)
    columns = 1 + len(kept) + masked
    margin = 0.15
    side = ((COLUMN if columns <= 4 else PAGE) - margin) / max(columns, 4)
    width = margin + columns * side
    titles = ["image", *(wrapped(name, max(8, int(side * 17))) for name in kept), *(["mask"] if masked else [])]
    top = 0.06 + 0.11 * max(title.count("\n") + 1 for title in titles)
    height = top + lines * side + _BAR
    with paper_style():
        figure = Figure(figsize=(width, height))
        place = {"left": margin / width, "right": 1, "top": 1 - top / height, "bottom": _BAR / height}
        axes = figure.subplots(lines, columns, squeeze=False, gridspec_kw={**place, "wspace": 0.04, "hspace": 0.04})
        for axis in axes.flat:
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
        for axis, title in zip(axes[0], titles, strict=True):
            axis.set_title(title, pad=2)
        scale = ScalarMappable(Normalize(0, BRIGHTEST), _COLOURS)
        for line, kind in enumerate(first.kinds):
            axes[line, 0].imshow(first.images[line])
            axes[line, 0].set_ylabel(kind, fontsize=fitting(first.kinds, side), labelpad=1)
            for axis, one in zip(axes[line, 1:], kept.values(), strict=False):
                axis.imshow(scaled(one)[line], norm=scale.norm, cmap=scale.cmap)
            if masked:
                _draw_mask(axes[line, -1], first, line)
        bar = figure.add_axes((0.12, 0.36 / height, 0.76, 0.06 / height))
        figure.colorbar(scale, cax=bar, orientation="horizontal", extend="max", ticks=[0, 0.5, 1, 1.5, 2])
        bar.set_xlabel(
            "anomaly score; 0: median, 1: above 99.9 %\nof the pixels of good images", labelpad=1, fontsize=6
        )
        bar.tick_params(length=1.5, pad=1)
        save_for_paper(figure, path)


def _draw_mask(axis: Any, kept: Kept, line: int) -> None:
    if kept.has_mask[line] or kept.kinds[line] == "good":
        axis.imshow(kept.masks[line], cmap="gray", vmin=0, vmax=1)
    else:
        axis.text(0.5, 0.5, "no mask", ha="center", va="center", fontsize=6, transform=axis.transAxes)
