"""`python -m tabzoo.data check DIR` and `python -m tabzoo.data industrial --root DIR`."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence

from tabzoo.command import Parser, run_command, show
from tabzoo.data.check import Report, check_samples, compare
from tabzoo.data.industrial import INDUSTRIAL, manifest
from tabzoo.data.layouts import LAYOUTS, find_samples
from tabzoo.plain import plain_json

__all__ = ["main"]

_SHOWN = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0 where all is well, 1 where something is wrong with the data, 2 for a mistake."""
    return run_command(_parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m tabzoo.data", description="Look at folders of images.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="what is in a folder, what is wrong with it, and what to type next")
    check.add_argument("data", metavar="DIR", help="folder of images, or a manifest (.csv, .jsonl)")
    check.add_argument("--layout", default="auto", metavar="NAME", help=f"auto, {', '.join(LAYOUTS)}")
    check.add_argument("--workers", type=int, default=2, help="threads that read images")
    check.set_defaults(run=_check)
    industrial = commands.add_parser(
        "industrial", help="is the paper's Industrial dataset complete, and what is missing"
    )
    where = industrial.add_mutually_exclusive_group(required=True)
    where.add_argument("--root", metavar="DIR", help="folder of the dataset, CLASS NAME/*.png in it")
    where.add_argument("--manifest", action="store_true", help="print the dataset's classes and sources as CSV")
    industrial.set_defaults(run=_industrial)
    for command in (check, industrial):
        command.add_argument("--json", action="store_true", help="for machines")
    return parser


def _check(options: argparse.Namespace) -> int:
    samples = find_samples(options.data, layout=options.layout)
    report = check_samples(samples, workers=options.workers, progress=not options.json)
    if options.json:
        print(plain_json(report.to_json()))
    else:
        _print_report(report, options)
    return 1 if report.problems else 0


def _print_report(report: Report, options: argparse.Namespace) -> None:
    samples = report.samples
    held = f"{_count(len(samples), 'image')}, {_count(len(samples.classes), 'class', 'classes')}"
    show(f"{samples.root}: layout {samples.layout}, {held}")
    for note in samples.notes:
        show(f"  note: {note}")
    width = max(len(name) for name in samples.classes)
    for name, counts in report.counts().items():
        tests = ", ".join(f"{label} {count}" for label, count in counts["test"].items() if count) or "none"
        train = ", ".join(f"{label} {count}" for label, count in counts["train"].items())
        forms = ", ".join(form for form, _ in report.forms[name].most_common(3))
        more = " and other sizes" if len(report.forms[name]) > 3 else ""
        show(f"  {name:{width}}  train: {train}  test: {tests}  masks: {counts['masks']}  ({forms}{more})")
    for problem in report.problems[:_SHOWN]:
        show(f"  {problem.kind}: {problem.path}: {problem.message}")
    if len(report.problems) > _SHOWN:
        show(f"  and {len(report.problems) - _SHOWN} more problems; --json lists all")
    show(f"{_count(len(report.problems), 'problem')}. Next:" if report.problems else "No problems. Next:")
    show(f"  {_next_command(report, options)}")


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _next_command(report: Report, options: argparse.Namespace) -> str:
    command = ["python", "-m", "tabzoo.training.pretrain", "--recipe", "resnet18.tab_mvtec", "--data", options.data]
    if options.layout != "auto":
        command += ["--layout", options.layout]
    if len(report.samples.classes) == 1:
        command += ["--objective", "joint"]
    return shlex.join([*command, "--output", "runs/mine"])


def _industrial(options: argparse.Namespace) -> int:
    if options.manifest:
        print(manifest(), end="")
        return 0
    standings = compare(options.root)
    whole = all(standing.state == "complete" for standing in standings)
    if options.json:
        rows = [
            {**standing.entry._asdict(), "found": standing.found, "state": standing.state} for standing in standings
        ]
        print(json.dumps({"complete": whole, "classes": rows}, indent=2))
        return 0 if whole else 1
    for entry, found, state in standings:
        show(f"{entry.name:20} {found:5} of {entry.images:5}  {state:9} {entry.source}; licence: {entry.license}")
    found, wanted = sum(standing.found for standing in standings), sum(entry.images for entry in INDUSTRIAL)
    complete = sum(standing.state == "complete" for standing in standings)
    show(f"{complete} of {len(standings)} classes complete; {found} of {wanted} images.")
    if not whole:
        show("How to assemble it, source by source: training/industrial/README.md")
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
