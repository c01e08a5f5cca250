"""The local store: verified weights in the user's data folder, whose names timm knows wherever tabzoo is imported.

An entry is a weights folder named by its timm name, with `installed.json`, which says where it came from.
"""

import functools
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tabzoo.errors import InputError, WeightsError, brief, did_you_mean
from tabzoo.folder import now, write_json
from tabzoo.hub.config import read_json
from tabzoo.hub.convert import convert_into
from tabzoo.hub.copies import about, copy_folder, whole_folder
from tabzoo.hub.folders import WEIGHTS, Folder, read_folder, verify
from tabzoo.hub.names import NAME, check_name
from tabzoo.hub.proof import build
from tabzoo.plain import for_terminal
from tabzoo.system import user_folder

__all__ = ["Entry", "find", "home", "install", "installed", "uninstall"]

_log = logging.getLogger(__name__)

_ORIGIN = "installed.json"


class Entry(NamedTuple):
    """Installed weights.

    Attributes:
        name: timm name with tag.
        folder: Where they lie.
    """

    name: str
    folder: Folder

    @property
    def origin(self) -> dict[str, Any]:
        """Where they came from, and when."""
        return read_json(self.folder.path / _ORIGIN)


def home() -> Path:
    """`$TABZOO_HOME`, or tabzoo's folder in the user's data folder."""
    return user_folder("data")


def installed() -> Iterator[Entry]:
    """The store's entries, as far as they can be used; of others a warning tells, once."""
    try:
        names = sorted(name for name in os.listdir(_entries()) if not name.startswith("."))
    except FileNotFoundError:
        return
    except OSError as error:
        _warn_once(f"the local store {_entries()} can't be read: {error.strerror}")
        return
    for name in names:
        try:
            yield _read(name)
        except Exception as error:  # whatever lies there must not keep tabzoo from being imported
            shown, cause = for_terminal(name), for_terminal(brief(error))
            _warn_once(f"the local store's entry {shown} can't be used: {cause}. `tabzoo uninstall {shown}` removes it")


def find(name: str) -> Entry | None:
    """The entry of this name, or None.

    Raises:
        WeightsError: It is there but broken.
    """
    if not NAME.fullmatch(name) or not (_entries() / name).is_dir():
        return None
    try:
        return _read(name)
    except (WeightsError, InputError) as error:
        raise WeightsError(f"{error}. Type `tabzoo uninstall {name}`, then install it again.") from error


def install(name: str, source: Path, *, state_dict: str | None = None) -> Entry:
    """Puts weights into the store, once every tensor is seen to load.

    Args:
        name: timm name with tag: one of tabzoo's, or one of your own.
        source: A weights folder, as a run, `tabzoo download` and `tabzoo convert` leave it; or a checkpoint of the
            authors, converted on the way.
        state_dict: Which of several state dicts in a checkpoint.

    Raises:
        InputError: A name that can't be taken, or nothing usable at the source.
        WeightsError: The weights are not what their record says, or don't fit the architecture.
    """
    check_name(name)
    final = _entries() / name
    if os.path.lexists(final):
        raise InputError(f"{name} is installed already. Type `tabzoo uninstall {name}` first to replace it.")
    if not source.exists():
        raise InputError(f"{source}: no such file or folder. Give a weights folder or a checkpoint to install from.")
    checkpoint = source.is_file() and source.name != WEIGHTS
    if state_dict is not None and not checkpoint:
        raise InputError(f"{source}: a weights folder, of which --state-dict can't choose; leave it out")
    place = source.parent if source.is_file() and not checkpoint else source
    with whole_folder(final) as temporary, about(place, temporary):
        if checkpoint:
            convert_into(source, temporary, name=name, state_dict=state_dict)
        else:
            copy_folder(place, temporary)
        # The copy is what counts: it is read, checked, and loaded into the model once.
        tensors, _, folder = verify(temporary)
        assert folder is not None
        if folder.config.architecture != name.split(".")[0]:
            raise InputError(f"{name}: the weights in {source} are of {folder.config.architecture}")
        build(folder.config, folder.weights, tensors)
        write_json(temporary / _ORIGIN, {"from": str(source.resolve()), "installed": now()})
    return _read(name)


def uninstall(name: str) -> None:
    """Takes an entry away, a broken one too.

    Raises:
        InputError: There is none of this name.
    """
    names = os.listdir(_entries()) if _entries().is_dir() else []
    if name not in names:
        raise InputError(f"{name} is not installed.{did_you_mean(name, names)}")
    path = _entries() / name
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        raise InputError(f"{path}: can't be removed: {error.strerror}") from error


def _entries() -> Path:
    return home() / "weights"


def _read(name: str) -> Entry:
    if not NAME.fullmatch(name):
        raise InputError(f"{name!r} is not a valid weights name")
    folder = read_folder(_entries() / name)
    if folder.config.architecture != name.split(".")[0]:
        raise WeightsError(f"{folder.path}: holds weights of {folder.config.architecture}")
    return Entry(name, folder)


@functools.cache
def _warn_once(message: str) -> None:
    _log.warning(message)
