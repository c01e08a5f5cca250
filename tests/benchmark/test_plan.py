"""A row's key: it changes with everything that the row's numbers depend on, and with nothing else."""

import dataclasses
import importlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

from tabzoo.benchmark import plan as plan_module
from tabzoo.benchmark.options import Options
from tabzoo.benchmark.plan import Plan
from tabzoo.data.toy import make_toy_factory
from tabzoo.detectors import DETECTORS, DetectorSpec
from tabzoo.detectors.extractor import FeatureExtractor, build_extractor
from tabzoo.scores.rows import row_key

MakeOptions = Callable[..., Options]

CHANGED: dict[str, object] = {
    "backbone": ["random"],
    "method": ["patchcore"],
    "seeds": [1],
    "shots": [4],
    "test": "synthetic",
    "resize": 48,
    "crop": 24,
    "resampling": "bilinear",
    "white_level": 4095.0,
    "amp": "bf16",
    "full_resolution": True,
    "budget": "quick",
    "settings": {"padim": {"channels": 7}},
}
"""Option to a value that is not the fixture's, each of which must give another row."""
SAME: dict[str, object] = {
    "data": "elsewhere",  # the images count, not where they are
    "output": Path("elsewhere"),
    "layout": "mvtec",
    "classes": ["capsule", "hex_nut"],
    "batch_size": 7,
    "device": "auto",
    "oracle": True,  # a column beside the row's
    "cache": "off",
    "cache_dir": "elsewhere",
    "workers": 2,
}
"""Options that can't change a number, rounding apart."""


def keys(options: Options) -> dict[str, str]:
    """Class to the key of its row."""
    return {job.images.name: job.key for job in Plan(options).jobs()}


def key(options: Options) -> str:
    return keys(options)["capsule"]


@pytest.fixture
def data(toy: Path, tmp_path: Path) -> Path:
    """A copy of the toy factory, to change."""
    return shutil.copytree(toy, tmp_path / "factory")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A folder of weights, to change."""
    folder = tmp_path / "weights"
    save_for_hf(timm.create_model("test_resnet", num_classes=0), folder, safe_serialization=True)
    return folder


def test_every_option_is_known_to_change_the_key_or_not() -> None:
    """A new one joins `CHANGED`, and the key, or `SAME` if no number can depend on it."""
    assert {field.name for field in dataclasses.fields(Options)} == CHANGED.keys() | SAME.keys()


def test_keys_of_finished_rows_stay(options: MakeOptions) -> None:
    """If this fails, users' rows are all computed again: leave new parts out of the key while they are neutral."""
    (job,) = Plan(options(backbone=["random"], classes=["capsule"], shots=[4], seeds=[3])).jobs()
    assert job.settings == {
        **{"resize": 40, "crop": 32, "resampling": "lanczos", "amp": "off"},
        **{"layers": ["layer1", "layer2", "layer3"], "channels": 100, "regularisation": 0.01, "sigma": 4.0},
    }
    decides = [job.weights_sha256, job.data_sha256, "capsule", "padim", job.settings, 3, 4, "real"]
    assert job.key == row_key({"decides": decides})
    assert row_key({"decides": ["weights", 1, None]}) == "f33512f9dd1a8c6f"


@pytest.mark.parametrize("name", CHANGED)
def test_options_that_change_the_key(name: str, options: MakeOptions) -> None:
    method = ["simplenet"] if name == "budget" else ["padim"]  # PaDiM is always quick
    first, other = (
        key(options(**{"method": method, "classes": ["capsule"]} | change)) for change in ({}, {name: CHANGED[name]})
    )
    assert first != other


