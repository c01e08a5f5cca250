"""Whether a value is what a field's annotation says: YAML and callers from Python give whatever was typed."""

import numbers
import reprlib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tabzoo.errors import InputError, did_you_mean

__all__ = ["check_kind", "plain_number"]

_WORDS = {int: "a whole number", float: "a number", str: "a string", bool: "true or false", Path: "a path"}


def check_kind(name: str, value: object, kind: Any) -> None:
    """Checks that a field's value is of its kind.

    Args:
        name: Of the field.
        value: What it was given.
        kind: Its annotation: a plain type, `X | None`, Literal, Path, or a dict, tuple or sequence of such.

    Raises:
        InputError: It is not. The message begins with the field's name.
    """
    if _fits(value, kind):
        return
    choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else None
    expected = f"one of {', '.join(choices)}" if choices else _in_words(kind)
    raise InputError(f"{name}: {reprlib.repr(value)} given, expected {expected}.{did_you_mean(value, choices or ())}")


def plain_number(value: Any) -> Any:
    """A number of NumPy as one of Python; anything else as it is."""
    if isinstance(value, numbers.Integral) and not isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) and not isinstance(value, int | float) else value


def _fits(value: object, kind: Any) -> bool:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return value in args
    if origin is dict:
        return isinstance(value, Mapping) and all(
            _fits(item, of) for pair in value.items() for item, of in zip(pair, args, strict=True)
        )
    if origin is tuple:
        return isinstance(value, tuple) and len(value) == len(args) and all(_fits(item, float) for item in value)
    if origin is Sequence:
        return isinstance(value, Sequence) and not isinstance(value, str) and all(_fits(item, *args) for item in value)
    if origin in (typing.Union, types.UnionType):  # str | None
        return any(_fits(value, choice) for choice in args)
    if kind in (int, float):
        return isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind)


def _in_words(kind: Any) -> str:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is dict:
        of = "words, both strings (quote numbers: '01')" if args[1] is str else "number"
        return f"a table from name to {of}"
    if origin is Sequence:
        return f"a list, each item {_in_words(args[0])}"
    (kind, *_) = args or (kind,)  # int of int | None
    if typing.get_origin(kind) is Sequence:
        return _in_words(kind)
    if typing.get_origin(kind) is Literal:
        return f"one of {', '.join(typing.get_args(kind))}"
    return "three numbers" if typing.get_origin(kind) is tuple else _WORDS[kind]
