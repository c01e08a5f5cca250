"""`tabzoo.pretrain`: what the command `tabzoo pretrain` does, as a function."""

import dataclasses
import os
import signal
import typing
from pathlib import Path
from typing import Any, NamedTuple

from tabzoo.command import called_from_python
from tabzoo.errors import InputError, did_you_mean
from tabzoo.kinds import check_kind, plain_number
from tabzoo.training.command import Running, as_arguments, check_start, make_command
from tabzoo.training.metrics import read_rows
from tabzoo.training.output import METRICS
from tabzoo.training.pretrain import run
from tabzoo.training.recipe import Recipe, load_recipe

__all__ = ["Pretrained", "pretrain"]

_FIELDS = [entry.name for entry in dataclasses.fields(Recipe)]
_RUNNING = typing.get_type_hints(Running)


class Pretrained(NamedTuple):
    """What a run made.

    Attributes:
        folder: Its output folder: `timm.create_model(f"local-dir:{folder}", pretrained=True)` loads the weights.
        metrics: The last row of its metrics.jsonl: step, epoch, losses, accuracies in [0, 1], learning rate, images a second.
    """

    folder: Path
    metrics: dict[str, Any]


def pretrain(
    recipe: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str],
    show: bool = False,
    **settings: Any,
) -> Pretrained:
    """Pre-trains a backbone by TAB (arXiv 2312.09480), as `tabzoo pretrain` does; returns when it is trained and written.

    It runs in this process. For several GPUs, start the command with torchrun. Warnings go to `logging`. Ctrl-C and SIGTERM
    end the run after the current step, with all steps saved; `resume=True` then goes on.

    Args:
        recipe: Name of a recipe, such as "resnet18.tab_mvtec", or a YAML file.
        data: Folder of good images, or a manifest. Only the recipe "quickstart" needs none: it draws its own.
        output: Folder to write: a new or empty one, unless `resume` or `overwrite` is True.
        show: Print what the command prints, and show progress. If False, nothing is printed to stdout while it runs.
        settings: Any flag of the command, with underscores: fields of the recipe, such as `epochs=20`, `class_names={"01":
            "casting plate"}`, and `resume`, `overwrite`, `strict`, `device`, `allow_recipe_change` and `benchmark`. None
            stands for the recipe's value.

    Returns:
        The output folder and the last row of metrics.

    Raises:
        InputError: A mistake in the arguments or the images, found as the command finds it; the text may name an argument by
            its flag.
        WeightsError: Initial weights or the text tower can't be fetched.
        TrainingError: The run can't go on, for example because its loss is not a finite number.
        KeyboardInterrupt: The run was stopped by Ctrl-C.
        SystemExit: The run was stopped by another signal, with code 128 + its number.
    """
    check_kind("show", show, bool)
    given = {"data": data, **settings}
    for name in given:
        if name not in (*_FIELDS, *_RUNNING):
            raise InputError(f"pretrain: no setting {name!r}.{did_you_mean(name, (*_FIELDS, *_RUNNING))}")
    given = {name: _plain(value) for name, value in given.items() if value is not None}
    running = {name: given.pop(name) for name in _RUNNING if name in given}
    for name, value in running.items():
        check_kind(name, value, _RUNNING[name])
    check_start(running)
    where = {"recipe": _plain(recipe), "output": _plain(output)}
    for name, value in where.items():
        check_kind(name, value, str)
    command = make_command(load_recipe(where["recipe"]), given, **where, **running)
    with called_from_python(show=show):
        code = run(command, as_arguments({**where, **given, **running}))
    if code:
        _stopped(code - 128)
    rows = read_rows(Path(where["output"]) / METRICS)
    return Pretrained(Path(where["output"]), dict(rows[-1]) if rows else {})


def _plain(value: Any) -> Any:
    """Paths as text, lists as tuples and NumPy's numbers as Python's, as a recipe has them."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return tuple(value) if isinstance(value, list) else plain_number(value)


def _stopped(number: int) -> typing.NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt("stopped; all steps are saved, and resume=True goes on")
    raise SystemExit(128 + number)
