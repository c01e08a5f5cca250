"""What SECURITY.md promises of the whole package, looked up in its source."""

import ast
import re
from collections.abc import Iterator

import pytest
from repository import ROOT

from tabzoo.data.images import MAX_PIXELS
from tabzoo.hub.files import LARGEST_JSON, LARGEST_WEIGHTS

SOURCES = sorted((ROOT / "tabzoo").rglob("*.py"))
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "subprocess", "runpy", "code"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "torch.jit.load",
    "yaml.unsafe_load",
}


def found(text: str) -> Iterator[str]:
    """What of a module's source could execute something that comes from a file."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (name for name in names if name.partition(".")[0] in FORBIDDEN_MODULES)
        if not isinstance(node, ast.Call):
            continue
        called, options = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        if called in FORBIDDEN_CALLS:
            yield called
        elif called == "torch.load" and options.get("weights_only") != "True":
            yield f"{called} without weights_only=True"
        elif called in ("np.load", "numpy.load") and options.get("allow_pickle", "False") != "False":
            yield f"{called} with pickles"
        elif called == "yaml.load" and options.get("Loader") != "_Loader":  # strict_yaml's, a SafeLoader
            yield f"{called} with another loader"
        elif "create_model" in called and options.get("trust_remote_code", "False") != "False":
            yield "trust_remote_code"


def test_nothing_from_a_file_can_be_executed() -> None:
    of_each = {path.name: list(found(path.read_text(encoding="utf-8"))) for path in SOURCES}
    assert len(of_each) > 100
    # `tabzoo export` runs the script that it has just written, to prove that its pixels are right.
    assert {name: what for name, what in of_each.items() if what} == {"script.py": ["runpy"]}


@pytest.mark.parametrize(
    "mistake",
    [
        "import pickle",
        "from subprocess import run",
        "eval(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "os.system(text)",
    ],
)
def test_each_way_is_found(mistake: str) -> None:
    assert list(found(mistake))


def test_the_sizes_are_those_of_the_code() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert f"More than {MAX_PIXELS:,} pixels" in text
    assert f"at most {LARGEST_JSON // 1_000_000} MB of JSON, {LARGEST_WEIGHTS >> 30} GiB of weights" in text
    for command in re.findall(r"`tabzoo (\w+)", text):
        assert command in (ROOT / "tabzoo" / "cli.py").read_text(encoding="utf-8")
