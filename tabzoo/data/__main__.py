"""`python -m tabzoo.data check|show|industrial|toy-wafers ...`: the command line about data."""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from tabzoo.command import run_commands, show
from tabzoo.data.check import Problem, Report, check_samples, compare
from tabzoo.data.check_wafers import LAYOUT, WaferReport, check_wafers
from tabzoo.data.class_words import folder_words, is_words
from tabzoo.data.industrial import INDUSTRIAL, industrial_csv
from tabzoo.data.layouts import LAYOUTS, find_samples, read_samples
from tabzoo.data.samples import Samples
from tabzoo.data.show import Show
from tabzoo.data.toy_wafers import make_toy_wafers
from tabzoo.data.wafers import is_wafer_file, read_wafers
from tabzoo.errors import InputError, count
from tabzoo.flags import Switch
from tabzoo.network import hub_answers
from tabzoo.plain import plain_json

__all__ = ["main"]

_SHOWN = 20
_FIT = ("--backbone", "tf_efficientnet_lite0.in1k", "--method", "patchcore", "--output")
_EXAMPLES = ("metal nut", "steel bracket", "circuit board")
_RECIPE = "tf_efficientnet_lite0.ranking"


@dataclass(frozen=True, kw_only=True)
class Check:
    """Check a folder: what is in it, what is wrong with it, and what to type next."""

    examples: ClassVar[tuple[str, ...]] = (
        "tabzoo data check photos",
        "tabzoo data check photos --white-level 4095",
        "tabzoo data check photos.csv --json",
    )

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DIR")]
    """Folder of images, or a manifest (.csv, .jsonl), or wafer maps (.npz, in the form of MixedWM38's file)."""
    layout: Annotated[str, tyro.conf.arg(metavar="NAME", help=f"One of auto, {', '.join(LAYOUTS)}.")] = "auto"
    white_level: Annotated[float | None, tyro.conf.arg(metavar="VALUE")] = None
    """Images with more than 8 bits: the value that becomes white; by default it depends on the kind of file."""
    json: Switch = False
    """Print JSON for other programs."""
    workers: int = 2
    """Number of threads that read images."""

    def run(self) -> int:
        """Checks the folder; returns 1 if there are problems."""
        if is_wafer_file(self.data):
            return self._check_wafers()
        # The report shows the notes; JSON has none, so there they are warnings.
        read = find_samples if self.json else read_samples
        try:
            samples = read(self.data, layout=self.layout)
        except InputError as error:
            raise InputError(str(error).partition(" See `tabzoo data check ")[0]) from error
        report = check_samples(samples, workers=self.workers, white_level=self.white_level, progress=not self.json)
        if self.json:
            print(plain_json(report.to_json()))
        else:
            _print_report(self.data, report, self._next_lines(report))
        return 1 if report.problems else 0

    def _check_wafers(self) -> int:
        if self.layout not in ("auto", LAYOUT):
            raise InputError(f"--layout {self.layout}: {self.data} is a file of wafer maps; expected {LAYOUT} or auto")
        report = check_wafers(read_wafers(self.data))
        if self.json:
            print(plain_json(report.to_json()))
        else:
            _print_wafers(report)
        return 1 if report.problems else 0

    def _next_lines(self, report: Report) -> list[str]:
        """What to type next; without network, what works without it."""
        options = ["--data", self.data]
        product = report.samples.classes[0]
        if self.layout != "auto":
            options += ["--layout", self.layout]
        if report.white_level is not None:
            options += ["--white-level", f"{report.white_level:g}"]
        only = len(report.samples.classes) == 1
        fit = ["tabzoo", "fit", *options, *([] if only else ["--class", product]), *_FIT, f"detectors/{product}"]
        fetched = "" if (network := hub_answers()) else " Without a network, give --backbone a folder with weights."
        first = [
            shlex.join(fit),
            f"This makes a detector of one product.{fetched} To adapt a backbone to these photos first:",
        ]
        if network:
            return [*first, _pretrain(_RECIPE, *options, "--output", "runs/mine")]
        demo = [*options, "--objective", "joint"] if only else options
        weights = "model.safetensors"
        return [
            *first,
            _pretrain("quickstart", *demo, "--output", "runs/demo"),
            "This needs no network, which seems to be missing here, and makes a demo. For weights to use, copy "
            f"{weights} of https://huggingface.co/timm/tf_efficientnet_lite0.in1k to this machine. Then, here:",
            _pretrain(_RECIPE, *options, "--init", weights, "--output", "runs/mine"),
        ]


def _pretrain(recipe: str, *options: str) -> str:
    return shlex.join(["python", "-m", "tabzoo.training.pretrain", "--recipe", recipe, *options])


def _print_report(data: str, report: Report, next_lines: Sequence[str]) -> None:
    samples = report.samples
    content = f"{count(len(samples), 'image')}, {count(len(samples.classes), 'class', 'classes')}"
    show(f"{data}: layout {samples.layout}, {content}")
    for note in samples.notes:
        show(f"  note: {note}")
    width = max(len(name) for name in samples.classes)
    for name, counts in report.counts().items():
        tests = ", ".join(f"{label} {number}" for label, number in counts["test"].items() if number) or "none"
        train = ", ".join(f"{label} {number}" for label, number in counts["train"].items())
        forms = ", ".join(form for form, _ in report.forms[name].most_common(3))
        more = " and other sizes" if len(report.forms[name]) > 3 else ""
        show(f"  {name:{width}}  train: {train}  test: {tests}  masks: {counts['masks']}  ({forms}{more})")
    _name_wordless(samples)
    _print_problems(report.problems)
    for line in next_lines:
        show(f"  {line}")


