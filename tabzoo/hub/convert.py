"""`tabzoo convert`: a checkpoint saved by `torch.save`, as TAB's authors give theirs, becomes a folder of weights.

Facts from the authors' public code, Howeng98/TAB @ aa8c4dc: a checkpoint is the state dict of a ResNet with torchvision's
names, its unused classifier included. The attention modules that the code defines are called nowhere in the forward
pass, so keys of theirs are left out, and are named in the record.
"""

import argparse
import logging
import re
import shlex
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import timm
import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from tabzoo._version import __version__
from tabzoo.errors import InputError, brief
from tabzoo.folder import load_line, timm_config, write_folder
from tabzoo.hub.copies import whole_folder
from tabzoo.hub.files import Digest
from tabzoo.hub.names import check_name
from tabzoo.hub.table import find_weights
from tabzoo.plain import for_terminal

__all__ = ["ARCHITECTURES", "add_choice", "add_command", "convert", "convert_into"]

ARCHITECTURES = ("resnet18", "resnet50", "wide_resnet50_2")
"""What the authors' code can train; torchvision's and timm's names of the tensors are the same."""

_log = logging.getLogger(__name__)

# Tables of real checkpoints are three deep. One table can stand in many places, so a small file can hold more than can be
# looked at.
_DEEPEST, _MOST, _LONGEST_NAME = 10, 200_000, 300
_SHOWN = 5

# The ResNet's own modules; what else stands beside them is a head, and the features don't depend on it.
_TRUNK = re.compile(r"(conv1|bn1|layer\d+)\.")
# Channel and spatial attention, under the authors' names and the usual ones of such modules.
_ATTENTION = re.compile(r"(^|\.)(ca|sa|cbam|sharedMLP|ChannelAttention|SpatialAttention)\.", re.IGNORECASE)

_MADE_BY = """converted by tabzoo {}
from a checkpoint of TAB (Text-Align Anomaly Backbone, arXiv 2312.09480)."""
_FACTS = """- Source: `{file}`, SHA-256 {sha256}; values as they are, in single precision.
- Trained on {data}.
- Licence of the weights: {license}. It must allow what the training images' licence allows, no more.
- A detector tested on the classes of the training images has seen their normal images: say so beside its numbers.
"""


def convert(
    checkpoint: Path, folder: Path, *, name: str, license: str | None = None, state_dict: str | None = None
) -> Path:
    """Writes a checkpoint's ResNet as a folder of weights, values unchanged.

    Args:
        checkpoint: A file saved by `torch.save`, read without running code.
        folder: New or empty folder.
        name: timm name with tag; the architecture is one of `ARCHITECTURES`.
        license: Of the weights; what tabzoo's table says of the name if not given, else "unspecified".
        state_dict: Which of several state dicts in the file, such as "state_dict_ema" or "teacher".

    Returns:
        The folder.

    Raises:
        InputError: The file can't be read, holds several ResNets or none that is supported; the folder is in use; the name
            is not valid.
    """
    _architecture(name)
    with whole_folder(folder) as temporary:
        convert_into(checkpoint, temporary, name=name, license=license, state_dict=state_dict)
    return folder


