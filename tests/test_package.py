"""What pip installs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.network
@pytest.mark.slow
def test_the_wheel_holds_tabzoo_and_works_alone(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(REPOSITORY)], check=True)
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
            {entry.relative_to(root) for entry in root.glob(pattern)} for root in (package, REPOSITORY / "tabzoo")
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
