"""`tabzoo cache list|delete`: the decoded images on this machine."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from tabzoo.command import run_commands, show
from tabzoo.data.entries import Stored, delete_entry, stored_entries
from tabzoo.errors import InputError, count, did_you_mean
from tabzoo.flags import Switch
from tabzoo.system import user_folder

__all__ = ["main"]

_DAY = 86_400.0
_CacheDir = Annotated[Path | None, tyro.conf.arg(metavar="DIR")]


@dataclass(frozen=True, kw_only=True)
class List:
    """List the decoded images: which folder they are of, their size, and when they were last used."""

    examples: ClassVar[tuple[str, ...]] = ("tabzoo cache list",)

    cache_dir: _CacheDir = None
    """Folder of the cache. If not given: tabzoo/images in the user's cache folder."""

    def run(self) -> int:
        """Prints a line for each entry."""
        entries = _entries(self.cache_dir)
        for entry in entries:
            show(f"{_megabytes(entry.num_bytes):>12}  {_last_used(entry):>12}  {entry.folder.name}  {_origin(entry)}")
        show(_total(entries))
        return 0


@dataclass(frozen=True, kw_only=True)
class Delete:
    """Delete decoded images. They are made again when they are needed, which takes the time of one decoding."""

    examples: ClassVar[tuple[str, ...]] = (
        "tabzoo cache delete --older-than 30 --dry-run",
        "tabzoo cache delete --all",
    )

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Entries, as `tabzoo cache list` names them."""
    older_than: Annotated[int | None, tyro.conf.arg(metavar="DAYS")] = None
    """Delete those that were not used for so many days."""
    all: Switch = False
    """Delete all of them."""
    dry_run: Switch = False
    """Only say what would be deleted."""
    cache_dir: _CacheDir = None
    """Folder of the cache. If not given: tabzoo/images in the user's cache folder."""

    def run(self) -> int:
        """Deletes the entries and says how much space that gives."""
        if bool(self.names) + (self.older_than is not None) + self.all != 1:
            raise InputError("name entries, or type --older-than DAYS, or --all; `tabzoo cache list` shows the entries")
        if self.older_than is not None and self.older_than < 0:
            raise InputError(f"--older-than {self.older_than}: expected 0 days or more")
        entries = _entries(self.cache_dir)
        known = {entry.folder.name: entry for entry in entries}
        for name in self.names:
            if name not in known:
                raise InputError(f"{name}: no such entry.{did_you_mean(name, known)} See `tabzoo cache list`")
        if self.names:
            entries = [known[name] for name in dict.fromkeys(self.names)]
        elif self.older_than is not None:
            entries = [entry for entry in entries if time.time() - entry.used >= self.older_than * _DAY]
        for entry in entries:
            if not self.dry_run:
                delete_entry(entry.folder)
            show(f"{'would delete' if self.dry_run else 'deleted'} {entry.folder.name} {_origin(entry)}")
        show(_total(entries))
        return 0


def _entries(given: Path | None) -> list[Stored]:
    folder = given or user_folder("cache") / "images"
    if given is not None and not folder.is_dir():
        raise InputError(f"--cache-dir {given}: no such folder")
    return stored_entries(folder)


def _total(entries: Sequence[Stored]) -> str:
    return f"{count(len(entries), 'entry', 'entries')}, {_megabytes(sum(one.num_bytes for one in entries))}"


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"


def _last_used(entry: Stored) -> str:
    days = int((time.time() - entry.used) / _DAY)
    if entry.root is None:
        return "unknown"
    return "today" if days < 1 else f"{count(days, 'day')} ago"


def _origin(entry: Stored) -> str:
    if entry.root is None:
        return "(damaged)"
    gone = "" if entry.root.exists() else ", a folder that no longer exists"
    return f"({count(entry.num_files, 'file')} of {entry.root}{gone})"


def main(argv: Sequence[str] | None = None, *, prog: str = "python -m tabzoo.data.cache_command") -> int:
    """Runs the command line; returns 0, or 2 for a mistake."""
    return run_commands(
        {"list": List, "delete": Delete}, argv, prog=prog, description="The decoded images on this machine."
    )
