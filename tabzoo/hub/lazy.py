"""A weight file that is looked for only when timm opens it."""

import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["LazyPath"]


class LazyPath(os.PathLike[str]):
    """The verified weights file of a name; what goes wrong on the way to it is said when timm asks for the weights.

    A plain class: timm copies its configurations with `dataclasses.asdict`, which would turn a dataclass into a dict.

    Args:
        name: Of the weights.
        resolve: From a name to the file.
    """

    def __init__(self, name: str, resolve: Callable[[str], Path]) -> None:
        self.name, self._resolve = name, resolve

    def __fspath__(self) -> str:
        return str(self._resolve(self.name))

    def __str__(self) -> str:
        # timm reads a file whose name ends so with safetensors, any other with torch.load.
        return f"{self.name}/model.safetensors"

    def __repr__(self) -> str:
        return f"tabzoo weights {self.name}"
