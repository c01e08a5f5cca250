"""Detectors of large photos, against the same arithmetic written out tile by tile."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tabzoo.detectors.batches import NormalisedBatches
from tabzoo.detectors.padim import Padim
from tabzoo.errors import InputError, WeightsError
from tabzoo.hub.files import Digest
from tabzoo.inspect.detector import InspectionDetector, build_method, load_detector
from tabzoo.inspect.fit import fit_detector
from tabzoo.inspect.folder import sealed
from tabzoo.inspect.options import FitOptions
from tabzoo.inspect.tiles import Tiling

Fit = Callable[..., Path]
METHODS = ("padim", "patchcore")
WIDTH, HEIGHT, TILE, OVERLAP = 120, 96, 48, 8
GRID = Tiling(TILE, OVERLAP).grid(HEIGHT, WIDTH, shown="photo")


def large_photo(seed: int, *, defect: bool = False, height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    """Stripes and noise; a defect is a bright square of 14 pixels."""
    rng = np.random.default_rng(seed)
    rows = np.arange(height)[:, None, None]
    pixels = 110 + 40 * np.sin(rows / 5) + rng.normal(0, 12, (height, width, 3))
    if defect:
        top, left = int(rng.integers(4, height - 18)), int(rng.integers(4, width - 18))
        pixels[top : top + 14, left : left + 14] = 250
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class with 5 good photos to fit to, and 3 good ones and 3 with a defect to test on."""
    folder = tmp_path_factory.mktemp("plates") / "plate"
    for seed, (part, number) in enumerate((("train/good", 5), ("test/good", 3), ("test/dent", 3))):
        (folder / part).mkdir(parents=True)
        for i in range(number):
            large_photo(100 * seed + i, defect="dent" in part).save(folder / part / f"{i}.png")
    return folder.parent


@pytest.fixture(scope="module")
def fit_tiles(plates: Path, fit: Fit) -> Fit:
    def fitted(**flags: Any) -> Path:
        given = {"data": str(plates), "class_name": None, "size": None, "tile": TILE, "overlap": OVERLAP}
        return fit(**{**given, **flags})

    return fitted


def files(plates: Path, part: str) -> list[Path]:
    return sorted((plates / "plate" / part).iterdir())


def tile_of(path: Path, position: int) -> NDArray[np.uint8]:
    pixels = np.asarray(Image.open(path))
    return pixels[GRID.place(position)]


def normalised(detector: InspectionDetector, tiles: list[NDArray[np.uint8]]) -> Tensor:
    record, pixels = detector.record, torch.from_numpy(np.stack(tiles))
    facts: Any = {"batch_size": 99, "mean": record.mean, "std": record.std}
    return NormalisedBatches(lambda rows: pixels[rows], torch.arange(len(tiles)), **facts).take(
        torch.arange(len(tiles))
    )


def padim_at(detector: InspectionDetector, paths: list[Path], position: int) -> Padim:
    """PaDiM that is fitted to the tiles at one position alone."""
    method = build_method("padim", detector.network, detector.record.settings, seed=1024)
    assert isinstance(method, Padim)
    images = normalised(detector, [tile_of(path, position) for path in paths])
    method.fit_maps([method.embed(images)], len(images))
    return method


def test_padim_is_fitted_to_each_position_alone(fit_tiles: Fit, plates: Path) -> None:
    detector = load_detector(fit_tiles(method="padim"), device="cpu")
    train, tested = files(plates, "train/good"), files(plates, "test/dent")
    scores, maps = detector(tested)
    expected = [[0.0] * GRID.count for _ in tested]
    for position in range(GRID.count):
        found = padim_at(detector, train, position).score(
            normalised(detector, [tile_of(one, position) for one in tested])
        )
        for row, score in enumerate(found.image_scores.tolist()):
            expected[row][position] = score
        if position == 0:  # where no other tile is
            for found_map, whole in zip(found.anomaly_maps.numpy(), maps, strict=True):
                np.testing.assert_allclose(whole[:40, :40], found_map[:40, :40], rtol=1e-4)
    np.testing.assert_allclose(scores, [max(row) for row in expected], rtol=1e-4)


