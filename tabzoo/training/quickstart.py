"""What the recipe quickstart does more than others: it draws its own images, and ends with a benchmark."""

import shutil
from pathlib import Path

from tabzoo.data.toy import make_toy_factory
from tabzoo.errors import WriteError
from tabzoo.scores.rows import read_rows
from tabzoo.system import writing
from tabzoo.training import report
from tabzoo.training.recipe import Recipe
from tabzoo.training.run import Run

__all__ = ["NAME", "benchmark_run", "with_own_license", "with_toy_factory"]

NAME = "quickstart"


def with_toy_factory(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe, with the toy factory as its data if it names none (quickstart); drawn once into the output folder."""
    if recipe.data is not None:
        return recipe
    toy = folder / "toy_factory"
    if not toy.is_dir():
        print(f"Drawing the toy factory into {toy} ...")
        half = toy.with_suffix(".half")  # a run that is stopped here leaves no factory that looks complete
        shutil.rmtree(half, ignore_errors=True)
        try:
            with writing(toy):
                make_toy_factory(half, seed=recipe.seed).rename(toy)
        except WriteError:
            shutil.rmtree(half, ignore_errors=True)
            raise
    return with_own_license(recipe).replace(data=str(toy))


def with_own_license(recipe: Recipe) -> Recipe:
    """The recipe, with the licence of the toy factory, whose images are tabzoo's own, if it names no data and no licence."""
    own = recipe.data is None and recipe.license == Recipe.license
    return recipe.replace(license="apache-2.0") if own else recipe


def benchmark_run(run: Run) -> None:
    """Tests random weights against the trained ones with PaDiM on the toy factory's test split, and says what it means."""
    from tabzoo.benchmark.options import Options
    from tabzoo.benchmark.run import run as benchmark

    recipe, folder = run.recipe, run.folder / "benchmark"
    print(f"\nTesting random weights against the trained ones with PaDiM on {recipe.data} ...")
    options = Options(
        backbone=["random", str(run.folder)],
        method=["padim"],
        data=str(recipe.data),
        output=folder,
        seeds=[recipe.seed],
        resize=recipe.resize,
        crop=recipe.crop,
        white_level=recipe.white_level,
        device=run.device.type,
        cache=recipe.cache,
        cache_dir=recipe.cache_dir,
        workers=recipe.workers,
    )
    print(benchmark(options))
    print(f"Anomaly maps next to their images: {folder / 'maps'}")
    print(report.explain_benchmark(read_rows(folder), text_pretrained=run.text.text_pretrained))
