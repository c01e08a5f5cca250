"""torch.hub from a fresh clone, in a process that has tabzoo's dependencies and not tabzoo."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tabzoo.models import list_models

REPOSITORY = Path(__file__).parents[1]
ENTRIES = sorted([*list_models(), *(name.replace(".", "_") for name in list_models())])

Child = Callable[..., Any]


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Child:
    """Runs lines that set `result`, with torch and the path of the clone at hand, and gives it back."""
    root = tmp_path_factory.mktemp("torch_hub")
    clone, packages = root / "org_tabzoo_main", root / "packages"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for file in files.strip("\0").split("\0"):
        (clone / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / file, clone / file)
    packages.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "tabzoo" not in entry.name and entry.suffix != ".pth":
            (packages / entry.name).symlink_to(entry)

    def run(code: str, **environment: str) -> Any:
        lines = f"""
import importlib.util, json, sys
sys.path.append({str(packages)!r})
assert importlib.util.find_spec("tabzoo") is None
import torch
torch.hub.set_dir({str(root)!r})
clone = {str(clone)!r}
{code}
assert sys.modules["tabzoo"].__file__.startswith(clone)
print(json.dumps(result))
"""
        # -S leaves out the site packages, among them an installed tabzoo.
        command = [sys.executable, "-S", "-c", lines]
        variables = {**os.environ, "PYTHONPATH": "", **environment}
        done = subprocess.run(command, cwd=root, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_entries(child: Child) -> None:
    # `list` and `help` take no local folder, but do with the copy of an earlier download, which the clone passes for.
    found, told, shapes = child(
        f"""
found = torch.hub.list("org/tabzoo:main", skip_validation=True, trust_repo=True)
told = torch.hub.help("org/tabzoo:main", "resnet18_tab_mvtec", skip_validation=True, trust_repo=True)
image, shapes = torch.rand(2, 1, 32, 32), {{}}
for name in {ENTRIES}:
    model = torch.hub.load(clone, name, source="local", pretrained=False, features_only=True, in_chans=1)
    shapes[name] = [map_.shape[1] for map_ in model(image)]
result = found, told, shapes"""
    )
    assert sorted(found) == ENTRIES
    assert told.startswith("resnet18.tab_mvtec: pretrained (True by default)")
    assert shapes == {name: [64, 64, 128, 256, 512] for name in ENTRIES}


def test_weights_of_the_local_store(child: Child, installed: Path, home: Path) -> None:
    saved = load_file(installed / "model.safetensors")["layer4.1.conv2.weight"]
    total = child(
        """
model = torch.hub.load(clone, "resnet18.tab_mvtec", source="local", num_classes=3)
result = model.layer4[1].conv2.weight.double().sum().item(), model.fc.out_features""",
        TABZOO_HOME=str(home),
    )
    assert total == [saved.double().sum().item(), 3]


def test_dependencies_are_what_the_zoo_imports() -> None:
    (declared,) = re.findall(r"^dependencies = (.*)$", (REPOSITORY / "hubconf.py").read_text(), re.MULTILINE)
    imported = set()
    for file in [*REPOSITORY.glob("tabzoo/*.py"), *REPOSITORY.glob("tabzoo/hub/*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).split(".")[0])
    assert sorted(ast.literal_eval(declared)) == sorted(imported - sys.stdlib_module_names - {"tabzoo"})
