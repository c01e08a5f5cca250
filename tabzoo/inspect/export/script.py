"""The script beside an exported file: `prepare_photo.py` with the settings of that file."""

import re
import runpy
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tabzoo.data.images import Resampling

__all__ = ["load_prepare", "write_script"]


def write_script(
    path: Path, *, model: str, size: int, resampling: Resampling, white_level: float | None = None
) -> None:
    """Writes the script.

    Args:
        path: The file.
        model: Name of the exported file, in the same folder.
        size: Side of the square that photos are squashed to.
        resampling: The filter for that.
        white_level: Pixel value that becomes white in photos of more than 8 bits.
    """
    text = resources.files(__package__).joinpath("prepare_photo.py").read_text(encoding="utf-8")
    for name, value in {"MODEL": model, "SIZE": size, "RESAMPLING": resampling, "WHITE_LEVEL": white_level}.items():
        # A function, since a text in place of it could hold a backslash.
        line = f"{name} = {value!a}".replace("\\", r"\\")  # `re` takes a backslash for itself
        text, found = re.subn(rf"^{name}(: [^=]+)? = .*$", line, text, flags=re.MULTILINE)
        assert found == 1, name
    path.write_text(text, encoding="utf-8")


def load_prepare(path: Path) -> Callable[[str], NDArray[np.uint8]]:
    """The function of a script that `write_script` wrote: a file to pixels, uint8 [S, S, 3]."""
    return cast(Callable[[str], NDArray[np.uint8]], runpy.run_path(str(path))["prepare"])
