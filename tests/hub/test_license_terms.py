"""Licences in words, `publish --license`, and the licence that images of MVTec AD leave to weights."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from tabzoo.cli import main
from tabzoo.errors import InputError
from tabzoo.hub.files import write_json
from tabzoo.hub.folder import read_folder
from tabzoo.hub.license_terms import check_license, explain_license, is_noncommercial, mvtec_classes
from tabzoo.hub.publish import pack
from tabzoo.training.recipe import Recipe, list_recipes, load_recipe
from tabzoo.training.setup import _warn_of_license

NAME = "test_resnet.tab_here"
REPOSITORY = f"org/{NAME}"
MVTEC = {"training": {"classes": {"bottle": 209, "nut": 12}}}
Output = pytest.CaptureFixture[str]


@pytest.fixture
def folder(make_folder: Callable[..., Path], tmp_path: Path) -> Path:
    """A weights folder without a stated licence."""
    return Path(shutil.copytree(make_folder(NAME, license="unspecified"), tmp_path / NAME))


def change_record(folder: Path, **values: object) -> None:
    write_json(folder / "tabzoo.json", json.loads((folder / "tabzoo.json").read_text()) | values)


@pytest.mark.parametrize(
    "license",
    [
        "cc-by-nc-sa-4.0",
        "CC-BY-NC-4.0",
        "CC BY-NC-SA 4.0",
        "cc_by_nc",
        "non-commercial",
        "cc-by-nc-nd-4.0",
        "PolyForm-Noncommercial-1.0.0",
        "cc-by-nc-4.0 OR cc-by-nc-nd-4.0",
    ],
)
def test_licences_for_non_commercial_use(license: str) -> None:
    assert is_noncommercial(license)
    assert explain_license(license).startswith("no commercial use")


@pytest.mark.parametrize(
    "license",
    [
        "apache-2.0",
        "mit",
        "cc-by-4.0",
        "LicenseRef-ours",
        "other",
        "ncsa",
        "bsd-3-clause",
        "unspecified",
        "MIT OR cc-by-nc-sa-4.0",
    ],
)
def test_other_licences(license: str) -> None:
    assert not is_noncommercial(license)
    assert "no commercial use" not in explain_license(license)


def test_every_recipes_licence_is_explained() -> None:
    for name in list_recipes():
        assert "spdx.org" not in explain_license(load_recipe(name).license)


def test_classes_of_mvtec_by_name_and_number() -> None:
    assert mvtec_classes({"bottle": 209, "cable": 223, "Bottle": 209, "nut": 209}) == ["bottle"]


@pytest.mark.parametrize(
    ("license", "record", "refused"),
    [
        ("apache-2.0", MVTEC, True),
        ("other", MVTEC, True),
        ("cc-by-nc-sa-4.0", MVTEC, False),
        ("apache-2.0", {"training": {"classes": {"bottle": 210}}}, False),
        ("apache-2.0", {"name": "resnet18.tab_mvtec"}, True),  # a converted checkpoint
        ("apache-2.0", {"name": "resnet18.tab_mvtec", "training": {"classes": {"nut": 9}}}, False),
        ("apache-2.0", {"name": "resnet18.tab_industrial"}, False),
        ("apache-2.0", {}, False),
        ("apache-2.0", {"training": [1]}, False),
    ],
)
def test_mvtec_forbids_commercial_use(license: str, record: dict[str, object], refused: bool) -> None:
    if refused:
        with pytest.raises(InputError, match=r"MVTec AD.*allow no commercial use. Type --license cc-by-nc-sa-4\.0"):
            check_license(license, record)
    else:
        check_license(license, record)


def test_the_flag_changes_record_configuration_and_card_alike(folder: Path, tmp_path: Path) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(InputError, match='licence is "unspecified" in tabzoo.json .* type --license with one that'):
        pack(folder, REPOSITORY)
    package = pack(folder, REPOSITORY, license="cc-by-4.0")
    assert (package.record.license, package.former_license) == ("cc-by-4.0", "unspecified")
    sent = tmp_path / "sent"
    sent.mkdir()
    for name, content in package.files.items():
        (sent / name).write_bytes(content)
    read = read_folder(sent)
    assert read.record is not None
    assert (read.record.license, read.config.license) == ("cc-by-4.0", "cc-by-4.0")
    card = package.files["README.md"].decode()
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "cc-by-4.0"
    config, sent_config = json.loads(before["config.json"]), json.loads(package.files["config.json"])
    config["pretrained_cfg"]["license"] = "cc-by-4.0"
    assert sent_config == config
    assert json.loads(package.files["tabzoo.json"]) == json.loads(before["tabzoo.json"]) | {"license": "cc-by-4.0"}
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("license", ["", "a: b", "unspecified", "a\nb", "/"])
def test_a_licence_that_is_none(folder: Path, license: str) -> None:
    with pytest.raises(InputError, match="--license .*: expected an SPDX identifier"):
        pack(folder, REPOSITORY, license=license)


def test_the_command_explains_and_warns(make_folder: Callable[..., Path], tmp_path: Path, capsys: Output) -> None:
    folder = Path(shutil.copytree(make_folder(NAME), tmp_path / NAME))  # cc-by-nc-sa-4.0
    publish = ["publish", str(folder), "--repo", REPOSITORY, "--dry-run"]
    assert main([*publish, "--license", "cc-by-nc-4.0"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("Licence cc-by-nc-4.0: no commercial use; name the authors.\n")
    assert printed.err == ""
    assert main([*publish, "--license", "apache-2.0"]) == 0
    printed = capsys.readouterr()
    assert (
        "warning: the folder says cc-by-nc-sa-4.0, which allows no commercial use; apache-2.0 does not" in printed.err
    )
    assert "license: apache-2.0" in printed.out
    change_record(folder, **MVTEC)
    assert main([*publish, "--license", "apache-2.0"]) == 2
    assert (
        "error: licence apache-2.0: the weights were trained on images of MVTec AD (bottle)" in capsys.readouterr().err
    )
    assert main(publish) == 0


def test_info_explains_the_licence(capsys: Output) -> None:
    assert main(["info", "resnet18.tab_mvtec"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[2:4] == [
        "license:         cc-by-nc-sa-4.0",
        "license means:   no commercial use; name the authors, and share changed weights under the same licence",
    ]


def test_pretraining_on_mvtec_warns_of_a_licence_that_allows_more(caplog: pytest.LogCaptureFixture) -> None:
    samples = SimpleNamespace(classes=("bottle", "nut"), class_ids=np.repeat([0, 1], [209, 3]))
    for license, warned in (("apache-2.0", True), ("cc-by-nc-sa-4.0", False), ("unspecified", False)):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            _warn_of_license(samples, Recipe(license=license))  # type: ignore[arg-type]
        assert ("bottle of --data look like images of MVTec AD" in caplog.text) is warned
