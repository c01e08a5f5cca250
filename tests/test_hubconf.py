"""torch.hub from a fresh clone, in a process that has tabzoo's dependencies and not tabzoo."""

import ast
import json
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from repository import ROOT, tracked_files
from safetensors.torch import load_file

from tabzoo.hub.load import install
from tabzoo.hub.table import WEIGHTS

ENTRIES = sorted(entry for weights in WEIGHTS for entry in (weights.name, weights.name.replace(".", "_")))

NAME = "resnet18.tab_mvtec"

# `list` and `help` take no local folder, but do with the copy of an earlier download, which the clone passes for.
FRESH_PROCESS = f"""
import importlib.util, json, sys
root, packages = sys.argv[1:]
sys.path.append(packages)
assert importlib.util.find_spec("tabzoo") is None
import torch
torch.hub.set_dir(root)
clone = root + "/org_tabzoo_main"
found = torch.hub.list("org/tabzoo:main", skip_validation=True, trust_repo=True)
report = torch.hub.help("org/tabzoo:main", "resnet18_tab_mvtec", skip_validation=True, trust_repo=True)
image, shapes = torch.rand(2, 1, 32, 32), {{}}
for name in {ENTRIES}:
    model = torch.hub.load(clone, name, source="local", pretrained=False, features_only=True, in_chans=1)
    shapes[name] = [map_.shape[1] for map_ in model(image)]
model = torch.hub.load(clone, "{NAME}", source="local", num_classes=3)
weights = model.layer4[1].conv2.weight.double().sum().item(), model.fc.out_features
assert sys.modules["tabzoo"].__file__.startswith(clone)
print(json.dumps(dict(found=found, report=report, shapes=shapes, weights=weights)))
"""


@pytest.fixture(scope="module")
def folder(make_folder: Callable[..., Path]) -> Path:
    """What the local store of the process has as resnet18.tab_mvtec."""
    return make_folder(NAME, seed=1)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> dict[str, Any]:
    """What torch.hub finds, says and loads, asked once: the process takes seconds to start."""
    root = tmp_path_factory.mktemp("torch_hub")
    clone, packages = root / "org_tabzoo_main", root / "packages"
    for file in tracked_files():
        (clone / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, clone / file)
    packages.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "tabzoo" not in entry.name and entry.suffix != ".pth":
            (packages / entry.name).symlink_to(entry)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TABZOO_HOME", str(root / "home"))
        patch.setenv("PYTHONPATH", "")
        install(NAME, folder)
        # -S leaves out the site packages, among them an installed tabzoo.
        command = [sys.executable, "-S", "-c", FRESH_PROCESS, str(root), str(packages)]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def test_entries(report: dict[str, Any]) -> None:
    assert sorted(report["found"]) == ENTRIES
    assert report["report"].startswith("resnet18.tab_mvtec: pretrained (True by default)")
    assert report["shapes"] == {name: [64, 64, 128, 256, 512] for name in ENTRIES}


def test_weights_of_the_local_store(report: dict[str, Any], folder: Path) -> None:
    saved = load_file(folder / "model.safetensors")["layer4.1.conv2.weight"]
    assert report["weights"] == [saved.double().sum().item(), 3]


def test_dependencies_are_what_the_zoo_imports() -> None:
    (declared,) = re.findall(r"^dependencies = (.*)$", (ROOT / "hubconf.py").read_text(), re.MULTILINE)
    imported = set()
    zoo = {*ROOT.glob("tabzoo/*.py"), *ROOT.glob("tabzoo/hub/*.py")}
    # Not imported by the zoo itself, but by command lines, training and benchmark.
    others = (
        *("figures.py", "command.py", "flags.py", "locks.py", "machine.py", "progress.py", "strict_yaml.py"),
        *("hub/__main__.py", "hub/publish_command.py"),
    )
    for file in zoo - {ROOT / "tabzoo" / name for name in others}:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).split(".")[0])
    assert sorted(ast.literal_eval(declared)) == sorted(imported - sys.stdlib_module_names - {"tabzoo"})
