"""Options of small runs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tabzoo.benchmark.options import Options

MakeOptions = Callable[..., Options]

SMALL = "random:test_resnet"
"""timm's smallest ResNet."""


@pytest.fixture
def options(toy: Path, tmp_path: Path) -> MakeOptions:
    """Options of a run of a second on the toy factory, with changes."""

    def make(**changes: object) -> Options:
        values: dict[str, object] = {
            **{"backbone": [SMALL], "method": ["padim"], "data": str(toy), "output": tmp_path / "out"},
            **{"resize": 40, "crop": 32, "cache": "ram", "workers": 0, "device": "cpu"},
        }
        return Options(**(values | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def saving(self: Figure, *arguments: object, **options: object) -> None:
        figures.append(self)
        save(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "savefig", saving)
    return figures
