"""Image encoders: any timm CNN, started anyhow."""

from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision

from tabzoo.backbones import build_backbone, embedding_width
from tabzoo.errors import InputError, WeightsError


@pytest.mark.parametrize(
    ("name", "width"), [("resnet18.tv_in1k", 512), ("resnet50", 2048), ("mobilenetv3_small_100", 1024)]
)
def test_widths(name: str, width: int) -> None:
    backbone = build_backbone(name, init="random", seed=0)
    assert embedding_width(backbone, 64) == width
    assert not [key for key in backbone.state_dict() if key.startswith(("fc.", "classifier."))]


@pytest.mark.parametrize("training", [True, False])
def test_asking_for_the_width_changes_nothing(training: bool) -> None:
    backbone = build_backbone("test_resnet", init="random", seed=0).train(training)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    embedding_width(backbone, 32)
    assert backbone.training is training
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_models_that_give_no_embedding() -> None:
    with pytest.raises(InputError, match="does not give one embedding per image"):
        embedding_width(torch.nn.Conv2d(3, 4, 1), 8)
    with pytest.raises(InputError, match="does not take images of 8 x 8 px"):
        embedding_width(torch.nn.Linear(5, 5), 8)


def test_random_weights_follow_the_seed_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, again, other = (build_backbone("test_resnet", init="random", seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)  # the caller's random numbers go on as if nothing had been drawn
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv1.0.weight"], other["conv1.0.weight"])


def test_from_files(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet18().eval()
    # torch < 0.4.1 did not save the counters of batch-norm.
    state = {key: value for key, value in theirs.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "torchvision.pth")
    theirs.fc = torch.nn.Identity()
    image = torch.rand(2, 3, 32, 32)
    ours = build_backbone("resnet18.tv_in1k", init=str(tmp_path / "torchvision.pth"), seed=0).eval()
    torch.testing.assert_close(ours(image), theirs(image), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])  # their classifiers have different names
def test_from_timms_own_files(tmp_path: Path, name: str) -> None:
    stock = timm.create_model(name).eval()
    safetensors.torch.save_file(stock.state_dict(), tmp_path / "timm.safetensors")
    stock.reset_classifier(0)
    image = torch.rand(2, 3, 32, 32)
    ours = build_backbone(name, init=str(tmp_path / "timm.safetensors"), seed=0).eval()
    torch.testing.assert_close(ours(image), stock(image), rtol=1e-5, atol=1e-6)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    first = "layer1.0.conv1.weight"
    torch.save({key: value for key, value in state.items() if key != first}, tmp_path / "short.pth")
    torch.save(state | {"layer9.weight": torch.zeros(3)}, tmp_path / "long.pth")
    torch.save(state | {first: torch.zeros(64, 1, 7, 7)}, tmp_path / "grey.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    for name, reason in {
        "short.pth": f"does not fit test_resnet: 1 wrong tensor .{first}",
        "long.pth": "1 wrong tensor .layer9.weight",
        "grey.pth": f"1 wrong tensor .{first}",
        "module.pth": "not a weights file that can be read safely",
        "list.pth": "expected a state dict",
        "empty.safetensors": "not a weights file that can be read safely",
        "none.pth": "neither 'pretrained', 'random' nor an existing file",
    }.items():
        with pytest.raises(InputError, match=reason):
            build_backbone("test_resnet", init=str(tmp_path / name), seed=0)


def test_names() -> None:
    with pytest.raises(InputError, match="timm has no such model. Did you mean 'resnet18'"):
        build_backbone("resnet81", init="random", seed=0)
    with pytest.raises(InputError, match=r"timm has no such weights; it has .*resnet18\.tv_in1k"):
        build_backbone("resnet18.nonsense", init="random", seed=0)


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("tabzoo.hub.remote.try_to_load_from_cache", lambda *_: None)
    with pytest.raises(WeightsError, match="initial weights of resnet18.tv_in1k can't be loaded") as caught:
        build_backbone("resnet18.tv_in1k", init="pretrained", seed=0)
    for word in ("does not answer", "--init FILE", "--init random"):
        assert word in str(caught.value)


def test_tabzoo_weights_as_a_start_are_not_published_yet() -> None:
    with pytest.raises(WeightsError, match="not published yet"):
        build_backbone("resnet18.tab_mvtec", init="pretrained", seed=0)


def test_cached_weights_are_used_when_the_hub_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = timm.create_model("test_resnet").state_dict()
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("tabzoo.hub.remote.try_to_load_from_cache", lambda *_: str(tmp_path / "model.safetensors"))
    loaded = build_backbone("test_resnet.r160_in1k", init="pretrained", seed=0).state_dict()
    assert set(state) - set(loaded) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())
