"""Model cards: that of a weights folder, and that of published weights.

The second is the first with metadata for the Hub's search and with measured results.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from tabzoo.errors import InputError, WeightsError, brief
from tabzoo.hub.card_text import RESULTS_BEFORE
from tabzoo.plain import for_table, for_terminal
from tabzoo.scores import rows
from tabzoo.scores.averages import averages_by_seed, scores_by_class
from tabzoo.scores.bootstrap import DRAWS, auroc_interval
from tabzoo.scores.rows import Row

__all__ = ["Result", "folder_card", "load_line", "published_card", "read_results"]

METRICS = {name: rows.METRICS[name] for name in ("image_auroc", "pixel_auroc", "aupro")}
"""What a card shows."""

_LICENSE = re.compile(r"^(- Licence of the weights: ).*?(?=\. It must|\.?$)", re.MULTILINE)

_Key = tuple[str, str, int | None]  # dataset, method, shots


class Result(NamedTuple):
    """What one method reached with these weights on one dataset.

    Attributes:
        dataset: Name of the dataset.
        method: Name of the method; where its training was cut short, as by the quick budget, with how many steps it had.
        shots: How many good images it was given; None for all of them.
        classes: How many classes were tested.
        seeds: How many seeds were used.
        transductive: Whether the backbone was pre-trained on the good images of some of these classes.
        metrics: Key of `METRICS` to the mean over seeds of the average over classes, as in the benchmark's tables, in percent.
        interval: Of the image AUROC: 95 %, in percent; None where it is undefined.
    """

    dataset: str
    method: str
    shots: int | None
    classes: int
    seeds: int
    transductive: bool
    metrics: dict[str, float]
    interval: tuple[float, float] | None = None

    @property
    def given(self) -> str:
        """What the method was fitted to, in words."""
        return "all good images" if self.shots is None else f"{self.shots} good images"


def read_results(paths: Iterable[Path], backbones: Sequence[str]) -> list[Result]:
    """Results of a backbone from the benchmark's rows, one row a class and seed.

    Rows of other backbones and rows of synthetic anomalies, a stand-in for a test, are passed over.

    Args:
        paths: Files `results.jsonl`, or folders with one.
        backbones: What the backbone may be called in them.

    Raises:
        InputError: A file that can't be read, one that does not know the backbone, or two rows for one class and seed.
    """
    groups: dict[_Key, list[Row]] = {}
    for path in paths:
        found = _rows(path)
        ours = [row for row in found if row.backbone in backbones and row.test == rows.REAL]
        if not ours:
            others = ", ".join(sorted({row.backbone for row in found})) or "nothing"
            raise InputError(f"{path}: no row on real images is of {' or '.join(backbones)}; it holds rows of {others}")
        for row in ours:
            groups.setdefault((row.dataset, _method(row), row.shots), []).append(row)
    return [_summary(key, groups[key]) for key in sorted(groups, key=str)]


def _rows(path: Path) -> list[Row]:
    path = path / rows.RESULTS if path.is_dir() else path
    try:
        if not path.exists():
            raise InputError("no such file")
        return rows.read_rows(path)
    except InputError as error:
        reason = str(error).removeprefix(f"{path}").lstrip(":, ")
        raise InputError(f"--results {path}: expected the benchmark's {rows.RESULTS}; {reason}") from error


def _method(row: Row) -> str:
    steps = row.settings.get("steps")
    return f"{row.method}, {steps} steps" if steps and isinstance(steps, int) else row.method


def _summary(key: _Key, found: Sequence[Row]) -> Result:
    places = [(row.class_name, row.seed) for row in found]
    if twice := {place for place in places if places.count(place) > 1}:
        raise InputError(
            f"--results: {key[1]} on {key[0]} has more than one row for class and seed {min(twice)}; give results of one run, "
            f"with one setting"
        )
    metrics = {}
    for metric in METRICS:
        # Undefined for a class without defects or masks, which is left out.
        defined = {
            name: by_seed for name, by_seed in scores_by_class(found, metric).items() if set(by_seed.values()) != {None}
        }
        if averages := averages_by_seed(defined):
            metrics[metric] = 100 * fmean(averages)
    seeds = [set(by_seed) for by_seed in scores_by_class(found, "image_auroc").values()]
    common = set.intersection(*seeds)
    interval = auroc_interval([row for row in found if row.seed in common])
    transductive = any(row.transductive for row in found)
    dataset, method, shots = key
    return Result(
        for_terminal(dataset),
        for_terminal(method),
        shots,
        len(seeds),
        len(common),
        transductive,
        metrics,
        interval and (100 * interval[0], 100 * interval[1]),
    )


def folder_card(name: str, *, license: str, made_by: str, facts: str) -> str:
    """The card of a weights folder.

    Args:
        name: timm name with tag.
        license: Of the weights, or "unspecified".
        made_by: End of the first sentence, after "A backbone for industrial visual inspection, ".
        facts: The rest of the card, Markdown.
    """
    return f"""---
