"""The output folder while a run is written: one process at a time, and an old run is kept until the new one has begun."""

import shutil
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from tabzoo.errors import InputError
from tabzoo.hub.folder import HASHES
from tabzoo.hub.record import CARD, CONFIG, RECORD, WEIGHTS
from tabzoo.locks import hold
from tabzoo.training.output import CHECKPOINTS, METRICS, RECIPE, RUN, TEXT, VALIDATION

__all__ = ["RunFolder"]

_LOCK, _ASIDE = ".lock", ".replaced"
_TOY = ("toy_factory", "toy_factory.half")
# What a run writes, and --overwrite replaces; everything else in the folder is the user's.
_OURS = (
    *(WEIGHTS, CARD, CONFIG, RECORD, HASHES, CHECKPOINTS, METRICS, VALIDATION, RUN, *_TOY),
    *(RECIPE, TEXT, "figures", "benchmark"),
)


class RunFolder:
    """An output folder, as a context: made or checked, locked, and with an old run moved aside if it is to be replaced.

    If the context ends before `begun` was called, everything is as it was before.

    Args:
        folder: The output folder.
        resume: Go on with the run in it.
        overwrite: Replace the run in it.
        inputs: Flag to the files and folders that the new run reads, which must not be replaced.
    """

    def __init__(self, folder: Path, *, resume: bool, overwrite: bool, inputs: Mapping[str, str | None]) -> None:
        self.folder, self._resume, self._overwrite, self._inputs = folder, resume, overwrite, inputs
        self._aside, self._begun, self._empty = folder / _ASIDE, False, False

    def __enter__(self) -> "RunFolder":
        """Makes, locks and checks the folder.

        Raises:
            InputError: It is a file, can't be made, is in use by another process, or holds files that may not be replaced.
        """
        self._made = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--output {self.folder}: can't be used as a folder: {error.strerror}") from error
        with ExitStack() as stack:
            stack.callback(self._leave)
            try:
                stack.enter_context(hold(self.folder / _LOCK))
            except BlockingIOError as error:
                self._begun = True  # the folder is the other process's
                raise InputError(
                    f"--output {self.folder}: {error} writes into it. Wait for it to end, or name another folder."
                ) from error
            except OSError as error:
                raise InputError(f"--output {self.folder}: can't be written into: {_LOCK}: {error.strerror}") from error
            self._prepare()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def begun(self) -> None:
        """The new run has begun: deletes the old one."""
        self._begun = True
        shutil.rmtree(self._aside, ignore_errors=True)

    def _prepare(self) -> None:
        if self._aside.is_symlink():
            raise InputError(f"--output {self.folder}: {self._aside}: is a link. Remove it.")
        if self._aside.is_dir():  # left by a run that was killed while it started
            if not (self.folder / RUN).exists():
                self._put_back()
            shutil.rmtree(self._aside, ignore_errors=True)
        held = sorted({entry.name for entry in self.folder.iterdir()} - {_LOCK})
        shown = f"{', '.join(held[:3])}{' ...' if len(held) > 3 else ''}"
        self._empty = not held
        if self._empty:
            return
        if not (self._resume or self._overwrite):
            raise InputError(
                f"--output {self.folder}: the folder is not empty ({shown}). Type --resume to continue the run in it, "
                f"--overwrite to replace that run, or name another folder."
            )
        if RUN not in held and set(held) - set(_TOY):
            raise InputError(
                f"--output {self.folder}: is not a run of tabzoo: it has no {RUN}, but {shown}. Name another folder, or "
                f"move these files away."
            )
        if self._overwrite:
            self._check_inputs(held)
            self._aside.mkdir()
            for name in set(held) & set(_OURS):
                (self.folder / name).rename(self._aside / name)

    def _check_inputs(self, held: list[str]) -> None:
        going = [(self.folder / name).resolve() for name in held if name in _OURS]
        for flag, value in self._inputs.items():
            path = Path(value).resolve() if value else None
            if path and path.exists() and any(path.is_relative_to(entry) for entry in going):
                raise InputError(
                    f"--{flag} {value}: is part of the run in {self.folder} that --overwrite replaces. Copy it elsewhere "
                    f"first, or name another --output."
                )

    def _put_back(self) -> None:
        for entry in self._aside.iterdir():
            new = self.folder / entry.name
            shutil.rmtree(new) if new.is_dir() else new.unlink(missing_ok=True)
            entry.rename(new)
        self._aside.rmdir()

    def _leave(self) -> None:
        if self._begun:
            return
        if self._aside.is_dir() and not self._aside.is_symlink():
            self._put_back()
        for name in (RUN, RECIPE, TEXT) if self._empty else ():
            (self.folder / name).unlink(missing_ok=True)
        for folder in self._made:
            with suppress(OSError):  # not empty
                folder.rmdir()
