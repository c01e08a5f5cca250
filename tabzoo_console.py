"""The `tabzoo` console script.

It is not in the package, because importing anything of the package registers weights with timm, which takes seconds.
"""

import importlib.util
import sys

__all__ = ["main"]


def main() -> int:
    """Runs `tabzoo COMMAND ...`. Commands that need neither torch nor timm are answered before these are imported."""
    spec = importlib.util.find_spec("tabzoo")
    assert spec is not None
    assert spec.loader is not None
    # Its modules can be imported from now on, but nothing was registered yet.
    package = sys.modules["tabzoo"] = importlib.util.module_from_spec(spec)
    cli = importlib.import_module("tabzoo.cli")
    return int(cli.main(prepare=lambda: spec.loader.exec_module(package)))
