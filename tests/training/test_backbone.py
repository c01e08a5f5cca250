"""Image encoders: any timm CNN, started anyhow."""

from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision

from tabzoo.errors import InputError, WeightsError
from tabzoo.training.backbone import build_backbone, embedding_width


@pytest.mark.parametrize(
    ("name", "width"),
    [("resnet18.tv_in1k", 512), ("resnet50", 2048), ("mobilenetv3_small_100", 1024), ("wide_resnet50_2.tv_in1k", 2048)],
)
def test_widths(name: str, width: int) -> None:
    backbone = build_backbone(name, init="random", seed=0)
    assert embedding_width(backbone, 64) == width
    assert not [key for key in backbone.state_dict() if key.startswith(("fc.", "classifier."))]


def test_random_weights_follow_the_seed() -> None:
    first, again, other = (build_backbone("resnet18", init="random", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.conv1.weight, again.conv1.weight)  # type: ignore[union-attr, arg-type]
    assert not torch.equal(first.conv1.weight, other.conv1.weight)  # type: ignore[union-attr, arg-type]


def test_from_files(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet18().eval()
    torch.save(theirs.state_dict(), tmp_path / "torchvision.pth")
    stock = timm.create_model("resnet18").eval()
    safetensors.torch.save_file(stock.state_dict(), tmp_path / "timm.safetensors")
    image = torch.rand(2, 3, 64, 64)
    theirs.fc = torch.nn.Identity()
    stock.reset_classifier(0)
    for name, model in (("torchvision.pth", theirs), ("timm.safetensors", stock)):
        ours = build_backbone("resnet18.tv_in1k", init=str(tmp_path / name), seed=0).eval()
        torch.testing.assert_close(ours(image), model(image), rtol=1e-5, atol=1e-6)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    state = timm.create_model("resnet18", num_classes=0).state_dict()
    torch.save({key: value for key, value in state.items() if key != "layer1.0.conv1.weight"}, tmp_path / "short.pth")
    torch.save(state | {"conv1.weight": torch.zeros(64, 1, 7, 7)}, tmp_path / "grey.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    for name, reason in {
        "short.pth": "does not fit resnet18; 1 tensors are off, layer1.0.conv1.weight first",
        "grey.pth": "conv1.weight first",
        "module.pth": "not a weights file that can be read safely",
        "list.pth": "expected a state dict",
        "empty.safetensors": "not a weights file that can be read safely",
        "none.pth": "neither 'pretrained', 'random' nor an existing file",
    }.items():
        with pytest.raises(InputError, match=reason):
            build_backbone("resnet18", init=str(tmp_path / name), seed=0)


def test_names() -> None:
    with pytest.raises(InputError, match="timm has no such model. Did you mean 'resnet18'"):
        build_backbone("resnet81", init="random", seed=0)
    with pytest.raises(InputError, match=r"timm has no such weights; it has .*resnet18\.tv_in1k"):
        build_backbone("resnet18.nonsense", init="random", seed=0)


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("tabzoo.hub.reach.try_to_load_from_cache", lambda *_: None)
    with pytest.raises(WeightsError, match="initial weights of resnet18.tv_in1k can't be loaded") as caught:
        build_backbone("resnet18.tv_in1k", init="pretrained", seed=0)
    for word in ("does not answer", "--init FILE", "--init random"):
        assert word in str(caught.value)


def test_tabzoo_weights_as_a_start_are_not_published_yet() -> None:
    with pytest.raises(WeightsError, match="not published yet"):
        build_backbone("resnet18.tab_mvtec", init="pretrained", seed=0)


def test_cached_weights_are_used_when_the_hub_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = timm.create_model("resnet18").state_dict()
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("tabzoo.hub.reach.try_to_load_from_cache", lambda *_: str(tmp_path / "model.safetensors"))
    backbone = build_backbone("resnet18.tv_in1k", init="pretrained", seed=0)
    assert torch.equal(backbone.conv1.weight, state["conv1.weight"])  # type: ignore[union-attr, arg-type]
