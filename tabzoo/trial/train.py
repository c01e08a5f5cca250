"""One training run of a trial, and how long its steps take."""

import io
import time
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch

from tabzoo.errors import InputError
from tabzoo.signals import stop_requests
from tabzoo.training import output, report
from tabzoo.training.command import Command
from tabzoo.training.loop import optimise, train
from tabzoo.training.ranks import Ranks
from tabzoo.training.recipe import Recipe
from tabzoo.training.run_folder import RunFolder
from tabzoo.training.setup import build_run
from tabzoo.trial.stopping import StoppedError

__all__ = ["Speed", "measure_speed", "train_run"]

_STEPS, _LONGEST = 3, 20.0  # measured steps; seconds


class Speed(NamedTuple):
    """How long training takes, in seconds.

    Attributes:
        epoch: An epoch.
        once: What a run needs besides its epochs.
    """

    epoch: float
    once: float


def measure_speed(recipe: Recipe, device: torch.device) -> Speed:
    """Does a few real steps, after one to warm up, and keeps nothing of them."""
    # On a CPU, whose time is in proportion to the images, a part of a large batch is enough.
    small = recipe.replace(batch_size=min(recipe.batch_size, max(2, recipe.micro_batch or recipe.batch_size)))
    begin = time.monotonic()
    with TemporaryDirectory() as name, redirect_stdout(io.StringIO()):
        run, state = build_run(small, Path(name), device, _command(small, Path(name)), Ranks(), one_class="")
        once = time.monotonic() - begin
        ids = run.order(0)[: run.batch_size]
        seconds: list[float] = []
        while len(seconds) <= _STEPS and sum(seconds) < _LONGEST:
            start = time.monotonic()
            optimise(run, state, run.pairs(recipe.seed, 0, ids))
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.monotonic() - start)
        images = len(run.order(0))
    measured = seconds[1:] or seconds
    return Speed(epoch=sum(measured) / len(measured) / len(ids) * images, once=once + _WRITING)


_WRITING = 10.0
"""Seconds for checkpoints, figures and weights."""


def train_run(recipe: Recipe, folder: Path, device: torch.device, *, name: str) -> None:
    """Trains from the last checkpoint to the last step; does nothing if the run is finished.

    Args:
        recipe: With its epochs fitted.
        folder: Of the run.
        device: Where to train.
        name: What the recipe is called.

    Raises:
        StoppedError: A stop was asked for; all steps are saved.
        TrainingError: A loss is not a finite number.
    """
    with RunFolder(folder, resume=True, overwrite=False, inputs={}) as run_folder:
        if output.is_finished(folder):
            return
        with redirect_stdout(io.StringIO()):  # what pre-training says to its own users
            try:
                run, state = build_run(recipe, folder, device, _command(recipe, folder), Ranks(), one_class="")
                output.write_run(folder, run.recipe, run.text, command="tabzoo trial", device=device)
                run_folder.begun()
                with stop_requests() as stop:
                    asked = train(run, state, stop)
            except torch.OutOfMemoryError as error:
                raise InputError(
                    f"{error}\nWrite a smaller `micro_batch: N` into a copy of the recipe, and type --recipe FILE.yaml."
                ) from error
            if asked:
                raise StoppedError(asked)
            report.finish(run, state, name, recipe.digest())


def _command(recipe: Recipe, folder: Path) -> Command:
    return Command(recipe=str(folder), output=str(folder), resume=True, settings=recipe, named=recipe)