def convert_into(
    checkpoint: Path, folder: Path, *, name: str, license: str | None = None, state_dict: str | None = None
) -> None:
    """As `convert`, into an existing folder."""
    architecture = _architecture(name)
    if license is not None and not re.fullmatch(r"[\w.+()-][\w.+() -]{,199}", license):
        raise InputError(f"--license {license[:100]!r}: expected a licence's short name, such as cc-by-nc-sa-4.0")
    model = timm.create_model(architecture, pretrained=False, num_classes=0)
    tensors = _read(checkpoint)
    root = _root(checkpoint, tensors, state_dict)
    trunk = {key: tensors[root + key] for key in _trunk(tensors, root)}
    weights = _fitted(checkpoint, trunk, model.state_dict(), architecture)
    left_out = sorted(tensors.keys() - {root + key for key in trunk})
    _tell_of_attention(checkpoint, left_out)
    file = for_terminal(checkpoint.name)
    source = {"file": file, **Digest.of(checkpoint)._asdict(), "left_out": left_out}
    source |= {} if state_dict is None else {"state_dict": state_dict}
    known = find_weights(name)
    license = license or (known.license if known else "unspecified")
    data = f"{known.training_data} ({'; '.join(known.data_licenses)})" if known else "what the checkpoint does not tell"
    write_folder(
        folder,
        weights,
        timm_config(model, license=license, description=f"TAB, converted from {file}"),
        name=name,
        provenance={"converted_from": source},
        made_by=_MADE_BY.format(__version__),
        facts=_FACTS.format(**source, license=license, data=data),
    )


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `convert` to the subcommands of a command line."""
    parser = commands.add_parser("convert", help="convert a checkpoint of the authors to a weights folder")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="file saved by torch.save")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="new folder")
    parser.add_argument("--name", required=True, help="resnet18.tab_mvtec, say; or a tag alone, with --arch")
    parser.add_argument("--arch", choices=ARCHITECTURES, help="of a --name without one")
    parser.add_argument("--license", help="of the weights; known for tabzoo's own names")
    add_choice(parser)
    parser.set_defaults(run=_run)


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Adds the flag that chooses a state dict."""
    parser.add_argument(
        "--state-dict", metavar="KEY", help="which of several in a checkpoint, such as state_dict_ema or teacher"
    )


def _run(options: argparse.Namespace) -> int:
    name = options.name if "." in options.name else f"{options.arch or ARCHITECTURES[0]}.{options.name}"
    if options.arch and not name.startswith(f"{options.arch}."):
        raise InputError(f"--arch {options.arch} and --name {name} are of two architectures; leave --arch out")
    to = options.to
    convert(options.checkpoint, to, name=name, license=options.license, state_dict=options.state_dict)
    folder = for_terminal(str(to))
    print(f"Made {folder}. To load it here, or under its name from now on:")
    print("  import timm")
    print(f"  {load_line(f'local-dir:{folder}')}")
    print(f"  tabzoo install {name} {folder}")
    return 0


def _architecture(name: str) -> str:
    check_name(name)
    architecture = name.split(".")[0]
    if architecture not in ARCHITECTURES:
        raise InputError(f"{name}: checkpoints of {', '.join(ARCHITECTURES)} can be converted, none of {architecture}")
    return architecture


def _read(checkpoint: Path) -> dict[str, Tensor]:
    """All tensors in the file, those of nested tables under dotted names."""
    if not checkpoint.is_file():
        raise InputError(f"{checkpoint}: there is no such file; expected a checkpoint saved by torch.save")
    _check_unpacked(checkpoint)
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises many types
        raise InputError(
            f"{checkpoint}: can't be read as tensors without running code: {_cause(checkpoint, error)}"
        ) from error
    return _tensors(checkpoint, content)


