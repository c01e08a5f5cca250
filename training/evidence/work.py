"""The work on cells: training and testing, each by tabzoo's own command line, in OUT, with a log for each arm."""

import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from arms import START, Arm, Budget, Stage
from experiment import Cell, Experiment
from results import Results
from stand_in_texts import write_stand_ins

from tabzoo.command import say
from tabzoo.data.class_words import class_words
from tabzoo.errors import InputError, TrainingError
from tabzoo.hub.folder import read_folder
from tabzoo.locks import hold
from tabzoo.training.output import RECIPE, is_finished
from tabzoo.training.recipe import Recipe, load_recipe

__all__ = ["Job", "Worker"]


class Job(NamedTuple):
    """Something to compute: the training of a cell, or with a method its test."""

    cell: Cell
    method: str | None = None
    seeds: tuple[int, ...] = ()
    budget: str | None = None
    """Of the method."""

    @property
    def kind(self) -> str:
        """Jobs of a kind take about the same time."""
        return self.method or "training"


class Worker:
    """Computes jobs.

    Args:
        out: OUT.
        data: The folder of images.
        experiment: What OUT holds.
        budget: How much is computed.
        arms: By name.
        python: The interpreter.
        device: For both programs.
        workers: Processes that decode images.
    """

    def __init__(
        self,
        out: Path,
        data: Path,
        experiment: Experiment,
        budget: Budget,
        arms: Mapping[str, Arm],
        *,
        python: str,
        device: str,
        workers: int,
    ) -> None:
        self._out, self._data, self._experiment, self._budget = out, data.resolve(), experiment, budget
        self._arms = {name: (arm, arm.resolved()) for name, arm in arms.items()}
        self._python, self._common = python, ["--device", device, "--workers", str(workers)]
        self._start = read_folder(out / START, recorded=False).config
        self._results = Results(out, experiment, budget)
        self._seconds: dict[str, list[float]] = defaultdict(list)

    def jobs(self, arm: str, stage: Stage, folds: Iterable[str], *, budget: str | None = None) -> list[Job]:
        """The jobs of an arm in a stage.

        Args:
            arm: Its name.
            stage: Seeds and methods.
            folds: Names of folds.
            budget: Of the methods that are trained.
        """
        jobs = []
        for seed in stage.training_seeds:
            for fold in folds:
                cell = Cell(arm, fold, seed)
                jobs.append(Job(cell))
                jobs += [Job(cell, method, seeds, budget) for method, seeds in stage.detectors.items()]
        return jobs

    def is_done(self, job: Job) -> bool:
        """Whether nothing is missing.

        Raises:
            InputError: The run was made with other settings.
        """
        finished = is_finished(self._out / job.cell.folder)
        if job.method is None:
            if finished:
                self._check_settings(job.cell)
            return finished
        classes = self._experiment.tested_in(job.cell.fold)
        of_start = self._results.complete(Path(START), job.method, job.seeds, classes)
        return finished and of_start and self._results.complete(job.cell.folder, job.method, job.seeds, classes)

    def do(self, arm: str, jobs: Sequence[Job]) -> None:
        """Computes what is missing of an arm, and says how long the rest takes. Other processes may work on other arms.

        Raises:
            TrainingError: A program failed, or another process works on this arm.
        """
        (self._out / "logs").mkdir(exist_ok=True)
        try:
            with hold(self._out / "logs" / f".{arm}.lock"):
                self._do(jobs)
        except BlockingIOError as error:
            raise TrainingError(f"{error} works on {arm} in {self._out}; wait for it to end") from error

    def _do(self, jobs: Sequence[Job]) -> None:
        pending = [job for job in jobs if not self.is_done(job)]
        for number, job in enumerate(pending, start=1):
            began = time.monotonic()
            command = self._training(job.cell) if job.method is None else self._test(job)
            self._call(command, self._out / "logs" / f"{job.cell.arm}.log")
            self._seconds[job.kind].append(time.monotonic() - began)
            what = (
                f"{job.cell.arm}, {job.cell.fold}, seed {job.cell.seed}: {job.kind} {self._seconds[job.kind][-1]:.0f} s"
            )
            say(
                f"{time.strftime('%H:%M')} {what}; of this arm {len(pending) - number} to do{self._left(pending[number:])}"
            )

    def _left(self, jobs: Sequence[Job]) -> str:
        if not jobs or not all(self._seconds[job.kind] for job in jobs):
            return ""
        return f", about {sum(fmean(self._seconds[job.kind]) for job in jobs) / 60:.0f} min"

    def _training(self, cell: Cell) -> list[str]:
        arm, recipe = self._arms[cell.arm]
        given: dict[str, Any] = {
            "backbone": self._start.architecture,
            "init": f"{START}/model.safetensors",
            "mean": self._start.mean,
            "std": self._start.std,
            "text_pretrained": self._text(recipe),
            "projection": "linear" if recipe.projection == "none" else recipe.projection,
            "license": "LicenseRef-evaluation",
            **arm.settings,
            "seed": cell.seed,
        }
        program = [self._python, "-m", "tabzoo.training.pretrain", "--recipe", arm.recipe, "--resume"]
        places = ["--data", f"data/{cell.fold}.csv", "--output", str(cell.folder)]
        return [*program, *places, *self._common, *_flags(given)]

    def _text(self, recipe: Recipe) -> str:
        """The file of text features for a recipe, relative to OUT; written if it is not there."""
        as_folder = getattr(recipe, "class_words", "words") == "folder"
        path = f"text/{recipe.prompts}{'_folder' if as_folder else ''}.safetensors"
        if not (self._out / path).is_file():
            classes = sorted({*self._experiment.tested, *self._experiment.train_only})
            words = {name: name for name in classes} if as_folder else class_words(classes, {}, "manifest")
            write_stand_ins(self._out / path, words, prompts=recipe.prompts)
        return path

    def _test(self, job: Job) -> list[str]:
        size = [flag for name in ("resize", "crop") for flag in (f"--{name}", str(self._budget.settings[name]))]
        return [
            *(self._python, "-m", "tabzoo.benchmark", "run", "--backbone", START, str(job.cell.folder)),
            *("--method", str(job.method), "--seeds", *map(str, job.seeds), "--data", str(self._data)),
            *("--classes", *self._experiment.tested_in(job.cell.fold), *size, "--output", "benchmark"),
            *(["--budget", job.budget] if job.budget else []),
            *self._common,
        ]

    def _check_settings(self, cell: Cell) -> None:
        recorded, (arm, wanted) = load_recipe(str(self._out / cell.folder / RECIPE)), self._arms[cell.arm]
        for name in arm.settings:
            before, now = getattr(recorded, name), getattr(wanted, name)
            if before != now and now != "auto":
                raise InputError(
                    f"{self._out / cell.folder}: was made with {name} {before}, but arm {arm.name} now has {now}. Remove the "
                    f"folder, or give the arm another name."
                )

    def _call(self, command: Sequence[str], log: Path) -> None:
        with log.open("a") as file:
            begin = file.tell()
            process = subprocess.Popen(command, cwd=self._out, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
            try:
                code = process.wait()
            except BaseException:  # Ctrl-C, or SIGTERM: both programs go on from where they stopped
                process.terminate()
                process.wait()
                raise
        if code:
            raise TrainingError(f"{log}: {_last_words(log, begin) or f'exit code {code}'}")


def _last_words(log: Path, begin: int) -> str:
    """What a program said last: its error, if there is one."""
    with log.open(errors="replace") as file:
        file.seek(begin)
        lines = [line.strip() for line in file if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or [""])[-1]


def _flags(settings: Mapping[str, Any]) -> list[str]:
    """Fields of a recipe as the flags of its command line."""
    flags: list[str] = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, Mapping):
            flags += [f"--{flag}", *(str(part) for pair in value.items() for part in pair)]
        elif isinstance(value, list | tuple):
            flags += [f"--{flag}", *map(str, value)]
        else:
            flags += [f"--{flag}", str(value)]
    return flags
