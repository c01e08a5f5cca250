"""`python -m tabzoo.benchmark run|table|fid ...`: the benchmark's command line."""

import argparse
import dataclasses
import importlib.util
import json
import sys
import typing
from collections.abc import Sequence
from pathlib import Path

from tabzoo.benchmark.fid import INCEPTION, PAPER, POOLED, Distance, Preparation, measure
from tabzoo.benchmark.options import Options, choose_classes, choose_device
from tabzoo.benchmark.run import run
from tabzoo.benchmark.summary import latest_rows
from tabzoo.benchmark.table import to_markdown
from tabzoo.command import Parser, run_command, say, show
from tabzoo.data.cache import CACHE_MODES
from tabzoo.data.images import Resampling
from tabzoo.data.layouts import LAYOUTS, find_samples
from tabzoo.detectors import DETECTORS, Budget
from tabzoo.detectors.interface import flag_of
from tabzoo.errors import InputError
from tabzoo.scores.rows import RESULTS, read_rows
from tabzoo.synthesis import SYNTHESES

__all__ = ["main"]

_WHITE_LEVEL = (
    "pixel value that becomes white in grey images of more than 8 bits, 4095 for a 12-bit camera, say; if not given, the "
    "largest of the file's bits, or 1 for floats"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0, or 2 for a user's mistake."""
    return run_command(_parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m tabzoo.benchmark", description="Measure what tabzoo makes.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands.add_parser("run", help="measure backbones with anomaly detectors on a folder of images"))
    table = commands.add_parser("table", help="the tables of finished runs, put together")
    table.add_argument("outputs", nargs="+", metavar="OUT", help="output folders of runs")
    form = table.add_mutually_exclusive_group()  # the paper's Table 2 is of one data set
    form.add_argument("--against", choices=("paper",), help="put the numbers of the paper's Table 2 beside ours")
    form.add_argument(
        "--across",
        choices=("datasets",),
        help="one table over the data sets for each method and its settings (the form of the paper's Table 4)",
    )
    table.set_defaults(run=_table)
    _add_fid(commands.add_parser("fid", help="FID of synthetic anomalies against real defects (the paper's Table 1)"))
    return parser


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument(
        "--backbone",
        nargs="+",
        required=True,
        metavar="NAME",
        help="a run's folder, a timm name, local-dir:DIR, hf-hub:ID, random[:ARCHITECTURE] (resnet18 from the seed); the "
        "others are compared with the first",
    )
    run.add_argument("--method", nargs="+", default=["padim"], metavar="NAME", help=", ".join(DETECTORS))
    run.add_argument(
        "--data", required=True, metavar="DIR", help="folder with good images to fit to and images to test on"
    )
    run.add_argument("--output", required=True, metavar="OUT", help="folder that gains rows; finished ones are kept")
    run.add_argument("--layout", default="auto", metavar="NAME", help=f"auto, {', '.join(LAYOUTS)}")
    run.add_argument(
        "--classes", nargs="+", metavar="NAME", help="test only these; regad learns on all others of --data"
    )
    run.add_argument(
        "--seeds", nargs="+", type=int, default=[0], metavar="S", help="seed values, each a row of its own"
    )
    run.add_argument(
        "--shots",
        nargs="+",
        type=int,
        metavar="K",
        help="fit to K good images drawn from the seed; all if not given, for regad 4 and 8",
    )
    run.add_argument(
        "--test",
        default="real",
        choices=("real", "synthetic"),
        help="synthetic: held-out good images against anomalies of a kind that no backbone was trained with; a proxy",
    )
    run.add_argument(
        "--resize", type=int, metavar="PX", help="side that images are squashed to; the method's if not given"
    )
    run.add_argument("--crop", type=int, metavar="PX", help="side of the centre crop; the method's if not given")
    run.add_argument(
        "--resampling",
        choices=typing.get_args(Resampling),
        help="how images are squashed; the method's if not given: bilinear, lanczos for "
        + " and ".join(name for name, spec in DETECTORS.items() if spec.resampling == "lanczos"),
    )
    run.add_argument("--white-level", type=float, metavar="X", help=_WHITE_LEVEL)
    run.add_argument("--batch-size", type=int, default=Options.batch_size, metavar="N")
    run.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    run.add_argument(
        "--amp",
        nargs="?",
        const="bf16",
        default=Options.amp,
        choices=("bf16", "auto", "off"),
        help="backbones compute in bfloat16: bf16 (the same as --amp alone), or auto, where the device does so natively",
    )
    run.add_argument(
        "--full-resolution",
        action="store_true",
        help="pixel metrics at the files' resolution, not at the method's input",
    )
    run.add_argument(
        "--oracle",
        action="store_true",
        help="beside the last epoch the best on the test images, of methods whose public code chooses so "
        f"({', '.join(name for name, spec in DETECTORS.items() if spec.oracle)}); chosen on test, so not to be compared",
    )
    run.add_argument(
        "--budget",
        default=Options.budget,
        choices=typing.get_args(Budget),
        help="quick: less training, for small machines; numbers are then not the paper's",
    )
    run.add_argument("--cache", default=Options.cache, choices=CACHE_MODES, help="where decoded images are kept")
    run.add_argument("--cache-dir", metavar="DIR", help="the user cache folder if not given")
    run.add_argument("--workers", type=int, metavar="N", help="processes that decode images; one a core if not given")
    for name, spec in DETECTORS.items():
        group = run.add_argument_group(f"settings of {name}")
        types = typing.get_type_hints(spec.settings)
        for field in dataclasses.fields(spec.settings):
            (kind, *_) = typing.get_args(types[field.name]) or (types[field.name],)  # int of int | None
            quick = f", {spec.quick[field.name]} with the quick budget" if field.name in spec.quick else ""
            default = "" if field.default is None else f" ({field.default}{quick})"
            group.add_argument(
                flag_of(name, field.name),
                dest=f"{name}.{field.name}",
                type=kind,
                metavar="N" if kind is int else "X",
                help=field.metadata["about"] + default,
            )
    run.set_defaults(run=_run)


def _add_fid(fid: argparse.ArgumentParser) -> None:
    fid.add_argument("--data", required=True, metavar="DIR", help="folder with defects in its test split")
    fid.add_argument("--layout", default="auto", metavar="NAME", help=f"auto, {', '.join(LAYOUTS)}")
    fid.add_argument("--classes", nargs="+", metavar="NAME", help="only these classes")
    fid.add_argument("--synthesis", nargs="+", default=list(PAPER), choices=tuple(SYNTHESES), metavar="NAME")
    fid.add_argument("--features", default=INCEPTION, metavar="NAME", help="inception, or a timm model in its place")
    fid.add_argument("--resize", type=int, default=Preparation.resize, help="side that images are squashed to, px")
    fid.add_argument("--crop", type=int, default=Preparation.crop, help="side of the centre crop, px")
    fid.add_argument("--white-level", type=float, metavar="X", help=_WHITE_LEVEL)
    fid.add_argument("--seed", type=int, default=0)
    fid.add_argument("--batch-size", type=int, default=32)
    fid.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    fid.add_argument("--output", metavar="FILE", help="write the rows there too, as JSON lines")
    fid.set_defaults(run=_fid)


def _run(options: argparse.Namespace) -> int:
    if importlib.util.find_spec("scipy") is None:  # the quickstart goes without AUPRO, which rows to keep should not
        raise InputError('AUPRO needs SciPy: pip install "tabzoo[benchmark]"')
    given = {key: value for key, value in vars(options).items() if key != "run" and "." not in key}
    settings: dict[str, dict[str, object]] = {}
    for key, value in vars(options).items():
        name, dot, field = key.partition(".")
        if dot and value is not None:
            settings.setdefault(name, {})[field] = value
            if name not in options.method:
                say(f"{flag_of(name, field)}: {name} is not run, so this changes nothing")
    try:
        print(run(Options(**given | {"output": Path(options.output), "settings": settings})))
    except KeyboardInterrupt:
        say(f"stopped; finished rows are in {options.output}, and the same command goes on")
        return 130
    made = [
        name for name in (RESULTS, "table.md", "table.csv", "maps/", "roc/") if (Path(options.output) / name).exists()
    ]
    show(f"Made in {options.output}: {', '.join(made)}")
    return 0


def _table(options: argparse.Namespace) -> int:
    rows = [row for folder in options.outputs for row in read_rows(Path(folder))]
    if not rows:
        files = [folder for folder in options.outputs if Path(folder).is_file()]
        hint = f": {Path(files[0]).parent}" if files and Path(files[0]).name == RESULTS else ""
        raise InputError(f"{', '.join(options.outputs)}: no {RESULTS} with rows; give the output folder of a run{hint}")
    rows, left_out = latest_rows({row.key: row for row in rows}.values())
    against_paper, across_datasets = options.against == "paper", options.across == "datasets"
    print(to_markdown(rows, against_paper=against_paper, across_datasets=across_datasets, left_out=left_out), end="")
    return 0


def _fid(options: argparse.Namespace) -> int:
    samples = choose_classes(find_samples(options.data, layout=options.layout), options.classes)
    for name, value in (("resize", options.resize), ("crop", options.crop)):
        if value < 1:
            raise InputError(f"--{name} {value}: expected a number of pixels, 1 or more")
    if options.crop > options.resize:
        raise InputError(
            f"--crop {options.crop}: more than --resize ({options.resize}); lower --crop or raise --resize"
        )
    how = Preparation(resize=options.resize, crop=options.crop, seed=options.seed, white_level=options.white_level)
    rows = measure(
        samples,
        options.synthesis,
        features=options.features,
        preparation=how,
        batch_size=options.batch_size,
        device=choose_device(options.device),
        progress=True,
    )
    what = (
        "Inception v3"
        if options.features == INCEPTION
        else f"{options.features}, not Inception: no FID of the literature"
    )
    show(f"FID of synthetic anomalies against real defects of {samples.root}; features: {what}; {options.crop} px.")
    _print_table(rows, options.synthesis)
    if options.output:
        path = Path(options.output)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"features": options.features, "seed": options.seed, **row._asdict()}) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


