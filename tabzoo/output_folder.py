"""The folder that a command writes into: not one that holds something else, and for one process at a time."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tabzoo.errors import InputError
from tabzoo.locks import hold

__all__ = ["CAPTION", "LOCK", "check_output_folder", "hold_folder"]

CAPTION = "caption.txt"
"""The file that marks a folder as one of figures."""
LOCK = ".lock"
"""The lock file of `hold_folder`."""


def check_output_folder(output: Path, *, data: str | None = None, mark: str = CAPTION, what: str = "figures") -> None:
    """Checks a folder before anything is computed.

    Args:
        output: The value of --output.
        data: Folder of the images, if there is one.
        mark: A file that every such folder holds.
        what: What it holds, in a word.

    Raises:
        InputError: It is a file, can't be written into, is inside the images, or holds other files.
    """
    if data is not None and Path(data).is_dir() and output.resolve().is_relative_to(Path(data).resolve()):
        raise InputError(f"--output {output}: is inside --data {data}. Name a folder outside the images.")
    nearest = next(folder for folder in (output.absolute(), *output.absolute().parents) if folder.exists())
    if not nearest.is_dir():
        problem = "is a file" if nearest == output.absolute() else f"{nearest} is a file"
        raise InputError(f"--output {output}: {problem}; expected a folder")
    if not os.access(nearest, os.W_OK):
        raise InputError(f"--output {output}: can't be written into")
    held = sorted(entry.name for entry in output.iterdir() if entry.name[0] != ".") if output.is_dir() else []
    if held and mark not in held:
        shown = f"{', '.join(held[:3])}{' ...' if len(held) > 3 else ''}"
        raise InputError(
            f"--output {output}: holds no {what} of tabzoo: it has no {mark}, but {shown}. Name another folder, or move "
            f"these files away."
        )


@contextmanager
def hold_folder(path: Path) -> Iterator[None]:
    """Within it, no other process writes into a folder that exists.

    Raises:
        InputError: Another process does, or no file can be written there.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(path / LOCK))
        except BlockingIOError as error:
            raise InputError(
                f"--output {path}: {error} writes into it. Wait for it to end, or name another folder."
            ) from error
        except OSError as error:
            raise InputError(f"--output {path}: can't be written into: {LOCK}: {error.strerror}") from error
        yield