def test_padims_scores_of_good_photos_are_out_of_fold(fit_tiles: Fit, plates: Path) -> None:
    """Five photos are five folds: the score of each is by detectors that were fitted to the other four."""
    folder = fit_tiles(method="padim")
    detector, train = load_detector(folder, device="cpu"), files(plates, "train/good")
    with (folder / "photos.csv").open() as file:
        scores = {row["path"]: float(row["score"]) for row in csv.DictReader(file)}
    for i in (0, 3):
        others = [path for path in train if path != train[i]]
        expected = max(
            float(
                padim_at(detector, others, position)
                .score(normalised(detector, [tile_of(train[i], position)]))
                .image_scores
            )
            for position in range(GRID.count)
        )
        assert scores[f"plate/train/good/{i}.png"] == pytest.approx(expected, rel=1e-4)


def test_patchcore_has_one_bank(fit_tiles: Fit, plates: Path) -> None:
    detector = load_detector(fit_tiles(method="patchcore"), device="cpu")
    tested = files(plates, "test/dent")
    for path, score in zip(tested, detector(tested).scores, strict=True):
        tiles = normalised(detector, [tile_of(path, position) for position in range(GRID.count)])
        assert score == pytest.approx(float(detector.detector.score(tiles).image_scores.max()), rel=1e-4)


def test_no_tile_of_a_photo_helps_to_judge_another(plates: Path, tmp_path: Path) -> None:
    """With a bank of all patches, a photo that helped to make it would have the score 0."""
    options = FitOptions(
        data=str(plates), backbone="random:test_resnet", method="patchcore", output=tmp_path / "detector", tile=TILE
    )
    fitted = fit_detector(options, settings={"share": 1.0, "neighbours": 1})
    assert min(fitted.record.good_scores) > 0.1 * fitted.threshold
    inside = fitted(files(plates, "train/good")).maps
    assert max(float(one.max()) for one in inside) < 1e-3 * fitted.threshold  # the final bank has them all


@pytest.mark.parametrize("method", METHODS)
def test_photos_keep_their_size(method: str, fit_tiles: Fit, plates: Path) -> None:
    folder = fit_tiles(method=method)
    detector = load_detector(folder, device="cpu")
    record = detector.record
    assert (record.size, record.tile, record.overlap) == (TILE, TILE, OVERLAP)
    assert record.photo_size == ((HEIGHT, WIDTH) if method == "padim" else None)
    assert record.threshold.folds == 5
    assert record.tested is not None
    assert record.tested[:3] == (3, 3, 3)  # how many false alarms there are says little with five photos
    good, bad = files(plates, "test/good"), files(plates, "test/dent")
    verdicts = detector([*good, *bad])
    assert [one.shape for one in verdicts.maps] == [(HEIGHT, WIDTH)] * 6
    assert verdicts.scores[:3].max() < verdicts.scores[3:].min()
    assert detector.is_defective(verdicts.scores[3:]).all()
    for path, found in zip(bad, verdicts.maps[3:], strict=True):  # the highest values are at the defect
        defect = np.asarray(Image.open(path)).min(axis=2) == 250
        top, left = np.unravel_index(found.argmax(), found.shape)
        assert defect[max(0, top - 8) : top + 9, max(0, left - 8) : left + 9].any()
    again = load_detector(folder, device="cpu")
    again.batch_size = 1  # tiles at a time
    np.testing.assert_allclose(again(bad).scores, verdicts.scores[3:], rtol=1e-5)
    with Image.open(bad[0]) as image:
        assert detector(image).scores == detector(np.asarray(image)).scores == detector(bad[0]).scores


