"""How the minutes are spent: the start is tested and a few steps are timed, then the epochs are fitted."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tabzoo.errors import InputError, count
from tabzoo.training.recipe import Recipe
from tabzoo.trial.train import Speed

__all__ = ["PADIM_SEEDS", "Plan", "choose_seeds", "fit_epochs", "fitted"]

PADIM_SEEDS = (0, 1, 2)
"""PaDiM draws its channels at random, and is cheap."""
_FOR_PATCHCORE = 0.4
"""Largest part of the time that PatchCore's tests may take."""
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


def choose_seeds(seconds: float, *, runs: int, minutes: float) -> tuple[int, ...]:
    """PatchCore's seeds: as many as PaDiM's, else one, else none, as time allows.

    Args:
        seconds: To test one backbone with one seed.
        runs: Number of training runs; the start is tested, too.
        minutes: For all.
    """
    for seeds in (PADIM_SEEDS, PADIM_SEEDS[:1]):
        if seconds * len(seeds) * (runs + 1) <= _FOR_PATCHCORE * 60 * minutes:
            return seeds
    return ()


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