library_name: timm
license: {license if license != "unspecified" else "other"}
tags: [image-feature-extraction, anomaly-detection, industrial-inspection, timm, tabzoo]
---
# {name}

A backbone for industrial visual inspection, {made_by}

```python
import timm
{load_line("local-dir:FOLDER")}  # FOLDER: the folder that contains this file
```

{facts}"""


def load_line(source: str) -> str:
    """The line of Python that loads weights, for cards and messages."""
    return f'model = timm.create_model("{source}", pretrained=True, features_only=True)'


def published_card(
    text: str, *, name: str, license: str, source: str, datasets: Sequence[str], results: Sequence[Result]
) -> str:
    """A card for the Hub, made from that of a weights folder.

    Args:
        text: README.md of the folder.
        name: Of the weights, for the Hub's table of results.
        license: Of the weights.
        source: The name by which `timm.create_model` loads the published weights.
        datasets: The training data's names, for the Hub's metadata.
        results: For the card's table of results.

    Raises:
        WeightsError: The text's metadata can't be read.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    values = [
        EvalResult(
            task_type="anomaly-detection",
            dataset_type=result.dataset,
            dataset_name=result.dataset,
            metric_type=metric,
            # huggingface_hub merges all values on a dataset into one entry, so only this name distinguishes the methods.
            metric_name=f"{METRICS[metric]} of {result.method}, {result.given} (%)",
            metric_value=round(value, 2),
        )
        for result in results
        for metric, value in result.metrics.items()
    ]
    stated: dict[str, Any] = {"library_name": "timm", "license": license}
    stated |= {"datasets": list(map(for_terminal, datasets))} if datasets else {}
    stated |= {"model_name": name, "eval_results": values} if values else {}
    try:
        card = ModelCard(text)
        metadata = ModelCardData(**{**card.data.to_dict(), **stated}).to_yaml()
    except Exception as error:  # YAML's errors, ValueError, and TypeError if a key is not a string
        raise WeightsError(f"README.md: its metadata between the lines of --- can't be read: {brief(error)}") from error
    lines = card.text.strip().splitlines()
    body = "\n".join(load_line(source) if line.startswith(load_line("local-dir:FOLDER")) else line for line in lines)
    # The card was written with the licence of that time; the one in the record may have been edited since.
    body = _LICENSE.sub(lambda found: f"{found[1]}{license}", body)
    before, heading, after = body.partition(RESULTS_BEFORE)  # cards of older versions have no such heading
    return f"---\n{metadata}\n---\n{before}\n{_table(results)}{heading}{after}\n"


def _table(results: Sequence[Result]) -> str:
    if not results:
        return ""
    lines = "\n".join(
        f"| {for_table(result.dataset)} | {for_table(result.method)} | {result.given} | "
        f"{'yes' if result.transductive else 'no'} | {result.classes} | {result.seeds} | "
        + " | ".join(f"{result.metrics[key]:.2f}" if key in result.metrics else "-" for key in METRICS)
        + f" | {_interval(result)} |"
        for result in results
    )
    return f"""
### Results

In percent: the mean over classes of the mean over seeds, after the last step of the method's training. Seen: whether this
backbone was pre-trained on the good images of these classes. The interval is of the image AUROC: 95 %, from a bootstrap over
the test images ({DRAWS} draws); another training may differ by more.

| dataset | method | fitted to | seen | classes | seeds | {" | ".join(METRICS.values())} | interval |
|---|---|---|---|---|---|{"---|" * len(METRICS)}---|
{lines}
"""


def _interval(result: Result) -> str:
    return f"{result.interval[0]:.1f} to {result.interval[1]:.1f}" if result.interval else "-"