def _name_wordless(samples: Samples) -> None:
    """Names the classes whose folders say nothing to a text tower."""
    words = folder_words(samples.classes, samples.layout)
    if names := [name for name in samples.classes if not is_words(words[name])]:
        shown = f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        examples = [part for name, phrase in zip(names, _EXAMPLES, strict=False) for part in (name, phrase)]
        show(
            f"  note: {shown}: no words that say what the images show, but pre-training compares images with words. Add to "
            f"`tabzoo pretrain`, with words of yours: --class-names {shlex.join(examples)}"
        )


def _print_problems(problems: Sequence[Problem]) -> None:
    for problem in problems[:_SHOWN]:
        show(f"  {problem.kind}: {problem.path}: {problem.message}")
    if len(problems) > _SHOWN:
        show(f"  and {count(len(problems) - _SHOWN, 'more problem')}; --json lists all of them")
    show(f"{count(len(problems), 'problem')}. Next:" if problems else "No problems. Next:")


def _print_wafers(report: WaferReport) -> None:
    counts = report.wafers.counts()
    total = count(len(report.wafers.maps), "map")
    show(f"{report.wafers.path}: layout {LAYOUT}, {total}, {count(len(counts), 'class', 'classes')}")
    for note in report.notes:
        show(f"  note: {note}")
    width = max(map(len, counts))
    for name, number in counts.items():
        show(f"  {name:{width}}  {number:6,}")
    _print_problems(report.problems)
    classify = ["python", "-m", "tabzoo.benchmark", "classify", "--data", str(report.wafers.path)]
    show(f"  {shlex.join(classify)} --backbone random resnet18.tv_in1k --mode linear --output runs/wafers")


@dataclass(frozen=True, kw_only=True)
class ToyWafers:
    """Draw generated wafer maps in the form of MixedWM38's file, to try commands with. They are not that data set."""

    examples: ClassVar[tuple[str, ...]] = (
        "tabzoo data toy-wafers wafers.npz",
        "tabzoo data toy-wafers few.npz --per-class 5 --classes normal Loc Center+Scratch",
    )

    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT.npz")]
    """File to write; it must not exist yet."""
    per_class: Annotated[int, tyro.conf.arg(metavar="N")] = 20
    """Maps of each class."""
    classes: Annotated[Sequence[str] | None, tyro.conf.arg(metavar="NAME [NAME ...]", help_behavior_hint="")] = None
    """Only these classes, such as normal Loc Center+Scratch; all 38 if not given."""
    seed: Annotated[int, tyro.conf.arg(metavar="S")] = 0
    """Seed of all draws."""

    def run(self) -> int:
        """Writes the file."""
        classes = None if self.classes is None else tuple(self.classes)
        path = make_toy_wafers(self.output, seed=self.seed, per_class=self.per_class, classes=classes)
        show(f"{path}: generated wafer maps, not MixedWM38. Next:")
        show(f"  {shlex.join(['python', '-m', 'tabzoo.data', 'check', str(path)])}")
        return 0


@dataclass(frozen=True, kw_only=True)
class Industrial:
    """Compare a folder with the paper's Industrial dataset: which images are missing?"""

    examples: ClassVar[tuple[str, ...]] = (
        "tabzoo data industrial --manifest",
        "tabzoo data industrial --root industrial",
    )

    root: Annotated[str, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = ""
    """Folder of the dataset, with CLASS NAME/*.png in it."""
    manifest: Switch = False
    """Print the dataset's classes and sources as CSV."""
    json: Switch = False
    """Print JSON for other programs."""

    def run(self) -> int:
        """Compares the folder; returns 1 if images are missing."""
        if bool(self.root) == self.manifest:
            raise InputError("expected either --root DIR or --manifest")
        if self.manifest:
            print(industrial_csv(), end="")
            return 0
        standings = compare(self.root)
        complete = sum(standing.state == "complete" for standing in standings)
        code = 0 if complete == len(standings) else 1
        if self.json:
            rows = [{**one.entry._asdict(), "found": one.found, "state": one.state} for one in standings]
            print(json.dumps({"complete": code == 0, "classes": rows}, indent=2))
            return code
        for entry, found, state in standings:
            show(f"{entry.name:20} {found:5} of {entry.images:5}  {state:9} {entry.source}; licence: {entry.license}")
        found, wanted = sum(one.found for one in standings), sum(entry.images for entry in INDUSTRIAL)
        show(f"{complete} of {len(standings)} classes complete; {found} of {wanted} images.")
        if code:
            show("How to assemble it, source by source: training/industrial/README.md")
        return code


def main(argv: Sequence[str] | None = None, *, prog: str = "python -m tabzoo.data") -> int:
    """Runs the command line; returns 0 if all is well, 1 for problems in the data, 2 for a mistake of the user."""
    return run_commands(
        {"check": Check, "show": Show, "industrial": Industrial, "toy-wafers": ToyWafers},
        argv,
        prog=prog,
        description="Check folders of images, and draw samples of them.",
    )


if __name__ == "__main__":
    sys.exit(main())
