"""The feature space of a fine-tuned backbone before and after it, by t-SNE (the paper's Figure 2), and how well it separates
the classes, in numbers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tabzoo.benchmark.classify.kept_features import KeptFeatures, kept_path, read_features
from tabzoo.benchmark.classify.rows import ClassifyRow
from tabzoo.benchmark.classify.split import split_path, tested_images
from tabzoo.benchmark.classify.summary import Group
from tabzoo.benchmark.embed_tables import write_csv
from tabzoo.benchmark.scatter import LEAST, Marks, Plane, draw_planes, perplexity, t_sne
from tabzoo.benchmark.separation import FOLDS, REPEATS, all_equal, separation_of_classes
from tabzoo.data.wafers import NORMAL
from tabzoo.errors import InputError, count
from tabzoo.synthesis.draws import permutation

__all__ = ["MOST", "Drawn", "draw_embedding", "drawn_images"]

MOST = 1000
"""Test images in a panel, at most."""
_STREAM = 204  # key of the draw of images
_MIXTURES = "mixtures"
# Paul Tol's "muted" colours, which people with any colour vision tell apart, and black. There is a shape for each.
_MUTED = "#332288 #CC6677 #117733 #88CCEE #882255 #DDCC77 #44AA99 #AA4499 #999933 #000000"
_COLOURS = tuple(_MUTED.split())
_SHAPES = ("o", "^", "s", "D", "v", "P", "<", "X", ">", "*")
_GREY: Mapping[str, Any] = {"marker": ".", "s": 4, "c": "0.8", "zorder": 0.5}
Ids = NDArray[np.int64]
Names = NDArray[np.str_]


class Drawn(NamedTuple):
    """What was drawn.

    Attributes:
        sentences: Of the caption; empty if nothing was drawn.
        missing: Lines about the backbones that have no panel, and why; empty if all have.
    """

    sentences: list[str]
    missing: list[str]


class _Panel(NamedTuple):
    backbone: str
    state: str
    silhouette: float | None
    knn_accuracy: float | None
    points: NDArray[np.float64]

    @property
    def title(self) -> str:
        return f"{self.backbone}, {self.state}\nsilhouette {_text(self.silhouette)}, 5-NN {_text(self.knn_accuracy)}"


def draw_embedding(folder: Path, group: Group) -> Drawn:
    """Draws `embedding-finetune` (.png, .svg), and writes its points and its numbers as CSV.

    The rows with the largest share of labels are drawn, of the seed of which most backbones' features were kept.

    Args:
        folder: Of the results.
        group: Its rows in the mode finetune.

    Raises:
        InputError: The file with the split of these rows is missing.
    """
    stem = folder / f"embedding-{group.first.mode}"
    rows = _rows(folder, group)
    kept, missing = _read(folder, group, rows)
    if not kept:
        for ending in (".png", ".svg", ".csv", "-numbers.csv"):  # of an earlier run on other images
            stem.with_name(stem.name + ending).unlink(missing_ok=True)
        return Drawn([], missing)
    row = next(iter(rows.values()))
    positions = drawn_images(np.array(row.truth), seed=row.seed)
    class_ids = np.array(row.truth)[positions]
    panels = [
        _Panel(
            backbone,
            state,
            *separation_of_classes(values[positions], class_ids, seed=row.seed),
            t_sne(values[positions], seed=row.seed),
        )
        for backbone, features in kept.items()
        for state, values in features._asdict().items()
    ]
    marks, groups = _marks(row, class_ids)
    numbered = class_ids if _numbered(row) else np.zeros_like(class_ids)
    planes = [Plane(panel.title, panel.points, groups, numbered) for panel in panels]
    draw_planes(stem, planes, row.classes, columns=2, marks=marks)
    _write_tables(folder, stem, row, positions, panels)
    return Drawn(_sentences(row, class_ids, marks, panels), missing)


def _write_tables(folder: Path, stem: Path, row: ClassifyRow, positions: Ids, panels: Sequence[_Panel]) -> None:
    """Writes the numbers, and where each image lies."""
    names = tested_images(split_path(folder, row.dataset, row.seed, row.split_sha256))
    numbers = [
        (one.backbone, one.state, row.labels, len(positions), _cell(one.silhouette), _cell(one.knn_accuracy))
        for one in panels
    ]
    columns = ("backbone", "state", "labels_percent", "images", "silhouette", "knn_balanced_accuracy")
    write_csv(stem.with_name(f"{stem.name}-numbers.csv"), columns, numbers)
    points = [
        (one.backbone, one.state, _cell(x), _cell(y), row.classes[row.truth[position]], names[position])
        for one in panels
        for (x, y), position in zip(one.points.tolist(), positions.tolist(), strict=True)
    ]
    write_csv(stem.with_name(f"{stem.name}.csv"), ("backbone", "state", "x", "y", "class", "image"), points)


def drawn_images(truth: Ids, *, seed: int, most: int = MOST) -> Ids:
    """Positions of the test images to draw, ascending: as many of each class as the limit allows, drawn from the seed.

    Args:
        truth: Class of each, [N].
        seed: Of the draw.
        most: Images at most, unless there are more classes.
    """
    sizes = np.bincount(truth)
    each = int(sizes.max())
    while each > 1 and np.minimum(sizes, each).sum() > most:
        each -= 1
    chosen = []
    for class_id, size in enumerate(sizes.tolist()):
        order = permutation(seed, class_id, size, _STREAM).numpy()
        chosen.append(np.flatnonzero(truth == class_id)[order[:each]])
    return np.sort(np.concatenate(chosen))


def _rows(folder: Path, group: Group) -> dict[str, ClassifyRow]:
    """Backbone to its row with features, all of one seed."""
    percent = group.percents[-1]
    found: dict[str, ClassifyRow] = {}
    for seed in group.seeds:
        of_seed = {name: group.of(name, percent).get(seed) for name in group.backbones}
        here = {name: row for name, row in of_seed.items() if row and kept_path(folder, row.key).exists()}
        first = next(iter(here.values()), None)
        same = {name: row for name, row in here.items() if first and row.split_sha256 == first.split_sha256}
        found = same if len(same) > len(found) else found
    return found


def _read(folder: Path, group: Group, rows: dict[str, ClassifyRow]) -> tuple[dict[str, KeptFeatures], list[str]]:
    """Backbone to its features, and lines about those that have none."""
    kept, missing = {}, []
    about = f"embedding-{group.first.mode} has no panel of"
    if lacking := [name for name in group.backbones if name not in rows]:
        missing.append(
            f"{about} {', '.join(lacking)}: no features of these test images were kept. To draw it, type the "
            f"same command with a new --output."
        )
    for name, row in rows.items():
        try:
            features = read_features(folder, row)
            unfit = _unfit(features)
        except InputError as error:
            unfit = str(error)
        if unfit:
            missing.append(f"{about} {name}: {unfit}")
        else:
            kept[name] = features
    return kept, missing


def _unfit(features: KeptFeatures) -> str:
    """Why features can't be drawn, if so."""
    if len(features.before) < LEAST:
        return f"{count(len(features.before), 'test image')}; t-SNE needs at least {LEAST}."
    if not all(np.isfinite(one).all() for one in features):
        return "its features are not finite numbers."
    if any(map(all_equal, features)):
        return "its features are the same for all images."
    return ""


