"""Who imports whom: no circles, and arrows that go down only."""

import ast
import importlib
from pathlib import Path

import pytest

import tabzoo

ROOT = Path(tabzoo.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}


def imported(module: str) -> set[str]:
    """The modules that one imports, in functions and by strings too."""
    found: set[str] = set()
    text = MODULES[module].read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {node.module} if not below <= MODULES.keys() else below & MODULES.keys()
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "import_module(" in text:
            found.add(node.value)
    return {name for name in found if name in MODULES} - {module}


ROOMS = tuple(f"tabzoo.{path.name}" for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__")
IMPORTS = {module: imported(module) for module in MODULES}


def reached(module: str) -> set[str]:
    """All that a module imports, and what these import."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        new = IMPORTS[waiting.pop()] - seen
        seen |= new
        waiting += new
    return seen


def test_imports_are_found() -> None:
    assert {"tabzoo.training.pretrain", "tabzoo.data.__main__"} <= IMPORTS["tabzoo.cli"]  # by strings
    assert "tabzoo.benchmark.run" in IMPORTS["tabzoo.training.quickstart"]  # in a function
    assert {"tabzoo.hub.store", "tabzoo.hub.table"} <= IMPORTS["tabzoo.hub.registry"]  # of a package
    assert len(MODULES) > 100


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert [module for module in MODULES if module in reached(module)] == []


@pytest.mark.parametrize(
    ("floor", "above"),
    [
        ("tabzoo.data", ("tabzoo.synthesis", "tabzoo.training", "tabzoo.detectors", "tabzoo.benchmark", "tabzoo.hub")),
        ("tabzoo.hub", ("tabzoo.training", "tabzoo.detectors", "tabzoo.benchmark", "tabzoo.data")),
        ("tabzoo.synthesis", ("tabzoo.training", "tabzoo.detectors", "tabzoo.benchmark", "tabzoo.hub")),
        ("tabzoo.training", ("tabzoo.detectors", "tabzoo.benchmark")),
        (
            "tabzoo.detectors",
            ("tabzoo.training", "tabzoo.synthesis", "tabzoo.benchmark", "tabzoo.inspect", "tabzoo.hub"),
        ),
        (
            "tabzoo.scores",
            ("tabzoo.hub", "tabzoo.synthesis", "tabzoo.training", "tabzoo.detectors", "tabzoo.benchmark"),
        ),
        ("tabzoo.benchmark", ("tabzoo.training", "tabzoo.inspect")),
        ("tabzoo.inspect", ("tabzoo.training", "tabzoo.benchmark", "tabzoo.trial")),
        ("tabzoo.demo", ("tabzoo.training", "tabzoo.benchmark", "tabzoo.trial")),
        *((room, ("tabzoo.demo",)) for room in ROOMS if room != "tabzoo.demo"),
        ("tabzoo.pages", tuple(room for room in ROOMS if room not in ("tabzoo.pages", "tabzoo.scores"))),
        (
            "tabzoo.backbones",
            ("tabzoo.synthesis", "tabzoo.training", "tabzoo.detectors", "tabzoo.benchmark", "tabzoo.data"),
        ),
        (
            "tabzoo.anomalib",
            ("tabzoo.synthesis", "tabzoo.training", "tabzoo.detectors", "tabzoo.benchmark", "tabzoo.data"),
        ),
        *(
            (f"tabzoo.{name}", ROOMS)
            for name in (
                "captions",
                "compute",
                "extras",
                "figures",
                "flags",
                "jsonl",
                "kinds",
                "locks",
                "progress",
                "signals",
                "strict_yaml",
                "system",
            )
        ),
        *(
            (f"tabzoo.{name}", ("tabzoo.trial",))
            for name in ("data", "hub", "synthesis", "scores", "training", "detectors", "benchmark")
        ),
        (
            "tabzoo.command",
            ("tabzoo.trial", "tabzoo.cli", "tabzoo.hub", "tabzoo.data", "tabzoo.training", "tabzoo.benchmark"),
        ),
        ("tabzoo.errors", ("tabzoo",)),
        ("tabzoo.plain", ("tabzoo",)),
        ("tabzoo._version", ("tabzoo",)),
    ],
)
def test_arrows_go_down(floor: str, above: tuple[str, ...]) -> None:
    against = {
        (module, other)
        for module in MODULES
        if module == floor or module.startswith(f"{floor}.")
        for other in IMPORTS[module]
        if other.startswith(above)
    }
    # The quickstart ends with a benchmark of what it made.
    allowed = {("tabzoo.training.quickstart", f"tabzoo.benchmark.{name}") for name in ("run", "options")}
    assert against - allowed == set()


@pytest.mark.parametrize(
    "path",
    [
        *("data.layouts.find_samples", "data.images.read_image", "data.images.read_mask", "data.cache.open_images"),
        *("data.toy.make_toy_factory", "hub.convert.convert", "errors.InputError", "errors.WeightsError"),
    ],
)
def test_names_that_others_use_keep_their_place(path: str) -> None:
    module, _, name = path.rpartition(".")
    assert callable(getattr(importlib.import_module(f"tabzoo.{module}"), name))
