"""The output folder of a run: a Hub repository in waiting, which `timm.create_model("local-dir:DIR")` loads."""

import dataclasses
import datetime
import hashlib
import json
import platform
import re
import shutil
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from timm.models import PretrainedCfg
from torch import nn

import tabzoo
from tabzoo.errors import InputError
from tabzoo.training.recipe import Recipe
from tabzoo.training.text import TextFeatures

__all__ = ["CHECKPOINTS", "METRICS", "VALIDATION", "is_finished", "prepare_folder", "write_results", "write_run"]

WEIGHTS, CARD, CHECKPOINTS, METRICS, VALIDATION = (
    "model.safetensors",
    "README.md",
    "checkpoints",
    "metrics.jsonl",
    "validation.jsonl",
)
_OURS = (
    WEIGHTS,
    CARD,
    CHECKPOINTS,
    METRICS,
    VALIDATION,
    "config.json",
    "tabzoo.json",
    "recipe.yaml",
    "run.json",
    "text_features.safetensors",
    "figures",
    "toy_factory",
    "toy_factory.half",
    "benchmark",
)


def prepare_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Makes the folder, or sees that it may be written into; with `overwrite`, what a run wrote there is removed.

    Raises:
        InputError: It is a file, can't be made, or holds something and neither `resume` nor `overwrite` is set.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise InputError(f"--output {folder}: can't be used as a folder: {error.strerror}") from error
    if overwrite:
        for name in set(held) & set(_OURS):
            shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    elif held and not resume:
        raise InputError(
            f"--output {folder}: the folder is not empty ({', '.join(held[:3])}{' ...' if len(held) > 3 else ''}). "
            f"Type --resume to go on with the run in it, --overwrite to replace that run, or name another folder."
        )


def is_finished(folder: Path) -> bool:
    """Whether the run in the folder has come to its end."""
    return (folder / "tabzoo.json").is_file() and (folder / WEIGHTS).is_file()


def write_run(folder: Path, recipe: Recipe, text: TextFeatures, *, command: str, device: torch.device) -> None:
    """What is known before the first step: recipe, text features, and `run.json` with paths, command and versions."""
    (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    text.save(folder / "text_features.safetensors")
    _write_json(
        folder / "run.json",
        {
            "command": command,
            "data": str(Path(recipe.data).resolve()) if recipe.data else None,
            "started": _now(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
            "host": platform.platform(),
            "versions": {
                "python": platform.python_version(),
                "tabzoo": tabzoo.__version__,
                "torch": torch.__version__,
                "timm": timm.__version__,
            },
        },
    )


def write_results(
    folder: Path,
    backbone: nn.Module,
    recipe: Recipe,
    text: TextFeatures,
    *,
    recipe_name: str,
    training: dict[str, Any],
    metrics: dict[str, float],
) -> None:
    """The weights, their timm configuration, provenance and model card; `tabzoo.json`, the mark of a whole run, last.

    Args:
        folder: The output folder.
        backbone: A timm model without classifier.
        recipe: The resolved recipe.
        text: The text features trained against.
        recipe_name: What the recipe is called.
        training: Images, classes and steps, for the record.
        metrics: The last row's loss and accuracies.
    """
    config = _timm_config(backbone, recipe, text)
    name = f"{config['architecture']}.{_slug(folder)}"
    weights = {key: value.detach().cpu().contiguous() for key, value in backbone.state_dict().items()}
    # One metadata entry alone: several are written in any order, and equal weights should make equal files.
    save_file(weights, str(folder / WEIGHTS), metadata={"format": "pt"})
    _write_json(folder / "config.json", config)
    content = (folder / WEIGHTS).read_bytes()
    record = {
        "name": name,
        "weights": {"file": WEIGHTS, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)},
        "license": recipe.license,
        "recipe": {"name": recipe_name, "sha256": recipe.digest()},
        "initial_weights": recipe.backbone if recipe.init == "pretrained" else Path(recipe.init).name,
        "text": {"model": text.text_model, "pretrained": text.text_pretrained, "prompts_sha256": text.prompts_sha256},
        "training": training,
        "metrics": metrics,
        "tabzoo_version": tabzoo.__version__,
        "created": _now(),
    }
    (folder / CARD).write_text(_card(record, text), encoding="utf-8")
    _write_json(folder / "tabzoo.json", record)


def _timm_config(backbone: nn.Module, recipe: Recipe, text: TextFeatures) -> dict[str, Any]:
    """timm's Hub format. Evaluation is timm's own: squash to crop / crop_pct by Lanczos, centre crop, normalise."""
    given: dict[str, Any] = backbone.pretrained_cfg  # type: ignore[assignment]
    kept = {key: given[key] for key in ("first_conv", "classifier") if key in given}
    pool, side = given.get("pool_size"), given["input_size"][-1]
    pool_size = tuple(round(extent * recipe.crop / side) for extent in pool) if pool else None
    source = PretrainedCfg(
        **kept,
        architecture=given["architecture"],
        input_size=(3, recipe.crop, recipe.crop),
        pool_size=pool_size,
        crop_pct=recipe.crop / recipe.resize,
        crop_mode="squash",
        interpolation="lanczos",
        mean=recipe.mean,
        std=recipe.std,
        num_classes=0,
        license=recipe.license,
        description=f"TAB pre-training from {recipe.init} weights, with texts of {text.text_model} {text.text_pretrained}",
        paper_name="TAB: Text-Align Anomaly Backbone Model for Industrial Inspection Tasks",
        paper_ids="arXiv:2312.09480",
    )
    return {
        "architecture": given["architecture"],
        "num_classes": 0,
        "num_features": getattr(backbone, "num_features", None),
        "pretrained_cfg": source.to_dict(remove_source=True),
    }


def _card(record: dict[str, Any], text: TextFeatures) -> str:
    training, metrics = record["training"], record["metrics"]
    untrained = (
        "\n**The text tower was untrained: this shows the machinery and is no usable backbone.**\n"
        if text.text_pretrained == "untrained"
        else ""
    )
    rows = "\n".join(f"| {key} | {value:.4f} |" for key, value in metrics.items())
    classes = ", ".join(f"{word} ({training['classes'][name]})" for name, word in text.words.items())
    return f"""---
library_name: timm
license: {record["license"] if record["license"] != "unspecified" else "other"}
tags: [image-feature-extraction, anomaly-detection, industrial-inspection, timm, tabzoo]
---
# {record["name"]}

A backbone for industrial visual inspection, made by TAB (Text-Align Anomaly Backbone, arXiv 2312.09480) with tabzoo
{record["tabzoo_version"]}, recipe `{record["recipe"]["name"]}`.
{untrained}
```python
import timm
model = timm.create_model("local-dir:FOLDER", pretrained=True, features_only=True)  # FOLDER: where this file lies
```

- Trained on {training["images"]} normal images (synthetic anomalies were made from them), {training["epochs"]} epochs,
  {training["steps"]} steps. Classes: {classes}.
- Initial weights: {record["initial_weights"]}. Text features: {text.text_model}, {text.text_pretrained}.
- Licence of the weights: {record["license"]}. It must allow what the training images' licence allows, no more.
- A detector tested on these same classes has seen their normal images in pre-training: say so beside its numbers.

At the last step:

| | |
|---|---|
{rows}
"""


def _slug(folder: Path) -> str:
    return re.sub(r"[^0-9a-z]+", "_", folder.resolve().name.lower()).strip("_") or "run"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(
        json.dumps(content, indent=2, ensure_ascii=False, default=dataclasses.asdict) + "\n", encoding="utf-8"
    )
    temporary.replace(path)