def _marks(row: ClassifyRow, class_ids: Ids) -> tuple[Marks, Names]:
    """Marks of the groups, and the group of each image: its class; with many classes of wafer maps, mixtures are one group.

    Many classes of another kind share colours and have numbers instead of a legend.
    """
    shown, labels = row.classes, row.classes
    if _numbered(row):
        labels = [""] * len(shown)
    elif len(shown) > len(_COLOURS):
        shown = labels = [name for name in row.classes if name == NORMAL or name in row.pattern_f1]
    marks: dict[str, Mapping[str, Any]] = {}
    for number, (name, label) in enumerate(zip(shown, labels, strict=True)):
        colour, shape = number % len(_COLOURS), (number + number // len(_COLOURS)) % len(_SHAPES)
        mark = {"marker": _SHAPES[shape], "s": 7, "facecolors": "none", "edgecolors": _COLOURS[colour]}
        marks[name] = {**mark, "label": label}
    if len(shown) < len(row.classes):
        marks[_MIXTURES] = {**_GREY, "label": _MIXTURES}
    return marks, np.array([name if name in marks else _MIXTURES for name in row.classes])[class_ids]


def _numbered(row: ClassifyRow) -> bool:
    """Whether there are more classes than a legend can explain."""
    return len(row.classes) > len(_COLOURS) and not row.pattern_f1


def _sentences(row: ClassifyRow, class_ids: Ids, marks: Marks, panels: Sequence[_Panel]) -> list[str]:
    """What the figure shows, and what its numbers say."""
    name, drawn = f"embedding-{row.mode}", f"all {count(len(row.truth), 'test image')}"
    if len(class_ids) < len(row.truth):
        most = np.bincount(class_ids).max()
        drawn = f"{len(class_ids):,} of {count(len(row.truth), 'test image')}, at most {most} of a class,"
    about = ""
    if _MIXTURES in marks:
        about = f" Grey: the {count(len(row.classes) - len(marks) + 1, 'class', 'classes')} of mixed patterns."
    elif _numbered(row):
        about = " A class's number is at the median of its points, or beside it where two numbers would overlap."
    values = [
        f"{before.backbone}: silhouette {_text(before.silhouette)} before, {_text(after.silhouette)} after; "
        f"5-NN {_text(before.knn_accuracy)} before, {_text(after.knn_accuracy)} after."
        for before, after in zip(panels[::2], panels[1::2], strict=True)
    ]
    return [
        f"{name}: t-SNE of the features (averaged over positions) of {drawn} by each backbone as it was given (before) and "
        f"after fine-tuning with {row.labels} % of the labels (after), seed {row.seed}. The images, perplexity "
        f"({perplexity(len(class_ids)):.0f}) and seed of t-SNE are the same in all panels. Only neighbourhoods mean something: "
        f"distances between clusters and the size of a panel do not.{about}",
        f"{name}-numbers.csv compares the {len(row.classes)} classes in the features themselves, not in the picture: "
        f"silhouette (-1 to 1), and balanced accuracy of the 5 nearest neighbours (5-NN; chance: {1 / len(row.classes):.3f}), "
        f"cross-validated within these images ({FOLDS} folds or fewer, {REPEATS} times). {' '.join(values)}",
    ]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
