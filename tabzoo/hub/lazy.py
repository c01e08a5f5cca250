"""A weight file that is looked for only when timm opens it."""

import os

__all__ = ["LazyPath"]


class LazyPath(os.PathLike[str]):
    """The verified weights file of a name; what goes wrong on the way to it is said when timm asks for the weights.

    A plain class: timm copies its configurations with `dataclasses.asdict`, which would turn a dataclass into a dict.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __fspath__(self) -> str:
        from tabzoo.hub.sources import named_source

        return str(named_source(self.name).checked())

    def __str__(self) -> str:
        # timm reads a file whose name ends so with safetensors, any other with torch.load.
        return f"{self.name}/model.safetensors"

    def __repr__(self) -> str:
        return f"tabzoo weights {self.name}"
