"""How the minutes are spent: the start is tested and a few steps are timed, then the epochs are fitted."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tabzoo.errors import InputError, count
from tabzoo.training.recipe import Recipe
from tabzoo.trial.train import Speed

__all__ = ["FIRST_SEED", "Plan", "choose_methods", "fit_epochs", "fitted"]

_SEEDS, FIRST_SEED = (0, 1, 2), (0,)
_FOR_TESTS = 0.5
"""Largest part of the time that tests may take; what is left is for training."""
_MARGIN = 1.1  # machines slow down when they are warm
_BETWEEN_CHECKPOINTS = 120.0
"""Seconds: what a killed trial loses at most."""


class Plan(NamedTuple):
    """The plan of a trial, kept when it goes on.

    Attributes:
        epochs: Of each training run.
        methods: Detectors to test with, and their seeds.
        test: Seconds to test one backbone.
        epoch: Seconds of an epoch.
        once: Seconds that a training run needs besides its epochs.
    """

    epochs: int
    methods: Mapping[str, Sequence[int]]
    test: float
    epoch: float
    once: float

    def left(self, runs: int, tests: int) -> float:
        """Seconds for so many training runs and tests of backbones."""
        return runs * (self.once + self.epochs * self.epoch) + tests * self.test


def choose_methods(padim: float, patchcore: float, *, runs: int, minutes: float) -> dict[str, Sequence[int]]:
    """Detectors and seeds: both with three seeds, with one, or only PaDiM, as time allows.

    Both have the same number of seeds, so that both count equally.

    Args:
        padim: Seconds to test one backbone with one seed of PaDiM.
        patchcore: The same of PatchCore.
        runs: Number of training runs; the start is tested, too.
        minutes: For all.
    """
    choices: tuple[dict[str, Sequence[int]], ...] = (
        {"padim": _SEEDS, "patchcore": _SEEDS},
        {"padim": FIRST_SEED, "patchcore": FIRST_SEED},
        {"padim": _SEEDS},
    )
    seconds = {"padim": padim, "patchcore": patchcore}
    for methods in choices:
        if (runs + 1) * sum(seconds[name] * len(seeds) for name, seeds in methods.items()) <= _FOR_TESTS * 60 * minutes:
            return methods
    return {"padim": FIRST_SEED}


def fit_epochs(speed: Speed, *, test: float, spent: float, runs: int, minutes: float, most: int) -> int:
    """Epochs of each training run that fit into the time, at most those of the recipe.

    Args:
        speed: Of training.
        test: Seconds to test one backbone.
        spent: Seconds that the trial took so far, which include the test of the start.
        runs: Number of training runs.
        minutes: For all.
        most: Epochs of the recipe.

    Raises:
        InputError: Not even one epoch fits; the text says how many minutes are needed.
    """
    rest = 60 * minutes - spent - runs * (test + speed.once)
    epochs = min(most, math.floor(rest / (runs * speed.epoch * _MARGIN)))
    if epochs < 1:
        needed = math.ceil(_MARGIN * (spent + runs * (test + speed.once + speed.epoch)) / 60)
        raise InputError(
            f"--minutes {minutes:g}: too short for one epoch and the tests of {count(runs, 'training run')}. Type --minutes "
            f"{needed} or more; what was measured so far is kept."
        )
    return epochs


def fitted(recipe: Recipe, plan: Plan, images: int) -> Recipe:
    """The recipe with the plan's epochs, and with checkpoints that are not too far apart.

    Args:
        recipe: With its own epochs.
        plan: Of the trial.
        images: Number of photos to train on.
    """
    step = plan.epoch * recipe.batch_size / images
    every = max(1, min(recipe.save_every, int(_BETWEEN_CHECKPOINTS / max(step, 1e-6))))
    warmup = recipe.warmup_epochs * plan.epochs / recipe.epochs
    return recipe.replace(epochs=plan.epochs, warmup_epochs=warmup, save_every=every)
