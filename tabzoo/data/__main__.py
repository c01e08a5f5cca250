"""`python -m tabzoo.data check DIR` and `python -m tabzoo.data industrial --root DIR`."""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from tabzoo.command import run_commands, show
from tabzoo.data.check import Report, check_samples, compare
from tabzoo.data.industrial import INDUSTRIAL, industrial_csv
from tabzoo.data.layouts import LAYOUTS, find_samples, read_samples
from tabzoo.errors import InputError, count
from tabzoo.plain import plain_json

__all__ = ["main"]

_SHOWN = 20

_Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True, kw_only=True)
class Check:
    """Check a folder: what is in it, what is wrong with it, and what to type next."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DIR")]
    """Folder of images, or a manifest (.csv, .jsonl)."""
    layout: Annotated[str, tyro.conf.arg(metavar="NAME", help=f"One of auto, {', '.join(LAYOUTS)}.")] = "auto"
    white_level: Annotated[float | None, tyro.conf.arg(metavar="VALUE")] = None
    """Images with more than 8 bits: the value that becomes white; by default it depends on the kind of file."""
    json: _Switch = False
    """Print JSON for other programs."""
    workers: int = 2
    """Number of threads that read images."""

    def run(self) -> int:
        """Checks the folder; returns 1 if there are problems."""
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
            _print_report(report, self._next_command(report))
        return 1 if report.problems else 0

    def _next_command(self, report: Report) -> str:
        command = ["python", "-m", "tabzoo.training.pretrain", "--recipe", "resnet18.tab_mvtec", "--data", self.data]
        if self.layout != "auto":
            command += ["--layout", self.layout]
        if report.white_level is not None:
            command += ["--white-level", f"{report.white_level:g}"]
        if len(report.samples.classes) == 1:
            command += ["--objective", "joint"]
        return shlex.join([*command, "--output", "runs/mine"])


def _print_report(report: Report, next_command: str) -> None:
    samples = report.samples
    content = f"{count(len(samples), 'image')}, {count(len(samples.classes), 'class', 'classes')}"
    show(f"{samples.root}: layout {samples.layout}, {content}")
    for note in samples.notes:
        show(f"  note: {note}")
    width = max(len(name) for name in samples.classes)
    for name, counts in report.counts().items():
        tests = ", ".join(f"{label} {number}" for label, number in counts["test"].items() if number) or "none"
        train = ", ".join(f"{label} {number}" for label, number in counts["train"].items())
        forms = ", ".join(form for form, _ in report.forms[name].most_common(3))
        more = " and other sizes" if len(report.forms[name]) > 3 else ""
        show(f"  {name:{width}}  train: {train}  test: {tests}  masks: {counts['masks']}  ({forms}{more})")
    for problem in report.problems[:_SHOWN]:
        show(f"  {problem.kind}: {problem.path}: {problem.message}")
    if len(report.problems) > _SHOWN:
        show(f"  and {count(len(report.problems) - _SHOWN, 'more problem')}; --json lists all of them")
    show(f"{count(len(report.problems), 'problem')}. Next:" if report.problems else "No problems. Next:")
    show(f"  {next_command}")
    show("  The recipe's licence, cc-by-nc-sa-4.0, is that of MVTec AD; for other images add --license with theirs.")


@dataclass(frozen=True, kw_only=True)
class Industrial:
    """Compare a folder with the paper's Industrial dataset: which images are missing?"""

    root: Annotated[str, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = ""
    """Folder of the dataset, with CLASS NAME/*.png in it."""
    manifest: _Switch = False
    """Print the dataset's classes and sources as CSV."""
    json: _Switch = False
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


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0 if all is well, 1 for problems in the data, 2 for a mistake of the user."""
    return run_commands(
        {"check": Check, "industrial": Industrial},
        argv,
        prog="python -m tabzoo.data",
        description="Check folders of images.",
    )


if __name__ == "__main__":
    sys.exit(main())
