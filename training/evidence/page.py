"""The report: OUT/report.md with tables and facts, OUT/table.csv with every number, OUT/differences.png.

The page says what was asked, what was run and what came out. What it means is written by hand.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from arms import START, Definitions
from experiment import ALL, CLASSES, Experiment
from exports import NOT_RUN, draw_differences, to_csv
from results import METRICS, SCOPES, Estimate, Measured, Results, Scope, corrected

from tabzoo.detectors import DETECTORS
from tabzoo.errors import count
from tabzoo.plain import for_table
from tabzoo.scores.compare import LEVEL, Comparison
from tabzoo.scores.rows import Row
from tabzoo.system import whole_file

__all__ = ["write_report"]

REPORT, TABLE, FIGURE = "report.md", "table.csv", "differences.png"
_TITLES: dict[Scope, str] = {
    "trained": "Classes that the backbone was trained on (transductive: their good training images were seen)",
    "unseen": "Classes that the backbone was not trained on (each family left out once)",
}


def write_report(out: Path, experiment: Experiment, definitions: Definitions, *, refused: Mapping[str, str]) -> str:
    """Writes the page, the table and the figure.

    Args:
        out: OUT.
        experiment: What it holds.
        definitions: Arms and budget.
        refused: Method to the reason why it can't run on this start.

    Returns:
        The page.

    Raises:
        WriteError: A file can't be written.
    """
    results = Results(out, experiment, definitions.budget)
    ran = {row.method for row in results.rows}
    methods = [name for name in DETECTORS if name in ran] or ["padim"]
    measured = {(m, s): [results.measure(arm, m, s) for arm in definitions.arms] for m in methods for s in SCOPES}
    text = "\n".join(
        [
            *_asked(experiment, definitions),
            *_was_run(results, experiment, definitions, measured, refused),
            "## What came out",
            "",
            f"![Differences with their 95 % intervals]({FIGURE})",
            "",
            *(line for key, of_key in measured.items() for line in _section(*key, of_key, results, experiment)),
            *_cannot_say(results, experiment, definitions, measured),
        ]
    )
    for name, content in ((REPORT, text), (TABLE, to_csv(measured))):
        with whole_file(out / name) as file:
            file.write_text(content, encoding="utf-8", newline="\n")
    draw_differences(out / FIGURE, measured)
    return text


def _asked(experiment: Experiment, definitions: Definitions) -> list[str]:
    return [
        f"# Does pre-training beat its start? {experiment.data}, {definitions.budget.name} budget",
        "",
        "Asked: a detector of defects reads the features of a backbone. Does it find more defects with a backbone that was",
        "pre-trained on good images of products than with the weights that this training started from? On the products that",
        "it was trained on, and on others?",
        "",
    ]


def _was_run(
    results: Results,
    experiment: Experiment,
    definitions: Definitions,
    measured: Mapping[tuple[str, Scope], Sequence[Measured]],
    refused: Mapping[str, str],
) -> list[str]:
    budget, rows = definitions.budget, results.rows
    settings = ", ".join(f"{name} {value}" for name, value in budget.settings.items())
    runs = {one.arm: one.runs for of_key in measured.values() for one in of_key if one.runs}
    measured_by = {row.method for row in rows}
    dates = sorted({row.created[:10] for row in rows})
    lines = [
        "## What was run",
        "",
        f"- Start: {definitions.start} (SHA-256 of the file {experiment.start[:12]}).",
        f"- Budget {budget.name}: {settings}; where an arm says otherwise, the arm counts.",
        f"- Arms that were run: {len(runs)} of {len(definitions.arms)}. Training runs of an arm: "
        f"{_span(map(len, runs.values()))}.",
        f"- Folds: {_fold_list(experiment)}. Only trained on: {', '.join(experiment.train_only) or 'none'}.",
        f"- Detectors: {_detectors(rows)}.",
        *(
            f"- {method}: {NOT_RUN}{_because(refused.get(method))}."
            for method in budget.methods
            if method not in measured_by
        ),
        f"- Machine: {'; '.join(sorted({row.hardware for row in rows})) or 'none yet'}. Tested on {_span(dates)}.",
        f"- Versions: {'; '.join(sorted({_versions(row) for row in rows})) or 'none yet'}.",
        "",
        "| class | family | good images to fit | test: good | test: defective |",
        "|---|---|---|---|---|",
    ]
    by_class = {row.class_name: row for row in rows}
    for family, classes in experiment.families.items():
        for name in classes:
            images = by_class[name].images if name in by_class else {}
            counts = " | ".join(str(images.get(kind, "-")) for kind in ("fitted", "good", "anomalous"))
            lines.append(f"| {for_table(name)} | {for_table(family)} | {counts} |")
    lines += ["", "| arm | what it is | training runs |", "|---|---|---|", f"| {START} | {definitions.start} | - |"]
    for arm in definitions.arms.values():
        lines.append(f"| {arm.name} | {arm.about} | {len(runs.get(arm.name, ())) or NOT_RUN} |")
    lines += [f"| {name} | {about} | {NOT_RUN} |" for name, about in definitions.left_out.items()]
    return [*lines, ""]


def _section(
    method: str, scope: Scope, measured: Sequence[Measured], results: Results, experiment: Experiment
) -> list[str]:
    p_values = corrected(measured)
    lines = [f"### {method}: {_TITLES[scope]}", ""]
    lines += [
        "Metrics in %, differences to the start in points, with 95 % intervals. p is Holm's, for the "
        f"{len(p_values)} arms of this table.",
        "",
        "| arm | runs | image AUROC | difference, over images and runs | over classes | p | pixel AUROC | AUPRO |",
        "|---|---|---|---|---|---|---|---|",
    ]
    start = next((one.metrics for one in measured if one.metrics), None)
    if start:
        values = [_percent(start[metric].start) for metric in METRICS]
        lines.append(f"| {START} | - | {values[0]} | | | | {values[1]} | {values[2]} |")
    for one in measured:
        if not one.images:
            why = f"{NOT_RUN}{f': {one.missing}' if one.missing else ''}"
            lines.append(f"| {one.arm} | 0 | {why} | | | | | |")
            continue
        cells = [
            *(one.arm, str(len(one.runs)), _percent(one.metrics["image_auroc"].value), _points(one.images)),
            *(_interval(one.classes) if one.classes else "-", f"{p_values[one.arm]:.3f}"),
            *(_with_difference(one.metrics[metric]) for metric in METRICS[1:]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", *_verdict(measured, p_values), *_families(measured, experiment)]


def _verdict(measured: Sequence[Measured], p_values: Mapping[str, float]) -> list[str]:
    """How many arms differ from the start beyond chance, and the best of them."""
    found = [(one.images.difference, one) for one in measured if one.images]
    if not found:
        return []
    claimed = [difference for difference, one in found if p_values[one.arm] < LEVEL]
    better = sum(difference > 0 for difference in claimed)
    difference, best = max(found, key=lambda pair: pair[0])
    return [
        f"At the 5 % level, {better} of {count(len(found), 'arm')} better than the start, {len(claimed) - better} worse. "
        f"The highest: {best.arm}, {_change(difference)} points.",
        "",
    ]


def _families(measured: Sequence[Measured], experiment: Experiment) -> list[str]:
    there = [one for one in measured if one.families]
    if not there:
        return []
    families = list(experiment.families)
    lines = [
        "Difference of image AUROC on each family, with the interval over its images and the training runs:",
        "",
        f"| arm | {' | '.join(map(for_table, families))} |",
        f"|---|{'---|' * len(families)}",
    ]
    return [*lines, *(f"| {o.arm} | {' | '.join(_points(o.families[f]) for f in families)} |" for o in there), ""]


def _cannot_say(
    results: Results,
    experiment: Experiment,
    definitions: Definitions,
    measured: Mapping[tuple[str, Scope], Sequence[Measured]],
) -> list[str]:
    runs = [len(one.runs) for of_key in measured.values() for one in of_key if one.runs]
    masks = [one.metrics["aupro"].classes for of_key in measured.values() for one in of_key if one.metrics]
    tested = len(experiment.tested)
    notes = [
        "One architecture, and one start.",
        f"{tested} classes in {len(experiment.families)} families: the interval over images is about these classes; the "
        "one over classes is about others of the same kind, and is wide where there are few.",
        "The text features are stand-ins with CLIP's geometry and none of its meaning (stand_in_texts.py).",
    ]
    if min(runs, default=1) < 2:
        notes.append(
            "Arms with one training run: the interval says what these weights are worth, not what another run would give."
        )
    if max(runs, default=1) > min(runs, default=1):
        notes.append(
            "Arms with more runs than others were chosen by their results on these test images: they look better."
        )
    if masks and min(masks) < tested:
        notes.append(f"Pixel AUROC and AUPRO are of the {min(masks)} classes that have masks.")
    if definitions.budget.name == "quick":
        notes.append(
            "The quick budget trains for minutes on small images; the recipes train for much longer on larger ones."
        )
    return ["## What it can't say", "", *(f"- {note}" for note in notes), f"- What the images are: {CLASSES.name}.", ""]


def _fold_list(experiment: Experiment) -> str:
    return "; ".join(
        f"{fold} ({'nothing left out' if fold == ALL else 'leaves out ' + ', '.join(experiment.tested_in(fold))})"
        for fold in experiment.folds
    )


def _detectors(rows: Sequence[Row]) -> str:
    seeds: dict[str, set[int]] = {}
    for row in rows:
        seeds.setdefault(row.method, set()).add(row.seed)
    return "; ".join(f"{name}, seeds {', '.join(map(str, sorted(of)))}" for name, of in seeds.items()) or "none yet"


def _versions(row: Row) -> str:
    return ", ".join(f"{name} {version}" for name, version in row.versions.items())


def _span(values: Iterable[int | str]) -> str:
    ordered = sorted(set(values))
    return " to ".join(map(str, dict.fromkeys((ordered[0], ordered[-1])))) if ordered else "none"


def _because(reason: str | None) -> str:
    return f": {reason.rstrip('.')}" if reason else ""


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _points(comparison: Comparison) -> str:
    return f"{_change(comparison.difference)} {_interval(comparison)}"


def _interval(comparison: Comparison) -> str:
    return f"[{_change(comparison.low)}, {_change(comparison.high)}]"


def _change(value: float) -> str:
    """In points; a small negative number is +0.0 as well."""
    return f"{round(100 * value, 1) + 0.0:+.1f}"


def _with_difference(estimate: Estimate) -> str:
    if estimate.value is None or estimate.difference is None:
        return "-"
    return f"{_percent(estimate.value)} ({_change(estimate.difference)})"
