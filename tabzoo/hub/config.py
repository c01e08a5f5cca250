"""timm's config.json, read as data: fields that say how images are prepared are checked, and nothing else has a say.

timm itself builds what such a file asks for, whatever its size, so one from elsewhere is not handed to it as it is.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import timm
from timm.models import PretrainedCfg

from tabzoo.errors import WeightsError, brief, did_you_mean
from tabzoo.hub.files import open_regular

__all__ = ["LARGEST_JSON", "architecture_facts", "read_config", "read_json"]

LARGEST_JSON = 1_000_000
"""Bytes that a config.json or tabzoo.json may have; real ones have a few thousand."""

_LARGEST_SIDE = 4096
_DEEPEST = 20


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        WeightsError: Not there, too large, or no JSON object.
    """
    try:
        with open_regular(path, LARGEST_JSON) as (file, _):
            content = json.loads(file.read().decode(), parse_constant=_refuse)  # given bytes, it would guess UTF-16 too
    except OSError as error:
        raise WeightsError(f"{path}: can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not JSON in UTF-8: {brief(error)}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: expected a JSON object")
    if _is_deep(content):
        raise WeightsError(f"{path}: nested deeper than {_DEEPEST} levels; a file of this kind has few")
    return content


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _is_deep(content: object) -> bool:
    """Whether tables and lists lie in each other beyond what can be shown and written again."""
    level = [content]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return any(isinstance(entry, dict | list) for entry in level)


def read_config(path: Path) -> PretrainedCfg:
    """The configuration of weights without classifier, for an architecture that timm has.

    Raises:
        WeightsError: Another architecture, arguments for its code, a classifier, or values out of range.
    """
    content = read_json(path)
    architecture, given = content.get("architecture"), content.get("pretrained_cfg")
    if not isinstance(architecture, str) or not timm.is_model(architecture) or "." in architecture:
        shown = str(architecture)[:100]
        hint = did_you_mean(shown, timm.list_models())
        raise WeightsError(f"{path}: timm {timm.__version__} has no architecture {shown!r}.{hint}")
    if not isinstance(given, dict):
        raise WeightsError(f"{path}: expected a JSON object under pretrained_cfg")
    if not _harmless(content.get("model_args", {})):
        raise WeightsError(
            f"{path}: asks for arguments of the model's code (model_args), which no weights of tabzoo do"
        )
    if content.get("num_classes", given.get("num_classes", 0)) != 0:
        raise WeightsError(f"{path}: num_classes is not 0: expected weights without a classifier")
    values = {key: given[key] for key in _FIELDS if given.get(key) is not None}
    wrong = [key for key, value in values.items() if not _FIELDS[key](value)]
    if wrong:
        raise WeightsError(f"{path}: {wrong[0]}: {brief(ValueError(values[wrong[0]]))} is out of range")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return PretrainedCfg(num_classes=0, **architecture_facts(architecture), **values)


def architecture_facts(architecture: str) -> dict[str, Any]:
    """Fields of a configuration that the architecture decides, not the weights; timm's own word is taken for them."""
    known = timm.get_pretrained_cfg(architecture) or PretrainedCfg()
    facts = {key: getattr(known, key) for key in ("first_conv", "classifier", "fixed_input_size")}
    return {"architecture": architecture, **facts}


def _harmless(model_args: Any) -> bool:
    """Whether arguments for the model's code say nothing but what weights of tabzoo are anyway, as timm writes it."""
    given = {"num_classes": 0, "in_chans": 3, "global_pool": "avg"}
    return isinstance(model_args, dict) and all(given.get(key) == value for key, value in model_args.items())


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 10_000


def _one_of(*accepted: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in accepted


def _number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low < value <= high


def _numbers(count: int, low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, list) and len(value) == count and all(_number(entry, low, high) for entry in value)
    )


def _sides(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(side, int) and _number(side, 0, _LARGEST_SIDE) for side in value)


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "input_size": lambda value: _sides(value) and len(value) == 3 and value[0] == 3,
    "pool_size": lambda value: _sides(value) and len(value) == 2,
    "crop_pct": lambda value: _number(value, 0, 2),
    "crop_mode": _one_of("center", "squash", "border"),
    "interpolation": _one_of("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"),
    "mean": _numbers(3, -1000, 1000),
    "std": _numbers(3, 0, 1000),
    "license": _text,
    "description": _text,
    "paper_name": _text,
    "paper_ids": _text,
}
