"""Tags in timm's registry."""

import copy
import json
import pickle
from pathlib import Path

import pytest
import timm
import torch
from timm.models import _registry, save_for_hf

import tabzoo
from tabzoo import cli
from tabzoo.errors import WeightsError
from tabzoo.hub import registry

NAMES = ["resnet18.tab_industrial", "resnet18.tab_mvtec"]


def test_listing_and_queries() -> None:
    assert timm.list_models("resnet18.tab_*", include_tags=True) == NAMES
    assert sorted(tabzoo.list_models()) == NAMES
    assert set(NAMES) <= set(timm.list_models("*", include_tags=True))
    assert timm.list_models("resnet18.tab_*", pretrained=True) == []  # not published
    for name in NAMES:
        assert timm.is_model(name)
        assert not timm.is_model_pretrained(name)
        config = timm.get_pretrained_cfg(name)
        assert config is not None
        assert (config.crop_mode, config.interpolation, config.crop_pct, config.num_classes) == (
            "squash",
            "lanczos",
            0.875,
            0,
        )
        assert (config.input_size, config.pool_size) == ((3, 224, 224), (7, 7))
        assert config.license
        assert "vit" not in name.lower()  # anomalib treats such names as transformers


def test_registering_twice_changes_nothing() -> None:
    def state() -> tuple[object, ...]:
        default = _registry._model_default_cfgs["resnet18"]
        return list(_registry._model_with_tags["resnet18"]), list(default.tags), set(default.cfgs)  # type: ignore[attr-defined]

    before = state()
    # timm takes the first tag as the architecture's default.
    assert (before[0][0], before[1][0]) == ("resnet18.a1_in1k", "a1_in1k")  # type: ignore[index]
    registry.register()
    assert state() == before


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{}, {"features_only": True}, {"num_classes": 7}, {"in_chans": 1}])
def test_pretrained_fails_at_once_with_the_ways_out(
    name: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr("socket.socket.connect", no_network)
    monkeypatch.setattr("socket.getaddrinfo", no_network)
    with pytest.raises(WeightsError, match="not published yet") as caught:
        timm.create_model(name, pretrained=True, **options)
    with pytest.raises(WeightsError, match="not published yet"):
        tabzoo.create_model(name, **options)
    for way_out in (f"tabzoo install {name} CHECKPOINT", f"--recipe {name}", "local-dir:", "pretrained=False"):
        assert way_out in str(caught.value)


def test_without_weights_it_is_any_timm_model() -> None:
    image = torch.rand(2, 3, 64, 64)
    embedding = timm.create_model("resnet18.tab_mvtec").eval()(image)
    assert embedding.shape == (2, 512)
    maps = timm.create_model("resnet18.tab_mvtec", features_only=True, out_indices=(1, 2, 3)).eval()(image)
    assert [tuple(map_.shape[1:]) for map_ in maps] == [(64, 16, 16), (128, 8, 8), (256, 4, 4)]
    assert timm.create_model("resnet18.tab_mvtec", num_classes=5).eval()(image).shape == (2, 5)
    assert timm.create_model("resnet18.tab_mvtec", in_chans=1).eval()(image[:, :1]).shape == (2, 512)
    assert timm.create_model("resnet18", pretrained_cfg="tab_mvtec").pretrained_cfg["tag"] == "tab_mvtec"


def test_models_can_be_copied_and_saved(tmp_path: Path) -> None:
    model = timm.create_model("resnet18.tab_mvtec")
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert repr(twin.pretrained_cfg["file"]) == "tabzoo weights resnet18.tab_mvtec"
    save_for_hf(model, tmp_path, safe_serialization=True)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["pretrained_cfg"]["tag"] == "tab_mvtec"
    assert "file" not in config["pretrained_cfg"]
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert torch.equal(again.conv1.weight, model.conv1.weight)


def test_a_given_file_replaces_the_lazy_path(tmp_path: Path) -> None:
    model = timm.create_model("resnet18.tab_mvtec")
    torch.save(model.state_dict(), tmp_path / "own.pth")
    loaded = timm.create_model(
        "resnet18.tab_mvtec", pretrained=True, pretrained_cfg_overlay={"file": str(tmp_path / "own.pth")}
    )
    assert torch.equal(loaded.conv1.weight, model.conv1.weight)


def test_an_unknown_registry_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_registry, "_model_has_pretrained", [])
    with pytest.raises(WeightsError, match=rf"timm {timm.__version__} keeps its model registry"):
        registry.register()


def test_console_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    assert "resnet18.tab_mvtec" in capsys.readouterr().out
    assert cli.main(["--help"]) == 0
    assert cli.main(["nonsense"]) == 2
