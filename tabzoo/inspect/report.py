"""What a call of `tabzoo score` tells: rows, errors by name, a summary and an exit code."""

import sys
from collections import Counter
from collections.abc import Mapping

from tqdm import tqdm

from tabzoo.command import say
from tabzoo.errors import count
from tabzoo.inspect.drift import Drift
from tabzoo.inspect.page import PAGE, write_page
from tabzoo.inspect.record import DetectorRecord
from tabzoo.inspect.rows import ScoreRow, ScoresFolder, csv_head, csv_line
from tabzoo.inspect.stream import Scored

__all__ = ["DEFECTIVE", "ERROR", "GOOD", "Report"]

GOOD, DEFECTIVE, ERROR = 0, 1, 2
"""Exit codes."""


class Report:
    """Writes rows where they belong, and counts.

    Args:
        folder: Where rows go; None: to stdout.
        drift: Warns when the scores of good photos have left those of the fit. It goes on from the rows of earlier calls.
    """

    def __init__(self, folder: ScoresFolder | None, drift: Drift) -> None:
        self.folder, self._drift = folder, drift
        for row in self.known.values():
            self._warning_of(row)  # told by an earlier call, if there was one
        self._judged: Counter[str] = Counter()  # photos by verdict; one that is replaced counts again
        self._errors: set[str] = set()  # a photo that can be read later leaves this set
        self._known: set[str] = set()
        self._counted: set[str] = set()
        if folder is None:
            _print(csv_head())

    @property
    def known(self) -> Mapping[str, ScoreRow]:
        """File to its row, of photos that were scored before."""
        return self.folder.known if self.folder else {}

    @property
    def count(self) -> int:
        """Number of photos."""
        return self._judged.total() + len(self._errors)

    @property
    def exit_code(self) -> int:
        """`ERROR`, else `DEFECTIVE`, else `GOOD`."""
        return ERROR if self._errors else DEFECTIVE if self._judged["defective"] else GOOD

    def add(self, scored: Scored) -> None:
        """Writes the row of a photo, if it is new, and counts it.

        Raises:
            WriteError: It can't be written.
        """
        row = scored.row
        if scored.known and row.file in self._counted:  # a watched file was touched, or seen while it was written
            return
        self._counted.add(row.file)
        if self.folder is None:
            _print(csv_line(row))
        elif not scored.known:
            self.folder.append(row)
        self._errors.discard(row.file)
        if row.verdict == "error":
            self._errors.add(row.file)
            with tqdm.external_write_mode(file=sys.stderr):
                say(f"{row.file}: {row.error}")
        else:
            self._judged[row.verdict] += 1
            if not scored.known and (warning := self._warning_of(row)):
                with tqdm.external_write_mode(file=sys.stderr):
                    say(f"warning: {warning}")
            self._known |= {row.file} if scored.known else set()

    def _warning_of(self, row: ScoreRow) -> str | None:
        return self._drift.update(row.score) if row.verdict == "good" and row.score is not None else None

    def say_summary(self, *, of: int | None) -> None:
        """Says in a line what was found.

        Args:
            of: Number of photos to score, if it is known.
        """
        stopped = of is not None and self.count < of
        photos = f"Stopped after {self.count:,} of {count(of or 0, 'photo')}" if stopped else count(self.count, "photo")
        parts = [f"{self._judged['good']:,} good", f"{self._judged['defective']:,} defective"]
        parts += [f"{len(self._errors):,} could not be read"] if self._errors else []
        known = f" {len(self._known):,} of them had been scored before." if self._known else ""
        page = f" Page: {self.folder.path / PAGE}" if self.folder and self.folder.known else ""
        say(f"{photos}: {', '.join(parts)}.{known}{page}")

    def write_page(self, record: DetectorRecord) -> None:
        """Writes the page of all photos in the folder, if there is one and it has any.

        Args:
            record: The detector's.

        Raises:
            WriteError: It can't be written.
        """
        if self.folder is not None and self.folder.known:
            write_page(self.folder.path, record, list(self.folder.known.values()))


def _print(line: str) -> None:
    try:
        print(line, flush=True)
    except BrokenPipeError as error:  # not to be taken for the exit code of a defect
        raise OSError("stdout is closed, so verdicts can't be told") from error
