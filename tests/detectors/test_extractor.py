"""Feature maps of backbones, however they are named."""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from timm.models import save_for_hf

from tabzoo.backbones import build_backbone
from tabzoo.detectors.extractor import build_extractor
from tabzoo.errors import InputError, WeightsError

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves: weights and timm's configuration."""
    path = tmp_path_factory.mktemp("weights") / "run"
    torch.manual_seed(5)
    save_for_hf(timm.create_model("test_resnet", num_classes=0), path, safe_serialization=True)
    return path


def test_layers_by_index_name_and_stride(folder: Path) -> None:
    whole = timm.create_model(f"local-dir:{folder}", pretrained=True, features_only=True).eval()
    expected = whole(IMAGES)
    for layers in (("1", "layer2", "/16"), ("layer1", "/8", "3")):
        extractor = build_extractor(str(folder), layers=layers)
        maps = extractor(IMAGES)
        assert extractor.channels == {"layer1": 32, "layer2": 48, "layer3": 192}
        assert list(maps) == ["layer1", "layer2", "layer3"]
        for ours, theirs in zip(maps.values(), expected[1:4], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "efficientnet_lite0", "convnext_atto", "regnetx_002"])
def test_strides_of_any_cnn(name: str) -> None:
    extractor = build_extractor(f"random:{name}", layers=("/4", "/8", "/16"))
    maps = extractor(IMAGES)
    assert [value.shape[-1] for value in maps.values()] == [16, 8, 4]
    assert {layer: value.shape[1] for layer, value in maps.items()} == extractor.channels


def test_random_is_what_training_from_scratch_starts_from() -> None:
    start = build_backbone("resnet18", init="random", seed=7).state_dict()
    extractor = build_extractor("random", layers=("/16",), seed=7)
    for key, value in extractor.body.state_dict().items():
        assert torch.equal(value, start[key])
    small = [build_extractor("random:test_resnet", layers=("/16",), seed=seed).sha256() for seed in (7, 7, 8)]
    assert small[0] == small[1] != small[2]


def test_weights_that_training_left_as_drawn_are_not_taken_for_missing(tmp_path: Path) -> None:
    save_for_hf(build_backbone("test_resnet", init="random", seed=7), tmp_path / "run", safe_serialization=True)
    kept = build_extractor(str(tmp_path / "run"), layers=("/16",), seed=7)
    assert kept.sha256() == build_extractor("random:test_resnet", layers=("/16",), seed=7).sha256()


def test_the_extractor_is_frozen(folder: Path) -> None:
    extractor = build_extractor(f"local-dir:{folder}", layers=("2",)).train()
    assert not any(module.training for module in extractor.modules())
    assert not any(parameter.requires_grad for parameter in extractor.parameters())
    before = extractor.sha256()
    extractor(IMAGES)
    assert extractor.sha256() == before


def test_statistics_are_the_backbones(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["pretrained_cfg"]["mean"] == [0.5] * 3
    config["pretrained_cfg"] |= {"mean": [0.4, 0.5, 0.6], "std": [0.25, 0.25, 0.3]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    extractor = build_extractor(str(tmp_path), layers=("1",))
    assert extractor.mean == (0.4, 0.5, 0.6)
    assert extractor.std == (0.25, 0.25, 0.3)


def test_faster_forms_give_nearly_the_same() -> None:
    plain, fast = (
        build_extractor("random:test_resnet", layers=("/8", "/16"), amp=flag, channels_last=flag)(IMAGES)
        for flag in (False, True)
    )
    for name, value in plain.items():
        assert fast[name].dtype == torch.float32
        assert torch.equal(fast[name], fast[name].bfloat16().float())  # computed in bfloat16
        assert float((fast[name] - value).norm() / value.norm()) < 0.02


@pytest.mark.parametrize(
    ("name", "layers", "message"),
    [
        ("resnet81", ("1",), "timm has no such model. Did you mean 'resnet18'"),
        ("random:resnet81", ("1",), "timm has no such model. Did you mean 'resnet18'"),
        ("random", ("layer9",), r"layer layer9: random has 0 = act1 \(/2\), 1 = layer1 \(/4\), .*Did you mean 'layer"),
        ("random", ("2", "layer2"), "each layer once, in the order"),
        ("random", ("3", "2"), "each layer once, in the order"),
        ("random", (), "none given"),
        ("local-dir:nowhere", ("1",), "no such folder"),
    ],
)
def test_mistakes(name: str, layers: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_extractor(name, layers=layers)


def test_folders_that_do_not_do(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config.json in this folder. Give the output folder of a finished run"):
        build_extractor(str(tmp_path), layers=("1",))
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(InputError, match=r"no model.safetensors"):
        build_extractor(str(tmp_path), layers=("1",))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match="can't be loaded"):
        build_extractor(str(tmp_path), layers=("1",))


def test_weights_that_would_stay_random_unnoticed(folder: Path, tmp_path: Path) -> None:
    state = safetensors.torch.load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["num_classes"] = 1000  # As of an ImageNet model: then timm does not load strictly.
    (tmp_path / "config.json").write_text(json.dumps(config))
    for broken in (
        {key: value for key, value in state.items() if key != "layer2.0.conv2.weight"},
        {f"backbone.{key}": value for key, value in state.items()},
    ):
        safetensors.torch.save_file(broken, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(WeightsError, match=r"do not fit its architecture"):
            build_extractor(str(tmp_path), layers=("2",))


def test_a_repository_that_cannot_be_reached_is_not_asked_again_and_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """huggingface_hub would try for half a minute; a cached copy of the revision is used at once."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("timm.create_model", None)
    for name in ("hf-hub:org/name", "hf-hub:org/name@v1", "random:hf-hub:org/name"):
        with pytest.raises(WeightsError, match=f"weights of {name} can't be loaded: .*127.0.0.1:9 does not answer"):
            build_extractor(name, layers=("1",))
    with pytest.raises(WeightsError, match="the initial weights of hf-hub:org/name can't be loaded: .*does not answer"):
        build_backbone("hf-hub:org/name", init="pretrained", seed=0)
    with pytest.raises(WeightsError, match="weights of hf-hub:a b can't be loaded: Repo id must"):
        build_extractor("hf-hub:a b", layers=("1",))
    monkeypatch.undo()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "v1").write_text("a" * 40)
    shutil.copytree(folder, repository / "snapshots" / ("a" * 40))
    with pytest.raises(WeightsError, match="the Hub cache holds no copy of org/name"):  # of its main branch
        build_extractor("hf-hub:org/name", layers=("1",))
    of_folder = build_extractor(str(folder), layers=("1",)).sha256()
    assert build_extractor("hf-hub:org/name@v1", layers=("1",)).sha256() == of_folder


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("tabzoo.hub.remote.try_to_load_from_cache", lambda *_: None)
    with pytest.raises(WeightsError, match=r"resnet18.tv_in1k.* can't be loaded: .*does not answer"):
        build_extractor("resnet18.tv_in1k", layers=("1",))
    with pytest.raises(WeightsError, match="not published yet"):
        build_extractor("resnet18.tab_mvtec", layers=("1",))


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    expected = build_extractor("random", layers=("/16",))(IMAGES)["layer3"]
    ours = build_extractor("random", layers=("/16",), device="cuda")(IMAGES.cuda())["layer3"].cpu()
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)
