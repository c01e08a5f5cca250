"""What `embed` says: its numbers as a table and as CSV, and its caption."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from tabzoo.benchmark.groups import GROUPS, SOURCE, Groups
from tabzoo.benchmark.scatter import SHOWN, Plane, perplexity
from tabzoo.benchmark.separation import FOLDS, NUMBERS, REPEATS, Interval, Separation, difference
from tabzoo.command import show
from tabzoo.plain import for_terminal
from tabzoo.system import whole_file

__all__ = ["describe", "print_numbers", "write_csv", "write_numbers", "write_points"]

Table = Mapping[str, Mapping[str, Separation]]
"""Backbone, the baseline first, to class to its numbers."""
_PLURALS = ("normal images", "synthetic anomalies", "real defects")


def describe(groups: Groups, synthesis: str, seen: Mapping[str, set[str]]) -> list[str]:
    """The paragraphs of the caption.

    Args:
        groups: The images.
        synthesis: Kind of the synthetic anomalies.
        seen: Backbone to the classes of which it has seen images in its pre-training.
    """
    classes = groups.images.samples.classes
    counts = {group: int((groups.groups == group).sum()) for group in SHOWN}
    drawn = ", ".join(f"{counts[group]} {word}" for group, word in zip(SHOWN, _PLURALS, strict=True))
    lent = f"; of {', '.join(groups.lent)}, which have none, half of the good training images" if groups.lent else ""
    texts = f"""
Features of images of {", ".join(classes)}, averaged over positions, by each backbone: {drawn}. The images are the same for all
backbones. Normal images are the good images of the test split{lent}. Synthetic anomalies ({synthesis}) were made from good
training images. No image is in two groups.

tsne: t-SNE of the first 50 principal components, perplexity {perplexity(sum(counts.values())):.0f}. Only neighbourhoods mean
something: distances between clusters and the size of a panel do not. tsne_classes: the same for each class alone, with a
perplexity of at most a third of its images. pca: the first two principal components, with their shares of the variance. A
class's number is at the median of its points, or beside it where two numbers would overlap.

numbers.csv compares normal images with real defects, class by class: silhouette (-1 to 1), balanced accuracy of the 5 nearest
neighbours (0.5 is chance), AUROC of a linear probe. The last two are cross-validated ({FOLDS} folds, stratified, {REPEATS}
times; fewer folds for a class with fewer images): no image is tested by what was trained on it. Intervals are 95 %, corrected
for folds that share training images. They are about images of these classes, not about other classes. probe_difference: minus
the first backbone, on the same folds.

Fréchet distances are those of the normal images to other good images (frechet_source), to the same with a synthetic anomaly
(frechet_synthetic), and to real defects (frechet_defect), with equal numbers of images. Relative ones are divided by the
variance of the normal images; only these can be compared between backbones. With fewer images than features all distances are
too large: compare them with frechet_source.

The mean of classes is over the classes for which every number is defined with every backbone.
"""
    return [
        *(" ".join(text.split()) for text in texts.split("\n\n")),
        *(f"{name} was pre-trained on images of {', '.join(sorted(of))}." for name, of in seen.items() if of),
    ]


def write_numbers(path: Path, table: Table, seen: Mapping[str, set[str]]) -> None:
    """Writes a line for each backbone and class."""
    first = next(iter(table))
    rows = [
        (backbone, class_name, *_cells(one, table[first][class_name], backbone == first, class_name in seen[backbone]))
        for backbone, ones in table.items()
        for class_name, one in ones.items()
    ]
    intervals = [f"probe_{what}{end}" for what in ("auroc", "difference") for end in ("", "_low", "_high")]
    columns = ("backbone", "class", "transductive", *GROUPS, *NUMBERS, *intervals, "undefined_because")
    write_csv(path, columns, rows)


def _cells(one: Separation, baseline: Separation, is_baseline: bool, seen: bool) -> list[object]:
    intervals = (one.probe_auroc, None if is_baseline else difference(baseline, one))
    numbers = [getattr(one, name) for name in NUMBERS]
    numbers += [end for interval in intervals for end in (interval or (None, None, None))]
    cells = ["" if value is None else f"{value:.6g}" for value in numbers]
    return [str(seen).lower(), *(one.images[group] for group in GROUPS), *cells, one.undefined_because]


def write_points(path: Path, groups: Groups, planes: Sequence[Plane], components: Sequence[Plane]) -> None:
    """Writes where each image lies.

    Args:
        path: File to write.
        groups: The images; sources are not among the points.
        planes: t-SNE's, one for each backbone.
        components: PCA's, likewise.
    """
    samples, shown = groups.images.samples, groups.groups != SOURCE
    kept = zip(
        groups.class_ids[shown].tolist(), groups.groups[shown].tolist(), groups.rows[shown].tolist(), strict=True
    )
    about = [
        (samples.classes[i], group, samples.defects[samples.defect_ids[row]], samples.path(row))
        for i, group, row in kept
    ]
    rows = [
        (plane.title, *one, *(f"{value:.6g}" for value in (*place, *component)))
        for plane, other in zip(planes, components, strict=True)
        for one, place, component in zip(about, plane.points.tolist(), other.points.tolist(), strict=True)
    ]
    write_csv(path, ("backbone", "class", "group", "kind", "file", "tsne_x", "tsne_y", "pca_1", "pca_2"), rows)


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Writes a table, with control characters made visible."""
    with whole_file(path) as file, file.open("w", encoding="utf-8", errors="backslashreplace", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([for_terminal(str(cell)) for cell in row] for row in rows)


def print_numbers(table: Table) -> None:
    """Prints the numbers for people; numbers.csv has more of them."""
    first = next(iter(table))
    head: tuple[str, ...] = (
        "class",
        "backbone",
        "images",
        "silhouette",
        "5-NN",
        "linear probe, AUROC",
        "minus the first",
        "F good",
        "F synth",
        "F defect",
    )
    lines = [head]
    for class_name in table[first]:
        for backbone, ones in table.items():
            one = ones[class_name]
            gain = None if backbone == first else difference(table[first][class_name], one)
            relative = [getattr(one, f"relative_frechet_{group}") for group in ("source", "synthetic", "defect")]
            images = "/".join(str(one.images[group]) for group in SHOWN)
            cells = [
                _text(one.silhouette),
                _text(one.knn_accuracy),
                _interval(one.probe_auroc),
                _interval(gain, sign="+"),
            ]
            lines.append((class_name, backbone, images, *cells, *map(_text, relative)))
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        show("  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
    for class_name, one in table[first].items():
        if one.undefined_because:
            show(f"{class_name}: undefined (-), {one.undefined_because}.")
    show("images: normal/synthetic/defect. F: Fréchet distance from the normal images, divided by their variance.")


def _text(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"


def _interval(value: Interval | None, sign: str = "") -> str:
    return "-" if value is None else f"{value.mean:{sign}.3f} [{value.low:{sign}.3f}, {value.high:{sign}.3f}]"
