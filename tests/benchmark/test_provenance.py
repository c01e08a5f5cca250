"""What is known of a backbone from its folder."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tabzoo.benchmark.paper import OBJECTS, TEXTURES
from tabzoo.benchmark.provenance import find_backbones, unseen_synthesis
from tabzoo.errors import InputError, WeightsError
from tabzoo.hub.load import install
from tabzoo.training.recipe import Recipe


def make_run(folder: Path, **changes: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "tabzoo.json").write_text(json.dumps({"training": {"classes": {"nut": 16, "bolt": 9}}}))
    (folder / "recipe.yaml").write_text(Recipe(**changes).to_yaml())  # type: ignore[arg-type]
    return folder


def test_a_run_says_what_it_was_trained_on(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "mine", synthesis="perlin")
    for name in (str(folder), f"local-dir:{folder}"):
        (backbone,) = find_backbones([name])
        assert (backbone.name, backbone.syntheses) == ("mine", ("perlin",))
        assert backbone.trained_on == ("nut", "bolt")
        assert backbone.saw("bolt", np.array([1], np.uint64))  # by its name, without hashes


def test_other_names_stay_as_they_are() -> None:
    names = ["random", "resnet18.tv_in1k", "hf-hub:some/backbone"]
    assert [backbone.name for backbone in find_backbones(names)] == names
    assert not any(backbone.trained_on or backbone.syntheses for backbone in find_backbones(names))


def test_folders_of_one_name_go_by_their_paths(tmp_path: Path) -> None:
    folders = [str(make_run(tmp_path / part / "out")) for part in "ab"]
    assert [backbone.name for backbone in find_backbones([*folders, "random"])] == [*folders, "random"]


def test_mistakes(tmp_path: Path) -> None:
    make_run(tmp_path / "mine")
    with pytest.raises(InputError, match=r"no such folder\. Did you mean 'mine'"):
        find_backbones([str(tmp_path / "mime")])
    with pytest.raises(InputError, match="random is given more than once"):
        find_backbones(["random", "random"])
    (tmp_path / "mine" / "tabzoo.json").write_text("{}")
    with pytest.raises(InputError, match="not written by a run of tabzoo"):
        find_backbones([str(tmp_path / "mine")])


def test_synthetic_tests_are_of_a_kind_that_is_new_to_all(tmp_path: Path) -> None:
    kinds = {"a": {"synthesis": "nsa"}, "b": {"synthesis": "mix", "mix_weights": {"cutpaste": 1.0, "nsa": 1.0}}}
    backbones = find_backbones([str(make_run(tmp_path / name, **recipe)) for name, recipe in kinds.items()])
    assert unseen_synthesis(backbones[:1]) == "cutpaste"
    assert unseen_synthesis(backbones) == "perlin"
    assert unseen_synthesis([]) == "nsa"
    everything = find_backbones([str(make_run(tmp_path / "c", synthesis="mix"))])
    with pytest.raises(InputError, match="every kind of anomaly"):
        unseen_synthesis(everything)


def test_weights_that_were_changed_are_refused(make_folder: Callable[..., Path]) -> None:
    """They would be measured under the name, classes and anomalies of the record."""
    folder = make_folder("test_resnet.mine")
    record = json.loads((folder / "tabzoo.json").read_text()) | {"training": {"classes": {"nut": 3}}}
    (folder / "tabzoo.json").write_text(json.dumps(record))
    assert find_backbones([str(folder)])[0].trained_on == ("nut",)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(WeightsError, match=f"--backbone {folder}: model.safetensors was changed: its SHA-256 is"):
        find_backbones([str(folder)])
    (folder / "tabzoo.json").unlink()
    assert find_backbones([str(folder)])[0].trained_on == ()


def test_images_that_were_seen_are_known_by_their_contents(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "mine")
    hashes = folder / "image_hashes.txt"
    hashes.write_text("00000000000000a1\nf0000000000000b2\n")
    record = {"classes": {"nut": 2}, "image_hashes_sha256": hashlib.sha256(hashes.read_bytes()).hexdigest()}
    (folder / "tabzoo.json").write_text(json.dumps({"training": record}))
    (backbone,) = find_backbones([str(folder)])
    assert backbone.saw("screw", np.array([5, 0xF0000000000000B2], np.uint64))  # whatever the class is called
    assert not backbone.saw("nut", np.array([5, 0xB2], np.uint64))
    hashes.write_text("00000000000000a1\n")
    with pytest.raises(WeightsError, match=r"image_hashes\.txt was changed: its SHA-256 is"):
        find_backbones([str(folder)])
    hashes.unlink()  # as in copies by older versions
    assert find_backbones([str(folder)])[0].saw("nut", np.array([5], np.uint64))
    hashes.write_text("torn")
    record["image_hashes_sha256"] = hashlib.sha256(b"torn").hexdigest()
    (folder / "tabzoo.json").write_text(json.dumps({"training": record}))
    with pytest.raises(InputError, match=r"image_hashes\.txt: not written by a run of tabzoo"):
        find_backbones([str(folder)])


def test_weights_without_a_runs_record_are_known_by_their_name(tmp_path: Path) -> None:
    mvtec = (*TEXTURES, *OBJECTS)
    for name in ("resnet18.tab_mvtec", "hf-hub:some/resnet18.tab_mvtec@v1"):
        assert find_backbones([name])[0].trained_on == mvtec
    converted = tmp_path / "converted"
    converted.mkdir()
    record: dict[str, object] = {"name": "resnet18.tab_mvtec", "converted_from": {"file": "theirs.pth"}}
    (converted / "tabzoo.json").write_text(json.dumps(record))
    assert find_backbones([str(converted)])[0].trained_on == mvtec
    (converted / "tabzoo.json").write_text(json.dumps(record | {"name": "resnet18.other"}))
    assert find_backbones([str(converted)])[0].trained_on == ()


def test_installed_weights_say_what_their_folder_says(home: Path, make_folder: Callable[..., Path]) -> None:
    folder = make_folder("test_resnet.mine")
    hashes = folder / "image_hashes.txt"
    hashes.write_text("00000000000000a1\n")
    training = {"classes": {"nut": 1}, "image_hashes_sha256": hashlib.sha256(hashes.read_bytes()).hexdigest()}
    record = json.loads((folder / "tabzoo.json").read_text()) | {"training": training}
    (folder / "tabzoo.json").write_text(json.dumps(record))
    (folder / "recipe.yaml").write_text(Recipe(synthesis="perlin").to_yaml())
    install("test_resnet.mine", folder)
    (backbone,) = find_backbones(["test_resnet.mine"])
    assert (backbone.name, backbone.source) == ("test_resnet.mine", "test_resnet.mine")
    assert (backbone.trained_on, backbone.syntheses) == (("nut",), ("perlin",))
    assert backbone.saw("any", np.array([0xA1], np.uint64))


def test_kinds_of_anomalies_are_in_the_record_and_else_in_the_recipe(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "mine", synthesis="mix")
    assert find_backbones([str(folder)])[0].syntheses == ("nsa", "cutpaste", "perlin", "mask")  # of an older version
    (folder / "tabzoo.json").write_text(json.dumps({"training": {"classes": {"nut": 1}, "syntheses": ["nsa", "mask"]}}))
    assert find_backbones([str(folder)])[0].syntheses == ("nsa", "mask")
    (folder / "tabzoo.json").write_text(json.dumps({"training": {"classes": {"nut": 1}}}))
    for text, why in (("- no recipe", ""), ("synthesis: &a mix\nmix_weights: [*a]", ".*aliases")):
        (folder / "recipe.yaml").write_text(text)
        with pytest.raises(InputError, match=rf"recipe\.yaml: not written by a run of tabzoo{why}"):
            find_backbones([str(folder)])
