"""`tabzoo.benchmark_backbones`: what the command `tabzoo benchmark run` does, as a function."""

import os
import reprlib
import typing
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from tabzoo.benchmark.options import Options
from tabzoo.benchmark.run import Measured, check_packages, run_and_return
from tabzoo.command import called_from_python
from tabzoo.detectors import DETECTORS
from tabzoo.detectors.interface import flag_of
from tabzoo.errors import InputError, did_you_mean
from tabzoo.kinds import check_kind, plain_number

__all__ = ["benchmark_backbones"]

_KINDS = typing.get_type_hints(Options)
_NAMED = {"backbone": "backbones", "method": "methods"}
"""Fields of the options whose arguments here are called otherwise: they take several."""
_OTHERS = [name for name in _KINDS if name not in (*_NAMED, "data", "output", "settings")]


def benchmark_backbones(
    backbones: str | Sequence[str],
    *,
    data: str | os.PathLike[str],
    output: str | os.PathLike[str],
    methods: str | Sequence[str] = ("padim",),
    settings: Mapping[str, Mapping[str, object]] | None = None,
    show: bool = False,
    **options: Any,
) -> Measured:
    """Measures backbones with anomaly detectors, as `tabzoo benchmark run` does, and writes what it writes.

    Rows that are in the output folder are not measured again, so the same call goes on with one that was stopped. Warnings go
    to `logging`.

    Args:
        backbones: Names of timm, folders of runs, "local-dir:DIR", "hf-hub:ID" or "random[:ARCHITECTURE]". The first one is
            the baseline.
        data: Folder of images, good ones to fit to and good and defective ones to test on, or a manifest.
        output: Folder for the results: a new or empty one, or that of earlier runs.
        methods: Detectors: "padim", "patchcore", "rd4ad", "simplenet", "regad".
        settings: For each method the settings that differ from its authors', such as `{"patchcore": {"share": 0.01}}`.
        show: Print tables, and show progress. If False, nothing is printed to stdout while it runs.
        options: Any other flag of the command, with underscores, such as `classes=["bolt"]`, `seeds=[0, 1, 2]`,
            `full_resolution=True`. Where several values are possible, a single one can be given too.

    Returns:
        The rows, by method, then backbone, seed, number of shots and class, with metrics in [0, 1]; and all tables.

    Raises:
        InputError: A mistake in the arguments or the images, found as the command finds it; the text may name an argument by
            its flag. Or a package of the extra `benchmark` is missing.
        WeightsError: A backbone's weights can't be fetched.
    """
    check_kind("show", show, bool)
    for name in options:
        if name not in _OTHERS:
            known = (*_OTHERS, *_NAMED.values(), "settings")
            raise InputError(f"benchmark_backbones: no option {name!r}.{did_you_mean(name, known)}")
    check_packages()
    given = {"backbone": backbones, "method": methods, "data": data, "output": output, **options}
    chosen = Options(
        **{name: _checked(name, value) for name, value in given.items()}, settings=_settings(settings, methods)
    )
    with called_from_python(show=show):
        measured = run_and_return(chosen, progress=show)
        print(measured.table)
    return measured


def _checked(name: str, value: Any) -> Any:
    """An argument as the options have it: several values as a list, and paths as text, but for the output folder."""
    kind, called = _KINDS[name], _NAMED.get(name, name)
    if value is not None and Sequence in {typing.get_origin(part) for part in (kind, *typing.get_args(kind))}:
        values = [value] if isinstance(value := _text(value), str | int) else value
        # A set has no first backbone, the baseline.
        several = Sequence if name == "backbone" else Sequence | Set
        value = [_text(item) for item in values] if isinstance(values, several) else values
    else:
        value = _text(value)
    if value == "":  # as a path it would be the current folder
        raise InputError(f"{called}: '' given, expected a value")
    if kind is Path and isinstance(value, str):
        value = Path(value)
    check_kind(called, value, kind)
    return value


def _text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else plain_number(value)


def _settings(
    settings: Mapping[str, Mapping[str, object]] | None, methods: str | Sequence[str]
) -> Mapping[str, Mapping[str, object]]:
    tables = settings or {}
    if not isinstance(tables, Mapping) or not all(isinstance(of_one, Mapping) for of_one in tables.values()):
        raise InputError(
            f"settings: {reprlib.repr(settings)} given, expected a table for each method, such as "
            f"{{'padim': {{'channels': 100}}}}"
        )
    for name, of_one in tables.items():
        if name not in DETECTORS or name not in methods:
            raise InputError(f"settings: {name!r} is not among the methods, {methods}")
        kinds = typing.get_type_hints(DETECTORS[name].settings)
        for key, value in of_one.items():
            if key not in kinds:
                known = f"there are {', '.join(kinds)}." if kinds else "there are none."
                raise InputError(f"settings: {name} has no {key!r}; {known}{did_you_mean(key, kinds)}")
            check_kind(flag_of(name, key), value, kinds[key])
    return tables
