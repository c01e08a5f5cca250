"""What tabzoo knows of weights, as rows for people and for machines."""

import argparse
from dataclasses import asdict
from typing import Any

from tabzoo.errors import InputError, WeightsError, did_you_mean
from tabzoo.hub import store
from tabzoo.hub.sources import list_models
from tabzoo.hub.table import find_weights
from tabzoo.plain import for_terminal, plain_json

__all__ = ["add_command", "describe"]


def describe(name: str) -> dict[str, Any]:
    """All that is known of a name; `state` is "installed", "broken", "published" or "not published yet".

    Raises:
        InputError: Nothing is.
    """
    weights = find_weights(name)
    known: dict[str, Any] = {
        "name": name,
        "state": "published" if weights and weights.published else "not published yet",
        "license": "unspecified",
    }
    if weights is not None:
        known |= asdict(weights) | {"metrics": [metric._asdict() for metric in weights.metrics]}
    try:
        entry = store.find(name)
        here = _installed(entry) if entry else {}
    except WeightsError as error:
        return known | {"state": "broken", "cause": str(error)}
    if weights is None and entry is None:
        raise InputError(f"{name}: no weights of tabzoo, and not installed.{did_you_mean(name, list_models())}")
    return known | here


def _installed(entry: store.Entry) -> dict[str, Any]:
    record = entry.folder.record
    assert record is not None
    local = {**entry.origin, "folder": str(entry.folder.path), **record.digest._asdict(), "record": record.content}
    return {"state": "installed", "license": record.license, "local": local}


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `list` and `info` to the subcommands of a command line."""
    listing = commands.add_parser("list", help="tabzoo's weights and those installed: state and licence")
    listing.set_defaults(run=_list)
    info = commands.add_parser("info", help="all that is known of some weights")
    info.add_argument("name", metavar="NAME")
    info.set_defaults(run=_info)
    for command in (listing, info):
        command.add_argument("--json", action="store_true", help="for machines")


def _list(options: argparse.Namespace) -> int:
    rows = [describe(name) for name in list_models()]
    if options.json:
        print(plain_json(rows))
        return 0
    for row in rows:
        print(f"{row['name']:32}{row['state']:20}{row['license']}")
    return 0


def _info(options: argparse.Namespace) -> int:
    known = describe(options.name)
    if options.json:
        print(plain_json(known))
        return 0
    for key, value in known.items():
        for line in _lines(value):
            print(f"{key.replace('_', ' '):16}{for_terminal(line)}")
    return 0


def _lines(value: Any) -> list[str]:
    """A value on lines of their own."""
    if isinstance(value, dict):
        return [f"{key}: {line}" for key, entry in value.items() for line in _lines(entry)]
    if isinstance(value, list | tuple):
        return [", ".join(map(str, entry.values())) if isinstance(entry, dict) else str(entry) for entry in value]
    return [] if value is None else [str(value)]
