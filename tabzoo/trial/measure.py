"""Start and results measured by the benchmark, with the trial's list of photos."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabzoo.benchmark.options import Options
from tabzoo.benchmark.plan import Plan
from tabzoo.benchmark.run import run
from tabzoo.scores.rows import Row, read_rows
from tabzoo.training.recipe import Recipe

__all__ = ["Tests"]

_NOT_IN_ROWS = 1.2
"""Factor on the seconds of rows, which lack pixel metrics and decoding."""


@dataclass(frozen=True, kw_only=True)
class Tests:
    """Tests of backbones.

    Attributes:
        images: The trial's list of photos.
        classes: Those that are tested.
        recipe: Sizes, and how images are read.
        device: Where to compute.
        output: Folder for rows, tables and maps.
    """

    images: Path
    classes: Sequence[str]
    recipe: Recipe
    device: str
    output: Path

    def run(
        self, backbones: Sequence[str], method: str, seeds: Sequence[int], *, classes: Sequence[str] | None = None
    ) -> float:
        """Measures what is missing; returns how long it takes for one backbone, in seconds."""
        begin, options = time.monotonic(), self._options(backbones, method, seeds, classes)
        run(options)
        took = time.monotonic() - begin
        # Rows of an earlier call, which was stopped, took no time in this one.
        keys = {job.key for job in Plan(options).jobs()}
        of_rows = sum(sum(row.seconds.values()) for row in read_rows(self.output) if row.key in keys)
        return max(took, _NOT_IN_ROWS * of_rows) / len(backbones)

    def rows(self, backbone: str, methods: Mapping[str, Sequence[int]]) -> list[Row]:
        """A backbone's rows. They go by their keys: equal weights under another name have the same rows."""
        found = {row.key: row for row in read_rows(self.output)}
        options = [self._options([backbone], name, seeds) for name, seeds in methods.items()]
        return [found[job.key] for one in options for job in Plan(one).jobs()]

    def _options(
        self, backbones: Sequence[str], method: str, seeds: Sequence[int], classes: Sequence[str] | None = None
    ) -> Options:
        recipe = self.recipe
        return Options(
            backbone=backbones,
            method=[method],
            data=str(self.images),
            output=self.output,
            classes=classes or self.classes,
            seeds=seeds,
            resize=recipe.resize,
            crop=recipe.crop,
            white_level=recipe.white_level,
            device=self.device,
            cache=recipe.cache,
            cache_dir=recipe.cache_dir,
            workers=recipe.workers,
        )
