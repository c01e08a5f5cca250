"""A backbone that is built again without the network: what to write down about it, and how it is made from that."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from timm.models import load_model_config_from_hf
from torch import Tensor

from tabzoo.backbones import cached_repository
from tabzoo.detectors.extractor import FeatureExtractor, timm_name
from tabzoo.errors import InputError, WeightsError, brief
from tabzoo.hub.files import read_json

__all__ = ["describe", "licence_of", "rebuild"]

# Of `timm.create_model`: they would make it fetch or read something, or are given by `rebuild` itself.
_RESERVED = frozenset(
    "model_name pretrained pretrained_cfg pretrained_cfg_overlay checkpoint_path cache_dir scriptable exportable no_jit "
    "features_only out_indices feature_cfg num_classes pretrained_strict pretrained_filter_fn weights_only".split()
)
_LARGEST = 100_000


def describe(name: str, network: FeatureExtractor) -> dict[str, Any]:
    """What `rebuild` needs besides the weights, as JSON takes it.

    Args:
        name: The source that `extractor.build_extractor` built it from.
        network: What it built.
    """
    model = timm_name(name)
    prefix, _, place = model.partition(":")
    arguments: Mapping[str, Any] = {}
    if prefix == "local-dir":
        content = read_json(Path(place) / "config.json")
        architecture, arguments = content["architecture"], content.get("model_args") or {}
    elif prefix in ("hf-hub", "hf_hub"):
        _, architecture, arguments = load_model_config_from_hf(cached_repository(model).partition(":")[2])
    else:
        architecture = model.partition(".")[0]
    return {
        "architecture": architecture,
        "arguments": {key: value for key, value in arguments.items() if key not in _RESERVED},
        "out_indices": list(network.body.feature_info.out_indices),  # type: ignore[union-attr, arg-type]
        "layers": list(network.layers),
        "mean": list(network.mean),
        "std": list(network.std),
    }


def rebuild(description: Mapping[str, Any], weights: Mapping[str, Tensor], *, amp: bool = False) -> FeatureExtractor:
    """The feature extractor, on the CPU, without network, Hub and caches.

    Args:
        description: What `describe` returned.
        weights: Of its body, by name.
        amp: Compute in bfloat16, as it did.

    Raises:
        InputError: The description is not one, or timm has no such architecture.
        WeightsError: The weights do not fit it.
    """
    architecture, arguments = description["architecture"], description["arguments"]
    if not timm.is_model(architecture) or "." in architecture:
        raise InputError(f"timm {timm.__version__} has no architecture {architecture[:100]!r}")
    for key, value in arguments.items():
        if key in _RESERVED or not re.fullmatch("[a-z][a-z0-9_]*", key) or not _is_plain(value):
            raise InputError(f"{key[:100]!r} is not an argument of a backbone")
    try:
        body = timm.create_model(
            architecture,
            pretrained=False,
            features_only=True,
            num_classes=0,
            out_indices=tuple(description["out_indices"]),
            **arguments,
        )
    except Exception as error:  # whatever timm's models do with such arguments
        raise InputError(f"timm {timm.__version__} can't build {architecture} again: {brief(error)}") from error
    expected = body.state_dict()
    wrong = sorted(weights.keys() ^ expected.keys()) or [
        key
        for key, value in weights.items()
        if value.shape != expected[key].shape or value.dtype != expected[key].dtype
    ]
    if wrong:
        raise WeightsError(f"the weights do not fit {architecture} of timm {timm.__version__}, such as {wrong[0]}")
    body.load_state_dict(weights)
    network = FeatureExtractor(body, description["layers"], amp=amp, channels_last=True)
    network.mean, network.std = tuple(description["mean"]), tuple(description["std"])
    return network


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= 100 and all(map(_is_plain, value))
    if isinstance(value, str):
        return bool(re.fullmatch(r"[\w.-]{0,100}", value))
    return value is None or (isinstance(value, bool | int | float) and -_LARGEST <= value <= _LARGEST)


def licence_of(name: str, network: FeatureExtractor) -> str | None:
    """The licence of a backbone's weights, from its configuration or its model card; None where neither says."""
    given = getattr(network.body, "pretrained_cfg", {}).get("license")
    card = Path(name.removeprefix("local-dir:")) / "README.md"
    if not given and card.is_file():
        front = card.read_text(encoding="utf-8", errors="replace")[:100_000].split("---")
        found = (
            re.search(r"^license:\s*(\S+)", front[1], re.MULTILINE) if len(front) > 2 and not front[0].strip() else None
        )
        given = found[1].strip("\"'") if found else None
    return str(given)[:200] if given else None
