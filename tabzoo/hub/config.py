"""`config.json` in timm's Hub format: written for a model, and read as data.

timm builds whatever such a file asks for, whatever its size. So a file from elsewhere is not passed on to timm: only
fields that say how images are prepared are read, each of them is checked, and the rest is ignored.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
from timm.models import PretrainedCfg
from torch import nn

from tabzoo.errors import WeightsError, brief, did_you_mean
from tabzoo.hub.files import read_json

__all__ = ["PAPER", "architecture_facts", "read_config", "timm_config"]

PAPER: dict[str, Any] = {
    "paper_name": "TAB: Text-Align Anomaly Backbone Model for Industrial Inspection Tasks",
    "paper_ids": "arXiv:2312.09480",
}

_LARGEST_SIDE = 4096


def timm_config(
    backbone: nn.Module,
    *,
    license: str,
    description: str,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    resize: int = 256,
    crop: int = 224,
) -> dict[str, Any]:
    """The content of config.json. Evaluation is timm's: squash to crop / crop_pct by Lanczos, centre crop, normalise.

    Args:
        backbone: A timm model without classifier.
        license: Of the weights.
        description: How the weights were made.
        mean: Of the normalisation that the weights were trained with.
        std: The same.
        resize: Side of the squashed image, in pixels.
        crop: Side of the model's input, in pixels.
    """
    given: dict[str, Any] = backbone.pretrained_cfg  # type: ignore[assignment]
    kept = {key: given[key] for key in ("first_conv", "classifier") if key in given}
    pool, side = given.get("pool_size"), given["input_size"][-1]
    config = PretrainedCfg(
        **kept,
        architecture=given["architecture"],
        input_size=(3, crop, crop),
        pool_size=tuple(round(extent * crop / side) for extent in pool) if pool else None,
        crop_pct=crop / resize,
        crop_mode="squash",
        interpolation="lanczos",
        mean=mean,
        std=std,
        num_classes=0,
        license=license,
        description=description,
        **PAPER,
    )
    return {
        "architecture": given["architecture"],
        "num_classes": 0,
        "num_features": getattr(backbone, "num_features", None),
        "pretrained_cfg": config.to_dict(remove_source=True),
    }


def read_config(path: Path) -> PretrainedCfg:
    """Reads the configuration of weights without classifier, for an architecture that timm has.

    Raises:
        WeightsError: Unknown architecture, arguments for the model's code, a classifier, or a value out of range.
    """
    content = read_json(path)
    architecture, given = content.get("architecture"), content.get("pretrained_cfg")
    if not isinstance(architecture, str) or not timm.is_model(architecture) or "." in architecture:
        shown = str(architecture)[:100]
        hint = did_you_mean(shown, timm.list_models())
        raise WeightsError(f"{path}: timm {timm.__version__} has no architecture {shown!r}.{hint}")
    if not isinstance(given, dict):
        raise WeightsError(f"{path}: expected a JSON object under pretrained_cfg")
    if not _is_harmless(content.get("model_args", {})):
        raise WeightsError(f"{path}: contains model_args; tabzoo accepts no arguments for the model's code")
    if content.get("num_classes", given.get("num_classes", 0)) != 0:
        raise WeightsError(f"{path}: num_classes is not 0: expected weights without a classifier")
    values = {key: given[key] for key in _FIELDS if given.get(key) is not None}
    wrong = [key for key, value in values.items() if not _FIELDS[key](value)]
    if wrong:
        raise WeightsError(f"{path}: {wrong[0]}: {brief(ValueError(values[wrong[0]]))} is out of range")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return PretrainedCfg(num_classes=0, **architecture_facts(architecture), **values)


def architecture_facts(architecture: str) -> dict[str, Any]:
    """The fields of a configuration that depend on the architecture, not on the weights; taken from timm."""
    known = timm.get_pretrained_cfg(architecture) or PretrainedCfg()
    facts = {key: getattr(known, key) for key in ("first_conv", "classifier", "fixed_input_size")}
    return {"architecture": architecture, **facts}


def _is_harmless(model_args: Any) -> bool:
    """Whether arguments for the model's code, which timm writes too, only repeat what holds for all weights of tabzoo."""
    given = {"num_classes": 0, "in_chans": 3, "global_pool": "avg"}
    return isinstance(model_args, dict) and all(given.get(key) == value for key, value in model_args.items())


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 10_000


def _one_of(*accepted: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in accepted


def _is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low < value <= high


def _numbers(count: int, low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, list) and len(value) == count and all(_is_number(entry, low, high) for entry in value)
    )


def _are_sides(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(side, int) and _is_number(side, 0, _LARGEST_SIDE) for side in value
    )


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "input_size": lambda value: _are_sides(value) and len(value) == 3 and value[0] == 3,
    "pool_size": lambda value: _are_sides(value) and len(value) == 2,
    "crop_pct": lambda value: _is_number(value, 0, 2),
    "crop_mode": _one_of("center", "squash", "border"),
    "interpolation": _one_of("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"),
    "mean": _numbers(3, -1000, 1000),
    "std": _numbers(3, 0, 1000),
    "license": _is_text,
    "description": _is_text,
    "paper_name": _is_text,
    "paper_ids": _is_text,
}
