"""A timm model with the weights of a file in it, and the proof that all of them arrived.

timm loads with strict=False whenever the classifier differs from the file's, so a file with other names than the
model's leaves it at random weights, without a word. Here every tensor of the model is compared with the file's.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import timm
from timm.models import PretrainedCfg, adapt_input_conv
from torch import Tensor, nn

from tabzoo.errors import WeightsError, brief

__all__ = ["build"]

_SHOWN = 3


def build(config: PretrainedCfg, weights: Path, tensors: Mapping[str, Tensor], **timm_kwargs: Any) -> nn.Module:
    """The model that timm makes of the tensors of a weights file, which is not read again.

    Args:
        config: Of the weights.
        weights: The file.
        tensors: Its content, from a reading that was checked.
        timm_kwargs: For timm.create_model.

    Raises:
        WeightsError: The file does not fit the architecture, or something of it is not in the model.
    """
    overlay = {**(timm_kwargs.pop("pretrained_cfg_overlay", None) or {}), "state_dict": dict(tensors)}
    try:
        model: nn.Module = timm.create_model(
            str(config.architecture),
            pretrained=True,
            pretrained_cfg=config,
            pretrained_cfg_overlay=overlay,
            **timm_kwargs,
        )
    except (KeyError, RuntimeError) as error:  # load_state_dict's, and timm's for a first layer that is not there
        raise WeightsError(f"{weights}: does not fit {config.architecture}: {_one_line(error)}") from error
    for module in model.modules():  # wrappers of features_only and what is in them
        for kept in (vars(module).get("pretrained_cfg"), vars(module).get("default_cfg")):
            if isinstance(kept, dict) and kept.pop("state_dict", None):
                kept["file"] = str(weights)
    faults = _faults(model, config, tensors, features_only=bool(timm_kwargs.get("features_only")))
    if faults:
        raise WeightsError(f"{weights}: some tensors were not loaded into {config.architecture}: {'; '.join(faults)}")
    return model


def _faults(
    model: nn.Module, config: PretrainedCfg, tensors: Mapping[str, Tensor], *, features_only: bool
) -> list[str]:
    held = {_plain(key): value for key, value in model.state_dict().items()}
    given = {_plain(key): value for key, value in tensors.items()}
    for layer in _names(config.first_conv):
        key = _plain(f"{layer}.weight")
        # Other than three channels: timm sums or repeats the filters, and so does the comparison.
        if key in held and key in given and held[key].shape[1] != given[key].shape[1]:
            given[key] = adapt_input_conv(held[key].shape[1], given[key])
    heads = tuple(_plain(f"{name}.") for name in _names(config.classifier))
    random = [key for key in held if key not in given and not key.startswith(heads)]
    # With features_only, timm loads the whole model and then drops the stages that nobody asked for.
    lost = [] if features_only else [key for key in given if key not in held]
    other = [key for key in held if key in given and not _equal(held[key], given[key])]
    return [
        f"{len(keys)} tensors {what} ({', '.join(keys[:_SHOWN])}{' ...' if len(keys) > _SHOWN else ''})"
        for keys, what in (
            (random, "of the model are not in the file"),
            (lost, "of the file are not in the model"),
            (other, "differ"),
        )
        if keys
    ]


def _plain(key: str) -> str:
    """A name as every wrapper of features_only has it: they put one of their own before it, and underscores for dots."""
    return re.sub(r"^(model|body|graph_module)\.", "", key).replace("_", ".")


def _names(names: str | Iterable[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


def _equal(held: Tensor, given: Tensor) -> bool:
    return held.shape == given.shape and bool((held.cpu() == given.to(held.dtype)).all())


def _one_line(error: Exception) -> str:
    """torch lists what is wrong on lines of their own, after a title that says nothing."""
    return brief(type(error)(" ".join(str(error).split())))