def _print_table(rows: Sequence[Distance], syntheses: Sequence[str]) -> None:
    table = {(row.class_name, row.synthesis): row for row in rows}
    classes = list(dict.fromkeys(row.class_name for row in rows))
    width = max(len(name) for name in (*classes, "paper, MVTec AD"))
    show(f"{'class':{width}}  {'defects':>7}  {'made':>5}  " + "  ".join(f"{name:>9}" for name in syntheses))
    for name in sorted(classes, key=lambda name: (name == POOLED, name)):
        cells = [table[name, synthesis] for synthesis in syntheses]
        values = ("undefined" if cell.fid is None else f"{cell.fid:.2f}" for cell in cells)
        show(
            f"{name:{width}}  {cells[0].real:7}  {cells[0].synthetic:5}  "
            + "  ".join(f"{value:>9}" for value in values)
        )
    show(
        f"{'paper, MVTec AD':{width}}  {'':7}  {'':5}  "
        + "  ".join(f"{PAPER[name]:9.2f}" if name in PAPER else f"{'-':>9}" for name in syntheses)
    )
    for row in rows:
        if row.undefined_because and row.synthesis == syntheses[0]:
            show(f"{row.class_name}: undefined, {row.undefined_because}.")


if __name__ == "__main__":
    sys.exit(main())
