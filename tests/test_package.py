"""What is released: the version, what the sdist and the wheel hold, and the workflows that publish them."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version
from repository import ROOT, tracked_files

import tabzoo

WORKFLOWS = ROOT / ".github" / "workflows"


def workflow(name: str) -> dict[str, Any]:
    if not WORKFLOWS.is_dir():
        pytest.skip("an sdist has no workflows")
    loaded: dict[str, Any] = yaml.safe_load((WORKFLOWS / name).read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist, built in a copy: setuptools writes into the folder that it builds from."""
    folder = tmp_path_factory.mktemp("sdist")
    for file in tracked_files():
        (folder / "copy" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, folder / "copy" / file)
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=folder / "copy", capture_output=True, check=True)
    (made,) = folder.glob("*.tar.gz")
    return made


def test_the_version_is_written_once(sdist: Path) -> None:
    written = [
        file
        for file in tracked_files()
        if not file.startswith(("tests/", "CHANGELOG"))
        and re.search(
            rf"version\w*\W{{1,5}}{re.escape(tabzoo.__version__)}\b", (ROOT / file).read_text("utf-8", "ignore")
        )
    ]
    assert written == ["tabzoo/_version.py"]
    assert sdist.name == f"tabzoo-{Version(tabzoo.__version__)}.tar.gz"


def test_the_sdist_holds_what_a_rebuild_and_the_tests_need(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    missing = set(tracked_files(in_sdist=True)) - held
    assert not missing, "name them in MANIFEST.in"
    assert not [name for name in held if name.endswith(".pyc")]


def test_what_takes_long_to_import_is_imported_when_asked_for() -> None:
    code = """
import sys, tabzoo
rooms = ("tabzoo.training", "tabzoo.benchmark", "tabzoo.inspect", "tabzoo.detectors")
print([name for name in sys.modules if name.startswith(rooms)])
print(all(callable(getattr(tabzoo, name)) for name in tabzoo.__all__ if name != "__version__"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "True"]


def test_versions_of_python_are_named_that_the_workflow_runs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {found[1] for line in project["classifiers"] if (found := re.search(r"Python :: (3\.\d+)$", line))}
    assert named
    test = workflow("test.yml")["jobs"]["test"]
    assert named <= set(test["strategy"]["matrix"]["python"])
    assert {"run": ".ci/run"} in test["steps"]


def test_only_a_tag_publishes_and_only_after_the_tests() -> None:
    release = workflow("release.yml")
    assert release[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads `on` as true
    jobs = release["jobs"]
    assert jobs["test"]["uses"] == "./.github/workflows/test.yml"
    assert (jobs["package"]["needs"], jobs["publish"]["needs"]) == ("test", "package")
    assert any(step.get("run") == '.ci/package --tag "$GITHUB_REF_NAME" dist' for step in jobs["package"]["steps"])
    # No job but the last can ask for what publishing needs, and none holds a password.
    assert release["permissions"] == {"contents": "read"}
    assert [name for name, job in jobs.items() if "permissions" in job] == ["publish"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert not re.search(r"secrets|password", (WORKFLOWS / "release.yml").read_text().replace("no password", ""))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tag", "v99.0", "dist"], f"the tag is v99.0, but tabzoo/_version.py says {tabzoo.__version__}"),
        (["--tag", tabzoo.__version__, "dist"], f"expected v{tabzoo.__version__}"),
        (["--tag"], "a value is missing"),
        ([], "type .ci/package"),
        (["tabzoo"], "tabzoo is not empty"),
    ],
)
def test_a_release_under_another_version_is_refused(words: list[str], said: str) -> None:
    done = subprocess.run([ROOT / ".ci" / "package", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.network
@pytest.mark.slow
def test_the_wheel_holds_tabzoo_and_works_alone(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "target"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True)
    assert sorted(
        entry.name for entry in target.iterdir() if not entry.name.endswith((".dist-info", "__pycache__"))
    ) == [
        "bin",
        "tabzoo",
        "tabzoo_console.py",
    ]
    package = target / "tabzoo"
    yaml = (f"training/{name}/*.yaml" for name in ("recipes", "prompt_sets"))
    pages = (f"{name}/*.html" for name in ("pages", "trial", "benchmark", "inspect"))
    for pattern in (*yaml, *pages, "pages/*.css", "pages/*.js", "py.typed"):
        shipped, ours = (
            {entry.relative_to(root) for entry in root.glob(pattern)} for root in (package, ROOT / "tabzoo")
        )
        assert shipped == ours
        assert shipped
    # One process: each import of torch takes seconds.
    code = "import tabzoo; from tabzoo.cli import main; print(tabzoo.__file__); main(['list']); main(['pretrain', '--help'])"
    environment = {**os.environ, "PYTHONPATH": str(target)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    shown = done.stdout
    assert Path(shown.splitlines()[0]).is_relative_to(target), done.stderr
    assert "tab_mvtec" in shown
    assert "--recipe" in shown
