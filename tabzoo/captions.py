"""The text beside a figure: what it shows in words, the command that draws it again, and what it was drawn from."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from tabzoo._version import __version__
from tabzoo.plain import for_terminal
from tabzoo.system import whole_file

__all__ = ["write_caption"]

_PACKAGES = ("torch", "timm", "numpy", "matplotlib")


def write_caption(
    path: Path, sentences: Iterable[str], *, command: str, hashes: Mapping[str, str], packages: Sequence[str] = ()
) -> None:
    """Writes a caption as a text file.

    Args:
        path: File to write.
        sentences: What the figures show, a paragraph each.
        command: What to type to draw them again.
        hashes: What they were drawn from to its SHA-256.
        packages: Distributions whose versions matter too, such as scikit-learn.

    Raises:
        WriteError: It can't be written.
    """
    paragraphs = [textwrap.fill(for_terminal(sentence), 100, break_on_hyphens=False) for sentence in sentences]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in (*_PACKAGES, *packages))
    lines = [
        f"Command: {for_terminal(command)}",
        *(f"SHA-256 of {for_terminal(name)}: {value}" for name, value in hashes.items()),
        f"Versions: tabzoo {__version__}, {versions}",
    ]
    with whole_file(path) as file:
        file.write_text("\n\n".join([*paragraphs, "\n".join(lines)]) + "\n", encoding="utf-8")
