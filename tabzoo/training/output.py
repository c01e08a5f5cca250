"""The output folder of a run: a Hub repository in waiting, which `timm.create_model("local-dir:DIR")` loads."""

import platform
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

from tabzoo._version import __version__
from tabzoo.data.decoding import Hashes
from tabzoo.errors import WriteError, count
from tabzoo.hub.card_text import LIMITS_OF_RANKING, LIMITS_OF_TAB, Sections, in_order
from tabzoo.hub.config import timm_config
from tabzoo.hub.files import Digest, write_json
from tabzoo.hub.folder import HASHES, now, write_folder
from tabzoo.hub.record import CARD, CONFIG, RECORD, WEIGHTS
from tabzoo.plain import for_terminal
from tabzoo.progress import duration
from tabzoo.system import whole_file
from tabzoo.training.metrics import ACCURACY, SHOWN
from tabzoo.training.normalisation import as_words
from tabzoo.training.recipe import Recipe
from tabzoo.training.text import TextFeatures, mixes_classes

__all__ = [
    *("CHECKPOINTS", "METRICS", "RECIPE", "RUN", "TEXT", "VALIDATION", "device_name", "is_finished", "write_results"),
    "write_run",
]

CHECKPOINTS, METRICS, VALIDATION, RUN = "checkpoints", "metrics.jsonl", "validation.jsonl", "run.json"
RECIPE, TEXT = "recipe.yaml", "text_features.safetensors"


def is_finished(folder: Path) -> bool:
    """Whether the run in the folder is finished."""
    return (folder / RECORD).is_file() and (folder / WEIGHTS).is_file()


