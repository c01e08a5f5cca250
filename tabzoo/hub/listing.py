"""What tabzoo knows about weights, for people and for programs."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from tabzoo.errors import InputError, WeightsError, did_you_mean
from tabzoo.hub import store
from tabzoo.hub.license_terms import explain_license
from tabzoo.hub.resolve import list_models
from tabzoo.hub.table import find_weights

__all__ = ["describe", "lines"]


def describe(name: str) -> dict[str, Any]:
    """Everything known about a name; `state` is "installed", "broken", "published" or "not published yet".

    Raises:
        InputError: Nothing is known.
    """
    known = _known(name)
    first = {key: known.pop(key) for key in ("name", "state", "license")}
    return {**first, "license_means": explain_license(str(first["license"])), **known}


def _known(name: str) -> dict[str, Any]:
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
        raise InputError(f"{name}: neither weights of tabzoo nor installed weights.{did_you_mean(name, list_models())}")
    return known | here


def _installed(entry: store.Entry) -> dict[str, Any]:
    record = entry.folder.record
    assert record is not None
    local = {**entry.origin, "folder": str(entry.folder.path), **record.digest._asdict(), "record": record.content}
    return {"state": "installed", "license": record.license, "local": local}


def lines(known: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """What `describe` knows as lines of text for people, in which groups are indented below their name."""
    for key, value in known.items():
        if isinstance(value, dict):
            yield f"{indent}{key}:"
            yield from lines(value, indent + "  ")
        elif isinstance(value, list | tuple):
            yield f"{indent}{key.replace('_', ' ')}:"
            for entry in value:
                yield f"{indent}  {', '.join(map(str, entry.values())) if isinstance(entry, dict) else entry}"
        elif value is not None:
            yield f"{indent}{key}: {value}" if indent else f"{key.replace('_', ' ') + ':':17}{value}"
