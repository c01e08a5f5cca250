"""Converts a checkpoint saved by `torch.save`, such as those of TAB's authors, to a weights folder.

Facts from the authors' public code, Howeng98/TAB @ aa8c4dc: a checkpoint is the state dict of a ResNet with torchvision's
names, including its unused classifier. The code defines attention modules but never calls them in the forward pass, so
their tensors are left out, and the record lists them.
"""

import logging
import re
import shlex
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, get_args

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from tabzoo._version import __version__
from tabzoo.errors import InputError, brief
from tabzoo.hub.card_text import LIMITS_OF_TAB, Sections, in_order
from tabzoo.hub.config import timm_config
from tabzoo.hub.files import Digest
from tabzoo.hub.folder import new_folder, write_folder
from tabzoo.hub.license_terms import check_license
from tabzoo.hub.names import LICENSE, check_name
from tabzoo.hub.record import UNSPECIFIED
from tabzoo.hub.table import find_weights
from tabzoo.plain import for_terminal

__all__ = ["ARCHITECTURES", "Architecture", "convert", "convert_into"]

Architecture = Literal["resnet18", "resnet50", "wide_resnet50_2"]
ARCHITECTURES = get_args(Architecture)
"""The architectures that the authors' code can train; torchvision and timm name their tensors alike."""

_log = logging.getLogger(__name__)

# Dicts in real checkpoints are nested three deep. One dict can be in many places, so a small file can contain more entries
# than can be searched.
_DEEPEST, _MOST, _LONGEST_NAME = 10, 200_000, 300
_SHOWN = 5

# The modules of the ResNet's trunk. All others are heads, which the features don't depend on.
_TRUNK = re.compile(r"(conv1|bn1|layer\d+)\.")
# Channel and spatial attention, by the authors' names and other common ones.
_ATTENTION = re.compile(r"(^|\.)(ca|sa|cbam|sharedMLP|ChannelAttention|SpatialAttention)\.", re.IGNORECASE)

_MADE_BY = """converted by tabzoo {}
from a checkpoint of TAB (Text-Align Anomaly Backbone, arXiv 2312.09480)."""
_DETAILS = """Source: `{file}`, SHA-256 {sha256}; values unchanged, in single precision.
Input 224 x 224 after squashing to 256 x 256, ImageNet mean and std, as in the authors' code."""
_DATA = """- Trained on {data}.
- Licence of the weights: {license}. It must not allow more than the licence of the training images does."""
_TRAINING = "By the authors of the checkpoint. Their settings are not in the file."
_EVALUATION = "Nothing was measured when the checkpoint was converted."
_COST = "Not known: the file does not say how it was trained."
_REPRODUCE = "`tabzoo convert {file} --name {name} --to DIR` makes the same weights of the same file."


def convert(
    checkpoint: Path, folder: Path, *, name: str, license: str | None = None, state_dict: str | None = None
) -> Path:
    """Writes a checkpoint's ResNet as a weights folder; the values don't change.

    Args:
        checkpoint: A file saved by `torch.save`; it is read without executing code.
        folder: New or empty folder.
        name: timm name with tag; the architecture is one of `ARCHITECTURES`.
        license: Of the weights; by default the one in tabzoo's table, or "unspecified" for other names.
        state_dict: Which of several state dicts in the file, such as "state_dict_ema" or "teacher".

    Returns:
        The folder.

    Raises:
        InputError: The file can't be read, or contains several ResNets or none that is supported; the folder is in use; the
            name is not valid.
        WriteError: The folder can't be written.
    """
    _architecture(name)
    with new_folder(folder) as temporary:
        convert_into(checkpoint, temporary, name=name, license=license, state_dict=state_dict)
    return folder


