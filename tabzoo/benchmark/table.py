"""Results as tables: Markdown that is also readable in a terminal, and CSV with all digits."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from tabzoo.benchmark.notes import SHOWN, write_notes
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
from tabzoo.benchmark.verdicts import verdicts_in_words
from tabzoo.plain import for_table, for_terminal
from tabzoo.scores.rows import METRICS, ORACLE, REAL, Row

__all__ = [
    "SQUASHED",
    "cautions",
    "cell_in_words",
    "grid",
    "images_in_words",
    "plain_cell",
    "seeds_in_words",
    "settings_in_words",
    "title",
    "to_csv",
    "to_markdown",
]

SQUASHED = "Images are squashed to a square."
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
    """All tables, in per cent, followed by notes on how to read them and by a verdict in words on each backbone.

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
    parts.append(write_notes(groups, against_paper=against_paper, left_out=left_out))
    return "\n\n".join(filter(None, [*parts, verdicts_in_words(rows, order)])) + "\n"


def plain_cell(text: str) -> str:
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
            *map(plain_cell, (row.dataset, row.test)),
            row.shots or "all",
            *map(plain_cell, (row.method, seeds, settings_in_words(row))),
        )
        for metric in (*METRICS, ORACLE) if group.with_oracle else METRICS:
            for line in summarise(group, metric):
                for backbone, cell, difference in zip(
                    group.backbones, line.cells, [None, *line.differences], strict=True
                ):
                    if cell:
                        numbers = (cell.mean, cell.sd, *(difference or (None, None, None)))
                        names = map(plain_cell, (line.name, backbone))
                        writer.writerow((*common, metric, *names, *numbers, cell.transductive))
    return file.getvalue()


def _of_dataset(group: Group, against_paper: bool) -> list[str]:
    row = group.first
    more = _oracles(group) | (_paper_columns(group) if against_paper else {})
    tables = [
        _table(metric, "class", summarise(group, metric), group.backbones, more if metric == "image_auroc" else {})
        for metric in SHOWN
    ]
    about = map(
        for_terminal, (f"Seeds {seeds_in_words(group)}; {settings_in_words(row)}. {SQUASHED}", images_in_words(group))
    )
    return [_title(row, f"on {row.dataset}"), *about, *filter(None, tables)]


def _across_datasets(groups: Sequence[Group], order: Sequence[str]) -> list[str]:
    row, backbones = groups[0].first, [name for name in order if any(name in group.backbones for group in groups)]
    tables = [_table(metric, "data set", summarise_datasets(groups, metric, backbones), backbones) for metric in SHOWN]
    about = [
        for_terminal(f"- {group.first.dataset}, seeds {seeds_in_words(group)}. {images_in_words(group)}")
        for group in groups
    ]
    return [
        _title(row, "across data sets"),
        for_terminal(f"{settings_in_words(row)}. {SQUASHED}"),
        "\n".join(about),
        *filter(None, tables),
    ]


def _title(row: Row, where: str) -> str:
    lines = [f"## {title(row, where)}", *(f"**{caution}**" for caution in cautions(row))]
    return "\n\n".join(map(for_terminal, lines))


def title(row: Row, where: str) -> str:
    """What the rows of a table have in common, in a few words."""
    given = "all good training images" if row.shots is None else f"{row.shots} good training images"
    return f"{row.method} {where}, {given}"


def cautions(row: Row) -> list[str]:
    """What must be said first about the rows of a table."""
    said = []
    if row.test != REAL:
        kind = row.test.partition(":")[2]
        said.append(f"PROXY: synthetic {kind} anomalies on held-out good images, not real defects.")
    if steps := row.settings.get("steps"):
        said.append(f"SHORT: each training ends after {steps} steps, earlier than its authors' training.")
    return said


def seeds_in_words(group: Group) -> str:
    """The seeds of a group."""
    return ", ".join(map(str, group.seeds))


def images_in_words(group: Group) -> str:
    """The numbers of test images of each class."""
    rows = {row.class_name: row.images for row in group.all_rows()}
    counts = (f"{name} {rows[name]['good']} + {rows[name]['anomalous']}" for name in group.classes)
    return f"Tested on (good + anomalous images): {', '.join(counts)}."


def settings_in_words(row: Row) -> str:
    """The settings that are set."""
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
            *map(cell_in_words, line.cells),
            *map(_difference, line.differences),
            *(column(line) for column in more.values()),
        ]
        for line in lines
    ]
    return f"{METRICS[metric]}, %:\n\n{grid([header, *body])}"


def cell_in_words(cell: Cell | None) -> str:
    """A cell of a table, in per cent."""
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
        return cell_in_words(cell) if cell and cell.mean is not None else "-"

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


def grid(cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table of lines of cells; the first line is the header, the first column has names."""
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
