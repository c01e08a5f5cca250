"""tabzoo's weights and the installed ones, each in a line. Nothing here imports torch or timm, which takes seconds."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tabzoo.errors import WeightsError
from tabzoo.hub.files import read_json
from tabzoo.hub.record import CONFIG, NAME, ORIGIN, RECORD, WEIGHTS, read_record
from tabzoo.hub.table import WEIGHTS as TABLE
from tabzoo.system import user_folder

__all__ = ["Overview", "overview", "print_overview"]

_log = logging.getLogger(__name__)


class Overview(NamedTuple):
    """A name of weights.

    Attributes:
        name: timm name with tag.
        state: "installed", "broken", "published" or "not published yet".
        license: Of the weights, or "unspecified".
    """

    name: str
    state: str
    license: str


def overview() -> list[Overview]:
    """All names, sorted. Installed weights are compared with the size in their record; `tabzoo verify` reads them."""
    states = {one.name: "published" if one.published else "not published yet" for one in TABLE}
    licenses = {one.name: one.license for one in TABLE}
    for name, license in _installed():
        states[name] = "broken" if license is None else "installed"
        licenses[name] = license or licenses.get(name, "unspecified")
    return [Overview(name, states[name], licenses[name]) for name in sorted(states)]


def print_overview() -> None:
    """Prints a line for each name."""
    for one in overview():
        print(f"{one.name:32}{one.state:20}{one.license}")


def _installed() -> Iterator[tuple[str, str | None]]:
    """Name and licence of the installed weights; None where they can't be used."""
    folder = user_folder("data") / "weights"
    try:
        names = [name for name in os.listdir(folder) if NAME.fullmatch(name)]
    except FileNotFoundError:
        return
    except OSError as error:
        _log.warning("the local store %s can't be read: %s", folder, error.strerror)
        return
    for name in names:
        try:
            yield name, _license(folder / name)
        except (OSError, WeightsError):
            yield name, None


def _license(folder: Path) -> str:
    """Of an entry whose files are there.

    Raises:
        OSError: They are not.
        WeightsError: They can't be read, or are others than those of the record.
    """
    record = read_record(folder / RECORD)
    if (folder / WEIGHTS).stat().st_size != record.digest.size:
        raise WeightsError(f"{folder}: {WEIGHTS} has another size than in {RECORD}")
    for name in (CONFIG, ORIGIN):
        read_json(folder / name)
    return record.license
