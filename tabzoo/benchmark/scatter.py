"""Features as points in a plane, by t-SNE and by PCA: panels for each backbone on shared settings (Figures 2 and 7)."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from tabzoo.benchmark.groups import DEFECT, NORMAL, SYNTHETIC
from tabzoo.benchmark.separation import all_equal
from tabzoo.figures import COLUMN, PAGE, paper_style, save_for_paper, wrapped

__all__ = ["LEAST", "PERPLEXITY", "SHOWN", "Marks", "Plane", "draw_planes", "pca", "perplexity", "t_sne"]

PERPLEXITY = 30
LEAST = 4
"""t-SNE needs at least so many points."""
SHOWN = {NORMAL: "normal", SYNTHETIC: "synthetic anomaly", DEFECT: "real defect"}
"""Groups in a figure, in the order they are drawn, and what the legend calls them."""
# Okabe and Ito's colours, which people with any colour vision can tell apart. Shapes differ too, and are open: marks that lie
# on each other stay visible.
_MARKS: dict[str, dict[str, Any]] = {
    NORMAL: {"marker": "o", "s": 7, "facecolors": "none", "edgecolors": "#0072B2"},
    SYNTHETIC: {"marker": "^", "s": 7, "facecolors": "none", "edgecolors": "#E69F00"},
    DEFECT: {"marker": "x", "s": 6, "c": "black"},
}
_PANELS = 20  # that are four in a line; of more, six are
_CROWD = 60  # points a square inch of a panel; with more, the marks of all panels are smaller
_APART = 0.15  # inches between the numbers of two classes
_COMPONENTS = 50  # that t-SNE works on
_LEGEND = 20  # letters of a legend for each inch
Array = NDArray[np.float64]
Marks = Mapping[str, Mapping[str, Any]]
"""Group to the arguments of its marks for matplotlib's scatter, with a label for the legend, or an empty one."""


@dataclass(frozen=True)
class Plane:
    """One panel.

    Attributes:
        title: The backbone, and below what else tells the panel from others, such as the class.
        points: [N, 2].
        groups: Group of each point, [N]; a key of `Marks`.
        class_ids: Class of each point, [N].
        labels: Of both axes; empty where a position alone means nothing.
    """

    title: str
    points: Array
    groups: NDArray[np.str_]
    class_ids: NDArray[np.int64]
    labels: tuple[str, str] = ("", "")


def perplexity(number: int) -> float:
    """t-SNE's perplexity for so many points, at least 4: 30, or less for fewer than 91."""
    return min(float(PERPLEXITY), (number - 1) / 3)


