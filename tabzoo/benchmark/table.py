"""Results as tables: Markdown that is also readable in a terminal, and CSV with all digits."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from tabzoo.benchmark.bootstrap import DRAWS
from tabzoo.benchmark.paper import OBJECT_AVERAGE, OBJECTS, OVERALL, TEXTURE_AVERAGE, TEXTURES, is_mvtec, paper_numbers
from tabzoo.benchmark.summary import (
    Cell,
    Difference,
    Group,
    Line,
    group_rows,
    join_datasets,
    summarise,
    summarise_datasets,
)
from tabzoo.plain import for_table, for_terminal
from tabzoo.scores.rows import EMPTY_MASKS, METRICS, ORACLE, REAL, Row

__all__ = ["to_csv", "to_markdown"]

_SHOWN = ("image_auroc", "pixel_auroc", "aupro")
_SQUASHED = "Images are squashed to a square."
_AVERAGED = {TEXTURE_AVERAGE: TEXTURES, OBJECT_AVERAGE: OBJECTS, OVERALL: (*TEXTURES, *OBJECTS)}
Column = Callable[[Line], str]
_NO_COLUMNS: Mapping[str, Column] = {}


def to_markdown(
    rows: Iterable[Row],
    *,
    order: Sequence[str] = (),
    against_paper: bool = False,
    across_datasets: bool = False,
    left_out: int = 0,
) -> str:
    """All tables, in per cent, followed by notes on how to read them.

    Args:
        rows: Of one or more folders.
        order: Names of backbones to put first; the first one is the baseline of the comparison.
        against_paper: Add the numbers of the paper's Table 2.
        across_datasets: One table over all data sets for each method and its settings, instead of one for each data set.
        left_out: Number of rows left out by `summary.latest_rows`.
    """
    rows = list(rows)
    order = list(dict.fromkeys([*order, *(row.backbone for row in rows)]))  # the same order in every table
    groups = group_rows(rows, order=order)
    if across_datasets:
        parts = [part for joined in join_datasets(groups) for part in _across_datasets(joined, order)]
    else:
        parts = [part for group in groups for part in _of_dataset(group, against_paper)]
    return "\n\n".join([*parts, _notes(groups, against_paper, left_out)]) + "\n"


def _plain(text: str) -> str:
    """Text for a cell, which a spreadsheet does not take for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def to_csv(rows: Iterable[Row], *, order: Sequence[str] = ()) -> str:
    """Long form: one line for each table, metric, class or average, and backbone; values in [0, 1], empty if undefined."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        "dataset test shots method seeds settings metric class backbone mean sd difference low high transductive".split()
    )
    for group in group_rows(rows, order=order):
        row, seeds = group.first, " ".join(map(str, group.seeds))
        common = (
            *map(_plain, (row.dataset, row.test)),
            row.shots or "all",
            *map(_plain, (row.method, seeds, _settings(row))),
        )
        for metric in (*METRICS, ORACLE) if group.with_oracle else METRICS:
            for line in summarise(group, metric):
                for backbone, cell, difference in zip(
                    group.backbones, line.cells, [None, *line.differences], strict=True
                ):
                    if cell:
                        numbers = (cell.mean, cell.sd, *(difference or (None, None, None)))
                        names = map(_plain, (line.name, backbone))
                        writer.writerow((*common, metric, *names, *numbers, cell.transductive))
    return file.getvalue()


def _of_dataset(group: Group, against_paper: bool) -> list[str]:
    row = group.first
    more = _oracles(group) | (_paper_columns(group) if against_paper else {})
    tables = [
        _table(metric, "class", summarise(group, metric), group.backbones, more if metric == "image_auroc" else {})
        for metric in _SHOWN
    ]
    about = map(for_terminal, (f"Seeds {_seeds(group)}; {_settings(row)}. {_SQUASHED}", _images(group)))
    return [_title(row, f"on {row.dataset}"), *about, *filter(None, tables)]


def _across_datasets(groups: Sequence[Group], order: Sequence[str]) -> list[str]:
    row, backbones = groups[0].first, [name for name in order if any(name in group.backbones for group in groups)]
    tables = [_table(metric, "data set", summarise_datasets(groups, metric, backbones), backbones) for metric in _SHOWN]
    about = [for_terminal(f"- {group.first.dataset}, seeds {_seeds(group)}. {_images(group)}") for group in groups]
    return [
        _title(row, "across data sets"),
        for_terminal(f"{_settings(row)}. {_SQUASHED}"),
        "\n".join(about),
        *filter(None, tables),
    ]


def _title(row: Row, where: str) -> str:
    given = "all good training images" if row.shots is None else f"{row.shots} good training images"
    lines = [f"## {row.method} {where}, {given}"]
    if row.test != REAL:
        kind = row.test.partition(":")[2]
        lines.append(f"**PROXY: synthetic {kind} anomalies on held-out good images, not real defects.**")
    if steps := row.settings.get("steps"):
        lines.append(f"**SHORT: each training ends after {steps} steps, earlier than its authors' training.**")
    return "\n\n".join(map(for_terminal, lines))


def _seeds(group: Group) -> str:
    return ", ".join(map(str, group.seeds))


def _images(group: Group) -> str:
    rows = {row.class_name: row.images for row in group.all_rows()}
    counts = (f"{name} {rows[name]['good']} + {rows[name]['anomalous']}" for name in group.classes)
    return f"Tested on (good + anomalous images): {', '.join(counts)}."


def _settings(row: Row) -> str:
    return ", ".join(
        f"{key} {' '.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in row.settings.items()
        if value is not None
    )


def _table(
    metric: str,
    heading: str,
    lines: Sequence[Line],
    backbones: Sequence[str],
    more: Mapping[str, Column] = _NO_COLUMNS,
) -> str:
    """Empty if the metric is undefined everywhere; `more` has further columns, header to a function of a line."""
    if not any(cell and cell.mean is not None for line in lines for cell in line.cells):
        return ""
    first, *others = backbones
    header = [heading, *backbones, *(f"{other} - {first}" for other in others), *more]
    body = [
        [
            f"{line.name} ({line.over})" if line.over else line.name,
            *map(_cell, line.cells),
            *map(_difference, line.differences),
            *(column(line) for column in more.values()),
        ]
        for line in lines
    ]
    return f"{METRICS[metric]}, %:\n\n{_grid([header, *body])}"


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "not run"
    if cell.mean is None:
        return "undefined"
    deviation = f" ± {100 * cell.sd:.1f}" if cell.sd is not None else ""
    return f"{100 * cell.mean:.1f}{deviation}{' t' if cell.transductive else ''}"


def _oracles(group: Group) -> dict[str, Column]:
    """Columns of the best meta-epoch on test; "-" for averages over other classes than those of the last step."""
    found = {(line.name, line.over): line.cells for line in summarise(group, ORACLE)}

    def column(backbone: int, line: Line) -> str:
        cell = found[line.name, line.over][backbone] if (line.name, line.over) in found else None
        return _cell(cell) if cell and cell.mean is not None else "-"

    return {f"{name} oracle": partial(column, group.backbones.index(name)) for name in group.with_oracle}


def _difference(difference: Difference | None) -> str:
    if difference is None:
        return "-"
    low, high = difference.low, difference.high
    within = f" [{100 * low:+.1f}, {100 * high:+.1f}]" if low is not None and high is not None else ""
    return f"{100 * difference.mean:+.1f}{within}"


def _paper_columns(group: Group) -> dict[str, Column]:
    """Columns of the paper's numbers, if any class is one of MVTec AD."""
    table = paper_numbers(group.first.method, group.first.shots)
    same = {row.class_name for row in group.all_rows() if is_mvtec(row)}

    def column(field: str, line: Line) -> str:
        """Averages are compared only with averages over the same classes."""
        classes = {line.name} if line.over is None else set(_AVERAGED.get(line.name, ()))
        known = classes and classes <= same and line.over in (None, len(classes))
        return f"{getattr(table[line.name], field):.2f}" if known else "-"

    names = {"imagenet": "paper: ImageNet", "tab": "paper: TAB"} if table and same else {}
    return {name: partial(column, field) for field, name in names.items()}


