"""A detector's settings as flags of a command line."""

import dataclasses
import typing
from dataclasses import make_dataclass
from typing import Annotated, Any

import tyro

from tabzoo.detectors.interface import DetectorSpec, flag_of

__all__ = ["flags_of_settings"]


def flags_of_settings(name: str, spec: DetectorSpec) -> type[Any]:
    """A detector's settings as flags; None stands for the budget's value, so that a quick budget knows what was given."""
    types, flags = typing.get_type_hints(spec.settings), []
    for entry in dataclasses.fields(spec.settings):
        (kind, *_) = typing.get_args(types[entry.name]) or (types[entry.name],)  # int of int | None
        default = "" if entry.default is None else f"default: {entry.default}"
        quick = f"{spec.quick[entry.name]} with the quick budget" if entry.name in spec.quick else ""
        hint = ", ".join(filter(None, (default, quick)))
        flag = tyro.conf.arg(
            name=flag_of(name, entry.name)[2:],
            metavar="N" if kind is int else "X",
            help=entry.metadata["about"],
            help_behavior_hint=f"({hint})" if hint else "",
        )
        flags.append((entry.name, Annotated[kind | None, flag], None))
    return make_dataclass(name, flags, frozen=True, kw_only=True)