def t_sne(features: Array, *, seed: int) -> Array:
    """scikit-learn's t-SNE of the first 50 principal components, started from the first two, [N, D] -> [N, 2].

    One thread computes it: with more, the order of additions differs from run to run. Features that are all equal are a point.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if all_equal(features):
        return np.zeros((len(features), 2))
    with threadpool_limits(1):
        reduced = PCA(min(_COMPONENTS, *features.shape), svd_solver="full").fit_transform(features)
        made = TSNE(perplexity=perplexity(len(features)), init="pca", learning_rate="auto", random_state=seed)
        points: Array = made.fit_transform(reduced).astype(np.float64)
    return points


def pca(features: Array) -> tuple[Array, tuple[float, float]]:
    """The first two principal components, [N, D] -> [N, 2], and their shares of the variance."""
    from sklearn.decomposition import PCA

    if all_equal(features):
        return np.zeros((len(features), 2)), (0.0, 0.0)
    made = PCA(2, svd_solver="full")
    points: Array = made.fit_transform(features)
    first, second = made.explained_variance_ratio_.tolist()
    return points, (first, second)


def draw_planes(
    path: Path,
    planes: Sequence[Plane],
    names: Sequence[str],
    *,
    together: int = 1,
    columns: int | None = None,
    marks: Marks | None = None,
) -> None:
    """The panels, with a mark for each image; where one holds several classes, their numbers where they lie, and a key.

    Args:
        path: Files to write, without their endings.
        planes: The panels; one or two are as wide as a column, more as a page.
        names: Of the classes.
        together: So many panels that follow each other are in the same line, if they are not more than four.
        columns: Panels in a line; chosen by `together` if not given.
        marks: Of the groups, in the order of the legend; those of normal images, anomalies and defects if not given.
    """
    marks = marks or {group: {**_MARKS[group], "label": label} for group, label in SHOWN.items()}
    marks = {group: mark for group, mark in marks.items() if any((plane.groups == group).any() for plane in planes)}
    most = 4 if len(planes) <= _PANELS else 6
    columns = columns or min(len(planes), most // together * together or most)
    lines, width = math.ceil(len(planes) / columns), COLUMN if columns <= 2 else PAGE
    keyed = sorted({class_id for plane in planes for class_id in _several(plane)})
    key = textwrap.fill("   ".join(f"{i + 1}\N{NO-BREAK SPACE}{names[i]}" for i in keyed), int(width * 21))
    side = width / max(columns, 2)  # a single panel is as large as one of two
    titles = ["\n".join(wrapped(line, round(side * 16)) for line in plane.title.splitlines()) for plane in planes]
    labelled = [mark for mark in marks.values() if mark["label"]]
    in_line = max(1, int(_LEGEND * width / (max((len(mark["label"]) for mark in labelled), default=0) + 5)))
    crowded = max(len(plane.points) for plane in planes) > _CROWD * side**2
    below = 0.25 if planes[0].labels[0] else 0.1
    height = lines * (side + below + 0.1 * max(title.count("\n") for title in titles)) + 0.11
    height += 0.14 * math.ceil(len(labelled) / in_line)
    height += 0.11 * (key.count("\n") + 1) if key else 0
    with paper_style():
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(lines, columns, squeeze=False)
        for axis in axes.flat[len(planes) :]:
            axis.set_axis_off()
        for axis, plane, title in zip(axes.flat, planes, titles, strict=False):
            _draw(axis, plane, marks, side, 0.5 if crowded else 1.0)
            axis.set_title(title)
        if labelled:
            _draw_legend(figure, axes[0, 0], labelled, in_line)
        if key:
            figure.supxlabel(key, fontsize=6)
        save_for_paper(figure, path)


def _draw_legend(figure: Figure, axis: Any, labelled: Sequence[Mapping[str, Any]], in_line: int) -> None:
    handles = [axis.scatter([], [], **mark, linewidths=0.5) for mark in labelled]
    figure.legend(
        handles=handles, loc="outside upper center", ncols=in_line, frameon=False, columnspacing=1, handletextpad=0
    )


def _draw(axis: Any, plane: Plane, marks: Marks, side: float, size: float) -> None:
    for group in (group for group in marks if (plane.groups == group).any()):
        mark = {**marks[group], "s": size * marks[group]["s"]}
        axis.scatter(*plane.points[plane.groups == group].T, **mark, linewidths=0.5 * size)
    classes = _several(plane)
    if classes:
        middles = np.stack([np.median(plane.points[plane.class_ids == class_id], axis=0) for class_id in classes])
        low, high = np.transpose([axis.get_xlim(), axis.get_ylim()])
        middles = low + _apart((middles - low) / (high - low), _APART / side) * (high - low)
        for class_id, middle in zip(classes, middles, strict=True):
            text = axis.text(*middle, str(class_id + 1), ha="center", va="center", weight="bold", color="#D55E00")
            text.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
    axis.set(xlabel=plane.labels[0], ylabel=plane.labels[1], xticks=[], yticks=[])
    axis.set_box_aspect(1)


def _apart(places: Array, least: float) -> Array:
    """Places in a panel, [N, 2] in parts of its side, moved until no two are nearer to each other than that, if possible."""
    places = places.copy()
    for _ in range(200):
        away = places[:, None] - places
        distances = np.hypot(away[..., 0], away[..., 1]) + np.eye(len(places))
        near = distances < least
        if not near.any():
            break
        # Where two are at the same place, the later one goes up.
        same = distances < 1e-9
        away[same] = np.sign(np.subtract.outer(range(len(places)), range(len(places))))[same][:, None] * (0, 1)
        distances[same] = 1
        moves = near * np.maximum(0, 1.02 * least - np.where(same, 0, distances)) / distances
        places = np.clip(places + 0.5 * (moves[..., None] * away).sum(axis=1), 0.04, 0.96)
    return places


def _several(plane: Plane) -> list[int]:
    """The classes in a panel, none if there is only one."""
    present: list[int] = np.unique(plane.class_ids).tolist()
    return present if len(present) > 1 else []
