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


def stand_in(kind: str, backbone: str = "resnet18", **options: Any) -> nn.Module:
    """A model whose backbone is kept where the anomalib class of that name keeps it."""
    extractor = timm.create_model(backbone, features_only=True, **({"out_indices": (1, 2, 3)} | options))
    for part in reversed(f"model.{EXTRACTORS[kind]}".split(".")):
        outer = nn.Module()
        setattr(outer, part, extractor)
        extractor = outer
    extractor.__class__ = type(kind, (nn.Module,), {})
    return extractor


def backbone_of(model: nn.Module) -> nn.Module:
    kind = type(model).__name__
    return model.get_submodule(f"model.{EXTRACTORS[kind]}")


def assert_holds(model: nn.Module, folder: Path) -> None:
    saved = load_file(folder / "model.safetensors")
    held = backbone_of(model).state_dict()
    assert len(held) >= 90
    assert all(torch.equal(value, saved[key]) for key, value in held.items())


@pytest.mark.parametrize("kind", EXTRACTORS)
def test_every_place(kind: str, make_folder: Callable[..., Path]) -> None:
    folder = make_folder(NAME)
    model = stand_in(kind)
    assert load_backbone(model, folder) is model
    assert_holds(model, folder)


def test_subclasses_and_names(make_folder: Callable[..., Path], installed: Path) -> None:
    ours = type("MyFastflow", (type(stand_in("Fastflow")),), {})
    model = stand_in("Fastflow")
    model.__class__ = ours
    load_backbone(model, NAME)
    model.__class__ = ours.__mro__[1]
    assert_holds(model, installed)


def test_weights_of_another_architecture(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(NAME)
    for backbone, reason in (("resnet50", "layer1.0.bn3.bias"), ("resnet34", "layer1.2"), ("wide_resnet50_2", "bn3")):
        with pytest.raises(InputError, match=rf"does not fit the backbone of Padim: \d+ tensors are off, .*{reason}"):
            load_backbone(stand_in("Padim", backbone), folder)
    grey = stand_in("Padim", in_chans=1)
    before = {key: value.clone() for key, value in grey.state_dict().items()}
    with pytest.raises(InputError, match=r"1 tensors are off, conv1\.weight first"):
        load_backbone(grey, folder)
    assert all(torch.equal(value, before[key]) for key, value in grey.state_dict().items())


def test_a_model_whose_place_is_not_known(make_folder: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="where Linear keeps its backbone; it knows Cflow, .*take the name itself"):
        load_backbone(nn.Linear(2, 2), make_folder(NAME))


# --- with anomalib itself

SMALL = {"visualizer": False}
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
        model = build(backbone=NAME, **SMALL, **BY_NAME[kind])
    else:
        model = load_backbone(build(backbone="resnet18", pre_trained=False, **SMALL, **BY_LOADING[kind]), NAME)
    assert_holds(model, installed)
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
    assert_holds(model, installed)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", EXTRACTORS)
def test_the_places_are_where_anomalib_keeps_them(anomalib: Any, kind: str, make_folder: Callable[..., Path]) -> None:
    model = getattr(anomalib.models, kind)(backbone="resnet18", pre_trained=False, **SMALL)
    load_backbone(model, make_folder(NAME))
    assert_holds(model, make_folder(NAME))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["Cflow", "Dfkde", "Dfm", "Fre", "Glass", "Stfpm", "Supersimplenet"])
def test_built_by_name(anomalib: Any, kind: str, installed: Path) -> None:
    model = getattr(anomalib.models, kind)(backbone=NAME, **SMALL)
    key = "layer2.1.conv2.weight"
    saved = load_file(installed / "model.safetensors")[key]
    held = [value for name, value in model.state_dict().items() if name.endswith(f".{key}")]
    assert any(torch.equal(value, saved) for value in held)
