"""The image encoder: any timm CNN without its classifier, started from timm's weights, at random or from a file."""

from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import PretrainedCfg, load_model_config_from_hf
from torch import Tensor, nn

from tabzoo.compute import seeded
from tabzoo.errors import InputError, WeightsError, brief, counted, did_you_mean
from tabzoo.hub.files import read_json
from tabzoo.hub.remote import local_copy

__all__ = [
    *("build_backbone", "cached_repository", "cached_weights", "check_init", "check_name", "embedding_width"),
    "own_normalisation",
]


def build_backbone(name: str, *, init: str, seed: int) -> nn.Module:
    """A timm model that maps images [B, 3, H, W] to embeddings [B, D].

    Args:
        name: timm name, with or without a tag.
        init: "pretrained", "random" or a file: .safetensors, or a state dict saved by `torch.save`.
        seed: Of the random weights.

    Raises:
        InputError: No such model, or a file that does not fit it.
        WeightsError: The pretrained weights can't be fetched.
    """
    check_name(name)
    check_init(init)
    with seeded(seed):
        if init == "pretrained":
            return _build_pretrained(name)
        try:
            model: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
        except Exception as error:  # a folder or a Hub repository can be wrong in many ways
            raise InputError(f"--backbone {name}: timm can't build it: {brief(error)}") from error
    if init != "random":
        _load_file(model, name, Path(init))
    return model


@torch.no_grad()
def embedding_width(backbone: nn.Module, size: int, *, flag: str = "--backbone") -> int:
    """Length of the embedding of a `size` x `size` image.

    Raises:
        InputError: The model's output is not one vector per image.
    """
    training = backbone.training
    name = getattr(backbone, "pretrained_cfg", {}).get("architecture", type(backbone).__name__)
    try:
        output = backbone.eval()(torch.zeros(1, 3, size, size))
    except Exception as error:  # whatever an architecture does with a size it was not made for
        raise InputError(
            f"{flag} {name}: does not take images of {size} x {size} px (--crop): {brief(error)}"
        ) from error
    finally:
        backbone.train(training)
    if not isinstance(output, Tensor) or output.ndim != 2:
        raise InputError(
            f"{flag} {name}: does not give one embedding per image; choose a CNN of timm, such as resnet18.tv_in1k"
        )
    return output.shape[1]


def own_normalisation(name: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Mean and standard deviation, RGB, by a backbone's own pretrained configuration; names of timm need no network.

    A name without tag has the configuration of its default tag. Where a configuration says nothing, timm takes ImageNet's.
    The values are those of the file, of whatever type and size.

    Raises:
        InputError: No such model.
        WeightsError: The configuration can't be fetched or read.
    """
    check_name(name)
    try:
        config = _pretrained_config(cached_repository(name))
        return tuple(config.get("mean") or IMAGENET_DEFAULT_MEAN), tuple(config.get("std") or IMAGENET_DEFAULT_STD)
    except Exception as error:  # timm passes on the Hub's errors
        raise WeightsError(
            f"--backbone {name}: its pretrained configuration, which says what images are normalised by, can't be read: "
            f"{brief(error).rstrip('.')}. Name a model of timm, or a folder or repository in timm's Hub format."
        ) from error


def _pretrained_config(name: str) -> dict[str, Any]:
    prefix, _, place = name.partition(":")
    config: dict[str, Any]
    if prefix == "local-dir":
        content = read_json(Path(place) / "config.json")
        config = content.get("pretrained_cfg", content)  # an older form has no such part
    elif prefix in ("hf-hub", "hf_hub"):
        config, *_ = load_model_config_from_hf(place)
    else:
        config = (timm.get_pretrained_cfg(name) or PretrainedCfg()).to_dict()
    return config


def check_name(name: str, *, flag: str = "--backbone") -> None:
    """Checks that timm knows the name given to a flag.

    Raises:
        InputError: No such model, or no such tag of it; the message names the nearest one. Hub and folder names pass.
    """
    if name.startswith(("hf-hub:", "hf_hub:", "local-dir:")):
        return
    if not timm.is_model(name):
        hint = did_you_mean(name, timm.list_models())
        raise InputError(f"{flag} {name!r}: timm has no such model.{hint} timm.list_models() lists all.")
    if "." in name:
        architecture = name.split(".", 1)[0]
        names = timm.list_models(f"{architecture}.*", include_tags=True)
        if name not in names:
            hint = did_you_mean(name, names)
            raise InputError(f"{flag} {name}: timm has no such weights; it has {', '.join(names)}.{hint}")


def check_init(init: str) -> None:
    """Checks that `init` is a known word or a file.

    Raises:
        InputError: It is neither; the message names the nearest word.
    """
    words = ("pretrained", "random")
    if init not in words and not Path(init).is_file():
        raise InputError(
            f"--init {init}: neither 'pretrained', 'random' nor an existing file.{did_you_mean(init, words)}"
        )


def _build_pretrained(name: str) -> nn.Module:
    try:
        source = cached_repository(name)
        model: nn.Module = timm.create_model(source, pretrained=True, num_classes=0, **cached_weights(source))
        return model
    except Exception as error:  # timm passes on the Hub's, safetensors' and torch's own errors
        raise WeightsError(
            f"the initial weights of {name} can't be loaded: {brief(error)}. Alternatives:\n"
            f"  from a file: --init FILE, the model.safetensors of {name} from the Hub or a torchvision state dict\n"
            f"  from scratch: --init random, with a learning rate of about 0.05"
        ) from error


def cached_weights(name: str) -> dict[str, Any]:
    """Options that make timm read the cached copy at once when the Hub does not answer."""
    config = timm.get_pretrained_cfg(name) if ":" not in name else None
    if config is None or config.file or not config.hf_hub_id:
        return {}
    cached = local_copy(config.hf_hub_id, ("model.safetensors", "pytorch_model.bin"))
    return {"pretrained_cfg_overlay": {"file": str(cached)}} if cached else {}


def cached_repository(name: str) -> str:
    """The cached copy of hf-hub:ORG/NAME[@REVISION] as local-dir:DIR when the Hub does not answer; other names as they are.

    Raises:
        WeightsError: The Hub does not answer and the cache has no copy, or the repository's name is invalid.
    """
    prefix, _, address = name.partition(":")
    if prefix not in ("hf-hub", "hf_hub"):
        return name
    repository, _, revision = address.partition("@")
    try:
        cached = local_copy(repository, ("model.safetensors", "pytorch_model.bin"), revision=revision or None)
    except ValueError as error:  # an invalid name of a repository
        raise WeightsError(brief(error)) from error
    return f"local-dir:{cached.parent}" if cached else name


def _load_file(model: nn.Module, name: str, path: Path) -> None:
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises many types
        raise InputError(
            f"--init {path}: not a weights file that can be read safely: {brief(error)}. Give .safetensors or a state dict."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"--init {path}: expected a state dict, a table from names to tensors")
    wanted = model.state_dict()
    classifier = str(getattr(model, "pretrained_cfg", {}).get("classifier") or "fc")
    state = {key: value for key, value in state.items() if not key.startswith(f"{classifier}.")}
    # torch < 0.4.1 checkpoints, torchvision's among them, lack this counter, which inference does not use.
    state = {key: value for key, value in wanted.items() if key.endswith("num_batches_tracked")} | state
    wrong = sorted(set(state) ^ set(wanted)) or [key for key in wanted if state[key].shape != wanted[key].shape]
    if wrong:
        raise InputError(f"--init {path}: does not fit {name}: {counted(wrong, 'wrong tensor')}")
    model.load_state_dict(state)
