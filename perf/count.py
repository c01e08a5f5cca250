"""What a training step makes a GPU do, counted without a GPU: kernels, bytes, operations and memory of every recipe.

    python perf/count.py [--recipes resnet18.tab_mvtec ...] [--batch 512] [--amp bf16] [--syntheses nsa perlin ...]

The step runs on tensors without values (tests/fake_cuda.py, which says what is not counted), so it takes seconds on any
machine with a CUDA build of torch. It is a count, not a measurement: it shows what a change does to the work, not the time.
"""

import argparse
import gc
import os
import sys
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fake_cuda import Record, fake_cuda
from fake_step import FakeStep

from tabzoo.synthesis import SYNTHESES
from tabzoo.training.recipe import Recipe, list_recipes, load_recipe

HEADER = """\
| {name} | kernels | GB moved | GFLOP | peak memory, GB | + while pairs are made, GB |
|---|---|---|---|---|---|"""


def row(name: str, record: Record, more: int) -> str:
    """A line of a table: the record's counts, and memory that comes on top of the peak."""
    counts = f"{record.launches.total():,} | {record.bytes / 1e9:.1f} | {record.flops / 1e9:,.1f}"
    return f"| {name} | {counts} | {record.peak / 1e9:.1f} | {more / 1e9:.2f} |"


def count_step(name: str, recipe: Recipe) -> None:
    """A step in the steady state: tables, buffers and the optimizer's numbers are there."""
    with fake_cuda() as record:
        step = FakeStep(recipe)
        for _ in range(2):
            step()
        gc.collect()
        record.reset()
        before = record.memory
        pairs = step.make_pairs()
        more, record.peak = record.peak - before, record.memory
        step.optimise(pairs)
        print(row(name, record, more))


def count_synthesis(name: str, recipe: Recipe) -> None:
    """The pairs of a step alone."""
    with fake_cuda() as record:
        step = FakeStep(recipe.replace(synthesis=name))
        for _ in range(2):
            step.make_pairs()
        gc.collect()
        record.reset()
        before, _pairs = record.memory, step.make_pairs()
        print(row(name, record, record.peak - before))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="*", default=list_recipes())
    parser.add_argument("--syntheses", nargs="*", default=list(SYNTHESES))
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--amp", default="bf16", help="where the recipe says auto")
    options = parser.parse_args()
    recipes = {}
    for name in options.recipes:
        recipe = load_recipe(name)
        amp = options.amp if recipe.amp == "auto" else recipe.amp
        batch = options.batch if recipe.needs_texts else recipe.batch_size
        label = f"{name}, {amp}" if batch == options.batch else f"{name}, {amp}, {batch} pairs"
        recipes[label] = recipe.replace(batch_size=batch, amp=amp, epochs=9)
    print(HEADER.format(name=f"step of {options.batch} pairs"))
    for name, recipe in recipes.items():
        count_step(name, recipe)
    if options.syntheses:
        print("\n" + HEADER.format(name=f"synthesis of {options.batch} pairs"))
    for name in options.syntheses:
        count_synthesis(name, load_recipe("resnet18.tab_mvtec").replace(batch_size=options.batch, amp="off", epochs=9))


if __name__ == "__main__":
    main()
