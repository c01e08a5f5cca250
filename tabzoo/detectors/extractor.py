"""Feature maps of any timm CNN, by name: a model of timm or of the Hub, a folder, or random weights as the baseline."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_data_config
from torch import Tensor, nn

from tabzoo.backbones import cached_repository, cached_weights, check_name
from tabzoo.compute import seeded
from tabzoo.errors import InputError, WeightsError, brief, did_you_mean

__all__ = [
    "FeatureExtractor",
    "build_extractor",
    "check_input_size",
    "is_random",
    "timm_name",
    "unavailable",
    "weights_sha256",
]

_RANDOM = "random"
_RANDOM_ARCHITECTURE = "resnet18"
_RESNETS = frozenset(
    "resnet10t resnet14t resnet18 resnet18d resnet26 resnet26d resnet26t resnet34 resnet34d resnet50 resnet50d resnet50t "
    "resnet101 resnet101d resnet152 resnet152d wide_resnet50_2 wide_resnet101_2 test_resnet".split()
)
_UNUSED_SEED = 0xBAC4B04E
"""No run starts from the weights of this seed, so weights that training hardly changed are not taken for missing."""


class FeatureExtractor(nn.Module):
    """Images [B, 3, H, W] to a feature map for each layer, frozen and in evaluation mode.

    Args:
        body: A `features_only` model of timm.
        layers: Names of its outputs, in order.
        amp: Compute in bfloat16; the maps are float32 all the same.
        channels_last: Use the channels-last memory format, which is faster on recent CPUs and GPUs.

    Attributes:
        channels: Number of channels of each layer.
        mean: What images are normalised by, three values.
        std: The same.
    """

    def __init__(
        self, body: nn.Module, layers: Sequence[str], *, amp: bool = False, channels_last: bool = False
    ) -> None:
        super().__init__()
        self.body = body.eval().requires_grad_(False)
        self.channels: dict[str, int] = dict(zip(layers, body.feature_info.channels(), strict=True))  # type: ignore[operator, union-attr]
        config = resolve_data_config(getattr(body, "pretrained_cfg", {}))
        self.mean: tuple[float, ...] = tuple(config["mean"])
        self.std: tuple[float, ...] = tuple(config["std"])
        self.amp = amp
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.body.to(memory_format=self.memory_format)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in order."""
        return tuple(self.channels)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.body.parameters()).device

    @torch.no_grad()
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Float32 [B, C, h, w] for each layer."""
        images = images.contiguous(memory_format=self.memory_format)
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.amp):
            maps = self.body(images)
        return {name: value.float() for name, value in zip(self.layers, maps, strict=True)}

    def train(self, mode: bool = True) -> "FeatureExtractor":
        """Stays in evaluation mode, so that training a detector around it does not change its batch-norm."""
        return super().train(False)

    def structure(self) -> str:
        """Hash of what is computed with the weights: the type of each module and its settings, such as a stride."""
        return _structure(self.body)

    def is_plain_resnet(self) -> bool:
        """Whether this is a ResNet as timm builds it by name; then the shapes of its weights determine its structure."""
        architecture = getattr(self.body, "pretrained_cfg", {}).get("architecture")
        if architecture not in _RESNETS:
            return False
        return self.structure() == _structure_of(architecture, tuple(self.body.feature_info.out_indices))  # type: ignore[union-attr, arg-type]

    def sha256(self) -> str:
        """Hash of the weights that the layers need, by name, whatever file they came from."""
        return weights_sha256(self.body)


def weights_sha256(model: nn.Module) -> str:
    """Hash of a model's weights, by name, in hex."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def build_extractor(
    name: str,
    *,
    layers: Sequence[str],
    seed: int = 0,
    device: torch.device | str = "cpu",
    amp: bool = False,
    channels_last: bool = False,
) -> FeatureExtractor:
    """The extractor of a backbone.

    Args:
        name: A timm name, "hf-hub:...", "local-dir:DIR", a folder, such as a run's, or "random[:ARCHITECTURE]".
        layers: Each by its index ("1"), its module's name ("layer1") or its stride ("/4": the last layer with a quarter
            of the image's side), in the order from image to output.
        seed: Of random weights.
        device: Where it computes.
        amp: Compute in bfloat16.
        channels_last: Use the channels-last memory format.

    Raises:
        InputError: No such model, folder or layer, or a model without feature maps.
        WeightsError: The weights can't be fetched or don't fit the model.
    """
    model, pretrained = timm_name(name), not is_random(name)
    if pretrained:
        seed = _UNUSED_SEED
    infos = _create(name, model, seed, out_indices=(0,)).feature_info.info
    indices = _indices(name, layers, infos)
    body = _create(name, model, seed, out_indices=indices)
    if pretrained:
        try:
            cached = cached_weights(model)
        except WeightsError as error:
            raise unavailable(name, error) from error
        random, body = body, _create(name, model, seed, out_indices=indices, pretrained=True, **cached)
        _check_loaded(name, random, body)
    names = [infos[index]["module"] for index in indices]
    return FeatureExtractor(body, names, amp=amp, channels_last=channels_last).to(device)


