"""A run from images to tables: what is written, what is not computed again, what is undefined."""

import dataclasses
import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.metrics import roc_auc_score
from timm.models import save_for_hf
from torch import Tensor

from tabzoo import jsonl
from tabzoo.benchmark import measure
from tabzoo.benchmark import run as runner
from tabzoo.benchmark.options import Options
from tabzoo.benchmark.plan import Plan
from tabzoo.benchmark.run import run
from tabzoo.data.images import read_image
from tabzoo.data.layouts import find_samples
from tabzoo.data.samples import TEST, TRAIN, Samples
from tabzoo.detectors import DETECTORS, ImageBatches
from tabzoo.detectors.extractor import build_extractor
from tabzoo.errors import InputError, WeightsError, WriteError
from tabzoo.progress import showing
from tabzoo.scores.rows import RESULTS, Metrics, Row, read_rows
from tabzoo.training import pretrain
from tabzoo.training.recipe import Recipe

pytestmark = pytest.mark.usefixtures("sketches")
SMALL = "random:test_resnet"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, as far as the benchmark looks at it; trained on the toy factory's capsules alone."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    torch.manual_seed(5)
    save_for_hf(timm.create_model("test_resnet", num_classes=0), folder, safe_serialization=True)
    (folder / "tabzoo.json").write_text(json.dumps({"training": {"classes": {"capsule": 16, "hex_nut": 99}}}))
    (folder / "recipe.yaml").write_text(Recipe(synthesis="nsa").to_yaml())
    return folder


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Classes in the order in which they are computed."""
    names: list[str] = []
    row = runner.measure_row

    def counting(plan: object, job: object, *more: object) -> Row:
        names.append(job.images.name)  # type: ignore[attr-defined]
        return row(plan, job, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(runner, "measure_row", counting)
    return names


@pytest.mark.slow
def test_rows_tables_and_pictures(options: Callable[..., Options], trained: Path, tmp_path: Path) -> None:
    table = run(options(backbone=[SMALL, str(trained)], seeds=[0, 1]), progress=False)
    rows = read_rows(tmp_path / "out")
    assert {(row.backbone, row.class_name, row.seed) for row in rows} == {
        (backbone, name, seed)
        for backbone in (SMALL, "mine")
        for name in ("brushed_steel", "capsule", "hex_nut")
        for seed in (0, 1)
    }
    for row in rows:
        good, anomalous = row.scores["good"], row.scores["anomalous"]
        assert row.images == {"fitted": 16, "good": 2, "anomalous": 3}
        assert row.image_auroc == pytest.approx(roc_auc_score([0] * 2 + [1] * 3, good + anomalous))
        assert row.pixel_auroc is not None
        assert 0 <= row.pixel_auroc <= 1
        # The weights do not say which images they saw, so the class's name decides.
        assert row.transductive == (row.backbone == "mine" and row.class_name in ("capsule", "hex_nut"))
        assert (row.draw, row.test, row.shots) == (None, "real", None)
        assert (row.settings["resize"], row.settings["crop"]) == (40, 32)
    weights = {(row.backbone, row.seed): row.weights_sha256 for row in rows}
    assert weights[SMALL, 0] != weights[SMALL, 1]
    assert weights["mine", 0] == weights["mine", 1]
    assert f"mine - {SMALL}" in table
    assert (tmp_path / "out" / "table.md").read_text() == table
    assert "image_auroc,capsule,mine" in (tmp_path / "out" / "table.csv").read_text()
    for name in ("maps/padim/brushed_steel", "maps/padim/capsule", "maps/padim/hex_nut", "roc/padim"):
        assert (tmp_path / "out" / f"{name}.png").is_file()  # what is on them: test_report.py


@pytest.mark.parametrize("name", ["padim", "patchcore", "rd4ad", "simplenet"])
def test_scores_are_the_methods_on_the_classs_images(
    name: str, options: Callable[..., Options], toy: Path, tmp_path: Path, batches: Callable[..., ImageBatches]
) -> None:
    """Squashed, cropped and normalised by hand, and with the extractor and the method of the row's seed."""
    backbone = "random:resnet10t" if name == "rd4ad" else SMALL
    settings: dict[str, object] = {"rd4ad": {"steps": 1, "lr": 1e-6}, "simplenet": {"steps": 2, "hidden": 8}}.get(
        name, {}
    )
    chosen = options(method=[name], backbone=[backbone], classes=["capsule"], seeds=[3], resize=80, crop=64)
    run(dataclasses.replace(chosen, settings={name: settings}), progress=False)
    (row,) = read_rows(tmp_path / "out")
    spec = DETECTORS[name]
    extractor = build_extractor(backbone, layers=spec.layers, seed=3)
    method = spec.build(extractor, 3, spec.settings(**settings))

    def pictures(of: Samples) -> Tensor:
        pixels = [read_image(of.path(i), size=80, resampling=spec.resampling)[8:72, 8:72] for i in range(len(of))]
        scaled = torch.from_numpy(np.stack(pixels)).double() / 255
        normalised = (scaled - torch.tensor(extractor.mean)) / torch.tensor(extractor.std)
        return normalised.permute(0, 3, 1, 2).float().contiguous()

    samples = find_samples(toy)
    samples = samples.select(samples.class_ids == samples.classes.index("capsule"))
    tested = samples.select(samples.split == TEST)
    method.fit(batches([pictures(samples.select(samples.split == TRAIN))]))
    expected = method.score(pictures(tested)).image_scores
    for kind, label in (("good", 0), ("anomalous", 1)):
        assert row.scores[kind] == pytest.approx(expected[tested.labels == label].tolist(), rel=1e-3)


