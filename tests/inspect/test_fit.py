"""Fitting: out-of-fold scores, what the threshold depends on, memory, equal bytes from equal seeds."""

import csv
import dataclasses
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tabzoo.benchmark.options import Options
from tabzoo.benchmark.run import run
from tabzoo.detectors.batches import NormalisedBatches
from tabzoo.detectors.extractor import FeatureExtractor
from tabzoo.inspect.detector import build_method, load_detector
from tabzoo.inspect.features import backbone_batch
from tabzoo.inspect.fit import fit_detector
from tabzoo.inspect.folder import BACKBONE, PHOTOS, RECORD, STATE
from tabzoo.inspect.options import FitOptions
from tabzoo.scores.rows import read_rows

Fit = Callable[..., Path]
METHODS = ("padim", "patchcore")


def listed(folder: Path) -> list[dict[str, str]]:
    with (folder / PHOTOS).open(newline="") as file:
        return list(csv.DictReader(file))


def content(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / RECORD).read_text())
    return loaded


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_those_of_detectors_that_did_not_see_the_photo(method: str, fit: Fit, photos: Path) -> None:
    folder = fit(method=method)
    detector = load_detector(folder, device="cpu")
    record, rows = detector.record, listed(folder)
    pixels = torch.from_numpy(np.stack([detector.prepare(photos / row["path"]) for row in rows]))
    assert len(rows) == record.threshold.photos == record.threshold.folds == 12
    highest = []
    for i, row in enumerate(rows):
        others = torch.tensor([k for k in range(12) if k != i])
        apart = build_method(method, detector.network, record.settings, 1024)
        batches = NormalisedBatches(lambda index: pixels[index], others, batch_size=4, mean=record.mean, std=record.std)
        apart.fit(batches)
        one = NormalisedBatches(
            lambda index: pixels[index], torch.tensor([i]), batch_size=1, mean=record.mean, std=record.std
        )
        found = apart.score(one.take(torch.tensor([0])))
        assert float(row["score"]) == pytest.approx(float(found.image_scores), rel=1e-4)
        highest.append(float(found.anomaly_maps.max()))
    assert list(record.good_scores) == pytest.approx(sorted(float(row["score"]) for row in rows), rel=1e-8)
    assert record.threshold.value == record.good_scores[-1]
    assert record.scale.high - record.scale.low == pytest.approx(2 * (max(highest) - record.scale.low), rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_defects_are_scored_as_by_the_benchmark(method: str, fit: Fit, photos: Path, tmp_path: Path) -> None:
    options = {"data": str(photos), "backbone": ["random:test_resnet"], "classes": ["nut"], "device": "cpu"}
    run(Options(**options, method=[method], seeds=[1024], resize=64, crop=64, output=tmp_path), progress=False)
    (row,) = read_rows(tmp_path)
    detector = load_detector(fit(method=method), device="cpu")
    for kind, folder in (("good", "good"), ("anomalous", "hole")):
        found = detector(sorted((photos / "nut" / "test" / folder).iterdir())).scores
        assert found.tolist() == pytest.approx(row.scores[kind], rel=1e-4)


def test_defects_report_and_change_nothing(fit: Fit, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos / "nut" / "train", tmp_path / "nut" / "train")
    with_defects, without = content(fit(method="padim")), content(fit(method="padim", data=str(tmp_path)))
    assert with_defects["tested"] == {"defects": 4, "caught": 4, "good": 4, "above": 0}
    assert without["tested"] is None
    for part in ("threshold", "good_scores", "scale", "blank_score"):
        assert with_defects[part] == without[part]


@pytest.mark.parametrize("method", METHODS)
def test_copies_of_a_photo_are_one_photo(method: str, fit: Fit, photos: Path, tmp_path: Path) -> None:
    copied = tmp_path / "parts" / "nut"
    shutil.copytree(photos / "nut" / "train" / "good", copied)
    shutil.copy(copied / "003.png", copied / "copy.png")
    folder = fit(method=method, data=str(tmp_path / "parts"))
    scores = {Path(row["path"]).stem: row["score"] for row in listed(folder)}
    assert len(scores) == 13
    assert scores["copy"] == scores["003"]
    assert float(scores["copy"]) > 0.5 * np.median(
        [float(score) for score in scores.values()]
    )  # not 0, as of a known one
    assert load_detector(folder, device="cpu").record.threshold.photos == 12


def test_shots_are_those_of_the_benchmark(fit: Fit, photos: Path, tmp_path: Path) -> None:
    options = {"data": str(photos), "backbone": ["random:test_resnet"], "classes": ["nut"], "device": "cpu"}
    run(Options(**options, seeds=[5], shots=[4], resize=64, crop=64, output=tmp_path), progress=False)
    (row,) = read_rows(tmp_path)
    assert [one["path"] for one in listed(fit(method="padim", shots=4, seed=5))] == row.draw


@pytest.mark.parametrize("method", METHODS)
def test_equal_seeds_give_equal_bytes(method: str, fit: Fit, tmp_path: Path) -> None:
    first, again = fit(method=method), fit(method=method, workers=0, cache_dir=str(tmp_path))
    for name in (BACKBONE, STATE, PHOTOS):
        assert (first / name).read_bytes() == (again / name).read_bytes()
    one, other = content(first), content(again)
    for record in (one, other):
        del record["provenance"]["created"], record["provenance"]["command"], record["sha256"]
    assert one == other
    other = content(fit(method=method, batch_size=5))
    assert other["good_scores"] == pytest.approx(one["good_scores"], rel=1e-4)
    assert other["threshold"]["value"] == pytest.approx(one["threshold"]["value"], rel=1e-4)


def test_memory_is_bounded(fit: Fit, caplog: pytest.LogCaptureFixture) -> None:
    whole = load_detector(fit(method="patchcore"), device="cpu")
    with caplog.at_level(logging.WARNING):
        folder = fit(method="patchcore", max_memory=2e-4, seed=7)  # 200 kB
    assert "of each photo 10 of 64 patches" in caplog.text
    small = load_detector(folder, device="cpu")
    assert len(whole.detector.state()["bank"]) == int(0.1 * 12 * 64)
    assert len(small.detector.state()["bank"]) == int(0.1 * 12 * 10)
    assert small.record.tested is not None
    assert small.record.tested.caught == 4


def test_without_memory_for_features_padim_computes_them_anew(fit: Fit, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        one, other = (content(fit(method="padim", max_memory=memory)) for memory in (4.0, 1e-6))
    assert "computed anew for each fold" in caplog.text
    assert other["good_scores"] == pytest.approx(one["good_scores"], rel=1e-4)


@pytest.mark.parametrize(("threads", "most"), [(1, 4), (2, 8), (64, 8)])
def test_a_cpu_computes_few_photos_at_a_time(
    threads: int, most: int, photos: Path, fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    sizes: list[int] = []
    original = FeatureExtractor.forward

    def forward(network: FeatureExtractor, images: torch.Tensor) -> dict[str, torch.Tensor]:
        sizes.append(len(images))
        return original(network, images)

    monkeypatch.setattr(FeatureExtractor, "forward", forward)
    fit(data=str(photos / "nut" / "train" / "good"), class_name=None, device="cpu", seed=threads)
    assert max(sizes) == most
    assert backbone_batch(2, torch.device("cpu")) == 2
    assert backbone_batch(32, torch.device("cuda")) == 32


def test_unreadable_photos_are_named(fit: Fit, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(photos / "nut" / "train" / "good", tmp_path / "nut")
    (tmp_path / "nut" / "005.png").write_bytes(b"GIF89a")
    with caplog.at_level(logging.WARNING):
        folder = fit(method="padim", data=str(tmp_path))
    assert "005.png: a GIF; expected" in caplog.text
    assert len(listed(folder)) == 11
    assert content(folder)["provenance"]["unreadable"] == 1


def test_a_photo_that_changes_meanwhile(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(photos / "nut" / "train" / "good", tmp_path / "nut")

    def fit_then_change(*arguments: Any) -> Any:
        (tmp_path / "nut" / "002.png").write_bytes((tmp_path / "nut" / "003.png").read_bytes())
        return original(*arguments)

    original = __import__("tabzoo.inspect.fit", fromlist=["score_out_of_fold"]).score_out_of_fold
    monkeypatch.setattr("tabzoo.inspect.fit.score_out_of_fold", fit_then_change)
    options = FitOptions(
        data=str(tmp_path / "nut"),
        backbone="random:test_resnet",
        size=64,
        output=tmp_path / "out",
        cache_dir=str(tmp_path),
    )
    with pytest.raises(ValueError, match=r"002\.png: was changed while the detector was fitted"):
        fit_detector(options)
    assert not (tmp_path / "out").exists()
    assert dataclasses.replace(options, shots=3).shots == 3


def test_defective_photos_of_a_training_split_are_not_fitted_to(tmp_path: Path) -> None:
    for split, numbers in (("train", range(10_000, 10_006)), ("test", range(20_000, 20_002))):
        (tmp_path / "ksdd2" / split).mkdir(parents=True)
        for number in numbers:
            defect = number % 3 == 0
            pixels = np.random.default_rng(number).integers(0, 256, (72, 72, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "ksdd2" / split / f"{number}.png")
            Image.new("L", (72, 72), 255 * defect).save(tmp_path / "ksdd2" / split / f"{number}_GT.png")
    options = {"data": str(tmp_path / "ksdd2"), "backbone": "random:test_resnet", "size": 64, "device": "cpu"}
    fit_detector(FitOptions(**options, method="padim", cache_dir=str(tmp_path), workers=0, output=tmp_path / "out"))
    assert [row["path"] for row in listed(tmp_path / "out")] == [
        f"train/{number}.png" for number in (10_000, 10_001, 10_003, 10_004)
    ]