def device_name(device: torch.device) -> str:
    """What a device is called, for records."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"


def write_run(folder: Path, recipe: Recipe, text: TextFeatures, *, command: str, device: torch.device) -> None:
    """Writes what is known before the first step: recipe, text features, and `run.json` with paths, command, versions."""
    # run.json first, since it marks the folder as a run's.
    run = {
        "command": for_terminal(command),
        "data": for_terminal(str(Path(recipe.data).resolve())) if recipe.data else None,
        "mean": recipe.mean,
        "std": recipe.std,
        "started": now(),
        "device": device_name(device),
        "host": platform.platform(),
        "versions": {
            "python": platform.python_version(),
            "tabzoo": __version__,
            "torch": torch.__version__,
            "timm": timm.__version__,
        },
    }
    write_json(folder / RUN, run)
    with whole_file(folder / RECIPE) as file:
        file.write_text(recipe.to_yaml(), encoding="utf-8")
    text.save(folder / TEXT)


def write_results(
    folder: Path,
    backbone: nn.Module,
    recipe: Recipe,
    text: TextFeatures,
    *,
    recipe_name: str,
    recipe_digest: str,
    training: dict[str, Any],
    hashes: Hashes,
    metrics: dict[str, float],
) -> None:
    """Writes weights, their timm configuration, provenance and model card; last `tabzoo.json`, which marks a run as finished.

    Args:
        folder: The output folder.
        backbone: A timm model without classifier.
        recipe: The resolved recipe.
        text: The text features trained against.
        recipe_name: What the recipe is called.
        recipe_digest: SHA-256 of the recipe as it was given, with `amp: auto` where it said so: the same on every machine.
        training: Images, classes and steps, for the record.
        hashes: Of the images' files.
        metrics: The last row's loss and accuracies.
    """
    mean, std = recipe.normalisation
    config = timm_config(
        backbone,
        license=recipe.license,
        description=_description(recipe, text),
        resize=recipe.resize,
        crop=recipe.crop,
        mean=mean,
        std=std,
    )
    # From these the benchmark knows whether the backbone has seen a class that it is tested on.
    lines = "".join(f"{value:016x}\n" for value in np.unique(hashes).tolist())
    with whole_file(folder / HASHES) as file:
        file.write_text(lines, encoding="ascii", newline="\n")
    training = {**training, "image_hashes_sha256": Digest.of(folder / HASHES).sha256}
    provenance = {
        "recipe": {"name": recipe_name, "sha256": recipe_digest, "amp": recipe.amp},
        "initial_weights": recipe.backbone if recipe.init == "pretrained" else Path(recipe.init).name,
        "text": {
            "model": text.text_model,
            "pretrained": text.text_pretrained,
            "prompts_sha256": text.prompts_sha256,
            "layout": recipe.text_layout,
        }
        if recipe.needs_texts
        else None,
        "training": training,
        "metrics": metrics,
    }
    try:
        write_folder(
            folder,
            backbone.state_dict(),
            config,
            name=f"{config['architecture']}.{_slug(folder)}",
            provenance=provenance,
            made_by=_made_by(recipe_name, recipe, text),
            facts=_facts(provenance, recipe, text, _details(config, backbone)),
        )
    except WriteError:
        for name in (WEIGHTS, CONFIG, CARD, RECORD):  # one of them may be incomplete
            with suppress(OSError):
                (folder / name).unlink()
        raise


def _description(recipe: Recipe, text: TextFeatures) -> str:
    if not recipe.needs_texts:
        return f"tabzoo's objective ranking, from {recipe.init} weights"
    reshaped = ", reshaped across classes" if mixes_classes(recipe.text_layout, len(text.words)) else ""
    texts = f"texts of {text.text_model} {text.text_pretrained}{reshaped}"
    return f"TAB pre-training from {recipe.init} weights, with {texts}"


def _made_by(recipe_name: str, recipe: Recipe, text: TextFeatures) -> str:
    if not recipe.needs_texts:
        return f"made with tabzoo {__version__}, by its own objective `ranking`, recipe `{recipe_name}`."
    made = f"""made by TAB (Text-Align Anomaly Backbone, arXiv 2312.09480) with tabzoo
{__version__}, recipe `{recipe_name}`."""
    if text.text_pretrained != "untrained":
        return made
    return f"{made}\n\n**The text tower was untrained: this is a demo; do not use these weights.**"


def _details(config: dict[str, Any], backbone: nn.Module) -> str:
    millions = sum(parameter.numel() for parameter in backbone.parameters()) / 1e6
    return f"{config['architecture']}: {millions:.1f} M parameters, {config['num_features']}-wide embedding, no classifier."


def _facts(provenance: dict[str, Any], recipe: Recipe, text: TextFeatures, details: str) -> str:
    training = provenance["training"]
    counts = training["trained_on"]
    images, epochs, steps = (
        count(*pair)
        for pair in (
            (sum(counts.values()), "normal image"),
            (recipe.epochs, "epoch"),
            (training["steps"], "step"),
        )
    )
    classes = ", ".join(f"{for_terminal(word)} ({counts.get(name, 0)})" for name, word in text.words.items())
    held_out = f" {count(training['held_out'], 'more image')} were held out." if training["held_out"] else ""
    mixed = (
        """- **No class was aligned with its own text.** The recipe has `text_layout: authors`: the text features are reshaped
  where a transpose was meant, as in the authors' public code, so each row mixes the texts of all classes."""
        if mixes_classes(recipe.text_layout, len(text.words))
        else ""
    )
    return in_order(
        Sections(
            details=f"""{details}
Images: squashed to {recipe.resize} x {recipe.resize}, centre crop {recipe.crop} x {recipe.crop};
{as_words(vars(recipe))}.""",
            data=f"""- Trained on {images}; synthetic anomalies were made from them.{held_out}
- Classes, and the images of each that were trained on: {classes}.
- Licence of the weights: {recipe.license}. It must allow what the training images' licence allows, no more.""",
            training=f"""- {epochs}, {steps}. Objective {recipe.objective}, synthetic anomalies by {recipe.synthesis}.
- Initial weights: {provenance["initial_weights"]}. {_text_features(recipe, text)}
- All settings: `recipe.yaml`.""",
            evaluation=_evaluation(provenance["metrics"], recipe),
            limits=f"{LIMITS_OF_TAB}\n{mixed}" if recipe.needs_texts else LIMITS_OF_RANKING,
            cost=_cost(training),
            reproduce=f"""`tabzoo pretrain --recipe recipe.yaml --data DIR --output OUT`, with tabzoo {__version__} and images
that give the same `image_hashes.txt` (SHA-256 {training["image_hashes_sha256"]}).""",
        )
    )


def _text_features(recipe: Recipe, text: TextFeatures) -> str:
    if not recipe.needs_texts:
        return "No texts were used."
    return f"Text features: {text.text_model}, {text.text_pretrained}."


def _evaluation(metrics: dict[str, float], recipe: Recipe) -> str:
    rows = []
    for key, value in metrics.items():
        name, _, held_out = key.partition(" ")
        what = f"{ACCURACY[recipe.objective]}, {SHOWN[name]}" if name.startswith("accuracy") else SHOWN[name]
        rows.append(f"| {what}{f' {held_out}' if held_out else ''} | {value:.4f} |")
    table = "\n".join(["| at the last step | |", "|---|---|", *rows])
    return f"""{table}

These numbers say how the training went, not how well defects are found. `tabzoo benchmark run` measures that, and
`tabzoo publish --results` puts its numbers here, with intervals."""


def _cost(training: dict[str, Any]) -> str:
    time, hardware = duration(training["seconds"]), for_terminal(training["hardware"])
    return f"""About {time} for all steps on {hardware}; reading the images before is not counted. Energy was not measured."""


def _slug(folder: Path) -> str:
    return re.sub(r"[^0-9a-z]+", "_", folder.resolve().name.lower()).strip("_") or "run"
