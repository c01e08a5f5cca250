"""What is written into a weights folder."""

import json
from pathlib import Path

import pytest
import timm
from timm.data import resolve_data_config

from tabzoo.errors import WriteError
from tabzoo.hub.config import timm_config
from tabzoo.hub.files import write_json
from tabzoo.hub.folder import write_folder


def test_the_configuration_is_that_of_the_images() -> None:
    model = timm.create_model("resnet18", num_classes=0)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    config = timm_config(model, license="mit", description="a test's", resize=128, crop=96, mean=mean, std=std)
    assert (config["architecture"], config["num_classes"], config["num_features"]) == ("resnet18", 0, 512)
    resolved = resolve_data_config(pretrained_cfg=config["pretrained_cfg"])
    assert (resolved["input_size"], resolved["crop_pct"]) == ((3, 96, 96), 0.75)
    assert (resolved["mean"], resolved["std"]) == (mean, std)
    assert (resolved["interpolation"], resolved["crop_mode"]) == ("lanczos", "squash")
    assert config["pretrained_cfg"]["pool_size"] == (3, 3)
    assert (config["pretrained_cfg"]["first_conv"], config["pretrained_cfg"]["license"]) == ("conv1", "mit")


def test_the_record_comes_last(tmp_path: Path) -> None:
    """It marks a folder as complete."""
    model = timm.create_model("test_resnet", num_classes=0)
    half = (0.5, 0.5, 0.5)
    config = timm_config(model, license="mit", description="a test's", mean=half, std=half)
    (tmp_path / "README.md").mkdir()  # so that the card can't be written
    with pytest.raises(WriteError, match=r"README\.md: can't be written"):
        write_folder(
            *(tmp_path, model.state_dict(), config),
            name="test_resnet.mine",
            provenance={},
            made_by="made by a test.",
            facts="",
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_json_is_written_completely_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    write_json(tmp_path / "run.json", {"steps": 1})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_json(tmp_path / "run.json", {"steps": 2})
    assert json.loads((tmp_path / "run.json").read_text()) == {"steps": 1}
