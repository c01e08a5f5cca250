"""The commands of `python -m tabzoo.hub`."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from server import HubServer
from small import contents

from tabzoo.cli import main
from tabzoo.hub.record import read_record
from tabzoo.hub.table import Weights

Output = pytest.CaptureFixture[str]


def test_the_list(small_folder: Path, capsys: Output) -> None:
    assert main(["install", "test_resnet.mine", str(small_folder)]) == 0
    assert 'timm.create_model("test_resnet.mine", pretrained=True)' in capsys.readouterr().out
    assert main(["list"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["resnet18.tab_mvtec", "not", "published", "yet", "cc-by-nc-sa-4.0"] in lines
    assert ["test_resnet.mine", "installed", "cc-by-nc-sa-4.0"] in lines
    assert main(["list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["resnet18.tab_mvtec"]["release"] is None
    assert rows["test_resnet.mine"]["local"]["from"] == str(small_folder)


def test_a_broken_entry_does_not_hide_the_others(home: Path, small_folder: Path, capsys: Output) -> None:
    (home / "weights" / "resnet18.tab_mvtec").mkdir(parents=True)
    main(["install", "test_resnet.mine", str(small_folder)])
    (home / "weights" / "test_resnet.mine" / "installed.json").unlink()
    capsys.readouterr()
    assert main(["list"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [
        ["resnet18.tab_mvtec", "broken", "cc-by-nc-sa-4.0"],
        ["test_resnet.mine", "broken", "unspecified"],
    ]
    assert main(["info", "resnet18.tab_mvtec"]) == 0
    assert "tabzoo uninstall resnet18.tab_mvtec" in capsys.readouterr().out


def test_info_shows_origin_digest_and_numbers_with_their_source(small_folder: Path, capsys: Output) -> None:
    main(["install", "test_resnet.mine", str(small_folder)])
    capsys.readouterr()
    assert main(["info", "test_resnet.mine"]) == 0
    shown = capsys.readouterr().out
    digest = read_record(small_folder / "tabzoo.json").digest
    for part in (str(small_folder), digest.sha256, f"size: {digest.size}", "installed"):
        assert part in shown
    assert "\n  record:\n    name: test_resnet.tab_here\n    weights:\n      file: model.safetensors\n" in shown
    assert main(["info", "resnet18.tab_mvtec"]) == 0
    shown = capsys.readouterr().out
    assert "PaDiM, image AUROC, MVTec AD, 92.64, arXiv 2312.09480, Table 2" in shown
    assert "CC BY-NC-SA 4.0: no commercial use" in shown
    assert main(["info", "resnet18.tab_mvtec", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"][0]["value"] == 92.64


def test_download_verify_install_uninstall(
    hub: HubServer, small_folder: Path, publish: Callable[..., Weights], tmp_path: Path, capsys: Output
) -> None:
    weights = publish(small_folder)
    folder = tmp_path / "folder"
    assert main(["download", weights.name, "--to", str(folder)]) == 0
    assert f'timm.create_model("local-dir:{folder}", pretrained=True)' in capsys.readouterr().out
    assert contents(folder) == contents(small_folder)
    assert main(["verify", str(folder)]) == 0
    assert f"matches its record: {weights.name}, licence" in capsys.readouterr().out
    assert main(["verify", str(folder / "model.safetensors"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sha256"] == weights.release.sha256  # type: ignore[union-attr]
    assert main(["install", "test_resnet.offline", str(folder)]) == 0
    assert main(["uninstall", "test_resnet.offline"]) == 0
    capsys.readouterr()
    (folder / "tabzoo.json").unlink()
    assert main(["verify", str(folder / "model.safetensors")]) == 0
    assert "no tabzoo.json found" in capsys.readouterr().out
    hub.commit("acme/test_resnet.tab_ours", contents(small_folder))
    command = ["download", "test_resnet.tab_ours", "--org", "acme", "--to", str(tmp_path / "ours")]
    assert main([*command, "--cache-dir", str(tmp_path / "cache")]) == 0
    assert (tmp_path / "cache" / "models--acme--test_resnet.tab_ours").is_dir()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["info", "resnet18.tab_mvtek"], "Did you mean 'resnet18.tab_mvtec'?"),
        (["download", "resnet18.tab_mvtec", "--to", "DIR"], "these weights are not published yet"),
        (["download", "nonsense", "--to", "DIR"], "neither weights of tabzoo"),
        (["verify", "nowhere"], "the folder does not exist"),
        (["install", "resnet18.tab_mvtec", "nowhere"], "no such file or folder"),
        (["uninstall", "resnet18.tab_mvtec"], "is not installed"),
        (["uninstall", ""], "NAME: '' given"),
        (["info", ""], "NAME: '' given"),
        (["download", "", "--to", "DIR"], "NAME: '' given"),
        (["download", "resnet18.tab_mvtec", "--to", ""], "--to: '' given"),
        (["download", "resnet18.tab_mvtec", "--to", "DIR", "--org", ""], "--org: '' given"),
        (["download", "resnet18.tab_mvtec", "--to", "DIR", "--cache-dir="], "--cache-dir: '' given"),
        (["verify", ""], "DIR|FILE: '' given"),
        (["install", "resnet18.mine", ""], "FROM: '' given"),
        (["convert", "", "--to", "DIR", "--name", "resnet18.mine"], "CHECKPOINT: '' given"),
        (["convert", "FILE", "--to", "", "--name", "resnet18.mine"], "--to: '' given"),
        (["convert", "FILE", "--to", "DIR", "--name", ""], "--name: '' given"),
        (["publish", "", "--repo", "org/name"], "DIR: '' given"),
        (["publish", "DIR", "--repo", "org/name", "--results"], "--results: no value given"),
        (["publish", "DIR", "--repo", "org/name", "--results", ""], "--results: '' given"),
        (["publish", "DIR", "--repo", "org/name", "--datasets"], "--datasets: no value given"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_2(command: list[str], message: str, capsys: Output) -> None:
    assert main(command) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert message in shown.err
    assert shown.out == ""


def test_uninstall_suggests_no_other_weights_but_corrects_a_typo(small_folder: Path, capsys: Output) -> None:
    main(["install", "test_resnet.line_seven", str(small_folder)])
    capsys.readouterr()
    assert main(["uninstall", "test_resnet.oven"]) == 2
    assert capsys.readouterr().err == "error: test_resnet.oven is not installed.\n"
    assert main(["uninstall", "test_resnet.line_sevn"]) == 2
    assert "Did you mean 'test_resnet.line_seven'?" in capsys.readouterr().err


def test_unpublished_weights_name_no_argument_that_was_not_typed(tmp_path: Path, capsys: Output) -> None:
    main(["download", "resnet18.tab_mvtec", "--to", str(tmp_path / "folder")])
    first, *ways_out = capsys.readouterr().err.splitlines()
    assert first == "error: resnet18.tab_mvtec: these weights are not published yet. What you can do:"
    assert all(line.startswith("  in Python, ") for line in ways_out if "pretrained=" in line)


def test_a_repository_that_is_not_there(hub: HubServer, capsys: Output, tmp_path: Path) -> None:
    assert main(["download", "hf-hub:org/none", "--to", str(tmp_path / "folder")]) == 2
    assert "org/none@main: tabzoo.json can't be fetched" in capsys.readouterr().err
    assert not (tmp_path / "folder").exists()


FLAGS = {
    "list": ["--json"],
    "info": ["--json"],
    "download": ["--cache-dir", "--org", "--to"],
    "verify": ["--json"],
    "install": ["--state-dict"],
    "uninstall": [],
    "convert": ["--arch", "--license", "--name", "--state-dict", "--to"],
    "publish": ["--datasets", "--dry-run", "--license", "--private", "--repo", "--results", "--version"],
}


@pytest.mark.parametrize("command", FLAGS)
def test_flags_are_a_promise(command: str, capsys: Output) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    shown = re.findall(r"^[^\w-]*(--[a-z][a-z-]+)", capsys.readouterr().out, re.MULTILINE)
    assert sorted({*shown} - {"--help"}) == FLAGS[command]
