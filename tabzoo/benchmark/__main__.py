"""`python -m tabzoo.benchmark fid ...`: the benchmark's command line."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from tabzoo.benchmark.fid import INCEPTION, PAPER, POOLED, Distance, measure
from tabzoo.cli import run_command
from tabzoo.data.layouts import LAYOUTS, find_samples
from tabzoo.errors import InputError
from tabzoo.training.recipe import SYNTHESES, Recipe

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0, or 2 for a user's mistake."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    return run_command(_parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tabzoo.benchmark", description="Measure what tabzoo makes.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    fid = commands.add_parser("fid", help="FID of synthetic anomalies against real defects (the paper's Table 1)")
    fid.add_argument("--data", required=True, metavar="DIR", help="folder with defects in its test split")
    fid.add_argument("--layout", default="auto", metavar="NAME", help=f"auto, {', '.join(LAYOUTS)}")
    fid.add_argument("--classes", nargs="+", metavar="NAME", help="only these classes")
    fid.add_argument("--synthesis", nargs="+", default=list(PAPER), choices=SYNTHESES, metavar="NAME")
    fid.add_argument("--features", default=INCEPTION, metavar="NAME", help="inception, or a timm model in its place")
    fid.add_argument("--resize", type=int, default=Recipe.resize, help="side that images are squashed to, px")
    fid.add_argument("--crop", type=int, default=Recipe.crop, help="side of the centre crop, px")
    fid.add_argument("--seed", type=int, default=0)
    fid.add_argument("--batch-size", type=int, default=32)
    fid.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    fid.add_argument("--output", metavar="FILE", help="write the rows there too, as JSON lines")
    fid.set_defaults(run=_fid)
    return parser


def _fid(options: argparse.Namespace) -> int:
    samples = find_samples(options.data, layout=options.layout)
    if options.classes:
        if unknown := sorted(set(options.classes) - set(samples.classes)):
            raise InputError(f"--classes: no class {', '.join(unknown)}; there are {', '.join(samples.classes)}")
        wanted = [index for index, name in enumerate(samples.classes) if name in options.classes]
        samples = samples.select([class_id in wanted for class_id in samples.class_ids], drop=True)
    device = "cuda" if torch.cuda.is_available() and options.device != "cpu" else "cpu"
    if options.device == "cuda" and device == "cpu":
        raise InputError("--device cuda: torch finds no CUDA device here. Type --device cpu.")
    recipe = Recipe(resize=options.resize, crop=options.crop, seed=options.seed)
    rows = measure(
        samples,
        options.synthesis,
        features=options.features,
        recipe=recipe,
        batch_size=options.batch_size,
        device=device,
        progress=True,
    )
    what = (
        "Inception v3"
        if options.features == INCEPTION
        else f"{options.features}, not Inception: no FID of the literature"
    )
    print(f"FID of synthetic anomalies against real defects of {samples.root}; features: {what}; {options.crop} px.")
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
    print(f"{'class':{width}}  {'defects':>7}  {'made':>5}  " + "  ".join(f"{name:>9}" for name in syntheses))
    for name in sorted(classes, key=lambda name: (name == POOLED, name)):
        cells = [table[name, synthesis] for synthesis in syntheses]
        values = ("undefined" if cell.fid is None else f"{cell.fid:.2f}" for cell in cells)
        print(
            f"{name:{width}}  {cells[0].real:7}  {cells[0].synthetic:5}  "
            + "  ".join(f"{value:>9}" for value in values)
        )
    print(
        f"{'paper, MVTec AD':{width}}  {'':7}  {'':5}  "
        + "  ".join(f"{PAPER[name]:9.2f}" if name in PAPER else f"{'-':>9}" for name in syntheses)
    )
    for row in rows:
        if row.undefined_because and row.synthesis == syntheses[0]:
            print(f"{row.class_name}: undefined, {row.undefined_because}.")


if __name__ == "__main__":
    sys.exit(main())
