"""What is known of a backbone from its folder."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tabzoo.benchmark.backbones import find_backbones, unseen_synthesis
from tabzoo.errors import InputError, WeightsError
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
        assert backbone.trained_on == {"nut": 16, "bolt": 9}


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
    with pytest.raises(InputError, match="not what a run of tabzoo writes"):
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
    assert find_backbones([str(folder)])[0].trained_on == {"nut": 3}
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(WeightsError, match=f"--backbone {folder}: model.safetensors was changed: its SHA-256 is"):
        find_backbones([str(folder)])
    (folder / "tabzoo.json").unlink()
    assert find_backbones([str(folder)])[0].trained_on == {}
