"""`python -m tabzoo.trial`: a folder of good photos in, a verdict and a page out."""

import importlib.util
import inspect
import logging
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from tabzoo.command import run_commands, say, show
from tabzoo.errors import InputError
from tabzoo.extras import how_to_install
from tabzoo.trial.folder import PAGE, VERDICT
from tabzoo.trial.options import Options
from tabzoo.trial.run import run
from tabzoo.trial.settings import flags_of_recipes
from tabzoo.trial.stopping import StoppedError, stoppable

__all__ = ["main"]


class _Once(logging.Filter):
    """Drops what was said before: every training run would warn of the same texts, and every test of the same photos."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the message is new."""
        message = record.getMessage()
        new = message not in self._said
        self._said.add(message)
        return new


@contextmanager
def _less_said() -> Iterator[None]:
    """Within it, equal warnings come once, and timm's about unused layers not at all: the benchmark checks the others."""
    names = ("tabzoo.training.text", "tabzoo.data.class_words", "tabzoo.data.cache")
    repeated = [logging.getLogger(name) for name in names]
    once, of_timm = _Once(), logging.getLogger("timm")
    level = of_timm.level
    for logger in repeated:
        logger.addFilter(once)
    of_timm.setLevel(logging.ERROR)
    try:
        yield
    finally:
        of_timm.setLevel(level)
        for logger in repeated:
            logger.removeFilter(once)


@dataclass(frozen=True, kw_only=True)
class Trial(Options):
    """Is pre-training worth it on these photos?

    Trains within the time given, tests start and results with PaDiM and PatchCore, and ends with one sentence and a page.
    Exit code: 0 better, 10 no difference beyond chance, 11 worse, 2 error.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "tabzoo trial --data photos",
        "tabzoo trial --data photos --minutes 60 --seeds 0 1 2 --output runs/trial",
    )

    def run(self) -> int:
        """Runs the trial and prints the verdict."""
        if importlib.util.find_spec("scipy") is None:
            raise InputError(f"the tests of a trial need SciPy: {how_to_install('benchmark')}")
        verdict = run(self, say=say)
        show(verdict.sentence)
        show(f"Page: {self.output / PAGE}; for scripts: {self.output / VERDICT}.")
        return verdict.exit_code


def main(argv: Sequence[str] | None = None, *, prog: str = "python -m tabzoo.trial") -> int:
    """Runs the command line; returns the verdict's exit code, 2 for a user's mistake, or 128 + signal when stopped."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    description = inspect.cleandoc(Trial.__doc__ or "")
    try:
        with stoppable(), _less_said():
            return run_commands(
                {"trial": Trial}, arguments, prog=prog, description=description, elsewhere=flags_of_recipes()
            )
    except StoppedError as stopped:
        again = shlex.join([*prog.split(), *(word for word in arguments if word != "--overwrite")])
        say(f"\nStopped; finished steps and tests are kept. To continue:\n  {again}")
        return 128 + stopped.number


if __name__ == "__main__":
    sys.exit(main())
