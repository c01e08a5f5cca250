"""Runs of a few-shot method: it learns on the other classes of the data, and its rows are averages over draws of supports."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from torch import Tensor

from tabzoo.benchmark import measure
from tabzoo.benchmark import run as runner
from tabzoo.benchmark.options import Options
from tabzoo.benchmark.plan import Job, Plan
from tabzoo.benchmark.run import run
from tabzoo.data.toy import make_toy_factory
from tabzoo.detectors.regad import Regad
from tabzoo.errors import InputError
from tabzoo.scores.bootstrap import auroc_differences
from tabzoo.scores.rows import RESULTS, Row, read_rows

pytestmark = pytest.mark.usefixtures("sketches")
MakeOptions = Callable[..., Options]
MakeRow = Callable[..., Row]


@pytest.fixture
def options(options: MakeOptions) -> MakeOptions:
    settings = {"regad": {"steps": 1, "batch_size": 4, "draws": 1}}
    few_shot = {"method": ["regad"], "shots": [2], "resize": 48, "crop": 48, "settings": settings}
    return lambda **changes: options(**(few_shot | changes))


@pytest.fixture
def thinned(toy: Path, tmp_path: Path) -> Path:
    """Of one of three classes two good training images are left."""
    data = shutil.copytree(toy, tmp_path / "thinned")
    for path in sorted((data / "hex_nut" / "train" / "good").iterdir())[2:]:
        path.unlink()
    return data


def test_a_row_is_the_mean_over_its_draws(
    options: MakeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[tuple[list[int], int]] = []
    fitted: list[np.ndarray] = []
    learn, fit = Regad.meta_train, Regad.fit

    def learning(self: Regad, others: list, shots: int) -> None:
        learned.append(([len(images) for images in others], shots))
        assert all(0 <= images.take(slice(None)).min() and images.take(slice(None)).max() <= 1 for images in others)
        learn(self, others, shots)

    def fitting(self: Regad, images: list) -> None:
        fitted.append(np.concatenate([batch.numpy() for batch in images]))
        fit(self, images)

    kept: list[Tensor] = []
    keep = measure.keep_maps
    monkeypatch.setattr(measure, "keep_maps", lambda *given: (kept.append(given[3]), keep(*given)))
    monkeypatch.setattr(Regad, "meta_train", learning)
    monkeypatch.setattr(Regad, "fit", fitting)
    table = run(options(classes=["capsule"], settings={"regad": {"steps": 1, "draws": 3}}), progress=False)
    (row,) = read_rows(tmp_path / "out")
    assert learned == [([16, 16], 2)]  # once
    assert row.class_name == "capsule"
    assert row.draw is not None
    assert len(row.draw) == len(fitted) == 3
    assert len({tuple(paths) for paths in row.draw}) == 3
    assert all(len(paths) == 2 and paths[0].startswith("capsule/train/good/") for paths in row.draw)
    assert not np.array_equal(fitted[0], fitted[1])
    good, anomalous = (np.array(row.scores[kind]) for kind in ("good", "anomalous"))
    assert (good.shape, anomalous.shape) == ((3, 2), (3, 3))
    (maps,) = kept  # of the first draw; an image's score is the largest of its map
    assert sorted(maps.amax(dim=(1, 2)).tolist()) == pytest.approx(sorted([*good[0], *anomalous[0]]))
    aurocs = [roc_auc_score([0] * 2 + [1] * 3, [*a, *b]) for a, b in zip(good, anomalous, strict=True)]
    assert row.image_auroc == pytest.approx(np.mean(aurocs))
    assert row.images == {"fitted": 2, "good": 2, "anomalous": 3, "learned on": 32}
    assert set(row.seconds) == {"learn", "fit", "score"}
    assert row.settings["normalised"] is False
    assert "trained_on the other classes of --data" in table
    for name in ("maps/regad-2shots/capsule", "roc/regad-2shots"):
        assert (tmp_path / "out" / f"{name}.png").is_file()


def test_finished_rows_are_not_computed_again(
    options: MakeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What else they depend on: test_plan.py."""
    names: list[str] = []
    measure_row = runner.measure_row

    def counting(plan: Plan, job: Job, *more: object) -> Row:
        names.append(job.images.name)
        return measure_row(plan, job, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(runner, "measure_row", counting)
    chosen = options(classes=["capsule", "hex_nut"])
    run(chosen, progress=False)
    before = read_rows(tmp_path / "out")
    path = tmp_path / "out" / RESULTS
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:1]))  # killed before the second row
    run(chosen, progress=False)
    assert names == ["capsule", "hex_nut", "hex_nut"]
    assert [row.scores for row in read_rows(tmp_path / "out")] == [row.scores for row in before]


