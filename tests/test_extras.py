"""What messages say about installing an extra, for each way in which tabzoo can be installed."""

import re
import tomllib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from repository import ROOT

from tabzoo import extras
from tabzoo.extras import how_to_install

EDITABLE = '{"dir_info": {"editable": true}, "url": "file:///home/me/tabzoo"}'
FOLDER = '{"dir_info": {}, "url": "file:///home/me/tabzoo"}'
WHEEL = '{"archive_info": {"hash": "sha256=0"}, "url": "file:///home/me/tabzoo-0.1.0-py3-none-any.whl"}'
CLONE, INSTALLED = 'pip install -e ".[export]" in the clone of tabzoo', 'pip install "tabzoo[export]"'


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Has Python find these metadata of tabzoo: each is a folder's name and its files."""

    def find(*folders: tuple[str, dict[str, str]]) -> None:
        for name, files in folders:
            (tmp_path / name).mkdir()
            for file, text in files.items():
                (tmp_path / name / file).write_text(text)
        paths = [metadata.PathDistribution(tmp_path / name) for name, _ in folders]
        monkeypatch.setattr(metadata, "distributions", lambda name: paths if name == "tabzoo" else [])

    extras._is_installed.cache_clear()
    yield find
    extras._is_installed.cache_clear()


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        ([("t.dist-info", {"RECORD": ""})], INSTALLED),  # from an index
        ([("t.dist-info", {"RECORD": "", "direct_url.json": WHEEL})], INSTALLED),
        ([("t.dist-info", {"RECORD": "", "direct_url.json": FOLDER})], INSTALLED),
        ([("t.dist-info", {"RECORD": "", "direct_url.json": EDITABLE})], CLONE),
        ([("t.egg-info", {"PKG-INFO": ""}), ("t.dist-info", {"RECORD": "", "direct_url.json": EDITABLE})], CLONE),
        ([("t.egg-info", {"PKG-INFO": ""})], CLONE),  # in the folder of a clone, not installed
        ([], CLONE),
        ([("t.dist-info", {"RECORD": "", "direct_url.json": "[1"})], INSTALLED),
        ([("t.dist-info", {"RECORD": "", "direct_url.json": "[]"})], INSTALLED),
    ],
)
def test_the_words_fit_how_tabzoo_is_installed(
    found: Callable[..., None], folders: list[tuple[str, dict[str, str]]], said: str
) -> None:
    found(*folders)
    assert how_to_install("export") == said


def test_all_messages_take_the_words_from_there() -> None:
    texts = {
        path: path.read_text(encoding="utf-8")
        for path in (ROOT / "tabzoo").rglob("*")
        if path.suffix in (".py", ".html")
    }
    assert [path.name for path, text in texts.items() if "pip install" in text] == ["extras.py"]
    asked = {name for text in texts.values() for name in re.findall(r"how_to_install\(['\"](\w+)['\"]\)", text)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"benchmark", "export"} <= asked <= set(project["optional-dependencies"])
