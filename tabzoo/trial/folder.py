"""The output folder of a trial: one process at a time, and the settings and the plan that a later call goes on with."""

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tabzoo.errors import InputError, WeightsError
from tabzoo.hub.files import read_json, write_json
from tabzoo.output_folder import LOCK, hold_folder
from tabzoo.training.output import TEXT
from tabzoo.trial.images import HELD_OUT, IMAGES
from tabzoo.trial.plan import Plan
from tabzoo.trial.settings import START

__all__ = ["BENCHMARK", "PAGE", "RUNS", "VERDICT", "TrialFolder", "damaged", "open_folder", "read_part"]

STATE, VERDICT, PAGE, RUNS, BENCHMARK = "trial.json", "verdict.json", "index.html", "runs", "benchmark"
_OURS = (STATE, VERDICT, PAGE, RUNS, BENCHMARK, IMAGES, HELD_OUT, f".{HELD_OUT}.half", TEXT, START)
_FITTED = "minutes"
"""A setting that may change as long as nothing was fitted to it."""


class TrialFolder:
    """The folder, while this process works on it.

    Args:
        path: The folder.

    Attributes:
        state: The content of trial.json: settings, the plan once it is made, seconds that the trial took so far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state: dict[str, Any] = {}
        self._since = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time that the trial took so far, over all calls."""
        return float(self.state.get("seconds", 0.0)) + time.monotonic() - self._since

    def check(self, settings: Mapping[str, Any]) -> None:
        """Checks that the trial in the folder, if there is one, has these settings.

        Raises:
            InputError: It has others; the text says which.
        """
        settings = json.loads(json.dumps(settings))  # as the file gives them back: lists, not tuples
        before = self.state.get("settings", settings)
        changes = [name for name in {**before, **settings} if before.get(name) != settings.get(name)]
        if "plan" not in self.state and changes == [_FITTED]:
            changes = []
        if changes:
            said = "; ".join(_change(name, before.get(name), settings.get(name)) for name in changes)
            raise InputError(
                f"--output {self.path}: the trial in it was started with other settings: {said}. Type them as they were to "
                f"go on, --overwrite to replace that trial, or name another folder."
            )

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Keeps the settings of the trial, which was checked."""
        self.save(settings=settings)

    def save(self, **changes: Any) -> None:
        """Writes trial.json, with some parts changed."""
        self.state |= {**changes, "seconds": round(self.seconds, 1)}
        self._since = time.monotonic()
        write_json(self.path / STATE, self.state)


@contextmanager
def open_folder(path: Path, *, overwrite: bool, inputs: Mapping[str, str | None]) -> Iterator[TrialFolder]:
    """Makes or checks the folder and locks it. A new folder that nothing was written to is removed again.

    Args:
        path: The folder.
        overwrite: Delete the trial in it first.
        inputs: Field to the files and folders that the new trial reads, which must not be deleted.

    Raises:
        InputError: It is a file, is in use, or holds something else than a trial.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {path}: can't be used as a folder: {error.strerror}") from error
    try:
        with hold_folder(path):
            folder = TrialFolder(path)
            _prepare(folder, overwrite=overwrite, inputs=inputs)
            try:
                yield folder
            finally:
                if folder.state:
                    folder.save()
    finally:
        for new in made:
            with suppress(OSError):  # it is not empty
                new.rmdir()


def _prepare(folder: TrialFolder, *, overwrite: bool, inputs: Mapping[str, str | None]) -> None:
    path = folder.path
    held = sorted({entry.name for entry in path.iterdir()} - {LOCK})
    # Texts alone: a trial that was stopped before its settings were written.
    if held and STATE not in held and set(held) - {TEXT, START}:
        shown = f"{', '.join(held[:3])}{' ...' if len(held) > 3 else ''}"
        raise InputError(
            f"--output {path}: is not the folder of a trial: it has no {STATE}, but {shown}. Name another folder, or move "
            f"these files away."
        )
    if overwrite or STATE not in held:
        _check_inputs(path, inputs)
        for name in set(held) & set(_OURS):
            entry = path / name
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        return
    state = read_part(path / STATE)
    kinds: dict[str, type | tuple[type, ...]] = {"settings": dict, "seconds": (int, float), "plan": dict}
    if wrong := [name for name, kind in kinds.items() if name in state and not isinstance(state[name], kind)]:
        raise damaged(path / STATE, f"{wrong[0]!r} is not of the right kind")
    if "plan" in state and set(state["plan"]) != set(Plan._fields):
        raise damaged(path / STATE, "'plan' lacks some parts or has others")
    folder.state = state


def read_part(path: Path) -> dict[str, Any]:
    """A JSON file of a trial.

    Raises:
        InputError: It is damaged.
    """
    try:
        return read_json(path)
    except WeightsError as error:
        raise InputError(f"{error}. Type --overwrite to start the trial again.") from error


def damaged(path: Path, why: str) -> InputError:
    """The error for a file that no trial wrote like this."""
    return InputError(f"{path}: damaged: {why}. Type --overwrite to start the trial again.")


def _check_inputs(folder: Path, inputs: Mapping[str, str | None]) -> None:
    for name, value in inputs.items():
        path = Path((value or "").removeprefix("local-dir:")) if value else None
        if path and path.exists() and path.resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"--{name.replace('_', '-')} {value}: is part of the trial in {folder} that is replaced. Copy it elsewhere "
                f"first, or name another --output."
            )


def _change(name: str, before: object, now: object) -> str:
    return "other photos" if name == "photos" else f"{name} {before}, not {now}"