def test_draws_follow_the_seed_and_the_first_is_that_of_other_methods(options: MakeOptions) -> None:
    (images,) = (one for one in Plan(options()).images("regad") if one.name == "capsule")
    draws = [images.fitting_set(shots=4, seed=0, test="real", number=number).paths for number in range(10)]
    assert draws[0] == images.fitting_set(shots=4, seed=0, test="real").paths
    assert draws[3] == images.fitting_set(shots=4, seed=0, test="real", number=3).paths
    assert draws[3] != images.fitting_set(shots=4, seed=1, test="real", number=3).paths
    assert len({tuple(paths) for paths in draws}) > 8


def test_shots_by_default(options: MakeOptions) -> None:
    jobs = list(Plan(options(shots=None, method=["regad", "padim"], classes=["capsule"])).jobs())
    assert [(job.method, job.shots, len(job.others)) for job in jobs] == [
        ("regad", 4, 2),
        ("regad", 8, 2),
        ("padim", None, 0),
    ]


def test_too_few_other_classes(
    options: MakeOptions, thinned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Regad, "meta_train", None)  # nothing is trained before
    for shots, target in ((2, "capsule"), (1, "hex_nut")):
        others = Plan(options(data=str(thinned), classes=[target], shots=[1])).jobs()
        assert [len(job.others) for job in others] == [2], (shots, target)
    reason = "at least two other classes in --data need 3 good training images each; there are 1: brushed_steel"
    with pytest.raises(InputError, match=f"to test capsule with --shots 2 {reason}"):
        run(options(data=str(thinned), classes=["capsule"]), progress=False)
    shutil.rmtree(thinned / "brushed_steel")
    shutil.rmtree(thinned / "hex_nut")
    reason = (
        r"regad: is trained on at least two other classes than the tested one, and --data has only 1 class \(capsule\)"
    )
    with pytest.raises(InputError, match=reason):
        run(options(data=str(thinned)), progress=False)
    assert not read_rows(tmp_path / "out")


def test_intervals_of_draws(make_row: MakeRow) -> None:
    rows = [make_row("random"), make_row("mine", shift=2.0)]
    doubled = [
        dataclasses.replace(row, scores={kind: [scores, scores] for kind, scores in row.scores.items()}) for row in rows
    ]
    plain, drawn = (auroc_differences([(first, second)]) for first, second in (rows, doubled))
    assert plain is not None
    assert drawn is not None
    assert np.allclose(plain, drawn)
    mixed = dataclasses.replace(
        rows[1], scores={kind: [rows[0].scores[kind], rows[1].scores[kind]] for kind in rows[0].scores}
    )
    half = auroc_differences([(rows[0], mixed)])
    assert half is not None
    assert np.allclose(half, plain / 2)  # the mean over the draws, of which the first is no better


@pytest.mark.slow
def test_easy_defects_are_found(options: MakeOptions, tmp_path: Path) -> None:
    """Stains and holes in wood, by a network that has only seen steel and cloth."""
    data = make_toy_factory(
        *(tmp_path / "toy",),
        **{"seed": 3, "size": 64, "train": 8, "test_good": 8, "test_defect": 9},  # type: ignore[arg-type]
        classes=("wood_grain", "brushed_steel", "woven_fabric"),
    )
    chosen = options(
        data=str(data),
        **{"classes": ["wood_grain"], "shots": [4], "resize": 64, "crop": 64},
        settings={"regad": {"steps": 4, "batch_size": 4, "draws": 2}},
    )
    run(chosen, progress=False)
    (row,) = read_rows(tmp_path / "out")
    assert row.image_auroc is not None
    assert row.image_auroc > 0.9
    assert row.pixel_auroc is not None
    assert row.pixel_auroc > 0.9
    assert json.loads((tmp_path / "out" / RESULTS).read_text())["draw"] == row.draw
