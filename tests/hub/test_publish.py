"""Publishing to a Hub on this machine, and reading back."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import constants
from safetensors.torch import load_file
from server import Fault, HubServer
from small import rows
from torch import nn
from uploads import TOKEN, UploadHandler

import tabzoo
from tabzoo.errors import InputError, WeightsError
from tabzoo.hub.__main__ import main
from tabzoo.hub.card import read_results
from tabzoo.hub.publish import pack, publish
from tabzoo.hub.table import WEIGHTS, Release

NAME = "test_resnet.tab_here"  # timm's smallest ResNet
REPOSITORY = f"org/{NAME}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub that takes uploads, with its token in the environment; huggingface_hub waits for nothing between tries."""
    with HubServer(UploadHandler).running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        # What an older huggingface_hub makes of HF_ENDPOINT when it is imported.
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        template = f"{server.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        for place in ("constants", "file_download"):
            monkeypatch.setattr(f"huggingface_hub.{place}.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
        monkeypatch.setattr("time.sleep", lambda _: None)
        yield server


@pytest.fixture
def folder(small_folder: Path, tmp_path: Path) -> Path:
    """A weights folder with more in it than is published."""
    folder = shutil.copytree(small_folder, tmp_path / NAME)
    (folder / "recipe.yaml").write_text("epochs: 2\n")
    (folder / "image_hashes.txt").write_text("00000000000000a1\n")
    (folder / "run.json").write_text('{"data": "/home/somebody/images"}')
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "step_00000001.pt").write_bytes(b"a pickle")
    (folder / "figures").mkdir()
    (folder / "figures" / "curves.png").write_bytes(b"\x89PNG curves")
    return folder


def replace_by_link(path: Path) -> None:
    """Moves a file or folder elsewhere and links to it."""
    path.rename(path.parents[1] / "elsewhere")
    path.symlink_to(path.parents[1] / "elsewhere")


def held(hub: HubServer, revision: str) -> dict[str, bytes]:
    repository = hub.repositories[REPOSITORY]
    return repository.commits[repository.refs.get(revision, revision)]


def assert_equal(model: nn.Module, folder: Path) -> None:
    saved, held = load_file(folder / "model.safetensors"), model.state_dict()
    assert saved.keys() == held.keys()
    assert all(torch.equal(value, held[key]) for key, value in saved.items())


