"""FID: the arithmetic, the table, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import timm
import torch
from numpy.typing import NDArray
from timm.models import save_for_hf

from tabzoo.benchmark.__main__ import main
from tabzoo.benchmark.fid import frechet_distance, measure
from tabzoo.data.layouts import find_samples
from tabzoo.errors import InputError, WeightsError
from tabzoo.training.recipe import Recipe

Array = NDArray[np.float64]
SMALL = Recipe(resize=40, crop=32, cache="ram", workers=0)


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


@pytest.fixture
def extractor(tmp_path: Path) -> str:
    torch.manual_seed(0)
    save_for_hf(timm.create_model("resnet18", num_classes=0), tmp_path / "net", safe_serialization=True)
    return f"local-dir:{tmp_path / 'net'}"


def test_table(toy: Path, extractor: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fid", "--data", str(toy), "--features", extractor, "--resize", "40", "--crop", "32"]
    assert main([*arguments, "--synthesis", "nsa", "--output", str(tmp_path / "fid.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert "no FID of the literature" in shown
    assert "64.00" in shown  # the paper's
    rows = [json.loads(line) for line in (tmp_path / "fid.jsonl").read_text().splitlines()]
    assert [row["class_name"] for row in rows] == ["brushed_steel", "capsule", "hex_nut", "pooled"]
    assert all(row["fid"] > 0 for row in rows)
    assert [row["real"] for row in rows] == [3, 3, 3, 9]
    assert [row["synthetic"] for row in rows] == [16, 16, 16, 48]


def test_classes_without_defects_are_undefined_with_the_reason(toy: Path, extractor: str) -> None:
    samples = find_samples(toy)
    keep = ~((samples.class_ids == 1) & (samples.defect_ids != 0))
    rows = {row.class_name: row for row in measure(samples.select(keep), ["nsa"], features=extractor, recipe=SMALL)}
    assert rows["capsule"].fid is None
    assert rows["capsule"].undefined_because == "0 defects in the test split; two are the least"
    assert rows["pooled"].real == 6
    assert rows["pooled"].synthetic == 32  # of the two classes with defects
    with pytest.raises(InputError, match="no defects in a test split"):
        measure(samples.select(samples.defect_ids == 0), ["nsa"], features=extractor, recipe=SMALL)


def test_numbers_follow_the_seed_alone(toy: Path, extractor: str) -> None:
    samples = find_samples(toy)
    first, again, other = (
        [
            row.fid
            for row in measure(samples, ["nsa"], features=extractor, recipe=SMALL.replace(seed=seed), batch_size=size)
        ]
        for seed, size in ((0, 32), (0, 7), (1, 32))
    )
    assert first == pytest.approx(again, rel=1e-4)
    assert first != pytest.approx(other, rel=1e-4)


def test_weights_that_cannot_be_fetched(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchmetrics.image.fid.FrechetInceptionDistance.__init__", unreachable)
    with pytest.raises(WeightsError, match="Inception network can't be fetched: no route to host") as caught:
        measure(find_samples(toy), ["nsa"], recipe=SMALL)
    assert "--features NAME" in str(caught.value)


def test_mistakes(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fid", "--data", str(toy), "--classes", "capsul"]) == 2
    assert "no class capsul" in capsys.readouterr().err
    assert main(["fid", "--data", str(toy / "none")]) == 2
    with pytest.raises(SystemExit):
        main(["fid", "--data", str(toy), "--synthesis", "nonsense"])
