"""Verified weights become a model, a folder, or an entry of the local store; each model is checked to contain them all.

timm loads with strict=False whenever the classifier differs from the file's. Then a file with other names of tensors
leaves the model at random weights, without any message. So every tensor of the model is compared with the file's.
"""

import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import timm
from timm.models import PretrainedCfg, adapt_input_conv
from torch import Tensor, nn

from tabzoo.errors import InputError, WeightsError, brief
from tabzoo.hub import store
from tabzoo.hub.convert import convert_into
from tabzoo.hub.files import write_json
from tabzoo.hub.folder import check_new, copy_folder, new_folder, now, verify
from tabzoo.hub.names import check_name
from tabzoo.hub.record import ORIGIN, WEIGHTS
from tabzoo.hub.resolve import resolve

__all__ = ["build", "create_model", "download", "install"]

_log = logging.getLogger(__name__)

_SHOWN = 3


def create_model(
    source: str | os.PathLike[str],
    pretrained: bool = True,
    *,
    organisation: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    **timm_kwargs: Any,
) -> nn.Module:
    """`timm.create_model`, with the SHA-256 of the weights verified, and every tensor checked to be in the model.

    Args:
        source: A name of `list_models`; a weights folder, such as a run's output, or the file in it; or
            "hf-hub:ORG/NAME@COMMIT", whose own tabzoo.json then says which weights to expect.
        pretrained: False for random weights: the same as `timm.create_model(source)`.
        organisation: Take the name from this organisation on the Hub instead; also the variable TABZOO_HUB_ORG. Use only one
            that you trust.
        cache_dir: For files of the Hub; huggingface_hub's own by default.
        timm_kwargs: Such as features_only, out_indices, in_chans, num_classes.

    Raises:
        InputError: The weights do not exist.
        WeightsError: The weights can't be fetched, are not the right ones, or don't fit.
    """
    if not pretrained:
        random: nn.Module = timm.create_model(os.fspath(source), pretrained=False, **timm_kwargs)
        return random
    found = resolve(source, organisation=organisation, cache_dir=_path(cache_dir))
    tensors, digest = found.read()
    model = build(found.config, found.weights, tensors, **timm_kwargs)
    _log.info("%s from %s, SHA-256 %s, licence %s", found.name, found.origin, digest.sha256, found.license)
    return model


def download(
    source: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    organisation: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Makes a weights folder for a machine without network, to be used by `tabzoo install` or timm's "local-dir:".

    Args:
        source: As for `create_model`.
        to: The folder, new or empty.
        organisation: As for `create_model`.
        cache_dir: As for `create_model`.

    Raises:
        InputError: The weights do not exist, or the folder is in use.
        WeightsError: The weights can't be fetched or are not the right ones.
        WriteError: The folder can't be written.
    """
    check_new(Path(to))
    found = resolve(source, organisation=organisation, cache_dir=_path(cache_dir), complete=True)
    with new_folder(Path(to), copy_of=found.weights.parent) as temporary:
        copy_folder(found.weights.parent, temporary)
        verify(temporary)
    return Path(to)


def install(name: str, source: Path, *, state_dict: str | None = None) -> store.Entry:
    """Adds weights to the local store, once every tensor is checked to load.

    Args:
        name: timm name with tag: one of tabzoo's, or one of your own.
        source: A weights folder, as a run, `tabzoo download` and `tabzoo convert` write it; or a checkpoint of the authors,
            which is converted.
        state_dict: Which of several state dicts in a checkpoint.

    Raises:
        InputError: The name is not valid or in use, or there is nothing usable at the source.
        WeightsError: The weights differ from their record, or don't fit the architecture.
        WriteError: The store can't be written.
    """
    check_name(name)
    final = store.entry_path(name)
    if os.path.lexists(final):
        raise InputError(f"{name} is installed already. Type `tabzoo uninstall {name}` first to replace it.")
    if not source.exists():
        raise InputError(f"{source}: no such file or folder. Give a weights folder or a checkpoint to install from.")
    checkpoint = source.is_file() and source.name != WEIGHTS
    if state_dict is not None and not checkpoint:
        raise InputError(
            f"{source}: --state-dict can't choose from a weights folder, only from a checkpoint; leave it out"
        )
    place = source.parent if source.is_file() and not checkpoint else source
    with new_folder(final, copy_of=place) as temporary:
        if checkpoint:
            convert_into(source, temporary, name=name, state_dict=state_dict)
        else:
            copy_folder(place, temporary)
        # The copy is verified and loaded, not the original: it is what will be used.
        tensors, _, folder = verify(temporary)
        assert folder is not None
        if folder.config.architecture != name.split(".")[0]:
            raise InputError(f"{name}: {source} contains weights of {folder.config.architecture}")
        build(folder.config, folder.weights, tensors)
        write_json(temporary / ORIGIN, {"from": str(source.resolve()), "installed": now()})
    entry = store.find(name)
    assert entry is not None
    return entry


def _path(cache_dir: str | os.PathLike[str] | None) -> Path | None:
    return None if cache_dir is None else Path(cache_dir)


def build(config: PretrainedCfg, weights: Path, tensors: Mapping[str, Tensor], **timm_kwargs: Any) -> nn.Module:
    """The model that timm makes of tensors that are already read.

    Args:
        config: Of the weights.
        weights: The file that the tensors come from.
        tensors: Its content, verified.
        timm_kwargs: For timm.create_model.

    Raises:
        WeightsError: The file does not fit the architecture, or a tensor of it is not in the model.
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
    except (KeyError, RuntimeError) as error:  # from load_state_dict, and from timm if the first layer is missing
        raise WeightsError(f"{weights}: does not fit {config.architecture}: {_one_line(error)}") from error
    for module in model.modules():  # the wrappers of features_only and the model in them
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
        # With other than three channels timm sums or repeats the filters; the comparison does the same.
        if key in held and key in given and held[key].shape[1] != given[key].shape[1]:
            given[key] = adapt_input_conv(held[key].shape[1], given[key])
    heads = tuple(_plain(f"{name}.") for name in _names(config.classifier))
    random = [key for key in held if key not in given and not key.startswith(heads)]
    # With features_only timm loads the complete model, then drops the stages that are not used.
    unused = [] if features_only else [key for key in given if key not in held]
    different = [key for key in held if key in given and not _equal(held[key], given[key])]
    return [
        f"{len(keys)} tensors {what} ({', '.join(keys[:_SHOWN])}{' ...' if len(keys) > _SHOWN else ''})"
        for keys, what in (
            (random, "of the model are not in the file"),
            (unused, "of the file are not in the model"),
            (different, "differ"),
        )
        if keys
    ]


def _plain(key: str) -> str:
    """A tensor's name without what the wrappers of features_only change: a prefix of theirs, and underscores for dots."""
    return re.sub(r"^(model|body|graph_module)\.", "", key).replace("_", ".")


def _names(names: str | Iterable[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


def _equal(held: Tensor, given: Tensor) -> bool:
    return held.shape == given.shape and bool((held.cpu() == given.to(held.dtype)).all())


def _one_line(error: Exception) -> str:
    """torch lists the faults on lines of their own, after a title without information."""
    return brief(type(error)(" ".join(str(error).split())))
