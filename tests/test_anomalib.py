"""Backbones in anomalib's models: with stand-ins for the places they are kept in, and, where it is installed, with anomalib."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from tabzoo.anomalib import EXTRACTORS, load_backbone
from tabzoo.data.toy import make_toy_factory
from tabzoo.errors import InputError

NAME = "resnet18.tab_mvtec"
SMALL = "test_resnet"
"""timm's smallest ResNet."""


@pytest.fixture(scope="module")
def small(make_folder: Callable[..., Path]) -> Path:
    return make_folder(f"{SMALL}.tab_mine")


def stand_in(kind: str, backbone: str = SMALL, **options: Any) -> nn.Module:
    """A model whose backbone is kept where the anomalib class of that name keeps it."""
    place = f"model.{EXTRACTORS[kind]}"
    model = inner = type(kind, (nn.Module,), {})()
    for part in place.split(".")[:-1]:
        inner.add_module(part, nn.Module())
        inner = inner.get_submodule(part)
    extractor = timm.create_model(backbone, features_only=True, **({"out_indices": (1, 2, 3)} | options))
    inner.add_module(place.split(".")[-1], extractor)
    return model


def assert_holds(model: nn.Module, kind: str, folder: Path) -> None:
    saved = load_file(folder / "model.safetensors")
    held = model.get_submodule(f"model.{EXTRACTORS[kind]}").state_dict()
    assert "layer3.0.bn1.running_var" in held
    assert all(torch.equal(value, saved[key]) for key, value in held.items())


@pytest.mark.parametrize("kind", EXTRACTORS)
def test_every_place(kind: str, small: Path) -> None:
    model = stand_in(kind)
    assert load_backbone(model, small) is model
    assert_holds(model, kind, small)


def test_subclasses_and_names(installed: Path) -> None:
    model = stand_in("Fastflow", "resnet18")
    model.__class__ = type("MyFastflow", (type(model),), {})
    load_backbone(model, NAME)
    assert_holds(model, "Fastflow", installed)


def test_weights_of_another_architecture(small: Path) -> None:
    for backbone in ("resnet18", "resnet50"):
        with pytest.raises(
            InputError,
            match=r"does not fit the backbone of Padim: \d+ tensors differ in name or shape, such as conv1\.0\.weight",
        ):
            load_backbone(stand_in("Padim", backbone), small)
    grey = stand_in("Padim", in_chans=1)
    before = {key: value.clone() for key, value in grey.state_dict().items()}
    with pytest.raises(InputError, match=r"1 tensors differ in name or shape, such as conv1\.0\.weight\."):
        load_backbone(grey, small)
    assert all(torch.equal(value, before[key]) for key, value in grey.state_dict().items())


def test_a_model_whose_place_is_not_known(small: Path) -> None:
    with pytest.raises(InputError, match="where Linear keeps its backbone; it knows Cflow, .*accept the name itself"):
        load_backbone(nn.Linear(2, 2), small)
    moved = stand_in("Padim")
    del moved.get_submodule("model").feature_extractor
    with pytest.raises(InputError, match=r"Padim has no model\.feature_extractor\.feature_extractor.*anomalib 2\.7"):
        load_backbone(moved, small)


# --- with anomalib itself

OPTIONS = {"visualizer": False}
BY_NAME: dict[str, dict[str, Any]] = {"Patchcore": {"coreset_sampling_ratio": 0.002}, "Padim": {"n_features": 100}}
BY_LOADING: dict[str, dict[str, Any]] = {"ReverseDistillation": {}, "Fastflow": {}}


@pytest.fixture(scope="module")
def anomalib() -> Any:
    pytest.importorskip("anomalib", reason="anomalib is not installed")
    for part in ("models", "engine", "data"):
        importlib.import_module(f"anomalib.{part}")
    return importlib.import_module("anomalib")


@pytest.fixture(scope="module")
def toy_class(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy_factory(
        tmp_path_factory.mktemp("anomalib") / "toy",
        **{"seed": 3, "size": 64, "train": 12, "test_good": 3, "test_defect": 3, "classes": ("hex_nut",)},
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # its own and its dependencies'
@pytest.mark.parametrize("kind", [*BY_NAME, *BY_LOADING])
def test_fitted_and_tested(
    anomalib: Any, kind: str, installed: Path, toy_class: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    build = getattr(anomalib.models, kind)
    if kind in BY_NAME:
        model = build(backbone=NAME, **OPTIONS, **BY_NAME[kind])
    else:
        model = load_backbone(build(backbone="resnet18", pre_trained=False, **OPTIONS, **BY_LOADING[kind]), NAME)
    assert_holds(model, kind, installed)
    data = anomalib.data.MVTecAD(
        root=toy_class, category="hex_nut", train_batch_size=6, eval_batch_size=6, num_workers=0
    )
    engine = anomalib.engine.Engine(
        **{"max_epochs": 1, "accelerator": "cpu", "devices": 1, "logger": False, "default_root_dir": tmp_path},
        **{"enable_progress_bar": False, "enable_model_summary": False},
    )
    engine.fit(model, datamodule=data)
    (metrics,) = engine.test(model, datamodule=data)
    assert 0 <= metrics["image_AUROC"] <= 1
    if kind in BY_NAME:  # these learn nothing, so random weights are enough to see a defect
        assert metrics["pixel_AUROC"] > 0.8
    assert_holds(model, kind, installed)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", EXTRACTORS)
def test_the_places_are_where_anomalib_keeps_them(anomalib: Any, kind: str, make_folder: Callable[..., Path]) -> None:
    model = getattr(anomalib.models, kind)(backbone="resnet18", pre_trained=False, **OPTIONS)
    folder = make_folder(NAME)
    load_backbone(model, folder)
    assert_holds(model, kind, folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["Cflow", "Dfkde", "Dfm", "Fre", "Glass", "Stfpm", "Supersimplenet"])
def test_built_by_name(anomalib: Any, kind: str, installed: Path) -> None:
    model = getattr(anomalib.models, kind)(backbone=NAME, **OPTIONS)
    key = "layer2.1.conv2.weight"
    saved = load_file(installed / "model.safetensors")[key]
    held = [value for name, value in model.state_dict().items() if name.endswith(f".{key}")]
    assert any(torch.equal(value, saved) for value in held)
