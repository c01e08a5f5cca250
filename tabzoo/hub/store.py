"""The local store: weights installed on this machine, whose names timm knows wherever tabzoo is imported.

An entry is a weights folder in the user's data folder, named by its timm name, with `installed.json`: where it came from.
"""

import functools
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tabzoo.errors import InputError, WeightsError, brief, did_you_mean
from tabzoo.hub.files import FileState, file_state, read_json
from tabzoo.hub.folder import Folder, read_folder
from tabzoo.hub.record import CONFIG, NAME, ORIGIN, RECORD
from tabzoo.plain import for_terminal
from tabzoo.system import user_folder

__all__ = ["Entry", "entry_path", "entry_state", "find", "has_entry", "home", "installed", "uninstall"]

_log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """Installed weights.

    Attributes:
        name: timm name with tag.
        folder: The weights folder.
    """

    name: str
    folder: Folder

    @property
    def origin(self) -> dict[str, Any]:
        """Where they came from, and when."""
        return read_json(self.folder.path / ORIGIN)


def home() -> Path:
    """`$TABZOO_HOME`, or tabzoo's folder in the user's data folder."""
    return user_folder("data")


def entry_path(name: str) -> Path:
    """The folder of the entry with this name, whether it exists or not."""
    return _entries() / name


def has_entry(name: str) -> bool:
    """Whether there is an entry of this name, be it broken or not."""
    return NAME.fullmatch(name) is not None and entry_path(name).is_dir()


def entry_state(name: str) -> tuple[Path, tuple[FileState | None, ...]]:
    """What changes when an entry is installed, removed or edited."""
    path = entry_path(name)
    return path, tuple(file_state(place) for place in (path, path / CONFIG, path / RECORD))


def installed() -> Iterator[Entry]:
    """The usable entries; each of the others causes one warning."""
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
        except Exception as error:  # nothing in the store may keep tabzoo from being imported
            shown, cause = for_terminal(name), for_terminal(brief(error))
            _warn_once(f"the local store's entry {shown} can't be used: {cause}. `tabzoo uninstall {shown}` removes it")


def find(name: str) -> Entry | None:
    """The entry of this name, or None.

    Raises:
        WeightsError: It exists but is broken.
    """
    if not has_entry(name):
        return None
    try:
        return _read(name)
    except (WeightsError, InputError) as error:
        raise WeightsError(f"{error}. Type `tabzoo uninstall {name}`, then install it again.") from error


def uninstall(name: str) -> None:
    """Removes an entry, even a broken one.

    Raises:
        InputError: The entry does not exist, or can't be removed.
    """
    names = os.listdir(_entries()) if _entries().is_dir() else []
    if name not in names:
        raise InputError(f"{name} is not installed.{did_you_mean(name, names)}")
    path = entry_path(name)
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
        raise InputError(f"{name!r} is not a valid name of weights")
    folder = read_folder(entry_path(name))
    if folder.config.architecture != name.split(".")[0]:
        raise WeightsError(f"{folder.path}: contains weights of {folder.config.architecture}")
    return Entry(name, folder)


@functools.cache
def _warn_once(message: str) -> None:
    _log.warning(message)