def timm_name(name: str, *, flag: str = "--backbone") -> str:
    """The name by which timm builds a backbone: a folder's has the prefix local-dir:, and an architecture none.

    Args:
        name: A source, as for `build_extractor`.
        flag: What the user gave it to.

    Raises:
        InputError: No such model or folder.
        WeightsError: The Hub does not answer, and its cache has no copy.
    """
    model = name.partition(":")[2] or _RANDOM_ARCHITECTURE if is_random(name) else _folder(name, flag)
    check_name(model, flag=flag)
    try:
        return cached_repository(model)
    except WeightsError as error:
        raise unavailable(name, error, flag=flag) from error


def is_random(name: str) -> bool:
    """Whether a backbone's weights are drawn from the seed."""
    return name.split(":", 1)[0] == _RANDOM


def check_input_size(extractor: FeatureExtractor, name: str, side: int) -> None:
    """Checks that a backbone accepts images of this side, and returns maps [B, C, h, w].

    Raises:
        InputError: It does not.
    """
    try:
        maps = extractor(torch.zeros(1, 3, side, side, device=extractor.device))
    except (RuntimeError, AssertionError, ValueError) as error:  # of timm's models, and torch's own
        raise InputError(
            f"--backbone {name}: does not take images of {side} x {side}: {brief(error)}. Choose a CNN of timm."
        ) from error
    if any(value.ndim != 4 or value.shape[1] != extractor.channels[layer] for layer, value in maps.items()):
        raise InputError(f"--backbone {name}: does not return maps with channels first. Choose a CNN of timm.")


def _structure(body: nn.Module) -> str:
    modules = (f"{name} {type(module).__name__} {module.extra_repr()}\n" for name, module in body.named_modules())
    return hashlib.sha256("".join(modules).encode()).hexdigest()


@lru_cache
def _structure_of(architecture: str, indices: tuple[int, ...]) -> str:
    with torch.device("meta"):
        return _structure(timm.create_model(architecture, features_only=True, num_classes=0, out_indices=indices))


def _folder(name: str, flag: str) -> str:
    """A folder as timm takes it, other names as they are."""
    path = Path(name.removeprefix("local-dir:"))
    if not path.is_dir():
        if name.startswith("local-dir:"):
            raise InputError(f"{flag} {name}: no such folder")
        return name
    for file in ("config.json", "model.safetensors"):
        if not (path / file).is_file():
            raise InputError(
                f"{flag} {name}: no {file} in this folder. Give the output folder of a finished run, or one with "
                f"config.json and model.safetensors in timm's Hub format."
            )
    return f"local-dir:{path}"


def _create(name: str, model: str, seed: int, **options: Any) -> Any:
    with seeded(seed):
        try:
            # Without classifier the draws are those of `build_backbone`: "random" is what training from scratch starts from.
            return timm.create_model(model, features_only=True, num_classes=0, **options)
        except WeightsError:
            raise
        except Exception as error:  # timm passes on the Hub's, safetensors' and torch's own errors
            if options.get("pretrained") or ":" in model:
                raise unavailable(name, error) from error
            raise InputError(
                f"--backbone {name}: does not return feature maps: {brief(error)}. Choose a CNN of timm."
            ) from error


def unavailable(name: str, error: Exception, *, flag: str = "--backbone") -> WeightsError:
    """The error about weights that can't be loaded; it says what the flag takes instead."""
    return WeightsError(
        f"the weights of {name} can't be loaded: {brief(error)}. Instead, use:\n"
        f"  weights in a folder: {flag} DIR, with config.json and model.safetensors, as on the Hub or from a run\n"
        f"  random weights as a baseline: {flag} random"
    )


def _indices(name: str, layers: Sequence[str], infos: Sequence[dict[str, Any]]) -> tuple[int, ...]:
    if not layers:
        raise InputError("layers: none given; expected at least one")
    # A later layer of the same stride replaces an earlier one.
    table = {str(i): i for i in range(len(infos))} | {f"/{info['reduction']}": i for i, info in enumerate(infos)}
    table |= {info["module"]: i for i, info in enumerate(infos)}
    for layer in layers:
        if layer not in table:
            described = ", ".join(f"{i} = {info['module']} (/{info['reduction']})" for i, info in enumerate(infos))
            strides = " Choose a backbone with maps of that stride, such as resnet18."
            hint = strides if layer.startswith("/") else did_you_mean(layer, table)
            raise InputError(f"layer {layer}: {name} has {described}.{hint}")
    indices = tuple(table[layer] for layer in layers)
    if list(indices) != sorted(set(indices)):
        raise InputError(f"layers {' '.join(layers)}: expected each layer once, in the order from image to output")
    return indices


def _check_loaded(name: str, random: nn.Module, body: nn.Module) -> None:
    """timm does not load features strictly: a tensor that is not in the file would silently keep its random values."""
    drawn = dict(random.named_parameters())
    same = [key for key, value in body.named_parameters() if value.ndim > 1 and torch.equal(value, drawn[key])]
    if same:
        raise WeightsError(
            f"the weights of {name} do not fit its architecture: {len(same)} tensors are missing, such as {same[0]}"
        )
