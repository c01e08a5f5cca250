"""FID: the arithmetic, the table, and what is refused."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import timm
import torch
from numpy.typing import NDArray
from timm.models import save_for_hf
from torch import Tensor

from tabzoo.benchmark.__main__ import main
from tabzoo.benchmark.fid import Distance, Preparation, frechet_distance, measure
from tabzoo.data.cache import open_images
from tabzoo.data.images import read_image
from tabzoo.data.layouts import find_samples
from tabzoo.data.samples import TEST, TRAIN
from tabzoo.errors import InputError, WeightsError
from tabzoo.training.anomalies import pair_maker
from tabzoo.training.recipe import Recipe

Array = NDArray[np.float64]
SMALL = Preparation(resize=40, crop=32, cache="ram", workers=0)


def reference(real: Array, synthetic: Array) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), by SciPy's matrix square root."""
    means = real.mean(axis=0), synthetic.mean(axis=0)
    covariances = np.cov(real, rowvar=False), np.cov(synthetic, rowvar=False)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    return float(((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root))


@pytest.mark.parametrize("width", [2, 5])
def test_distance_between_gaussians(width: int) -> None:
    generator = np.random.default_rng(width)
    real = generator.normal(size=(40, width)) @ generator.normal(size=(width, width))
    synthetic = generator.normal(size=(25, width)) @ generator.normal(size=(width, width)) + 1.5
    got = frechet_distance(torch.from_numpy(real), torch.from_numpy(synthetic))
    assert got == pytest.approx(reference(real, synthetic), rel=1e-6)
    assert frechet_distance(torch.from_numpy(real), torch.from_numpy(real)) == pytest.approx(0, abs=1e-6)


def test_known_distance() -> None:
    line = torch.linspace(-1, 1, 11)[:, None]
    assert frechet_distance(line, line + 3) == pytest.approx(9, rel=1e-6)  # equal spread, means 3 apart


@pytest.fixture(scope="module")
def extractor(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("weights") / "net"
    torch.manual_seed(0)
    save_for_hf(timm.create_model("test_resnet", num_classes=0), folder, safe_serialization=True)
    return f"local-dir:{folder}"


def test_table(toy: Path, extractor: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fid", "--data", str(toy), "--features", extractor, "--resize", "40", "--crop", "32"]
    assert main([*arguments, "--synthesis", "nsa", "--output", str(tmp_path / "fid.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert "not the FID of the literature" in shown
    assert "paper" not in shown  # its numbers are Inception's
    rows = [json.loads(line) for line in (tmp_path / "fid.jsonl").read_text().splitlines()]
    assert [row["class_name"] for row in rows] == ["brushed_steel", "capsule", "hex_nut", "pooled"]
    assert [row["real"] for row in rows] == [3, 3, 3, 9]
    assert [row["synthetic"] for row in rows] == [16, 16, 16, 48]


def test_distances_are_between_defects_and_anomalies(toy: Path, extractor: str) -> None:
    """As the network sees them: the middle of each image, normalised by its own statistics."""
    half = (0.5, 0.5, 0.5)
    recipe = Recipe(resize=40, crop=32, mean=half, std=half, cache="ram", workers=0, synthesis="cutpaste", seed=4)
    samples = find_samples(toy)
    network = timm.create_model(extractor, pretrained=True, num_classes=0).eval()

    @torch.no_grad()
    def features(pixels: Tensor) -> Tensor:
        return network((pixels / 255 - 0.5) / 0.5)  # type: ignore[no-any-return]

    real = []
    for class_id in range(3):
        of_class = samples.class_ids == class_id
        defects = np.flatnonzero(of_class & (samples.split == TEST) & (samples.defect_ids != 0))
        middles = [read_image(samples.path(i), size=40)[4:36, 4:36].copy() for i in defects.tolist()]
        real.append(features(torch.from_numpy(np.stack(middles)).permute(0, 3, 1, 2)))
    good = samples.select((samples.split == TRAIN) & (samples.defect_ids == 0))
    images = open_images(good, size=40, mode="ram", workers=0, progress=False)
    rows, classes = torch.arange(len(good)), torch.from_numpy(good.class_ids).long()
    abnormal = pair_maker(images, rows, classes, recipe, torch.device("cpu")).raw(4, 0, rows).abnormal
    synthetic = [features(abnormal[classes == class_id]) for class_id in range(3)]
    found = measure(samples, ["cutpaste"], features=extractor, preparation=replace(SMALL, seed=4), batch_size=5)
    for row, pair in zip(found[:3], zip(real, synthetic, strict=True), strict=True):
        assert row.fid == pytest.approx(frechet_distance(*pair), rel=1e-3), row.class_name
    assert found[3].fid == pytest.approx(frechet_distance(torch.cat(real), torch.cat(synthetic)), rel=1e-3)


def test_a_white_level_makes_deep_images_the_plain_ones(grey_and_deep: tuple[Path, Path], extractor: str) -> None:
    grey, deep = map(find_samples, grey_and_deep)
    how = {"features": extractor, "batch_size": 5}
    expected = measure(grey, ["nsa"], preparation=SMALL, **how)  # type: ignore[arg-type]
    assert measure(deep, ["nsa"], preparation=replace(SMALL, white_level=4080.0), **how) == expected  # type: ignore[arg-type]


def test_classes_without_defects_are_undefined_with_the_reason(toy: Path, extractor: str) -> None:
    samples = find_samples(toy)
    keep = ~((samples.class_ids == 1) & (samples.defect_ids != 0))
    rows = {
        row.class_name: row for row in measure(samples.select(keep), ["nsa"], features=extractor, preparation=SMALL)
    }
    assert rows["capsule"].fid is None
    assert rows["capsule"].undefined_because == "0 defects in the test split; at least 2 needed"
    assert rows["pooled"].real == 6
    assert rows["pooled"].synthetic == 32  # of the two classes with defects
    with pytest.raises(InputError, match="no defects in a test split"):
        measure(samples.select(samples.defect_ids == 0), ["nsa"], features=extractor, preparation=SMALL)


def test_numbers_follow_the_seed_alone(toy: Path, extractor: str) -> None:
    samples = find_samples(toy)
    samples = samples.select(samples.class_ids == 1, drop=True)
    first, again, other = (
        [
            row.fid
            for row in measure(
                samples, ["nsa"], features=extractor, preparation=replace(SMALL, seed=seed), batch_size=size
            )
        ]
        for seed, size in ((0, 32), (0, 7), (1, 32))
    )
    assert first == pytest.approx(again, rel=1e-4)
    assert first != pytest.approx(other, rel=1e-4)


def test_weights_that_cannot_be_fetched(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchmetrics.image.fid.FrechetInceptionDistance.__init__", unreachable)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for features in ("hf-hub:org/name", "resnet18.tv_in1k"):
        with pytest.raises(
            WeightsError, match=f"weights of {features} .*does not answer.*(?s:.*)--features DIR"
        ) as caught:
            measure(find_samples(toy), ["nsa"], features=features, preparation=SMALL)
        assert "--backbone" not in str(caught.value)
    with pytest.raises(WeightsError, match="Inception network can't be fetched: no route to host") as caught:
        measure(find_samples(toy), ["nsa"], preparation=SMALL)
    assert "--features NAME" in str(caught.value)


def test_the_papers_row_is_next_to_inceptions_alone(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(samples: object, syntheses: list[str], **_: object) -> list[Distance]:
        return [Distance(name, "nut", 1.5, 3, 4) for name in syntheses]

    monkeypatch.setattr("tabzoo.benchmark.__main__.measure", measured)
    fid = ["fid", "--data", str(toy), "--synthesis", "nsa", "perlin", "nsa"]  # given twice, shown once
    assert main(fid) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "class            defects   made        nsa     perlin",
        "nut                    3      4       1.50       1.50",
        "paper, MVTec AD                      64.00      98.36",
    ]
    assert main([*fid, "--features", "random"]) == 0
    assert "paper" not in capsys.readouterr().out


def test_features_are_the_sources_of_backbones(toy: Path, extractor: str) -> None:
    """A run's folder without a prefix is the same network; that of random follows the seed."""
    samples = find_samples(toy)

    def pooled(features: str, seed: int = 0) -> float | None:
        return measure(samples, ["cutpaste"], features=features, preparation=replace(SMALL, seed=seed))[-1].fid

    assert pooled(extractor.removeprefix("local-dir:")) == pooled(extractor)
    assert pooled("random:test_resnet") == pooled(extractor)  # of the same seed
    assert pooled("random:test_resnet", 1) != pooled(extractor, 1)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("--batch-size 0", "--batch-size 0: expected at least 1"),
        ("--seed -1", "--seed -1: expected at least 0"),
        ("--resize 0", "--resize 0: expected at least 1"),
        ("--white-level 0", "--white-level 0: expected the pixel value that becomes white, above 0"),
        ("--synthesis", "--synthesis: expected at least one value"),
        ("--classes", "--classes: expected at least one value"),
        ("--output folder", "--output folder: is a folder; expected a file, such as folder/fid.jsonl"),
        ("--output file/fid.jsonl", "--output file/fid.jsonl: {here}/file is not a folder"),
        ("--output closed/fid.jsonl", "--output closed/fid.jsonl: can't be written"),
    ],
)
def test_what_is_wrong_is_found_before_anything_is_read(
    given: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tabzoo.benchmark.__main__.find_samples", None)
    may_write = os.access
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "closed" and may_write(path, mode))
    for name in ("folder", "closed"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    assert main(["fid", "--data", "there", *given.split()]) == 2
    assert capsys.readouterr().err == f"error: {reason.format(here=tmp_path)}\n"


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("resnet81", "--features 'resnet81': timm has no such model. Did you mean 'resnet18'"),
        ("local-dir:nowhere", "--features local-dir:nowhere: no such folder"),
        (
            "random:vit_tiny_patch16_224",
            r"--features vit_tiny_patch16_224: does not take images of 32 x 32 px \(--crop\)",
        ),
    ],
)
def test_mistakes_in_features_name_the_flag(features: str, message: str, toy: Path) -> None:
    with pytest.raises(InputError, match=message):
        measure(find_samples(toy), ["nsa"], features=features, preparation=SMALL)


def test_mistakes(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fid", "--data", str(toy), "--classes", "capsul"]) == 2
    assert "no class capsul" in capsys.readouterr().err
    assert main(["fid", "--data", str(toy / "none")]) == 2
    assert main(["fid", "--data", str(toy), "--synthesis", "nonsense"]) == 2
    assert "--synthesis nonsense: unknown; there are nsa, cutpaste" in capsys.readouterr().err
