"""What a run reports: its plan before the first step; its figures, results and how to load them after the last."""

import textwrap
from collections.abc import Sequence
from statistics import fmean

import torch
import yaml
from torch import nn

from tabzoo.errors import count
from tabzoo.scores.averages import averages_by_seed, scores_by_class
from tabzoo.scores.rows import Row
from tabzoo.training import figures, output
from tabzoo.training.anomalies import syntheses
from tabzoo.training.clip import UNTRAINED
from tabzoo.training.metrics import ACCURACY, SHOWN, read_rows
from tabzoo.training.ranking import ScoreRanking
from tabzoo.training.recipe import Recipe
from tabzoo.training.run import Run, names_digest
from tabzoo.training.state import State
from tabzoo.training.text import mixes_classes
from tabzoo.training.validation import similarities

__all__ = ["announce", "explain_benchmark", "finish", "of_each_class"]


def announce(run: Run, recipe_name: str, recipe_digest: str) -> None:
    """Prints what is about to be trained."""
    classes = len(run.samples.classes)
    held = f" and {len(run.held_out)} held out" if run.held_out else ""
    print(f"Recipe {recipe_name}, sha256 {recipe_digest[:12]}:")
    values = yaml.safe_load(run.recipe.to_yaml()).items()
    settings = ", ".join(f"{name} {value}" for name, value in values)
    print(textwrap.fill(settings, 118, initial_indent="  ", subsequent_indent="  "))
    print(
        f"{count(len(run.pairs), 'image')} of {count(classes, 'class', 'classes')} to train on{held}; "
        f"{count(run.recipe.epochs, 'epoch')} of {count(run.steps_per_epoch, 'step')} of {run.batch_size} normal images "
        f"and as many anomalies, on {run.device}"
        f"{f', in {run.ranks.size} processes' if run.ranks.size > 1 else ''}."
    )


def finish(run: Run, state: State, recipe_name: str, recipe_digest: str) -> None:
    """Draws the figures, writes weights, provenance and model card, and prints what came out and how to load it."""
    rows, validation = read_rows(run.folder / output.METRICS), read_rows(run.folder / output.VALIDATION)
    _draw(run, state, rows, validation)
    last = (validation or rows or [{}])[-1]
    of_what = " (held out)" if validation else ""
    metrics = {f"{key}{of_what}": last[key] for key in SHOWN if key in last}
    counts, trained = run.samples.class_ids, run.pairs.class_ids
    training = {
        "images": len(run.samples),
        "held_out": len(run.held_out) if run.held_out else 0,
        "classes": {name: int((counts == index).sum()) for index, name in enumerate(run.samples.classes)},
        "trained_on": {name: int((trained == index).sum()) for index, name in enumerate(run.samples.classes)},
        "syntheses": syntheses(run.recipe),
        "samples_sha256": names_digest(run.samples),
        "epochs": run.recipe.epochs,
        "steps": run.total_steps,
        "seconds": round(_seconds(run, rows), 1),
        "hardware": output.device_name(run.device),
    }
    output.write_results(
        *(run.folder, _result(run, state), run.recipe, run.text),
        recipe_name=recipe_name,
        recipe_digest=recipe_digest,
        training=training,
        hashes=run.hashes,
        metrics=metrics,
    )
    _report(run, rows, metrics)


def _result(run: Run, state: State) -> nn.Module:
    if isinstance(state.objective, ScoreRanking):
        return state.objective.interpolated(run.recipe.interpolation)
    return state.objective.backbone


def _seconds(run: Run, rows: Sequence[dict[str, float]]) -> float:
    """Time of all steps, also of those before the run was resumed."""
    before = [0, *(row["step"] for row in rows)]
    return sum(
        2 * run.batch_size * (row["step"] - first) / row["images_per_second"]
        for first, row in zip(before, rows, strict=False)
    )


def _losses(rows: Sequence[dict[str, float]]) -> str:
    """The first and the last row's loss, each with its steps: a row is the mean over the steps since the one before."""
    parts = []
    for row, before in [(rows[0], 0), (rows[-1], rows[-2]["step"])] if len(rows) > 1 else [(rows[0], 0)]:
        first, last = int(before) + 1, int(row["step"])
        steps = f"step {last}" if first == last else f"steps {first} to {last}"
        parts.append(f"{row['loss']:.3f} in {steps}")
    return f"Loss {', '.join(parts)}."


