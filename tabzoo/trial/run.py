"""A trial from photos to verdict."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tabzoo.benchmark.provenance import Backbone, find_backbones, unseen_synthesis
from tabzoo.data.layouts import find_samples
from tabzoo.data.samples import TRAIN, Samples
from tabzoo.errors import InputError, count
from tabzoo.plain import for_lines
from tabzoo.scores.rows import row_key
from tabzoo.training.anomalies import syntheses
from tabzoo.training.recipe import Recipe
from tabzoo.trial.conclude import Finished, conclude
from tabzoo.trial.folder import BENCHMARK, RUNS, TrialFolder, open_folder
from tabzoo.trial.images import IMAGES, write_images
from tabzoo.trial.measure import Tests
from tabzoo.trial.options import DEFAULT_RECIPE, Options
from tabzoo.trial.plan import FIRST_SEED, Plan, choose_methods, fit_epochs, fitted
from tabzoo.trial.settings import Settings, recipe_fields_named, recipe_of, settle
from tabzoo.trial.split import Split, hash_files, split_samples
from tabzoo.trial.train import measure_speed, train_run
from tabzoo.trial.verdict import Verdict, read_verdict

__all__ = ["run"]

Say = Callable[[str], None]

_STEPS, _SMALLEST_BATCH = 16, 16
"""Of the default recipe: least number of steps an epoch, unless batches would be smaller than this."""


def run(options: Options, *, say: Say = print) -> Verdict:
    """Runs a trial, or what is left of one.

    Args:
        options: What to try.
        say: Takes a line for people.

    Returns:
        The verdict; it is in the folder, too.

    Raises:
        InputError: A value can't work, or the time is too short.
        WeightsError: Weights can't be fetched.
        TrainingError: A loss is not a finite number.
        StoppedError: A stop was asked for; the same command goes on.
    """
    options.check()
    folder = open_folder(options.output, overwrite=options.overwrite, inputs=options.inputs())
    with recipe_fields_named(), folder as opened:
        samples = find_samples(options.data, layout=options.layout)
        if not ((samples.split == TRAIN) & (samples.defect_ids == 0)).any():
            raise InputError(f"--data {options.data}: no good training photos; expected CLASS/train/good/* or CLASS/*")
        recipe, notes = recipe_of(options, samples)
        hashes = hash_files(samples)
        identity = _identity(options, recipe, samples, hashes)
        opened.check(identity)
        split = split_samples(samples, hashes, seed=recipe.seed)
        if done := read_verdict(opened.path):
            return done
        settings = settle(options, recipe, notes, opened.path)
        opened.begin(identity)
        return _Trial(options, settings, samples, split, opened, say).run()


def _identity(options: Options, recipe: Recipe, samples: Samples, hashes: Sequence[str]) -> dict[str, Any]:
    """What decides a trial."""
    files = [[str(path), one] for path, one in zip(samples.paths.tolist(), hashes, strict=True)]
    columns = [samples.class_ids.tolist(), samples.split.tolist(), samples.defect_ids.tolist()]
    photos = row_key({"photos": [samples.classes, files, columns]})
    return {"photos": photos, "minutes": options.minutes, "seeds": list(options.seeds), **recipe.identity()}


class _Trial:
    """The steps of a trial, and what they share."""

    def __init__(
        self, options: Options, settings: Settings, samples: Samples, split: Split, folder: TrialFolder, say: Say
    ) -> None:
        self.options, self.settings, self.samples, self.split, self.folder = options, settings, samples, split, folder
        self.say: Say = lambda line: say(for_lines(line))
        self.kind = self._kind()
        self.images = folder.path / IMAGES
        self.runs = [folder.path / RUNS / f"seed_{seed}" for seed in options.seeds]
        self.recipe = settings.recipe.replace(data=str(self.images), batch_size=self._batch_size())
        fewer = f"Batches of {self.recipe.batch_size} photos, not {settings.recipe.batch_size} as in the recipe."
        self.notes = (
            *settings.notes,
            *split.notes,
            *([fewer] if self.recipe.batch_size < settings.recipe.batch_size else []),
        )
        self.tests = Tests(
            images=self.images,
            classes=split.tested,
            recipe=self.recipe,
            device=settings.device.type,
            output=folder.path / BENCHMARK,
        )

    def _batch_size(self) -> int:
        """The recipe's, if there are as many photos.

        The default recipe's is for thousands of photos: a trial would take one step an epoch, and hardly learn.
        """
        photos, size = len(self.split.train), self.settings.recipe.batch_size
        most = max(_SMALLEST_BATCH, photos // _STEPS) if self.options.recipe is None else photos
        return max(2, min(size, most, photos))

    def _kind(self) -> str | None:
        """A kind of synthetic anomalies that neither start nor result was trained with; None where defects are real."""
        if not self.split.synthetic:
            return None
        result = Backbone("result", (), tuple(syntheses(self.settings.recipe)), "")
        try:
            return unseen_synthesis([*find_backbones([self.settings.start]), result])
        except InputError:
            raise InputError(
                f"--data {self.options.data}: has no real defects, and start and recipe are trained with every kind of "
                f"synthetic anomaly, so none is new to both. Add real defects (CLASS/test/KIND/*), or choose a recipe with "
                f"one kind."
            ) from None

    def run(self) -> Verdict:
        """Does what is left to do."""
        self._announce()
        root = str(self.samples.root)  # of the paths in the list; the photos may have moved since it was written
        if not self.images.is_file() or self.folder.state.get("root") != root:
            write_images(self.folder.path, self.samples, self.split, self.recipe, self.kind)
            self.folder.save(root=root)
        plan = self._plan()
        recipe = fitted(self.recipe, plan, len(self.split.train))
        name = self.options.recipe or DEFAULT_RECIPE
        for index, (seed, folder) in enumerate(zip(self.options.seeds, self.runs, strict=True)):
            what = f"Training run {index + 1} of {len(self.runs)} (seed {seed}), {count(plan.epochs, 'epoch')}"
            self._tell_left(what, plan.left(len(self.runs) - index, len(self.runs)))
            of = recipe.replace(seed=seed)
            train_run(of, folder, self.settings.device, name=Path(name).stem if name.endswith(".yaml") else name)
            self.folder.save()
        self._tell_left("Testing the results", plan.left(0, len(self.runs)))
        for method, seeds in plan.methods.items():
            self.tests.run([self.settings.start, *map(str, self.runs)], method, seeds)
        return self._conclude(recipe, plan)

    def _announce(self) -> None:
        split = self.split
        classes = len(np.unique(self.samples.class_ids[split.train]))
        self.say(f"To train on: {count(len(split.train), 'good photo')} of {count(classes, 'class', 'classes')}.")
        held = f" ({split.held_out} of them held out of training)" if split.held_out else ""
        against = f"synthetic anomalies ({self.kind})" if self.kind else count(len(split.defective), "defective photo")
        of = count(len(split.tested), "class", "classes")
        self.say(f"To test on: {count(len(split.good), 'good photo')}{held} and {against}, of {of}.")
        for note in self.notes:
            self.say(note)

    def _plan(self) -> Plan:
        """The plan in the folder; without one, tests the start, times some steps and fits the epochs."""
        if "plan" in self.folder.state:
            return Plan(**self.folder.state["plan"])
        start, runs, minutes = self.settings.start, len(self.runs), self.options.minutes
        self.say(f"Testing the start, {start} ...")
        padim = self.tests.run([start], "padim", FIRST_SEED)
        # The class with the most photos, so that the estimate is rather too long.
        largest = max(self.split.tested, key=self._photos)
        patchcore = self.tests.run([start], "patchcore", FIRST_SEED, classes=[largest]) * len(self.split.tested)
        methods = choose_methods(padim, patchcore, runs=runs, minutes=minutes)
        if "patchcore" not in methods:
            self.say("Only PaDiM tests: there is no time for PatchCore.")
        test = sum(self.tests.run([start], method, seeds) for method, seeds in methods.items())
        self.say("Timing some training steps ...")
        speed = measure_speed(self.recipe, self.settings.device)
        most = self.recipe.epochs
        fit = partial(fit_epochs, speed, spent=self.folder.seconds, runs=runs, minutes=minutes, most=most)
        try:
            epochs = fit(test=test)
        except InputError:  # the shortest test leaves more time, and decides which --minutes the error asks for
            methods, test = {"padim": FIRST_SEED}, min(test, padim)  # the first one decoded, too
            epochs = fit(test=test)
            self.say("Only PaDiM tests, with one seed: there is no time for more.")
        plan = Plan(epochs=epochs, methods=methods, test=test, epoch=speed.epoch, once=speed.once)
        self.folder.save(plan=plan._asdict())
        return plan

    def _photos(self, name: str) -> int:
        used = np.concatenate([self.split.train, self.split.good, self.split.defective])
        return int((self.samples.class_ids[used] == self.samples.classes.index(name)).sum())

    def _tell_left(self, what: str, seconds: float) -> None:
        self.say(f"{what}; about {max(1, round(seconds / 60))} min left for the whole trial ...")

    def _conclude(self, recipe: Recipe, plan: Plan) -> Verdict:
        finished = Finished(
            options=self.options,
            settings=self.settings,
            recipe=recipe,
            split=self.split,
            kind=self.kind,
            methods=plan.methods,
            notes=self.notes,
            start=self.tests.rows(self.settings.start, plan.methods),
            runs={folder: self.tests.rows(str(folder), plan.methods) for folder in self.runs},
            minutes=self.folder.seconds / 60,
        )
        return conclude(finished, self.folder.path, say=self.say)
