"""`python -m tabzoo.benchmark run|table|fid|embed|panels|classify ...`: the benchmark's command line."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from tabzoo.benchmark.classify.command import Classify
from tabzoo.benchmark.embed import Embed
from tabzoo.benchmark.fid import INCEPTION, PAPER, POOLED, Distance, Preparation, measure
from tabzoo.benchmark.options import (
    ComputeOptions,
    ImageOptions,
    MainOptions,
    Options,
    choose_classes,
)
from tabzoo.benchmark.page import PAGE, write_page
from tabzoo.benchmark.panels import Panels
from tabzoo.benchmark.run import check_packages, run
from tabzoo.benchmark.summary import latest_rows
from tabzoo.benchmark.table import to_markdown
from tabzoo.command import Command, run_commands, say, show
from tabzoo.compute import choose_device
from tabzoo.data.layouts import LAYOUTS, find_samples
from tabzoo.detectors import DETECTORS
from tabzoo.detectors.interface import flag_of
from tabzoo.detectors.settings_flags import flags_of_settings
from tabzoo.errors import InputError, did_you_mean
from tabzoo.flags import check_number, check_white_level, optional
from tabzoo.scores.rows import RESULTS, read_rows
from tabzoo.synthesis import SYNTHESES

__all__ = ["COMMANDS", "main"]

_SYNTHESES = f"Kinds of synthetic anomalies: {', '.join(SYNTHESES)}."


@dataclass(frozen=True, kw_only=True)
class _Run:
    """Measure backbones with anomaly detectors on a folder of images."""

    examples: ClassVar[tuple[str, ...]] = (
        "tabzoo benchmark run --backbone resnet18.tv_in1k runs/mine --data photos --output runs/compared",
        "tabzoo benchmark run --backbone random resnet18.tv_in1k --method padim patchcore --data photos --output runs/all",
        "tabzoo benchmark run --backbone resnet18.tv_in1k runs/mine --test synthetic --data photos --output runs/no_defects",
    )

    main: Annotated[OmitArgPrefixes[MainOptions], tyro.conf.arg(name="most used")]
    images: Annotated[OmitArgPrefixes[ImageOptions], tyro.conf.arg(name="image")]
    compute: Annotated[OmitArgPrefixes[ComputeOptions], tyro.conf.arg(name="compute")]

    def run(self) -> int:
        check_packages()
        output = self.main.output
        try:
            print(run(Options(**vars(self.main), **vars(self.images), **vars(self.compute), settings=self._settings())))
        except KeyboardInterrupt:
            say(f"Stopped. Finished rows are in {output}; the same command continues.")
            return 130
        made = [name for name in (RESULTS, PAGE, "table.md", "table.csv", "maps/", "roc/") if (output / name).exists()]
        show(f"Made in {output}: {', '.join(made)}")
        return 0

    def _settings(self) -> Mapping[str, Mapping[str, object]]:
        """The settings that were given, by detector."""
        given = {
            name: {key: value for key, value in vars(getattr(self, name)).items() if value is not None}
            for name in DETECTORS
        }
        for name in DETECTORS:
            for key in given[name] if name not in self.main.method else ():
                say(f"{flag_of(name, key)}: no effect, since {name} is not among --method")
        return {name: settings for name, settings in given.items() if settings}


def _with_settings() -> Any:
    """`_Run` with a group of flags for each detector."""
    groups, flat = [], cast(Any, OmitArgPrefixes)
    for name, spec in DETECTORS.items():
        kind = flags_of_settings(name, spec)
        groups.append((name, flat[kind], field(default_factory=kind)))
    made = make_dataclass("Run", groups, bases=(_Run,), frozen=True, kw_only=True)
    made.__doc__ = _Run.__doc__
    return made


@dataclass(frozen=True, kw_only=True)
class Table:
    """Print the tables of finished runs, combined."""

    examples: ClassVar[tuple[str, ...]] = (
        "tabzoo benchmark table runs/compared",
        "tabzoo benchmark table runs/compared --page",
        "tabzoo benchmark table runs/mvtec --against paper",
    )

    outputs: Annotated[Positional[Sequence[str]], tyro.conf.arg(metavar="OUT [OUT ...]", help_behavior_hint="")]
    """Output folders of runs, or results.jsonl files."""
    against: Annotated[Literal["paper"] | None, optional("paper")] = None
    """Add the numbers of the paper's Table 2."""
    across: Annotated[Literal["datasets"] | None, optional("datasets")] = None
    """One table over the data sets for each method and its settings (the form of the paper's Table 4)."""
    page: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")] = False
    """Also write the page of one folder, OUT/index.html, as a run does at its end."""

    def run(self) -> int:
        """Prints the tables."""
        if self.against and self.across:  # the paper's Table 2 is of one data set
            raise InputError("--against paper: not allowed with --across datasets")
        if not self.outputs:
            raise InputError("table: expected one or more output folders of runs")
        if self.page and (len(self.outputs) > 1 or not Path(self.outputs[0]).is_dir()):
            raise InputError(f"--page: expected one output folder of runs; got {', '.join(self.outputs)}")
        rows = [row for folder in self.outputs for row in read_rows(Path(folder))]
        if not rows:
            raise InputError(f"{', '.join(self.outputs)}: no {RESULTS} with rows; give the output folder of a run")
        rows, left_out = latest_rows({row.key: row for row in rows}.values())
        against_paper, across_datasets = self.against == "paper", self.across == "datasets"
        text = to_markdown(rows, against_paper=against_paper, across_datasets=across_datasets, left_out=left_out)
        print(text, end="")
        if self.page:
            order = list(dict.fromkeys(row.backbone for row in rows))
            write_page(Path(self.outputs[0]), rows, order=order, left_out=left_out)
        return 0