def convert_into(
    checkpoint: Path, folder: Path, *, name: str, license: str | None = None, state_dict: str | None = None
) -> None:
    """The same as `convert`, for an existing folder."""
    architecture = _architecture(name)
    if license is not None and not LICENSE.fullmatch(license):
        raise InputError(
            f"--license {license[:100]!r}: expected an SPDX identifier, such as cc-by-nc-sa-4.0, or LicenseRef-NAME"
        )
    model = timm.create_model(architecture, pretrained=False, num_classes=0)
    tensors = _read(checkpoint)
    root = _root(checkpoint, tensors, state_dict)
    trunk = {key: tensors[root + key] for key in _trunk(tensors, root)}
    weights = _fitted(checkpoint, trunk, model.state_dict(), architecture)
    left_out = sorted(tensors.keys() - {root + key for key in trunk})
    _warn_of_attention(checkpoint, left_out)
    file = for_terminal(checkpoint.name)
    source = {"file": file, **Digest.of(checkpoint)._asdict(), "left_out": left_out}
    source |= {} if state_dict is None else {"state_dict": state_dict}
    known = find_weights(name)
    license = license or (known.license if known else UNSPECIFIED)
    check_license(license, {"name": name})
    data = (
        f"{known.training_data} ({'; '.join(known.data_licenses)})"
        if known
        else "images that the checkpoint does not name"
    )
    config = timm_config(
        model,
        license=license,
        description=f"TAB, converted from {file}",
        mean=IMAGENET_DEFAULT_MEAN,  # what the authors' code normalises by, whatever the backbone
        std=IMAGENET_DEFAULT_STD,
    )
    write_folder(
        folder,
        weights,
        config,
        name=name,
        provenance={"converted_from": source},
        made_by=_MADE_BY.format(__version__),
        facts=in_order(
            Sections(
                details=_DETAILS.format(**source),
                data=_DATA.format(license=license, data=data),
                training=_TRAINING,
                evaluation=_EVALUATION,
                limits=LIMITS_OF_TAB,
                cost=_COST,
                reproduce=_REPRODUCE.format(file=shlex.quote(file), name=name),
            )
        ),
    )


def _architecture(name: str) -> str:
    check_name(name)
    architecture = name.split(".")[0]
    if architecture not in ARCHITECTURES:
        raise InputError(
            f"{name}: only checkpoints of {', '.join(ARCHITECTURES)} can be converted, not of {architecture}"
        )
    return architecture


def _read(checkpoint: Path) -> dict[str, Tensor]:
    """All tensors in the file; those in nested dicts get dotted names."""
    if not checkpoint.is_file():
        raise InputError(f"{checkpoint}: no such file; expected a checkpoint saved by torch.save")
    _check_unpacked(checkpoint)
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises many types
        raise InputError(
            f"{checkpoint}: can't be read as tensors without executing code: {_cause(checkpoint, error)}"
        ) from error
    return _tensors(checkpoint, content)


def _check_unpacked(checkpoint: Path) -> None:
    """Checks that a file does not unpack to far more than its size: torch.save does not compress, but torch.load unpacks."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return  # not a zip file: an older format, or an error that torch.load reports
    size = checkpoint.stat().st_size
    if unpacked > 10 * size:
        raise InputError(
            f"{checkpoint}: {size:,} bytes that unpack to {unpacked:,}; expected a file as torch.save writes it"
        )


def _tensors(checkpoint: Path, content: object) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    waiting, entries = [("", content, 0)], 0
    while waiting:
        prefix, value, depth = waiting.pop()
        if isinstance(value, Tensor):
            tensors[prefix] = value
        elif isinstance(value, Mapping) and depth < _DEEPEST:
            entries += len(value)
            if entries > _MOST:
                raise InputError(f"{checkpoint}: not a checkpoint of a ResNet: it has more than {_MOST:,} entries")
            for key, entry in value.items():
                if _is_name(key) and isinstance(entry, Tensor | Mapping):
                    name = f"{prefix}.{key}" if prefix else str(key)
                    if len(name) > _LONGEST_NAME:
                        raise InputError(
                            f"{checkpoint}: not a checkpoint of a ResNet: it has a name of {len(name):,} characters"
                        )
                    waiting.append((name, entry, depth + 1))
    return tensors


def _is_name(key: object) -> bool:
    return isinstance(key, str) or (isinstance(key, int) and abs(key) < 1 << 63)  # str() of a huge one fails


def _cause(checkpoint: Path, error: Exception) -> str:
    """Why it can't be read, and what to do."""
    try:
        foreign = get_unsafe_globals_in_checkpoint(checkpoint)
    except Exception:  # not a checkpoint at all
        foreign = []
    if not foreign:
        return f"{brief(error).rstrip('.')}. Expected a state dict saved by torch.save."
    key = 'torch.load(FILE, weights_only=False)["state_dict"]'
    return (
        f"it contains {', '.join(sorted(foreign)[:3])}. If you trust the file, save only its tensors, such as "
        f"torch.save({key}, NEW), or model.state_dict() if it contains a complete model."
    )


