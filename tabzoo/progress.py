"""How far long work is: a bar in a terminal, plain lines in a log file, and nothing unless a command runs.

Work that can take long goes through `Progress` or `track`, wherever it is. Only what runs inside `showing` is seen, and only
commands use that, so calls from Python stay silent.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from time import monotonic
from typing import NoReturn, Self, TypeVar

from tqdm import tqdm

from tabzoo.plain import for_terminal

__all__ = ["Progress", "duration", "showing", "track"]

Item = TypeVar("Item")

_FIRST, _EVERY, _LONGEST = 10.0, 30.0, 300.0
"""Seconds to the first line in a log file, from one line to the next, and the same in long work."""
_SHARE = 0.05
"""In long work lines come after this share of the time so far, so that a day does not fill the file."""

_shown: ContextVar[bool] = ContextVar("shown", default=False)
_running: list["Progress"] = []
"""What is shown now, from the outermost to the innermost."""


@contextmanager
def showing(on: bool = True) -> Iterator[None]:
    """Shows the progress of all work within it, on stderr. Work in other threads is not shown."""
    before = _shown.set(on)
    try:
        yield
    finally:
        _shown.reset(before)


class Progress:
    """How far a piece of work is. Use it in a `with` statement.

    Args:
        total: Number of steps.
        about: What is done.
        unit: What a step is, in the singular.
        done: Steps that an earlier run has done; the time left does not count them.
        each: Whether each step has a line of its own, in a terminal too; else a log file gets one now and then.
        kept: Whether the bar stays in the terminal when the work is done.
        show: False hides it, in a command too.
    """

    def __init__(
        self,
        total: int,
        about: str = "",
        *,
        unit: str = "step",
        done: int = 0,
        each: bool = False,
        kept: bool = False,
        show: bool = True,
    ) -> None:
        self.about, self.note = for_terminal(about), ""
        self._total, self._before, self._done, self._each = total, done, done, each
        self._shown = show and total > 0 and _shown.get()
        self._start = monotonic()
        self._due = self._start + _FIRST
        self._bar: tqdm[NoReturn] | None = None
        if self._shown:
            _running.append(self)
            if sys.stderr.isatty():
                self._bar = tqdm(total=total, initial=done, desc=self.about or None, unit=unit, leave=kept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if not self._shown:
            return
        if self._bar is not None:
            self._bar.close()
        elif kind is None and not self._each and (took := monotonic() - self._start) >= _FIRST:
            self._print(f"{self._where()}{self._done:,} in {duration(took)}")
        _running.remove(self)
        self._shown = False

    def tell(self, note: str) -> None:
        """Sets the words about the present step; they are in front of the lines of work within it."""
        self.note = for_terminal(note)
        if self._bar is not None:
            self._bar.set_postfix_str(self.note)

    def update(self, number: int = 1, *, line: str = "") -> None:
        """Counts steps that are done.

        Args:
            number: How many.
            line: What to say about the step, with `each`.
        """
        self._done += number
        if not self._shown:
            return
        if self._bar is not None:
            self._bar.update(number)
        if self._each:
            self._print(f"{self._done}/{self._total} {line}{self._left(monotonic())}")
        elif self._bar is None and self._done < self._total and (now := monotonic()) >= self._due:
            note = f"; {self.note}" if self.note else ""
            self._print(f"{self._where()}{self._done:,} of {self._total:,}{self._left(now)}{note}")
            self._due = now + min(max(_EVERY, _SHARE * (now - self._start)), _LONGEST)

    def _where(self) -> str:
        """What the line is about, from the outside to the inside."""
        outer = [one.note or one.about for one in _running[: _running.index(self)]]
        return "".join(f"{words}: " for words in (*outer, self.about) if words)

    def _left(self, now: float) -> str:
        new, left = self._done - self._before, self._total - self._done
        return f", {duration((now - self._start) / new * left)} left" if new > 0 and left > 0 else ""

    def _print(self, text: str) -> None:
        line = for_terminal(f"{datetime.now():%H:%M:%S} {text}")
        if self._bar is None:
            print(line, file=sys.stderr, flush=True)
        else:
            tqdm.write(line, file=sys.stderr)


def track(
    items: Iterable[Item],
    total: int,
    about: str,
    *,
    unit: str = "step",
    size: Callable[[Item], int] | None = None,
    show: bool = True,
) -> Iterator[Item]:
    """The items, one after another, with progress.

    Args:
        items: What is worked on.
        total: Number of steps in all.
        about: What is done.
        unit: What a step is, in the singular.
        size: Number of steps of an item; 1 each if not given.
        show: False hides it, in a command too.
    """
    with Progress(total, about, unit=unit, show=show) as progress:
        for item in items:
            yield item
            progress.update(1 if size is None else size(item))


def duration(seconds: float) -> str:
    """A time in words: "40 s", "3 min", "2 h 5 min"."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