def test_a_class_is_transductive_when_any_of_its_images_was_trained_on(
    options: Callable[..., Options], small: Callable[..., list[str]], measured: list[str], toy: Path, tmp_path: Path
) -> None:
    """From the training that writes the hashes to the row; neither names nor numbers of images hide or make it."""
    assert pretrain.main(small("--epochs", "1")) == 0
    data = Path(shutil.copytree(toy, tmp_path / "data"))
    shutil.copy(data / "capsule/train/good/000.png", data / "capsule/train/good/999.png")  # one more
    Image.new("RGB", (48, 48), "red").save(data / "capsule/train/good/999.png")
    (data / "hex_nut").rename(data / "renamed")
    for path in data.glob("brushed_steel/*/*/*.png"):  # others under the same names
        Image.fromarray(255 - read_image(path)).save(path)
    chosen = options(backbone=[str(tmp_path / "out")], data=str(data), output=tmp_path / "tables")
    run(chosen, progress=False)
    rows = {row.class_name: row for row in read_rows(tmp_path / "tables")}
    assert {name: row.transductive for name, row in rows.items()} == {
        "brushed_steel": False,
        "capsule": True,
        "renamed": True,
    }
    with (tmp_path / "tables" / RESULTS).open("w") as file:  # marked by an older version
        file.writelines(
            json.dumps(dataclasses.replace(row, transductive=False).to_dict()) + "\n" for row in rows.values()
        )
    run(chosen, progress=False)
    assert {row.class_name: row for row in read_rows(tmp_path / "tables")} == rows
    assert len(measured) == 3


def test_finished_rows_are_not_computed_again(
    options: Callable[..., Options], measured: list[str], tmp_path: Path
) -> None:
    """What changes a row's key: test_plan.py."""
    chosen = options(classes=["capsule"])
    first = run(chosen, progress=False)
    before = read_rows(tmp_path / "out")
    assert run(dataclasses.replace(chosen, batch_size=7), progress=False) == first  # no part of a row's identity
    assert len(measured) == 1
    run(dataclasses.replace(chosen, seeds=[0, 1]), progress=False)
    assert len(measured) == 2
    assert read_rows(tmp_path / "out")[:1] == before