@pytest.mark.parametrize("name", SAME)
def test_options_that_do_not_change_the_key(
    name: str, options: MakeOptions, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = options(data=str(data), method=["simplenet"], classes=["capsule"])
    first = key(base)
    if name == "data":
        data.rename("elsewhere")
    assert key(dataclasses.replace(base, **{name: SAME[name]})) == first  # type: ignore[arg-type]


@pytest.mark.parametrize("method", DETECTORS)
def test_every_setting_of_a_method_changes_the_key(method: str, options: MakeOptions) -> None:
    backbone = "random:resnet10t" if method == "rd4ad" else options().backbone[0]
    plan = Plan(options(method=[method], backbone=[backbone], classes=["capsule"], shots=[2], resize=64, crop=64))
    found = {next(plan.jobs()).key}
    fields = dataclasses.fields(DETECTORS[method].settings)
    for field in fields:
        other = 7 if field.default is None else field.default / 2 if isinstance(field.default, float) else 3
        assert other != field.default
        plan.options = dataclasses.replace(plan.options, settings={method: {field.name: other}})
        found.add(next(plan.jobs()).key)
    assert len(found) == 1 + len(fields)


SPEC: dict[str, object] = {
    "layers": ("/4", "/8"),
    "resize": 36,
    "crop": 28,
    "resampling": "bilinear",
    "normalised": False,
    "quick": {"channels": 7},
}
"""What else a method's numbers depend on, and another value; `build` and `settings` are the method itself."""


def test_every_part_of_a_method_is_known_to_change_the_key_or_not() -> None:
    refusals, which_rows = {"multiple", "smallest"}, {"shots", "oracle", "few_shot"}
    others = {"build", "settings"} | refusals | which_rows
    assert {field.name for field in dataclasses.fields(DetectorSpec)} == SPEC.keys() | others


@pytest.mark.parametrize("name", SPEC)
def test_parts_of_a_method_that_change_the_key(
    name: str, options: MakeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = options(resize=None, crop=None, budget="quick", classes=["capsule"])
    spec = dataclasses.replace(DETECTORS["padim"], resize=40, crop=32)
    monkeypatch.setitem(DETECTORS, "padim", spec)
    first = key(chosen)
    monkeypatch.setitem(DETECTORS, "padim", dataclasses.replace(spec, **{name: SPEC[name]}))  # type: ignore[arg-type]
    assert key(chosen) != first


@pytest.mark.parametrize(
    ("method", "constant"),
    [*((method, "_SIGMA") for method in DETECTORS), ("patchcore", "_PROJECTED"), ("regad", "_MOMENTUM")],
)
def test_constants_of_a_method_that_change_the_key(
    method: str, constant: str, options: MakeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = "random:resnet10t" if method == "rd4ad" else options().backbone[0]
    chosen = options(method=[method], backbone=[backbone], classes=["capsule"], shots=[2], resize=64, crop=64)
    first = key(chosen)
    monkeypatch.setattr(importlib.import_module(f"tabzoo.detectors.{method}"), constant, 5)
    assert key(chosen) != first


def paint(path: Path) -> None:
    """Inverts the middle of a picture."""
    pixels = np.array(Image.open(path))
    pixels[20:28, 20:28] = 255 - pixels[20:28, 20:28]
    Image.fromarray(pixels).save(path)


def image(data: Path, part: str, *, good: bool = True) -> Path:
    """The first good or defective one, or mask of a defect, of capsules."""
    folders = [folder for folder in sorted((data / "capsule" / part).iterdir()) if (folder.name == "good") == good]
    return min(folders[0].iterdir())


CONTENT: dict[str, Callable[[Path], object]] = {
    "an image fitted to": lambda data: paint(image(data, "train")),
    "a good image tested on": lambda data: paint(image(data, "test")),
    "a defective image": lambda data: paint(image(data, "test", good=False)),
    "a mask": lambda data: paint(image(data, "ground_truth", good=False)),
    "one image fitted to fewer": lambda data: image(data, "train").unlink(),
    "one image tested on fewer": lambda data: image(data, "test").unlink(),
    "one mask fewer": lambda data: image(data, "ground_truth", good=False).unlink(),
}


@pytest.mark.parametrize("what", CONTENT)
def test_images_that_change_the_key(what: str, options: MakeOptions, data: Path) -> None:
    chosen = options(data=str(data))
    before = keys(chosen)
    CONTENT[what](data)
    after = keys(chosen)
    assert [name for name in before if before[name] != after[name]] == ["capsule"]


def test_labels_change_the_key(options: MakeOptions, data: Path) -> None:
    """The same images in the same order, first as defects without masks, then as good ones."""
    shutil.rmtree(data / "capsule" / "ground_truth")
    good, defects, *others = sorted((data / "capsule" / "test").iterdir(), key=lambda folder: folder.name != "good")
    for folder in (good, *others):
        shutil.rmtree(folder)
    chosen = options(data=str(data), classes=["capsule", "hex_nut"])
    before = key(chosen)
    defects.rename(good)
    assert key(chosen) != before


def test_masks_that_are_empty_at_the_methods_size_are_masks(options: MakeOptions, data: Path) -> None:
    mask = image(data, "ground_truth", good=False)
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(mask)
    chosen = options(data=str(data), classes=["capsule"])
    empty = key(chosen)
    mask.unlink()  # its image is now left out of pixel metrics
    assert key(chosen) != empty


def test_masks_in_full_count_at_full_resolution(options: MakeOptions, tmp_path: Path) -> None:
    data = make_toy_factory(
        *(tmp_path / "large",),
        **{"size": 96, "train": 4, "test_good": 1, "test_defect": 1, "classes": ("capsule",)},  # type: ignore[arg-type]
    )
    small, full = (options(data=str(data), full_resolution=full) for full in (False, True))
    before = key(small), key(full)
    path = image(data, "ground_truth", good=False)
    pixels = np.array(Image.open(path))
    pixels[0, 0] = 255  # beyond what is looked up at 40 px
    Image.fromarray(pixels).save(path)
    assert key(small) == before[0]
    assert key(full) != before[1]


def test_images_of_other_classes_change_the_key_of_few_shot_methods_alone(options: MakeOptions, data: Path) -> None:
    few, all_images = (
        options(data=str(data), method=[name], classes=["capsule"], shots=[2], resize=48, crop=40)
        for name in ("regad", "padim")
    )
    before = key(few), key(all_images)
    paint(data / "hex_nut" / "train" / "good" / "000.png")
    assert key(few) != before[0]
    assert key(all_images) == before[1]


@pytest.mark.parametrize("tensor", ["conv1.0.weight", "layer3.0.bn1.running_var"])
def test_weights_that_change_the_key(tensor: str, options: MakeOptions, weights: Path) -> None:
    chosen = options(backbone=[str(weights)], classes=["capsule"])
    before = key(chosen)
    state = safetensors.torch.load_file(weights / "model.safetensors")
    state[tensor].view(-1)[0] += 1e-3
    safetensors.torch.save_file(state, weights / "model.safetensors", metadata={"format": "pt"})
    assert key(chosen) != before


def test_statistics_of_the_backbone_change_the_key_where_they_are_used(options: MakeOptions, weights: Path) -> None:
    chosen = [
        options(backbone=[str(weights)], classes=["capsule"], method=[name], shots=[2], resize=48, crop=40)
        for name in ("padim", "regad")
    ]
    path = weights / "config.json"
    found = []
    for name, values in (("mean", [0.5] * 3), ("mean", [0.4] * 3), ("std", [0.3] * 3)):
        config = json.loads(path.read_text())
        config["pretrained_cfg"][name] = values
        path.write_text(json.dumps(config))
        found.append([key(one) for one in chosen])
    padim, regad = ({of_method[i] for of_method in found} for i in range(2))
    assert (len(padim), len(regad)) == (3, 1)  # RegAD sees images in [0, 1]


# -------------------------------------------------------------------------------------------------------- architectures


@pytest.mark.parametrize("method", ["padim", "rd4ad"])
def test_architectures_that_share_their_weights_have_keys_of_their_own(
    method: str, options: MakeOptions, tmp_path: Path
) -> None:
    """A folder may ask for other activations with the same tensors, and families share names and shapes."""
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=0)
    found = []
    for name, arguments in (("plain", {}), ("gelu", {"act_layer": "gelu"}), ("silu", {"act_layer": "silu"})):
        save_for_hf(model, tmp_path / name, safe_serialization=True, model_args=arguments)
        found.append(
            key(options(method=[method], backbone=[str(tmp_path / name)], classes=["capsule"], resize=64, crop=64))
        )
    assert len(set(found)) == 3
    # A plain ResNet's key holds its weights alone, as before architectures were looked at.
    state = tmp_path / "plain"
    assert build_extractor(str(state), layers=("layer1",)).is_plain_resnet()
    assert not build_extractor(str(tmp_path / "silu"), layers=("layer1",)).is_plain_resnet()


def test_twins_among_families_have_keys_of_their_own(options: MakeOptions) -> None:
    twins = [f"random:{name}" for name in ("mobilenetv3_small_050", "tf_mobilenetv3_small_minimal_100")]
    assert not any(build_extractor(name, layers=("1",)).is_plain_resnet() for name in twins)
    extractors = [
        build_extractor(f"random:{name}", layers=("1",)) for name in ("efficientnet_b0", "tf_efficientnet_b0")
    ]
    assert extractors[0].sha256() == extractors[1].sha256()
    assert len({key(options(backbone=[f"random:{name}"])) for name in ("efficientnet_b0", "tf_efficientnet_b0")}) == 2


def test_each_backbone_is_built_once(options: MakeOptions, monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    """For all methods with the same layers, seeds and classes; random weights for each seed."""
    built: list[tuple[str, tuple[str, ...], int]] = []
    build = plan_module.build_extractor

    def counting(name: str, *, layers: tuple[str, ...], seed: int, **more: Any) -> FeatureExtractor:
        built.append((name, layers, seed))
        return build(name, layers=layers, seed=seed, **more)

    monkeypatch.setattr(plan_module, "build_extractor", counting)
    chosen = options(
        backbone=["random:test_resnet", str(weights)],
        method=["padim", "simplenet", "patchcore"],
        seeds=[0, 1],
        resize=64,
        crop=64,
    )
    plan = Plan(chosen)
    for job in plan.jobs():
        plan.build(job.backbone, job.method, job.seed)
    assert len(built) == len(set(built))
    layers = {DETECTORS[name].layers for name in chosen.method}
    assert len(built) == 3 * len(layers)


def test_a_white_level_makes_deep_images_the_plain_ones(options: MakeOptions, grey_and_deep: tuple[Path, Path]) -> None:
    grey, deep = map(str, grey_and_deep)
    plain = Plan(options(data=grey)).images("padim")
    for of_plain, of_deep in zip(plain, Plan(options(data=deep, white_level=4080)).images("padim"), strict=True):
        assert of_deep.digest() == of_plain.digest()
    assert Plan(options(data=deep)).images("padim")[0].digest() != plain[0].digest()


def test_an_unreadable_file_is_reported_once(
    options: Callable[..., Options], toy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Although methods of other sizes decode it again; a mask is one too."""
    data = shutil.copytree(toy, tmp_path / "broken")
    broken = data / "capsule" / "train" / "good" / "000.png"
    mask = sorted((data / "hex_nut" / "ground_truth").rglob("*.png"))[0]
    for file in (broken, mask):
        file.write_bytes(b"not an image")
    plan = Plan(options(data=str(data), method=["padim", "rd4ad"], resize=None, crop=None))
    with caplog.at_level(logging.WARNING):
        for name in ("padim", "rd4ad", "simplenet"):
            assert len(plan.images(name)) == 3
    for file in (broken, mask):
        assert caplog.text.count(str(file)) == 1
    assert len([record for record in caplog.records if "that can't be read" in record.getMessage()]) == 2