@pytest.mark.parametrize("method", METHODS)
def test_tiles_can_be_made_smaller(method: str, fit_tiles: Fit, plates: Path) -> None:
    detector = load_detector(fit_tiles(method=method, size=32, overlap=None), device="cpu")
    assert (detector.record.size, detector.record.overlap) == (32, TILE // 8)
    (found,) = detector(files(plates, "test/dent")[0]).maps
    assert found.shape == (HEIGHT, WIDTH)


def test_patchcore_takes_photos_of_any_size(plates: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, path in enumerate(files(plates, "train/good")):
        image = Image.open(path)
        (image if i else image.crop((0, 0, 60, 90))).save(folder / path.name)
    options = FitOptions(
        data=str(folder), backbone="random:test_resnet", method="patchcore", output=tmp_path / "detector", tile=TILE
    )
    detector = fit_detector(options)
    assert detector(large_photo(7, height=130, width=49)).maps[0].shape == (130, 49)


def test_padim_refuses_photos_of_another_size(plates: Path, fit_tiles: Fit, tmp_path: Path) -> None:
    detector = load_detector(fit_tiles(method="padim"), device="cpu")
    path = tmp_path / "wide.png"
    large_photo(7, width=121).save(path)
    said = r"wide\.png: 121 x 96 pixels, expected 120 x 96.*--method patchcore"
    with pytest.raises(InputError, match=said):
        detector([files(plates, "test/good")[0], path])
    folder = tmp_path / "photos"
    folder.mkdir()
    for other in files(plates, "train/good"):
        (folder / other.name).write_bytes(other.read_bytes())
    path.rename(folder / path.name)
    options = FitOptions(data=str(folder), backbone="random:test_resnet", output=tmp_path / "detector", tile=TILE)
    with pytest.raises(InputError, match=said):
        fit_detector(options)
    assert [entry.name for entry in tmp_path.iterdir()] == ["photos"]  # no half of a detector, no tiles


@pytest.mark.parametrize("method", METHODS)
def test_photos_smaller_than_a_tile(method: str, plates: Path, fit_tiles: Fit, tmp_path: Path) -> None:
    options = FitOptions(
        data=str(plates),
        backbone="random:test_resnet",
        method=method,
        output=tmp_path / "detector",
        tile=100,  # type: ignore[arg-type]
    )
    with pytest.raises(InputError, match=r"0\.png: 120 x 96 pixels, expected at least 100 x 100.*--tile"):
        fit_detector(options)
    assert list(tmp_path.iterdir()) == []
    if method == "patchcore":
        with pytest.raises(InputError, match="a photo: 47 x 96 pixels, expected at least 48 x 48"):
            load_detector(fit_tiles(method=method), device="cpu")(np.zeros((96, 47, 3), np.uint8))


def test_a_test_photo_of_another_size_is_left_out(
    plates: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in plates.rglob("*.png"):
        copy = tmp_path / "data" / path.relative_to(plates)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    large_photo(9, height=97, defect=True).save(tmp_path / "data/plate/test/dent/tall.png")
    options = FitOptions(data=str(tmp_path / "data"), backbone="random:test_resnet", output=tmp_path / "out", tile=TILE)
    tested = fit_detector(options).record.tested
    assert tested is not None
    assert (tested.defects, tested.good) == (3, 3)
    assert "tall.png: 120 x 97 pixels" in caplog.text


def test_statistics_that_need_too_much_memory(plates: Path, tmp_path: Path) -> None:
    facts: Any = {"data": str(plates), "backbone": "random:test_resnet", "tile": TILE, "overlap": OVERLAP}
    with pytest.raises(InputError, match=r"each of 9 tiles of a photo of 120 x 96 pixels, 0\.0 GB.*--method patchcore"):
        fit_detector(FitOptions(**facts, output=tmp_path / "detector", max_memory=1e-3))
    assert list(tmp_path.iterdir()) == []


def test_patches_are_drawn_where_memory_is_short(
    plates: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    facts: Any = {"data": str(plates), "backbone": "random:test_resnet", "tile": TILE, "method": "patchcore"}
    settings = {"share": 1.0}
    few = fit_detector(FitOptions(**facts, output=tmp_path / "few", max_memory=1e-4), settings=settings)
    bank = few.detector.state()["bank"]
    assert bank.nbytes < 1e5
    assert "--max-memory: PatchCore's bank has" in caplog.text
    again = fit_detector(
        FitOptions(**facts, output=tmp_path / "again", max_memory=1e-4, batch_size=2), settings=settings
    )
    torch.testing.assert_close(again.detector.state()["bank"], bank)  # whatever the batches


@pytest.mark.parametrize("method", METHODS)
def test_equal_seeds_give_equal_files(method: str, plates: Path, fit_tiles: Fit, tmp_path: Path) -> None:
    facts: Any = {
        "data": str(plates),
        "backbone": "random:test_resnet",
        "method": method,
        "tile": TILE,
        "overlap": OVERLAP,
    }
    again = fit_detector(FitOptions(**facts, output=tmp_path / "detector", workers=0)).record
    assert again.files == load_detector(fit_tiles(method=method), device="cpu").record.files


def test_batches_without_positions(fit_tiles: Fit) -> None:
    detector = load_detector(fit_tiles(method="padim"), device="cpu")
    with pytest.raises(InputError, match="statistics for each position"):
        detector.score_prepared(torch.zeros(1, TILE, TILE, 3, dtype=torch.uint8))


def changed(folder: Path, copy: Path, **changes: object) -> Path:
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    content = json.loads((copy / "detector.json").read_text())
    (copy / "detector.json").write_text(json.dumps(sealed({**content, **changes})))
    return copy


@pytest.mark.parametrize(
    "changes",
    [
        {"photo_size": [96, 200]},
        {"photo_size": None},
        {"tile": None},
        {"photo_size": [96]},
        {"overlap": 40},
        {"size": 32},
    ],
)
def test_records_that_do_not_fit_the_statistics(changes: dict[str, object], fit_tiles: Fit, tmp_path: Path) -> None:
    folder = changed(fit_tiles(method="padim"), tmp_path / "copy", **changes)
    with pytest.raises((WeightsError, InputError), match=r"detector\.json|state\.safetensors"):
        load_detector(folder, device="cpu")


def test_a_changed_state(fit_tiles: Fit, tmp_path: Path) -> None:
    folder = changed(fit_tiles(method="padim"), tmp_path / "copy")
    content = bytearray((folder / "state.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "state.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=r"state\.safetensors: was changed"):
        load_detector(folder, device="cpu")


def test_values_that_are_not_finite(fit_tiles: Fit, tmp_path: Path) -> None:
    folder = changed(fit_tiles(method="padim"), tmp_path / "copy")
    path = folder / "state.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-4] + np.float32("nan").tobytes())
    entries = json.loads((folder / "detector.json").read_text())["files"]
    entries["state.safetensors"]["sha256"] = Digest.of(path).sha256
    folder = changed(folder, tmp_path / "again", files=entries)
    with pytest.raises(WeightsError, match="not finite"):
        load_detector(folder, device="cpu")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"overlap": 8}, "--overlap: only with --tile"),
        ({"tile": 31}, "--tile 31: expected"),
        ({"tile": 64, "overlap": 33}, "--overlap 33: expected 0 to 32"),
        ({"tile": 5000}, "--tile 5000: expected at most 4096"),
    ],
)
def test_flags_that_do_not_fit(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        FitOptions(data="photos", backbone="resnet18", output=Path("out"), **flags)


MEASURE = """
import numpy as np, sys
from tabzoo.inspect.detector import load_detector
from tabzoo.system import process_use
detector = load_detector(sys.argv[1], device="cpu")
photo = np.random.default_rng(0).integers(0, 256, (3000, 4096, 3), np.uint8)
detector(photo[:600, :600])
before = process_use().peak_memory
(found,) = detector(photo).maps
assert found.shape == (3000, 4096)
print(process_use().peak_memory - before)
"""


def test_memory_for_a_photo_of_12_megapixels(plates: Path, tmp_path: Path) -> None:
    """The map takes 49 MB; the tiles all at once would take 150 MB as the backbone takes them, and more in it."""
    facts: Any = {
        "data": str(plates),
        "backbone": "random:test_resnet",
        "method": "patchcore",
        "tile": 96,
        "overlap": 0,
    }
    fit_detector(FitOptions(**facts, output=tmp_path / "detector"), settings={"share": 0.01})
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "detector")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 120e6