def test_published_files_are_those_of_the_folder_and_load(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    commit = publish(pack(folder, REPOSITORY))
    repository = hub.repositories[REPOSITORY]
    assert repository.refs == {"main": commit, "v1": commit}
    files = held(hub, "v1")
    assert sorted(files) == [
        *(".gitattributes", "README.md", "config.json", "figures/curves.png", "image_hashes.txt", "model.safetensors"),
        *("recipe.yaml", "tabzoo.json"),
    ]
    for name in (
        "config.json",
        "figures/curves.png",
        "image_hashes.txt",
        "model.safetensors",
        "recipe.yaml",
        "tabzoo.json",
    ):
        assert files[name] == (folder / name).read_bytes()
    model = tabzoo.create_model(f"hf-hub:{REPOSITORY}@{commit}", cache_dir=tmp_path)
    assert_equal(model, folder)


def test_the_same_again_changes_nothing_and_another_content_is_refused(
    hub: HubServer, folder: Path, make_folder: Callable[..., Path]
) -> None:
    first = publish(pack(folder, REPOSITORY))
    before = dict(hub.repositories[REPOSITORY].refs)
    assert publish(pack(folder, REPOSITORY)) == first
    other = make_folder(NAME, seed=7)
    with pytest.raises(
        WeightsError, match=rf"v1 exists already \(commit {first}\), with another model\.safetensors.*--version"
    ):
        publish(pack(other, REPOSITORY))
    assert hub.repositories[REPOSITORY].refs == before
    second = publish(pack(other, REPOSITORY, version="v2"))
    assert hub.repositories[REPOSITORY].refs == {"main": second, "v1": first, "v2": second}
    assert held(hub, "v1")["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    with pytest.raises(WeightsError, match=rf"v1 exists already \(commit {first}\)"):  # which is no longer the newest
        publish(pack(other, REPOSITORY))
    assert hub.repositories[REPOSITORY].refs == {"main": second, "v1": first, "v2": second}


def test_a_version_gets_no_more_files(hub: HubServer, folder: Path) -> None:
    publish(pack(folder, REPOSITORY))
    before = dict(hub.repositories[REPOSITORY].refs)
    (folder / "figures" / "samples.png").write_bytes(b"\x89PNG samples")
    with pytest.raises(WeightsError, match=r"v1 exists already .*, with another figures/samples\.png"):
        publish(pack(folder, REPOSITORY))
    assert hub.repositories[REPOSITORY].refs == before


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("PUT /blobs/", status=400), "the upload was interrupted"),
        (Fault("PUT /blobs/", silence=threading.Event()), "the upload was interrupted"),
        (Fault("POST /api/models/org/test_resnet.tab_here/commit", status=500), "answers .*The same command continues"),
        (Fault("POST /api/models/org/test_resnet.tab_here/tag", status=500), "answers .*The same command continues"),
        # The commit is made and its answer lost.
        (Fault("POST /api/models/org/test_resnet.tab_here/commit", cut=3), "the upload was interrupted"),
    ],
)
def test_an_interrupted_upload_leaves_no_version_and_continues(
    hub: HubServer, folder: Path, fault: Fault, reason: str
) -> None:
    if fault.silence:
        fault.silence.set()  # the connection breaks at once
    hub.faults = [fault]
    with pytest.raises(WeightsError, match=f"{REPOSITORY}: .*{reason}"):
        publish(pack(folder, REPOSITORY))
    assert set(hub.repositories[REPOSITORY].refs) == {"main"}
    hub.faults = []
    commit = publish(pack(folder, REPOSITORY))
    assert held(hub, "v1")["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert hub.repositories[REPOSITORY].refs["v1"] == commit
    assert len(hub.repositories[REPOSITORY].commits) == 2  # the empty one and this


def test_a_killed_upload_continues(hub: HubServer, folder: Path) -> None:
    arrived, never = threading.Event(), threading.Event()

    class Killing(Fault):
        def __getattribute__(self, name: str) -> Any:
            if name == "silence":
                arrived.set()
            return super().__getattribute__(name)

    hub.faults = [Killing("PUT /blobs/", silence=never)]
    package = pack(folder, REPOSITORY)
    uploader = multiprocessing.get_context("fork").Process(target=lambda: publish(package))
    uploader.start()
    try:
        assert arrived.wait(120)
    finally:
        uploader.kill()
        uploader.join()
    never.set()
    assert uploader.exitcode == -signal.SIGKILL
    assert set(hub.repositories[REPOSITORY].refs) == {"main"}
    hub.faults = []
    publish(package)
    assert held(hub, "v1")["model.safetensors"] == (folder / "model.safetensors").read_bytes()


def test_bytes_that_come_back_changed_are_not_tagged(hub: HubServer, folder: Path) -> None:
    hub.faults = [Fault("GET /blobs/", body=lambda content: content[:-1] + b"!")]
    with pytest.raises(WeightsError, match=r"figures/curves\.png.* came back .* not tagged") as caught:
        publish(pack(folder, REPOSITORY))
    assert "model.safetensors" in str(caught.value)
    assert set(hub.repositories[REPOSITORY].refs) == {"main"}


def test_a_repository_with_a_pickle_is_left_alone(hub: HubServer, folder: Path) -> None:
    hub.commit(REPOSITORY, {"pytorch_model.bin": b"code"})
    with pytest.raises(WeightsError, match=r"contains pytorch_model\.bin, .*execute code"):
        publish(pack(folder, REPOSITORY))
    assert len(hub.repositories[REPOSITORY].commits) == 1


def test_a_change_from_elsewhere_meanwhile(hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = UploadHandler._ask

    def ask(self: UploadHandler, path: str) -> Any:
        if "/commit/" in path:
            self.server.commit(REPOSITORY, {"README.md": b"another's"})
        return original(self, path)

    monkeypatch.setattr(UploadHandler, "_ask", ask)
    with pytest.raises(WeightsError, match="someone else changed it"):
        publish(pack(folder, REPOSITORY))


def test_private_login_and_no_answer(hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(pack(folder, REPOSITORY), private=True)
    assert hub.repositories[REPOSITORY].private
    hub.repositories[REPOSITORY].private = False
    with pytest.raises(WeightsError, match="exists and is public"):
        publish(pack(folder, REPOSITORY, version="v2"), private=True)
    hub.faults = [Fault("POST /api/models/org/test_resnet.tab_here/preupload", status=403)]
    with pytest.raises(WeightsError, match="token may not write there"):
        publish(pack(folder, REPOSITORY, version="v2"))
    hub.faults = []
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(WeightsError, match="login required: `hf auth login`, or HF_TOKEN"):
        publish(pack(folder, REPOSITORY, version="v2"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match=r"127\.0\.0\.1:9 does not answer"):
        publish(pack(folder, REPOSITORY))


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        *(
            (lambda folder, name=f"model.{ending}": (folder / name).write_bytes(b"code"), rf"contains model\.{ending};")
            for ending in ("bin", "ckpt", "pkl", "pickle", "pt", "pth")
        ),
        (lambda folder: change_json(folder / "tabzoo.json", license="unspecified"), 'licence is "unspecified"'),
        (lambda folder: change_json(folder / "tabzoo.json", license="mit"), '"mit" in tabzoo.json and "cc-by'),
        (
            lambda folder: change_json(folder / "tabzoo.json", name="resnet18.other"),
            "describes resnet18.other, but",
        ),
        (lambda folder: change_json(folder / "tabzoo.json", data="/home/me/images"), "an absolute path, /home/me"),
        (lambda folder: (folder / "recipe.yaml").write_text(r"data: C:\images"), r"an absolute path, C:\\images"),
        (lambda folder: (folder / "recipe.yaml").write_text("data: 'D:/images'"), "an absolute path, D:/images"),
        (lambda folder: (folder / "recipe.yaml").write_text(r"data: \\nas\images"), r"an absolute path, \\\\nas"),
        (lambda folder: change_json(folder / "tabzoo.json", data=r"\\nas\images"), r"an absolute path, \\\\"),
        (lambda folder: append(folder / "README.md", "Trained on /data/images.\n"), "an absolute path, /data/images"),
        (
            lambda folder: replace_by_link(folder / "recipe.yaml"),
            "recipe.yaml: a link, which might publish a file from",
        ),
        (lambda folder: replace_by_link(folder / "figures"), "figures/curves.png: a link, which might publish"),
        (lambda folder: append(folder / "metrics.jsonl", '{"data": "file:///x"}\n'), "an absolute path, file://"),
        (lambda folder: (folder / "README.md").unlink(), "expected the card"),
        (lambda folder: (folder / "README.md").write_text(f"---\na: [\n---\n# {NAME}\n"), "metadata .* can't be read"),
        (lambda folder: os.truncate(folder / "model.safetensors", 1000), "wrong size"),
        (lambda folder: (folder / "tabzoo.json").unlink(), "tabzoo.json"),
    ],
)
def test_folders_that_can_not_be_published(folder: Path, change: Callable[[Path], object], reason: str) -> None:
    change(folder)
    with pytest.raises((InputError, WeightsError), match=reason):
        pack(folder, REPOSITORY)


def test_names_and_versions(folder: Path, tmp_path: Path) -> None:
    for repository in ("org/resnet18.other", NAME, f"org/team/{NAME}", f"/{NAME}"):
        with pytest.raises(InputError, match="expected ORGANISATION/test_resnet.tab_here"):
            pack(folder, repository)
    for version in ("a b", "", "main", "0" * 40, "v1..2", "v1.", "-v1", "v1.lock"):
        with pytest.raises(InputError, match=f"--version {version}: expected"):
            pack(folder, REPOSITORY, version=version)
    with pytest.raises(InputError, match="expected a weights folder"):
        pack(tmp_path / "none", REPOSITORY)


# --- the card


def test_the_card_shows_the_results(folder: Path, tmp_path: Path) -> None:
    measured = rows(
        tmp_path / "results.jsonl",
        [
            {"seed": 0, "image_auroc": 0.9},
            {"seed": 1, "image_auroc": 1.0, "transductive": True},
            {"class": "cable", "image_auroc": 0.75, "pixel_auroc": None},
            {"class": "cable", "image_auroc": 0.0, "backbone": "random"},
            {"class": "cable", "image_auroc": 0.0, "test": "synthetic:perlin"},
            {"method": "regad", "shots": 4, "image_auroc": 0.5},
        ],
    )
    package = pack(folder, REPOSITORY, version="v3", results=[measured], datasets=["mvtec_ad"])
    _, metadata, body = package.files["README.md"].decode().split("---\n", 2)
    values = yaml.safe_load(metadata)
    assert (values["library_name"], values["license"], values["datasets"]) == ("timm", "cc-by-nc-sa-4.0", ["mvtec_ad"])
    assert "anomaly-detection" in values["tags"]
    (index,) = values["model-index"]
    assert index["name"] == NAME
    (result,) = index["results"]
    assert result["dataset"]["name"] == "mvtec"
    assert {metric["name"]: metric["value"] for metric in result["metrics"]} == {
        "image AUROC of padim, all good images (%)": 82.5,  # (90 + 75) / 2, of the seed that both classes have
        "pixel AUROC of padim, all good images (%)": 80.0,
        "image AUROC of regad, 4 good images (%)": 50.0,
        "pixel AUROC of regad, 4 good images (%)": 80.0,
    }
    assert "| mvtec | padim | all good images | yes | 2 | 1 | 82.50 | 80.00 | - | 100.0 to 100.0 |" in body
    assert f'timm.create_model("hf-hub:{REPOSITORY}@v3", pretrained=True, features_only=True)' in body
    assert "FOLDER" not in body
    assert (folder / "README.md").read_text() != package.files["README.md"].decode()


def test_short_trainings_and_replaced_rows(tmp_path: Path) -> None:
    quick = {"method": "rd4ad", "settings": {"steps": 60}}
    values = [
        {"key": "a" * 16, "image_auroc": 0.1, "method": "simplenet", "settings": {"steps": None}},
        {"key": "a" * 16, "image_auroc": 0.8, "method": "simplenet", "settings": {"steps": None}},  # measured again
        {"key": "b" * 16, "image_auroc": 0.6, **quick},
        {"key": "c" * 16, "image_auroc": 0.9, "method": "rd4ad", "settings": {"steps": None}},
    ]
    found = read_results([rows(tmp_path / "results.jsonl", values)], [NAME])
    expected = {"rd4ad": 90.0, "rd4ad, 60 steps": 60.0, "simplenet": 80.0}
    assert {result.method: result.metrics["image_auroc"] for result in found} == pytest.approx(expected)


def test_the_card_shows_the_licence_of_the_record(folder: Path) -> None:
    card = folder / "README.md"
    for end in (". It must not allow more than the licence of the training images does.", ".", ""):
        text = f"# {NAME}\n\n- Licence of the weights: unspecified{end}\n- More.\n"
        card.write_text(f"---\nlicense: other\n---\n{text}")
        published = pack(folder, REPOSITORY).files["README.md"].decode()
        assert "license: cc-by-nc-sa-4.0\n" in published
        assert f"\n- Licence of the weights: cc-by-nc-sa-4.0{end}\n- More.\n" in published


def test_results_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    for write, reason in (
        (lambda: rows(path, [{"backbone": "random"}]), f"no row .* {NAME}; it holds rows of random"),
        (lambda: rows(path, [{}, {}]), r"more than one row for class and seed \('bottle', 0\)"),
        (lambda: path.write_text("{}\n"), "lacks aupro, backbone"),
        (lambda: path.write_text("no json\n"), "expected the benchmark's results.jsonl"),
        (lambda: path.write_text("[1]\n"), "expected the benchmark's results.jsonl"),
        (path.unlink, "expected the benchmark's results.jsonl"),
    ):
        write()
        with pytest.raises(InputError, match=reason):
            pack(folder, REPOSITORY, results=[tmp_path])


# --- the command line


def run(*arguments: str) -> int:
    return main(["publish", *arguments])


def test_dry_run_asks_nothing_of_the_hub(hub: HubServer, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(folder), "--repo", REPOSITORY, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "library_name: timm" in shown
    assert "run.json" not in shown
    assert "Nothing was sent" in shown
    assert hub.requests == []
    assert run(str(folder), "--repo", "nonsense", "--dry-run") == 2
    assert "error: --repo nonsense: expected" in capsys.readouterr().err


def test_a_demo_ends_with_a_warning(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text, warned in (({"pretrained": "untrained"}, True), ({"pretrained": "laion400m_e32"}, False), ("x", False)):
        change_json(folder / "tabzoo.json", text=text)
        assert run(str(folder), "--repo", REPOSITORY, "--dry-run") == 0
        assert (f"warning: the text tower of {NAME} was untrained" in capsys.readouterr().err) is warned


def test_the_printed_entry_is_that_of_published_weights(
    hub: HubServer, folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(str(folder), "--repo", REPOSITORY) == 0
    printed = capsys.readouterr().out
    entry = printed[printed.index("release=") :].strip().removesuffix(",")
    release = eval(entry.removeprefix("release="), {"Release": Release})
    weights = replace(WEIGHTS[0], name=NAME, release=release)
    monkeypatch.setattr("tabzoo.hub.table.WEIGHTS", (weights,))
    monkeypatch.setenv("TABZOO_HOME", str(tmp_path / "home"))
    model = tabzoo.create_model(NAME, cache_dir=tmp_path / "cache")
    assert_equal(model, folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 93, "0.9"])
def test_results_are_numbers_from_0_to_1(value: object, tmp_path: Path) -> None:
    measured = rows(tmp_path / "results.jsonl", [{"image_auroc": value}])
    with pytest.raises(InputError, match="image_auroc is .*expected a number from 0 to 1"):
        read_results([measured], [NAME])


def test_no_room_to_read_back(hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tabzoo.hub.publish.hf_hub_download", full)
    with pytest.raises(
        WeightsError, match=r"/\S+ can't be written to: No space left on device\..* No version is tagged"
    ):
        publish(pack(folder, REPOSITORY))
    assert "v1" not in hub.repositories[REPOSITORY].refs
