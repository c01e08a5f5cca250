"""What `classify` leaves beside its rows: tables, figures and their caption."""

from collections.abc import Sequence, Set
from pathlib import Path

from tabzoo.benchmark.classify.embedding import Drawn, draw_embedding
from tabzoo.benchmark.classify.figures import draw_confusion, draw_label_efficiency
from tabzoo.benchmark.classify.rows import read_rows
from tabzoo.benchmark.classify.summary import Group, group_rows, to_csv, to_markdown
from tabzoo.captions import write_caption
from tabzoo.command import say
from tabzoo.data.wafers import PATTERNS, short
from tabzoo.errors import count
from tabzoo.plain import for_path
from tabzoo.system import whole_file

__all__ = ["write_report"]


def write_report(folder: Path, keys: Set[str], order: Sequence[str], command: str) -> str:
    """Writes table.md and table.csv of all rows in a folder, and the figures of this run's rows with their caption.

    Args:
        folder: With the rows.
        keys: Of this run's rows.
        order: Its backbones; the first one is the baseline.
        command: What was typed.

    Returns:
        The tables.
    """
    rows = read_rows(folder)
    # This run's rows count where older weights had the same name.
    groups = group_rows(
        [*(row for row in rows if row.key not in keys), *(row for row in rows if row.key in keys)], order=order
    )
    table = to_markdown(groups)
    for name, text in (("table.md", table), ("table.csv", to_csv(groups))):
        with whole_file(folder / name) as file:
            file.write_text(text, encoding="utf-8", errors="backslashreplace")
    for group in groups:
        if not keys.isdisjoint({row.key for row in group.rows.values()}):
            _draw(folder, group, command)
    return table


def _draw(folder: Path, group: Group, command: str) -> None:
    mode, percent = group.first.mode, group.percents[-1]
    if len(group.percents) > 1:
        draw_label_efficiency(folder / f"label_efficiency-{mode}", group)
    for backbone in group.backbones:
        if group.of(backbone, percent):
            draw_confusion(folder / "confusion" / f"{mode}-{for_path(backbone)}", group, backbone)
    drawn = draw_embedding(folder, group) if mode == "finetune" else Drawn([], [])
    for line in drawn.missing:
        say(line)
    weights = {f"weights of {row.backbone}, seed {row.seed}": row.weights_sha256 for row in group.rows.values()}
    write_caption(
        folder / f"caption-{mode}.txt",
        [*_sentences(group), *drawn.sentences, *drawn.missing],
        command=command,
        hashes={f"images and labels of {group.first.dataset}": group.first.data_sha256, **weights},
        packages=("scikit-learn",),
    )


def _sentences(group: Group) -> list[str]:
    row, percent = group.first, group.percents[-1]
    seeds = count(len(group.seeds), "seed")
    sentences = [
        f"Classification of {row.dataset} ({count(len(row.classes), 'class', 'classes')}), mode {row.mode}, "
        f"{count(row.images['tested'], 'test image')}, {seeds}."
    ]
    if row.budget == "quick":
        sentences.append("Quick budget: its numbers can't be compared with those of papers.")
    if len(group.percents) > 1:
        sentences.append(
            f"label_efficiency-{row.mode}: accuracy and macro-F1 over the share of training labels, means over seeds; bars: "
            f"standard deviation over seeds, where there are several. Marks are moved aside so that none hides another."
        )
    sentences.append(
        f"confusion/{row.mode}-*: test images of each true class by predicted class, with {percent} % of the labels, summed "
        f"over seeds; colour: share of the true class."
    )
    if row.pattern_f1:
        sentences.append(f"Names: {', '.join(f'{short(name)} {name}' for name in PATTERNS)}; a mixture has several.")
    return sentences
