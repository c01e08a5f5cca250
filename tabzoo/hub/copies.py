"""Weights folders that are whole or not there."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tabzoo.errors import InputError, WeightsError
from tabzoo.hub.folders import CARD, CONFIG, HASHES, RECORD, WEIGHTS
from tabzoo.plain import for_path

__all__ = ["about", "check_new", "copy_folder", "whole_folder"]

_COPIED = (WEIGHTS, CONFIG, RECORD, CARD, HASHES, "recipe.yaml")


def copy_folder(source: Path, to: Path) -> None:
    """Copies what belongs to weights into an existing folder, and not the checkpoints and paths of a run."""
    for name in _COPIED:
        if (source / name).is_file():
            try:
                file = (source / name).open("rb")
            except OSError as error:
                raise InputError(f"{source / name}: can't be read: {error.strerror}") from error
            with file, (to / name).open("wb") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)


def check_new(final: Path) -> None:
    """Sees that a folder is new or empty.

    Raises:
        InputError: It is not.
    """
    try:
        used = final.is_symlink() or (final.exists() and (not final.is_dir() or any(final.iterdir())))
    except OSError as error:
        raise _not_made(final, error) from error
    if used:
        raise InputError(f"{final}: is there already. Name a folder that is new or empty.")


@contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """A folder beside the final one to write into, which takes its name at the end; at an error, nothing is left.

    Raises:
        InputError: The final one can't be made or written to, or is there with something in it.
    """
    check_new(final)
    place = Path(os.path.abspath(final))  # "." has no name of its own
    temporary = place.with_name(f".{for_path(place.name)}.{uuid.uuid4().hex}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in temporary.iterdir():
            with path.open("rb+") as file:
                os.fsync(file.fileno())  # some disks, such as those of a network, tell only now that they are full
        os.replace(temporary, place)  # takes the place of an empty folder too
    except OSError as error:
        raise _not_made(final, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def about(source: Path, copy: Path) -> Iterator[None]:
    """Has errors of a copy name the source, which is there also later."""
    try:
        yield
    except (InputError, WeightsError) as error:
        raise type(error)(str(error).replace(str(copy), str(source))) from error


def _not_made(final: Path, error: OSError) -> InputError:
    return InputError(f"{final}: can't be made: {error.strerror or error}. Nothing is left of it.")