@pytest.mark.slow
def test_a_killed_run_goes_on(options: Callable[..., Options], measured: list[str], tmp_path: Path) -> None:
    whole = run(options(), progress=False)
    path = tmp_path / "out" / RESULTS
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1][:100])  # killed while it wrote the second row
    measured.clear()
    assert run(options(), progress=False) == whole
    assert measured == ["capsule", "hex_nut"]
    numbers = [json.loads(line)["scores"] for line in path.read_text().splitlines()]
    assert numbers == [json.loads(line)["scores"] for line in lines]


@pytest.mark.slow
def test_changed_images_and_weights_are_measured_again(
    options: Callable[..., Options], measured: list[str], toy: Path, trained: Path, tmp_path: Path
) -> None:
    data, weights = shutil.copytree(toy, tmp_path / "data"), shutil.copytree(trained, tmp_path / "mine")
    chosen = options(data=str(data), backbone=[str(weights)], classes=["capsule", "hex_nut"])
    run(chosen, progress=False)
    shutil.move(str(data), tmp_path / "moved")
    measured.clear()
    run(dataclasses.replace(chosen, data=str(tmp_path / "moved")), progress=False)
    assert measured == []
    (tmp_path / "moved" / "capsule" / "train" / "good" / "000.png").unlink()
    run(dataclasses.replace(chosen, data=str(tmp_path / "moved")), progress=False)
    assert measured == ["capsule"]
    torch.manual_seed(6)
    save_for_hf(timm.create_model("test_resnet", num_classes=0), weights, safe_serialization=True)
    run(dataclasses.replace(chosen, data=str(tmp_path / "moved")), progress=False)
    assert measured == ["capsule", "capsule", "hex_nut"]


def test_shots_are_drawn_from_the_seed_and_saved(options: Callable[..., Options], tmp_path: Path) -> None:
    run(options(shots=[4], seeds=[0, 1], classes=["capsule"]), progress=False)
    first, second = read_rows(tmp_path / "out")
    assert first.draw is not None
    assert len(first.draw) == first.images["fitted"] == first.shots == 4
    assert first.draw != second.draw
    assert (tmp_path / "out" / "maps" / "padim-4shots" / "capsule.png").is_file()


def test_synthetic_tests_are_labelled_a_proxy(options: Callable[..., Options], trained: Path, tmp_path: Path) -> None:
    table = run(options(backbone=[SMALL, str(trained)], test="synthetic", classes=["capsule"]), progress=False)
    rows = read_rows(tmp_path / "out")
    assert {row.test for row in rows} == {"synthetic:cutpaste"}  # the trained one has seen NSA
    assert all(row.images == {"fitted": 12, "good": 4, "anomalous": 4} for row in rows)
    assert all(row.aupro is not None for row in rows)
    assert "PROXY: synthetic cutpaste anomalies" in table
    assert (tmp_path / "out" / "maps" / "padim-synthetic" / "capsule.png").is_file()


def test_a_single_held_out_image(options: Callable[..., Options], toy: Path, tmp_path: Path) -> None:
    data = shutil.copytree(toy, tmp_path / "few")
    for path in sorted((data / "capsule" / "train" / "good").iterdir())[5:]:
        path.unlink()
    run(options(data=str(data), test="synthetic", classes=["capsule"]), progress=False)
    (row,) = read_rows(tmp_path / "out")
    assert row.images == {"fitted": 4, "good": 1, "anomalous": 1}


