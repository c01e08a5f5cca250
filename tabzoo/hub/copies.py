"""Weights folders that are whole or not there."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tabzoo.errors import InputError
from tabzoo.hub.folders import CARD, CONFIG, HASHES, RECORD, WEIGHTS

__all__ = ["copy_folder", "whole_folder"]

_COPIED = (WEIGHTS, CONFIG, RECORD, CARD, HASHES, "recipe.yaml")


def copy_folder(source: Path, to: Path) -> None:
    """Copies what belongs to weights into an existing folder, and not the checkpoints and paths of a run."""
    for name in _COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, to / name)


@contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """A folder beside the final one to write into, which takes its name at the end; at an error, nothing is left.

    Raises:
        InputError: The final one can't be made, or is there with something in it.
    """
    temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex}")
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{final}: can't be made: {error.strerror}") from error
    try:
        yield temporary
        try:
            os.replace(temporary, final)  # takes the place of an empty folder too
        except OSError as error:
            raise InputError(
                f"{final}: can't be made: {error.strerror}. Name a folder that is new or empty."
            ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