def _root(checkpoint: Path, tensors: Mapping[str, Tensor], choice: str | None) -> str:
    """The prefix of the ResNet's names, such as "state_dict.module.backbone."; of several, that of the chosen one."""
    stems = [key.removesuffix("conv1.weight") for key in tensors if re.search(r"(^|\.)conv1\.weight$", key)]
    roots = [stem for stem in stems if f"{stem}bn1.weight" in tensors and f"{stem}layer1.0.conv1.weight" in tensors]
    if not roots:
        raise InputError(
            f"{checkpoint}: expected one ResNet with torchvision's names (conv1.weight, bn1.weight, layer1.0.conv1.weight, "
            f"...), perhaps with a prefix; found the names {_some(tensors) or 'none'}"
        )
    prefix = "" if choice is None else choice.removesuffix(".") + "."
    # The complete prefix first, since one can be the start of another or be empty; else the start of a prefix.
    fit = [root for root in roots if choice is not None and root == prefix.removeprefix(".")]
    fit = fit or [root for root in roots if root.startswith(prefix)]
    if len(fit) == 1:
        return fit[0]
    names = [shlex.quote(for_terminal(root.removesuffix("."))) for root in sorted(fit or roots)]
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    if fit or choice is None:
        raise InputError(
            f"{checkpoint}: contains {len(names)} ResNets{f' under {choice}' if choice else ''}: {shown}. Choose one with "
            f"--state-dict KEY, such as --state-dict {names[0]}"
        )
    raise InputError(
        f"{checkpoint}: contains no ResNet under {choice!r}; expected one of {shown}, such as --state-dict {names[0]}"
    )


def _trunk(tensors: Iterable[str], root: str) -> list[str]:
    names = [key.removeprefix(root) for key in tensors if key.startswith(root)]
    return [name for name in names if _TRUNK.match(name) and not _ATTENTION.search(name)]


def _warn_of_attention(checkpoint: Path, left_out: Iterable[str]) -> None:
    attention = [key for key in left_out if _ATTENTION.search(key)]
    if attention:
        _log.warning(
            "%s: left out the tensors of attention modules (%s), which the authors' public code does not use.",
            *(checkpoint, _some(attention)),
        )


def _fitted(
    checkpoint: Path, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], architecture: str
) -> dict[str, Tensor]:
    """The tensors in the model's types, once names, shapes and values are checked."""
    # Checkpoints from before torch 0.4.1, such as torchvision's, lack this counter, which inference does not use.
    given = {key: value for key, value in wanted.items() if key.endswith("num_batches_tracked")} | dict(given)
    shared = [key for key in wanted if key in given]
    other_kind = {key for key in shared if _kind(given[key]) != _kind(wanted[key])}
    other_shape = {key for key in shared if key not in other_kind and given[key].shape != wanted[key].shape}
    # Values last: a tensor in a small file can have any shape. Double precision has larger values than single.
    weights = {
        key: given[key].to(wanted[key].dtype, copy=True) for key in shared if key not in other_kind | other_shape
    }
    infinite = {key for key, value in weights.items() if not value.isfinite().all()}
    too_large = {key for key in infinite if given[key].double().isfinite().all()}
    off = {
        "missing": wanted.keys() - given.keys(),
        "unknown": given.keys() - wanted.keys(),
        "of another shape": other_shape,
        "not numbers": other_kind | infinite - too_large,
        "too large for single precision": too_large,
    }
    if any(off.values()):
        reasons = "; ".join(f"{len(keys)} {what}: {_some(keys)}" for what, keys in off.items() if keys)
        raise InputError(f"{checkpoint}: not the {architecture} of torchvision. {reasons}")
    return weights


def _kind(tensor: Tensor) -> tuple[object, ...]:
    """What must be the same as in a model before a tensor's shape and values can be compared."""
    return (
        *(tensor.layout, tensor.device, tensor.is_nested, tensor.is_quantized),
        *(tensor.is_floating_point(), tensor.is_complex()),
    )


def _some(keys: Iterable[str]) -> str:
    names = sorted(keys)
    return ", ".join(map(for_terminal, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