@dataclass(frozen=True, kw_only=True)
class Fid:
    """Compute the FID of synthetic anomalies against real defects (the paper's Table 1)."""

    examples: ClassVar[tuple[str, ...]] = (
        "tabzoo benchmark fid --data photos",
        "tabzoo benchmark fid --data photos --synthesis nsa perlin --features resnet18.tv_in1k --output fid.jsonl",
    )

    data: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """Images: good ones (DIR/CLASS/train/good/*) and real defects (DIR/CLASS/test/KIND/*)."""
    classes: Annotated[Sequence[str] | None, optional("NAME [NAME ...]")] = None
    """Only these classes."""
    synthesis: Annotated[Sequence[str], tyro.conf.arg(metavar="NAME [NAME ...]", help=_SYNTHESES)] = tuple(PAPER)
    features: Annotated[str, tyro.conf.arg(metavar="NAME")] = INCEPTION
    """inception, or another network: a run's folder, a timm name, local-dir:DIR, hf-hub:ID, or random[:ARCHITECTURE]; its
    numbers can be compared only with each other."""
    output: Annotated[Path | None, optional("FILE")] = None
    """Also write the rows to this file, as JSON lines."""
    layout: Annotated[str, tyro.conf.arg(metavar="NAME", help=f"auto, {', '.join(LAYOUTS)}.")] = "auto"
    resize: Annotated[int, tyro.conf.arg(metavar="PX")] = Preparation.resize
    """Side of the square that images are squashed to."""
    crop: Annotated[int, tyro.conf.arg(metavar="PX")] = Preparation.crop
    """Side of the centre crop."""
    white_level: Annotated[float | None, optional("X")] = None
    """Pixel value that becomes white in grey images of more than 8 bits, such as 4095 for a 12-bit camera.
    If not given: the largest value of the file's bits, or 1 for floats."""
    seed: Annotated[int, tyro.conf.arg(metavar="S")] = 0
    """Seed of the anomalies, and of the weights of random."""
    batch_size: Annotated[int, tyro.conf.arg(metavar="N")] = 32
    """Images at a time."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes the GPU if there is one."""

    def run(self) -> int:
        """Prints the distances, and writes them to a file if one is given."""
        self._check()
        syntheses = list(dict.fromkeys(self.synthesis))
        samples = choose_classes(find_samples(self.data, layout=self.layout), self.classes)
        rows = measure(
            samples,
            syntheses,
            features=self.features,
            preparation=Preparation(resize=self.resize, crop=self.crop, seed=self.seed, white_level=self.white_level),
            batch_size=self.batch_size,
            device=choose_device(self.device),
            progress=True,
        )
        inception = self.features == INCEPTION
        network = "Inception v3" if inception else f"{self.features}, not Inception: not the FID of the literature"
        show(f"FID of synthetic anomalies against real defects of {samples.root}; features: {network}; {self.crop} px.")
        _print_distances(rows, syntheses, PAPER if inception else {})
        if self.output:
            lines = [json.dumps({"features": self.features, "seed": self.seed, **row._asdict()}) for row in rows]
            self.output.parent.mkdir(parents=True, exist_ok=True)
            self.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return 0

    def _check(self) -> None:
        for name in self.synthesis:
            if name not in SYNTHESES:
                known = f"{', '.join(SYNTHESES)}.{did_you_mean(name, SYNTHESES)}"
                raise InputError(f"--synthesis {name}: unknown; there are {known}")
        for flag, values in (("synthesis", self.synthesis), ("classes", self.classes)):
            if values is not None and not len(values):
                raise InputError(f"--{flag}: expected at least one value")
        numbers = {"resize": self.resize, "crop": self.crop, "batch-size": self.batch_size}
        for flag, value, least in (*((flag, value, 1) for flag, value in numbers.items()), ("seed", self.seed, 0)):
            check_number(flag, value, least=least)
        check_white_level(self.white_level)
        if self.output:
            _check_output(self.output)
        if self.crop > self.resize:
            raise InputError(f"--crop {self.crop}: more than --resize ({self.resize}); lower --crop or raise --resize")