def test_a_log_says_what_is_done(
    options: Callable[..., Options], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with showing():
        run(options(classes=["capsule"], shots=[4]))
    assert re.search(
        r"\d\d:\d\d:\d\d 1/1 padim 4 shots random:test_resnet capsule seed 0: \d+ s\n", capsys.readouterr().err
    )


@pytest.fixture
def thinned(toy: Path, tmp_path: Path) -> Path:
    data = shutil.copytree(toy, tmp_path / "thinned")
    shutil.rmtree(data / "brushed_steel" / "ground_truth")
    for kind in (data / "capsule" / "test").iterdir():
        if kind.name != "good":
            shutil.rmtree(kind)
    shutil.rmtree(data / "capsule" / "ground_truth")
    return data


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        (["test", "ground_truth"], "nothing to test on in capsule. Add images of defects.* or type --test synthetic"),
        (
            ["test/scratch", "test/dent", "test/crack", "ground_truth"],
            "only good images to test on in capsule.*synthetic",
        ),
        (["test/good", "ground_truth"], "only defects to test on in capsule, without masks"),
        (["train"], "no good training images in capsule; expected CLASS/train/good"),
    ],
)
def test_what_can_not_be_measured_is_refused_before_anything_is_fitted(
    gone: list[str],
    message: str,
    options: Callable[..., Options],
    toy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = shutil.copytree(toy, tmp_path / "data")
    for name in gone:
        shutil.rmtree(data / "capsule" / name, ignore_errors=True)
    for kind in (data / "capsule" / "test").glob("*") if "test/scratch" in gone else ():
        if kind.name != "good":
            shutil.rmtree(kind)
    monkeypatch.setattr(Plan, "build", None)
    monkeypatch.setattr(Plan, "images", None)
    with pytest.raises(InputError, match=message):
        run(options(data=str(data), classes=["capsule"]), progress=False)
    assert not (tmp_path / "out").exists()


def test_what_is_undefined_says_why(options: Callable[..., Options], thinned: Path, tmp_path: Path) -> None:
    shutil.rmtree(thinned / "hex_nut" / "train")
    table = run(options(data=str(thinned)), progress=False)
    rows = {row.class_name: row for row in read_rows(tmp_path / "out")}
    assert rows["brushed_steel"].image_auroc is not None
    assert rows["brushed_steel"].pixel_auroc is None
    assert rows["capsule"].image_auroc is None
    assert rows["hex_nut"].image_auroc is None
    assert rows["hex_nut"].scores == {"good": [], "anomalous": []}  # nothing was fitted, so nothing scored
    for name, row in rows.items():
        missing = [metric for metric in ("image_auroc", "pixel_auroc", "aupro") if getattr(row, metric) is None]
        assert missing
        assert all(row.undefined_because[metric] for metric in missing)
        assert f"of {name}, " in table
    assert "NaN" not in (tmp_path / "out" / RESULTS).read_text()
    assert "undefined" in table


def test_trained_here_tested_there(options: Callable[..., Options], toy: Path, trained: Path, tmp_path: Path) -> None:
    """Another data set in another layout: BTAD's."""
    names = {"good": "ok", "scratch": "ko", "rust": "ko"}
    for file in (toy / "brushed_steel").rglob("*.png"):
        part, kind, name = file.relative_to(toy / "brushed_steel").parts
        target = tmp_path / "btad" / "01" / part / names[kind] / f"{kind}_{name.replace('_mask', '')}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    run(options(data=str(tmp_path / "btad"), backbone=[str(trained)]), progress=False)
    (row,) = read_rows(tmp_path / "out")
    assert (row.dataset, row.class_name, row.transductive) == ("btad", "01", False)
    assert row.images == {"fitted": 16, "good": 2, "anomalous": 3}
    assert row.aupro is not None


@pytest.mark.slow
@pytest.mark.real_data
def test_broken_cookies_are_found(options: Callable[..., Options], real_data: Path, tmp_path: Path) -> None:
    run(options(data=str(real_data / "factory"), classes=["cookie"], resize=None, crop=None), progress=False)
    (row,) = read_rows(tmp_path / "out")
    assert row.image_auroc is not None
    assert row.image_auroc > 0.81  # what the file size alone gives


def test_without_scipy_aupro_alone_is_undefined(
    options: Callable[..., Options], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    run(options(classes=["capsule"]), progress=False)
    (row,) = read_rows(tmp_path / "out")
    assert row.pixel_auroc is not None
    assert list(row.undefined_because) == ["aupro"]
    assert "pip install" in row.undefined_because["aupro"]


def test_defects_that_vanish_at_the_methods_size_are_told(options: Callable[..., Options], tmp_path: Path) -> None:
    """One lies between the pixels that masks are sampled at, one in the margin that the crop cuts off."""
    rng = np.random.default_rng(0)
    defects = {"small": (32, 32), "margin": (1, 31), "seen": (slice(20, 30), slice(20, 30))}
    for name in (
        "train/good/0",
        "train/good/1",
        "train/good/2",
        "test/good/3",
        *(f"test/{name}/4" for name in defects),
    ):
        file = tmp_path / "data" / "plate" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(file)
    for name, pixels in defects.items():
        mask = np.zeros((64, 64), np.uint8)
        mask[pixels] = 255
        (tmp_path / "data" / "plate" / "ground_truth" / name).mkdir(parents=True)
        Image.fromarray(mask).save(tmp_path / "data" / "plate" / "ground_truth" / name / "4_mask.png")
    chosen = {"data": str(tmp_path / "data"), "resize": 32, "crop": 24}
    table = run(options(**chosen), progress=False)
    assert (
        "whose masks are empty at this size: plate 2 of 3 (padim). To keep small defects, use a larger --resize or"
        in table
    )
    run(options(**chosen, full_resolution=True), progress=False)
    small, full = read_rows(tmp_path / "out")
    assert (small.images["empty masks"], full.images["empty masks"]) == (2, 1)


def test_full_resolution_is_an_option(
    options: Callable[..., Options], toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated: list[tuple[Tensor, Tensor]] = []
    evaluate = measure.evaluate

    def recording(scores: Tensor, labels: Tensor, maps: Tensor, masks: Tensor, **more: Tensor) -> Metrics:
        evaluated.append((maps, masks))
        return evaluate(scores, labels, maps, masks, **more)

    monkeypatch.setattr(measure, "evaluate", recording)
    for chosen in (options(classes=["capsule"]), options(classes=["capsule"], full_resolution=True)):
        run(chosen, progress=False)
    small, full = read_rows(tmp_path / "out")
    assert full.settings == {**small.settings, "pixels": "full resolution"}
    assert full.image_auroc == small.image_auroc
    (maps, masks), (full_maps, full_masks) = evaluated
    assert [plane.shape for plane in (maps, masks)] == [(5, 32, 32)] * 2
    for one, larger in zip(maps, full_maps, strict=True):  # 38 of 48 px are seen
        assert torch.equal(F.interpolate(one[None, None], (38, 38), mode="bilinear")[0, 0], larger)
    files = (toy / "capsule" / "ground_truth").glob("*/*.png")
    assert {mask.numpy().tobytes() for mask in full_masks if mask.any()} == {
        (np.asarray(Image.open(file))[5:43, 5:43] != 0).astype(np.uint8).tobytes() for file in files
    }
    with pytest.raises(InputError, match="--full-resolution"):
        options(test="synthetic", full_resolution=True)


def test_mistakes(options: Callable[..., Options], tmp_path: Path) -> None:
    for changes, reason in (
        ({"method": ["padin"]}, "--method padin: unknown.*Did you mean 'padim'"),
        ({"classes": ["capsul"]}, "no class capsul.*Did you mean 'capsule'"),
        ({"layout": "mvtek"}, "unknown layout 'mvtek'.*Did you mean 'mvtec'"),
        ({"backbone": ["resnet81"]}, "--backbone 'resnet81'.*Did you mean 'resnet"),
        ({"shots": [17]}, "--shots 17"),
        ({"crop": 64}, "--crop 64: images are resized to 40 px"),
        (
            {"method": ["padim", "rd4ad"], "crop": 40},
            "--crop 40: rd4ad takes multiples of 32 px. Type --resize 40 --crop 32",
        ),
        ({"method": ["regad"]}, "--crop 32: regad takes at least 33 px. Type --resize 40 --crop 33"),
        ({"white_level": 0}, "--white-level 0: expected the pixel value that becomes white, above 0"),
        ({"seeds": [2**70]}, "--seeds 1180591620717411303424: expected at most 2147483647"),
        ({"backbone": ["random:vit_tiny_patch16_224"]}, "such as resnet18"),
        ({"backbone": ["random:swin_tiny_patch4_window7_224"]}, "does not take images of 32 x 32"),
        ({"seeds": [-1]}, "--seeds -1: expected at least 0$"),
        ({"resize": 0}, "--resize 0: expected at least 1$"),
        (
            {"method": ["patchcore"], "settings": {"patchcore": {"share": 0.0}}},
            "share 0.0: expected more than 0, at most 1$",
        ),
    ):
        with pytest.raises(InputError, match=reason):
            run(options(**changes), progress=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be used as a folder"):
        run(options(output=tmp_path / "file"), progress=False)
    assert not read_rows(tmp_path / "out")


def test_an_output_folder_is_outside_of_the_data(
    options: Callable[..., Options], toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plan, "__init__", None)
    (tmp_path / "link").symlink_to(toy)
    for output in (toy, toy / "out", toy / "capsule" / "out", tmp_path / "link" / "out"):
        with pytest.raises(InputError, match=f"--output {output}: is inside --data {toy}. Name a folder outside"):
            run(options(output=output), progress=False)
    assert sorted(path.name for path in toy.iterdir()) == ["brushed_steel", "capsule", "hex_nut"]


def test_an_output_folder_holds_results_or_nothing(
    options: Callable[..., Options], measured: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "notes").mkdir(parents=True)
    with pytest.raises(
        InputError, match=f"--output {out}: holds no results .* it has no results.jsonl, but notes. Name"
    ):
        run(options(classes=["capsule"]), progress=False)
    assert [path.name for path in out.iterdir()] == ["notes"]
    (out / "notes").rename(out / "maps")  # of a run that was stopped in its first row
    run(options(classes=["capsule"]), progress=False)
    (out / "notes").mkdir()
    run(options(classes=["capsule"]), progress=False)
    assert measured == ["capsule"]


@pytest.mark.parametrize(
    ("method", "rates", "oracle"),
    [
        ("rd4ad", {"lr": 1e30}, False),
        ("simplenet", {"discriminator_lr": 1e30}, False),
        ("simplenet", {"discriminator_lr": 1e30}, True),
        ("regad", {"lr": 1e3}, False),
        ("regad", {"lr": 300.0}, False),
    ],
)
def test_training_that_diverges(
    options: Callable[..., Options], method: str, rates: dict[str, float], oracle: bool, tmp_path: Path
) -> None:
    backbone = "random:resnet10t" if method == "rd4ad" else SMALL
    chosen = options(
        **{"method": ["padim", method], "backbone": [backbone], "classes": ["capsule"]},
        **{"resize": 64, "crop": 64, "shots": [2], "oracle": oracle},
    )
    settings = {method: {"steps": 4, "batch_size": 4, **rates}}
    with pytest.raises(
        InputError, match=f"--method {method}: training diverged .* on class capsule with backbone {backbone}"
    ):
        run(dataclasses.replace(chosen, settings=settings), progress=False)
    assert [row.method for row in read_rows(tmp_path / "out")] == ["padim"]


def test_images_are_squashed_as_in_the_public_code_of_each_method(
    options: Callable[..., Options], toy: Path, tmp_path: Path
) -> None:
    expected = {
        "padim": "lanczos",
        "patchcore": "bilinear",
        "rd4ad": "bilinear",
        "simplenet": "bilinear",
        "regad": "lanczos",
    }
    plan = Plan(options(method=list(expected), crop=None, resize=None))
    picture = Image.open(toy / "capsule" / "train" / "good" / "000.png").convert("RGB")
    for method, resampling in expected.items():
        (images,) = (one for one in plan.images(method) if one.name == "capsule")
        size, crop = DETECTORS[method].resize, DETECTORS[method].crop
        edge = slice((size - crop) // 2, (size - crop) // 2 + crop)
        squashed = np.asarray(picture.resize((size, size), Image.Resampling[resampling.upper()]))
        assert np.array_equal(images.pixels(torch.from_numpy(images.normals[:1]))[0], squashed[edge, edge])


def test_what_is_named_twice_is_measured_once(options: Callable[..., Options], measured: list[str]) -> None:
    run(options(classes=["capsule", "capsule"], seeds=[0, 0], method=["padim", "padim"]), progress=False)
    assert measured == ["capsule"]


def test_weights_that_cannot_be_had(options: Callable[..., Options], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not published yet"):
        run(options(backbone=["resnet18.tab_mvtec"]), progress=False)


HOSTILE = ["../../../escaped", "a|b", "red\x1b[31m", "two\nlines", "$x_{$", "=1+2", "CON"]


def test_names_from_outside_stay_in_their_place(
    options: Callable[..., Options], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Classes of a manifest are any text: no path, no column, no line, no formula, no command of a terminal."""
    rng = np.random.default_rng(0)
    rows = []
    for number, name in enumerate(HOSTILE):
        for i, (split, label) in enumerate([("train", "good")] * 3 + [("test", "good"), ("test", "../bad\x1b[0m")]):
            file = f"{number}_{i}.png"
            Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / file)
            rows.append(json.dumps({"path": file, "class": name, "split": split, "label": label}))
    (tmp_path / "list.jsonl").write_text("\n".join(rows))
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    out = tmp_path / "deep" / "er" / "out"
    table = run(options(data=str(tmp_path / "list.jsonl"), output=out))
    assert all(path.is_relative_to(out) for path in tmp_path.rglob("*") if path.is_file() and path not in before)
    assert not list(tmp_path.parent.glob("*escaped*"))
    sheets = [path.stem for path in (out / "maps" / "padim").iterdir()]
    assert len(set(map(str.lower, sheets))) == len(HOSTILE)
    assert not any(character in table + capsys.readouterr().err for character in "\x1b")
    lines = [line for line in table.split("image AUROC, %:")[1].split("pixel")[0].splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(HOSTILE) + 1
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {3}
    assert "'=1+2" in (out / "table.csv").read_text()
    assert {row.class_name for row in read_rows(out)} == set(HOSTILE)


@pytest.mark.parametrize("full", ["row", "maps", "table"])
def test_a_full_disk_is_told_and_loses_no_row(
    full: str, options: Callable[..., Options], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(options(classes=["capsule"]), progress=False)
    out = tmp_path / "out"
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target, name = {"row": (jsonl, "os"), "maps": (Image.Image, "save"), "table": (Path, "write_text")}[full]
    monkeypatch.setattr(
        target, name, SimpleNamespace(fsync=no_room, SEEK_END=os.SEEK_END) if full == "row" else no_room
    )
    with pytest.raises(WriteError, match="No space left on device") as caught:
        run(options(classes=["hex_nut"]), progress=False)
    assert str(out) in str(caught.value)
    monkeypatch.undo()
    after = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    if full == "table":  # the row was known before
        assert len(read_rows(out)) == 2
        before = {path: content for path, content in before.items() if path.name != RESULTS}
    assert {path: after[path] for path in before} == before
    assert not [path for path in after if ".tmp" in path.name]
    run(options(classes=["hex_nut"]), progress=False)
    assert len(read_rows(out)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_equal_seeds_equal_rows(device: str, options: Callable[..., Options], tmp_path: Path) -> None:
    """All methods, trained for a few steps; on a GPU, every kernel has to add in the same order both times."""
    chosen = options(
        **{"backbone": ["random:resnet10t"], "method": list(DETECTORS), "classes": ["capsule"], "device": device},
        **{"resize": 80, "crop": 64, "budget": "quick", "shots": [4], "oracle": True},
    )
    settings = {"rd4ad": {"steps": 6}, "simplenet": {"steps": 12}, "regad": {"steps": 4, "draws": 2}}
    found = []
    for name in ("one", "two"):
        run(dataclasses.replace(chosen, output=tmp_path / name, settings=settings), progress=False)
        changing = {"seconds": {}, "peak_memory": 0, "created": ""}
        found.append([dataclasses.replace(row, **changing) for row in read_rows(tmp_path / name)])
    assert [row.method for row in found[0]] == list(DETECTORS)
    assert found[0] == found[1]


def test_a_run_asks_for_deterministic_kernels(options: Callable[..., Options], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    with pytest.raises(InputError):
        run(options(data="nowhere"), progress=False)
    assert torch.backends.cudnn.deterministic
