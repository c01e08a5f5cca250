"""A small model, and what is in a folder: shared by the tests of the Hub."""

from pathlib import Path

SMALL = "test_resnet"
"""timm's smallest ResNet, 0.4 M parameters, with the names of tensors that its siblings have."""


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