def _check_output(path: Path) -> None:
    """Checks that a file can be written, before hours of computing."""
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if path.is_dir():
        raise InputError(f"--output {path}: is a folder; expected a file, such as {path / 'fid.jsonl'}")
    if not nearest.is_dir():
        raise InputError(f"--output {path}: {nearest} is not a folder")
    if not os.access(path if path.exists() else nearest, os.W_OK):
        raise InputError(f"--output {path}: can't be written")


def _print_distances(rows: Sequence[Distance], syntheses: Sequence[str], paper: Mapping[str, float]) -> None:
    table = {(row.class_name, row.synthesis): row for row in rows}
    classes = list(dict.fromkeys(row.class_name for row in rows))
    width = max(len(name) for name in (*classes, "paper, MVTec AD"))

    def line(name: str, real: object, synthetic: object, cells: Sequence[str]) -> None:
        show(f"{name:{width}}  {real:>7}  {synthetic:>5}  " + "  ".join(f"{cell:>9}" for cell in cells))

    line("class", "defects", "made", syntheses)
    for name in sorted(classes, key=lambda name: (name == POOLED, name)):
        cells = [table[name, synthesis] for synthesis in syntheses]
        values = ["undefined" if cell.fid is None else f"{cell.fid:.2f}" for cell in cells]
        line(name, cells[0].real, cells[0].synthetic, values)
    if paper:
        line("paper, MVTec AD", "", "", [f"{paper[name]:.2f}" if name in paper else "-" for name in syntheses])
    for row in rows:
        if row.undefined_because and row.synthesis == syntheses[0]:
            show(f"{row.class_name}: undefined, {row.undefined_because}.")


COMMANDS: dict[str, type[Command]] = {
    "run": _with_settings(),
    "table": Table,
    "fid": Fid,
    "embed": Embed,
    "panels": Panels,
    "classify": Classify,
}


def _empty(arguments: Sequence[str]) -> str | None:
    """The flag, or else the command, that was given an empty text, such as an unset variable of a shell."""
    named = "COMMAND"
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if argument.startswith("--") or named == "COMMAND":
            named = flag or named
        if not argument or (argument.startswith("--") and equals and not value):
            return named
    return None


def main(argv: Sequence[str] | None = None, *, prog: str = "python -m tabzoo.benchmark") -> int:
    """Runs the command line; returns 0, or 2 for a user's mistake."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if named := _empty(arguments):  # as a path it would be the current folder
        say(f"error: {named}: '' given, expected a value")
        return 2
    for index in reversed(range(len(arguments))):  # `--amp` alone means bf16
        if arguments[index] == "--amp" and (index + 1 == len(arguments) or arguments[index + 1].startswith("--")):
            arguments.insert(index + 1, "bf16")
    return run_commands(COMMANDS, arguments, prog=prog, description="Measure backbones and synthetic anomalies.")


if __name__ == "__main__":
    sys.exit(main())