def _end(run: Run, metrics: dict[str, float]) -> str:
    """What the last row says, and what its accuracies mean."""
    if not metrics:
        return "At the end: metrics.jsonl has no row."
    joint = run.recipe.objective == "joint"
    held_out = " (held out)" if any(name.endswith("(held out)") for name in metrics) else ""
    loss, *accuracies = metrics.values()
    if not accuracies:
        return f"At the end{held_out}: loss {loss:.3f}."
    if run.recipe.objective == "ranking":
        return (
            f"At the end{held_out}: loss {loss:.3f}, AUROC of synthetic anomalies against good images, in a batch, "
            f"{accuracies[0]:.3f}; chance is 0.500.\nIt does not say how well real defects are found: `tabzoo benchmark run` "
            f"measures that."
        )
    chance = 1 / (len(run.samples.classes) * (2 if joint else 1))
    normal, abnormal = accuracies
    means = "which product an image shows, and whether it is normal" if joint else "which product an image shows"
    return (
        f"At the end{held_out}: loss {loss:.3f}, {ACCURACY[run.recipe.objective]} {normal:.3f} of normal images and "
        f"{abnormal:.3f} of synthetic anomalies; chance is {chance:.3f}.\nThis accuracy says {means}. It does not say how well "
        f"real defects are found: `tabzoo benchmark run` and `tabzoo trial` measure that."
    )


def _draw(run: Run, state: State, rows: Sequence[dict[str, float]], validation: Sequence[dict[str, float]]) -> None:
    words = list(run.text.words.values())
    seed, ids = run.recipe.seed, of_each_class(run.pairs.class_ids, 64)
    shown = ids[torch.linspace(0, len(ids) - 1, min(12, len(ids))).long()]
    folder = run.folder / "figures"
    figures.draw_samples(folder / "samples.png", run.pairs.raw(seed, 0, shown), words)
    figures.draw_curves(folder / "curves.png", rows, validation)
    if not run.recipe.needs_texts:
        return
    pairs = run.pairs(seed, 0, ids)
    figures.draw_similarity(folder / "similarity.png", similarities(run, state, pairs), pairs.classes.cpu(), words)


def of_each_class(class_ids: torch.Tensor, total: int) -> torch.Tensor:
    """About `total` images, evenly of all classes, in the order of the classes."""
    each = max(1, total // len(class_ids.unique()))
    return torch.cat([(class_ids == index).nonzero().flatten()[:each] for index in class_ids.unique()])


def _report(run: Run, rows: Sequence[dict[str, float]], metrics: dict[str, float]) -> None:
    if rows:
        print(_losses(rows))
    print(_end(run, metrics))
    print(
        f"Made in {run.folder}: model.safetensors, config.json, tabzoo.json, recipe.yaml, README.md, figures/ and more."
    )
    needed = "; publishing needs one" if run.recipe.license == Recipe.license else ""
    print(f"Licence of the weights: {run.recipe.license} (set by --license{needed}). To load them:")
    print("  import timm")
    print(f'  backbone = timm.create_model("local-dir:{run.folder}", pretrained=True, features_only=True)')
    if mixes_classes(run.recipe.text_layout, len(run.text.words)):
        print("The texts of all classes were mixed up (text_layout authors): no class was aligned with its own text.")
    if run.text.text_pretrained == UNTRAINED:
        print("The text tower was untrained: this is a demo; do not use these weights.")


def explain_benchmark(rows: Sequence[Row], *, text_pretrained: str) -> str:
    """What the quickstart's table means, in words.

    Args:
        rows: Of random weights and of the trained ones, with one method.
        text_pretrained: Of the text features that were trained against.
    """
    reached = {}
    for name in dict.fromkeys(row.backbone for row in rows):
        averages = averages_by_seed(scores_by_class([row for row in rows if row.backbone == name], "image_auroc"))
        reached[name] = f"{100 * fmean(averages):.1f} %" if averages else "undefined"
    numbers = ", ".join(f"{auroc} with {name}" for name, auroc in reached.items())
    if text_pretrained == UNTRAINED:
        gain = "No gain is expected here: the training is short, and an untrained text tower has nothing to teach."
    else:
        gain = "The training is short: do not expect much."
    return (
        f"What the table means: image AUROC says how well the score of a photo tells defective from good; 50 % is chance, "
        f"100 % is perfect. On average over the products it is {numbers}. {gain} The quickstart shows that everything works "
        f"on this machine. Next, with your own photos: tabzoo data check DIR"
    )