def _check_unpacked(checkpoint: Path) -> None:
    """Sees that a file does not unpack to far more than it is; torch.save does not compress, but torch.load unpacks."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return  # of another form, or none, as torch.load is going to say
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
                raise InputError(f"{checkpoint}: no checkpoint of a ResNet: it holds more than {_MOST:,} entries")
            for key, entry in value.items():
                if _is_name(key) and isinstance(entry, Tensor | Mapping):
                    name = f"{prefix}.{key}" if prefix else str(key)
                    if len(name) > _LONGEST_NAME:
                        raise InputError(
                            f"{checkpoint}: no checkpoint of a ResNet: it holds a name of {len(name):,} characters"
                        )
                    waiting.append((name, entry, depth + 1))
    return tensors


def _is_name(key: object) -> bool:
    return isinstance(key, str) or (isinstance(key, int) and abs(key) < 1 << 63)  # str() of a huge one fails


def _cause(checkpoint: Path, error: Exception) -> str:
    """What is in the way, and what to do."""
    try:
        foreign = get_unsafe_globals_in_checkpoint(checkpoint)
    except Exception:  # no checkpoint at all
        foreign = []
    if not foreign:
        return f"{brief(error)}. Expected a state dict saved by torch.save."
    key = 'torch.load(FILE, weights_only=False)["state_dict"]'
    return (
        f"it holds {', '.join(sorted(foreign)[:3])}. Save its tensors alone where you trust the file, such as "
        f"torch.save({key}, NEW), or model.state_dict() of a whole model."
    )


def _root(checkpoint: Path, tensors: Mapping[str, Tensor], choice: str | None) -> str:
    """What stands before the ResNet's names, such as "state_dict.module.backbone."; of several, the chosen one's."""
    stems = [key.removesuffix("conv1.weight") for key in tensors if re.search(r"(^|\.)conv1\.weight$", key)]
    roots = [stem for stem in stems if f"{stem}bn1.weight" in tensors and f"{stem}layer1.0.conv1.weight" in tensors]
    if not roots:
        raise InputError(
            f"{checkpoint}: expected one ResNet with torchvision's names (conv1.weight, bn1.weight, layer1.0.conv1.weight, "
            f"...), perhaps behind a prefix; found the names {_some(tensors) or 'none'}"
        )
    prefix = "" if choice is None else choice.removesuffix(".") + "."
    # The whole prefix, where one is the start of another's or there is none; else how it begins.
    fit = [root for root in roots if choice is not None and root == prefix.removeprefix(".")]
    fit = fit or [root for root in roots if root.startswith(prefix)]
    if len(fit) == 1:
        return fit[0]
    names = [shlex.quote(for_terminal(root.removesuffix("."))) for root in sorted(fit or roots)]
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    if fit or choice is None:
        raise InputError(
            f"{checkpoint}: holds {len(names)} ResNets{f' under {choice}' if choice else ''}: {shown}. Choose one with "
            f"--state-dict KEY, such as --state-dict {names[0]}"
        )
    raise InputError(
        f"{checkpoint}: holds no ResNet under {choice!r}; expected one of {shown}, such as --state-dict {names[0]}"
    )


def _trunk(tensors: Iterable[str], root: str) -> list[str]:
    names = [key.removeprefix(root) for key in tensors if key.startswith(root)]
    return [name for name in names if _TRUNK.match(name) and not _ATTENTION.search(name)]


def _tell_of_attention(checkpoint: Path, left_out: Iterable[str]) -> None:
    attention = [key for key in left_out if _ATTENTION.search(key)]
    if attention:
        _log.warning(
            "%s: tensors of attention modules are left out (%s): the authors' public code does not use them.",
            *(checkpoint, _some(attention)),
        )


def _fitted(
    checkpoint: Path, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], architecture: str
) -> dict[str, Tensor]:
    """The tensors in the model's types, once names, shapes and values are seen to be right."""
    # Checkpoints older than torch 0.4.1, torchvision's among them, lack this counter, which inference does not use.
    given = {key: value for key, value in wanted.items() if key.endswith("num_batches_tracked")} | dict(given)
    shared = [key for key in wanted if key in given]
    other_kind = {key for key in shared if _kind(given[key]) != _kind(wanted[key])}
    other_shape = {key for key in shared if key not in other_kind and given[key].shape != wanted[key].shape}
    # Values last: a file of a few bytes can hold a tensor of any shape. Double precision may go beyond single.
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
        raise InputError(f"{checkpoint}: no {architecture} as torchvision shapes it. {reasons}")
    return weights


def _kind(tensor: Tensor) -> tuple[object, ...]:
    """What must be as in a model before a tensor's shape and values can be looked at."""
    return (
        *(tensor.layout, tensor.device, tensor.is_nested, tensor.is_quantized),
        *(tensor.is_floating_point(), tensor.is_complex()),
    )


def _some(keys: Iterable[str]) -> str:
    names = sorted(keys)
    return ", ".join(map(for_terminal, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