def _grid(cells: Sequence[Sequence[str]]) -> str:
    cells = [list(map(for_table, line)) for line in cells]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    # The first column has names, aligned left; the others have numbers, aligned right.
    aligned = [
        [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in cells
    ]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [aligned[0], rule, *aligned[1:]])


def _notes(groups: Sequence[Group], against_paper: bool, left_out: int) -> str:
    notes = [
        "Mean ± standard deviation over seeds. Averages: over the classes for which the metric is defined with every backbone.",
        f"In brackets: 95 % interval of the difference, from a paired bootstrap over the test images ({DRAWS} draws; seeds are "
        "not resampled). Pixel metrics have no interval.",
        "Pixel metrics use masks at the size of the method's input (same resize and crop, nearest neighbour) unless the "
        "settings say full resolution. AUPRO: up to FPR 0.3, over all images of a class together.",
        "Selection: the weights of the last training step; nothing is selected on test data"
        f"{', except in columns called oracle' if any(group.with_oracle for group in groups) else ''}.",
    ]
    draws = {group.first.settings["draws"] for group in groups if "draws" in group.first.settings}
    if draws:
        notes.append(
            f"Few-shot: means over {_list(map(str, sorted(draws)))} draws of the good images; maps are from the first draw."
        )
    rows = [row for group in groups for row in group.all_rows()]
    for backbone in dict.fromkeys(row.backbone for row in rows if row.transductive):
        classes = _list(row.class_name for row in rows if row.transductive and row.backbone == backbone)
        notes.append(f"t: transductive, {backbone} was pre-trained on images of {classes}.")
    undefined: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for metric, reason in row.undefined_because.items():
            if metric in _SHOWN:
                undefined.setdefault((METRICS[metric], reason), []).append(row.class_name)
    notes += [f"Undefined: {metric} of {_list(classes)}, {reason}." for (metric, reason), classes in undefined.items()]
    empty = {
        f"{row.class_name} {row.images[EMPTY_MASKS]} of {row.images['anomalous']} ({row.method})"
        for row in rows
        if row.images.get(EMPTY_MASKS)
    }
    if empty:
        notes.append(
            f"Pixel metrics leave out anomalous images whose masks are empty at this size: {_list(sorted(empty))}. To keep "
            f"small defects, use a larger --resize or --full-resolution."
        )
    if any(group.with_oracle for group in groups):
        notes.append(
            "Oracle: the best meta-epoch by image AUROC on the test images, as the method's public code selects it. It is "
            "selected on test data, so it must not be compared with other methods' numbers."
        )
    if left_out:
        notes.append(
            f"Left out: {left_out} {'row' if left_out == 1 else 'rows'} of older weights or images with the same names."
        )
    if against_paper:
        notes.append(
            "Paper: Table 2 of arXiv 2312.09480, image AUROC on MVTec AD, ResNet-18. Its TAB columns are transductive, "
            "except RegAD's, whose weights come from the Industrial dataset."
        )
        others = _list(f"{row.class_name} of {row.dataset}" for row in rows if not is_mvtec(row))
        if others:
            notes.append(
                f"Not compared with the paper, since the name or the numbers of images are not MVTec AD's: {others}."
            )
    return "\n".join(f"- {for_terminal(note)}" for note in notes)


def _list(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
