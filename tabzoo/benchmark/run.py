"""Backbones x methods x classes x seeds: each is measured once, and its row is appended at once.

A run that was killed continues where it stopped, and later runs add rows to the same folder: everything that a row's numbers
depend on is digested into its key (`rows.row_key`), and existing rows are not computed again.
"""

import dataclasses
import importlib.util
import itertools
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

from tabzoo.benchmark.measure import measure_row
from tabzoo.benchmark.options import Options
from tabzoo.benchmark.page import write_page
from tabzoo.benchmark.plan import Plan
from tabzoo.benchmark.report import MAPS, write_report
from tabzoo.benchmark.summary import latest_rows
from tabzoo.command import say
from tabzoo.compute import CoreWatch, deterministic
from tabzoo.errors import InputError
from tabzoo.extras import how_to_install
from tabzoo.progress import Progress, showing
from tabzoo.scores.rows import RESULTS, Row, append_row, read_rows

__all__ = ["Measured", "check_packages", "run", "run_and_return"]


class Measured(NamedTuple):
    """What a run measured.

    Attributes:
        rows: Those that were asked for, by method, then backbone, seed, number of shots and class.
        table: The tables of all rows in the folder, as Markdown.
    """

    rows: list[Row]
    table: str


def check_packages() -> None:
    """Checks that there is what AUPRO needs; only the quickstart may make rows without it.

    Raises:
        InputError: SciPy is missing.
    """
    if importlib.util.find_spec("scipy") is None:
        raise InputError(f"AUPRO needs SciPy: {how_to_install('benchmark')}")


def run(options: Options, *, progress: bool = True) -> str:
    """Does what `run_and_return` does, and returns the tables alone."""
    return run_and_return(options, progress=progress).table


def run_and_return(options: Options, *, progress: bool = True) -> Measured:
    """Measures what is missing, and writes results, tables, pictures and a page into the output folder.

    Args:
        options: What to measure.
        progress: Show progress, if a command runs.

    Returns:
        The rows and tables.

    Raises:
        InputError: Options that do not fit, or an output folder that can't be used.
        WeightsError: A backbone's weights can't be fetched.
    """
    _check_output(options)
    made = [folder for folder in (options.output, *options.output.parents) if not folder.exists()]
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {options.output}: can't be used as a folder: {error.strerror}") from error
    try:
        with nullcontext() if progress else showing(False):
            return _run(options, progress=progress)
    finally:
        for folder in made:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def _check_output(options: Options) -> None:
    """Checks that results neither become part of the data set nor mix with other files."""
    output, data = options.output, Path(options.data)
    if data.is_dir() and output.resolve().is_relative_to(data.resolve()):
        raise InputError(f"--output {output}: is inside --data {options.data}. Name a folder outside the images.")
    held = sorted(entry.name for entry in output.iterdir() if entry.name[0] != ".") if output.is_dir() else []
    if RESULTS not in held and set(held) - {MAPS}:  # of a run that was stopped in its first row
        shown = f"{', '.join(held[:3])}{' ...' if len(held) > 3 else ''}"
        raise InputError(
            f"--output {output}: holds no results of the benchmark: it has no {RESULTS}, but {shown}. Name another folder, "
            f"or move these files away."
        )


def _run(options: Options, *, progress: bool) -> Measured:
    deterministic()
    folder = options.output
    plan = Plan(options)
    if plan.amp.reason and progress:
        say(plan.amp.reason)
    watch = CoreWatch(plan.device)
    rows = {row.key: row for row in read_rows(folder)}
    done = {key for key, row in rows.items() if not (row.method in options.with_oracle and row.lacks_oracle)}
    jobs = list({job.key: job for job in plan.jobs()}.values())  # only once, even if something is named twice
    missing = [job for job in jobs if job.key not in done]
    for job in jobs:  # older versions judged this by the class's name and number of images
        if job.key in done and job.transductive != rows[job.key].transductive:
            append_row(folder, dataclasses.replace(rows[job.key], transductive=job.transductive))
    finished = len(jobs) - len(missing)
    with Progress(len(jobs), unit="row", done=finished, each=True, kept=True) as bar:
        for (backbone, name, seed), of_one in itertools.groupby(
            missing, lambda job: (job.backbone, job.method, job.seed)
        ):
            extractor, detector = plan.build(backbone, name, seed)
            for job in of_one:
                shots = f" {job.shots} shots" if job.shots else ""
                about = f"{name}{shots} {backbone.name} {job.images.name} seed {seed}"
                bar.tell(about)
                append_row(folder, row := measure_row(plan, job, extractor, detector))
                bar.update(line=f"{about}: {sum(row.seconds.values()):.0f} s")
                watch.check()
    keys = {job.key for job in jobs}
    measured = read_rows(folder)
    latest, left_out = latest_rows(measured, keys)
    table = write_report(plan, jobs, latest, left_out=left_out)
    write_page(folder, latest, order=[backbone.name for backbone in plan.backbones], left_out=left_out, drawn=keys)
    by_key = {row.key: row for row in measured}  # `latest` has one backbone of those with the same name
    return Measured([by_key[job.key] for job in jobs], table)
