"""`classify`: splits, metrics against scikit-learn, rows, figures, refusals."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from tabzoo.benchmark.__main__ import main
from tabzoo.benchmark.classify import figures, metrics, run
from tabzoo.benchmark.classify.images import open_labelled
from tabzoo.benchmark.classify.learners import learn_on_features
from tabzoo.benchmark.classify.options import Options
from tabzoo.benchmark.classify.rows import RESULTS, ClassifyRow, read_rows
from tabzoo.benchmark.classify.run import classify
from tabzoo.benchmark.classify.split import split_images
from tabzoo.benchmark.classify.summary import group_rows
from tabzoo.data.toy_wafers import make_toy_wafers
from tabzoo.data.wafers import read_wafers
from tabzoo.errors import InputError

SMALL = "random:test_resnet"
CPU = torch.device("cpu")
FIVE = ("normal", "Center", "Scratch", "Center+Scratch", "Edge-Ring")
Make = Callable[..., Options]


@pytest.fixture(scope="module")
def wafers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy_wafers(tmp_path_factory.mktemp("wafers") / "toy.npz", per_class=12, classes=FIVE)


@pytest.fixture
def make(wafers: Path, tmp_path: Path) -> Make:
    def options(**changes: Any) -> Options:
        values: dict[str, Any] = {
            "data": str(wafers),
            "backbone": [SMALL],
            "mode": "linear",
            "output": tmp_path / "out",
        }
        small = {"seeds": (0,), "labels": (100,), "budget": "quick", "size": 32, "device": "cpu", "workers": 0}
        return Options(**(values | small | {"cache_dir": str(tmp_path / "cache")} | changes))

    return options


def kinds(root: Path, names: tuple[str, ...] = ("good", "hole", "bad"), number: int = 5) -> Path:
    """Photos of one grey level a kind."""
    for level, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(number):
            Image.new("RGB", (40, 30), (60 * level, i, 0)).save(root / name / f"{i}.png")
    return root


# Split and labels


def test_the_split_is_8_to_2_in_each_class_and_differs_by_seed() -> None:
    class_ids = np.repeat([0, 1, 2, 3], [100, 10, 2, 37])
    np.random.default_rng(0).shuffle(class_ids)
    first, second = (split_images(class_ids, "abcd", seed=seed) for seed in (0, 1))
    for split in (first, second):
        assert np.bincount(class_ids[split.test]).tolist() == [20, 2, 1, 7]
        together = np.sort(np.concatenate([split.test, *split.train]))
        assert np.array_equal(together, np.arange(len(class_ids)))
        assert [set(class_ids[rows].tolist()) for rows in split.train] == [{0}, {1}, {2}, {3}]
    assert first.sha256 == split_images(class_ids, "abcd", seed=0).sha256 != second.sha256
    assert not np.array_equal(first.test, second.test)


def test_labels_are_shares_of_each_class_and_parts_of_each_other() -> None:
    class_ids = np.repeat([0, 1], [250, 20])
    split = split_images(class_ids, "ab", seed=0)
    sets = {percent: split.labelled(percent) for percent in (1, 5, 10, 50, 100)}
    assert {p: np.bincount(class_ids[rows]).tolist() for p, rows in sets.items()} == {
        **{1: [2, 1], 5: [10, 1], 10: [20, 2], 50: [100, 8], 100: [200, 16]},
    }
    for few, many in ((1, 5), (5, 10), (10, 50), (50, 100)):
        assert set(sets[few]) < set(sets[many])
    assert not set(sets[100]) & set(split.test)


def test_a_budget_takes_at_most_so_many_of_a_class() -> None:
    class_ids = np.repeat([0, 1], [250, 7])
    split = split_images(class_ids, "ab", seed=0, per_class=40)
    assert np.bincount(class_ids[split.test]).tolist() == [8, 1]
    assert [len(rows) for rows in split.train] == [32, 6]


# Metrics


@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_those_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, 6, 200), rng.integers(0, 6, 200)
    predicted[truth == 2] = 2
    predicted = np.where((predicted == 5) & (truth != 5), 0, predicted)
    found = metrics.evaluate(truth, predicted, 6)
    assert found.accuracy == pytest.approx(accuracy_score(truth, predicted))
    assert found.macro_f1 == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert found.f1 == pytest.approx(f1_score(truth, predicted, average=None))
    assert np.array_equal(metrics.confusion_matrix(truth, predicted, 6), confusion_matrix(truth, predicted))


def test_f1_of_patterns_is_that_of_their_labels(wafers: Path) -> None:
    images, labels = open_labelled(str(wafers), size=32, device=CPU), read_wafers(wafers).labels
    rng = np.random.default_rng(0)
    truth = images.class_ids
    predicted = np.where(rng.random(len(truth)) < 0.5, truth, rng.integers(0, 5, len(truth)))
    of_class = np.stack([labels[truth == i][0] for i in range(5)])
    found = metrics.f1_of_patterns(truth, predicted, images.patterns)
    assert list(found) == ["Center", "Edge-Ring", "Scratch"]
    for name, column in (("Center", 0), ("Edge-Ring", 3), ("Scratch", 6)):
        assert found[name] == pytest.approx(f1_score(labels[:, column], of_class[predicted][:, column]))


def test_bootstrap_is_that_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "DRAWS", 20)
    rng = np.random.default_rng(1)
    truth = np.repeat([0, 1, 2], [30, 9, 1])
    first, second = (np.where(rng.random(40) < share, truth, rng.integers(0, 3, 40)) for share in (0.4, 0.8))
    accuracy, macro = metrics.compare(truth, first, second, 3, seed=5)
    weights = metrics._resampled(truth, np.random.default_rng([5, 40, 3])).astype(int)
    for draw, times in enumerate(weights):
        rows = np.repeat(np.arange(40), times)
        assert np.bincount(truth[rows]).tolist() == [30, 9, 1]  # of each class as many as there are
        scores = [
            (accuracy_score(truth[rows], one[rows]), f1_score(truth[rows], one[rows], average="macro"))
            for one in (first, second)
        ]
        assert accuracy[draw] == pytest.approx(scores[1][0] - scores[0][0])
        assert macro[draw] == pytest.approx(scores[1][1] - scores[0][1])


def test_nearest_neighbours_are_those_of_scikit_learn_and_no_more_than_a_class_has() -> None:
    rng = np.random.default_rng(0)
    train, test = (torch.from_numpy(rng.standard_normal((n, 4))).float() for n in (40, 30))
    for labels, neighbours in ((np.arange(40) % 4, 5), (np.array([0] * 38 + [1, 1]), 2)):
        expected = KNeighborsClassifier(neighbours, metric="cosine").fit(train, labels).predict(test)
        assert np.array_equal(learn_on_features("knn", train, labels, test, unlabelled=train), expected)


def test_a_linear_probe_is_standardised_by_all_training_images_and_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    everything, test = (torch.from_numpy(5 + 20 * rng.standard_normal((n, 4))).float() for n in (60, 30))
    known, labels = everything[:6], np.arange(6) % 3
    scaler = StandardScaler().fit(everything.double())
    expected = LogisticRegression(max_iter=2000).fit(scaler.transform(known.double()), labels)
    found = learn_on_features("linear", known, labels, test, unlabelled=everything)
    assert np.array_equal(found, expected.predict(scaler.transform(test.double())))


# Images


def test_wafers_become_grey_images_without_new_levels(wafers: Path) -> None:
    images = open_labelled(str(wafers), size=32, device=CPU)
    batch = images.batch(torch.tensor([3, 0]), 75)
    assert batch.shape == (2, 3, 75, 75)
    assert set(batch.unique().tolist()) == {0, 127, 255}
    assert torch.equal(batch[:, 0], batch[:, 2])
    assert np.array_equal(images.raw(torch.tensor([3]))[0, 0].numpy(), read_wafers(wafers).grey([3])[0])


@pytest.mark.parametrize("below", ["", "test"])
def test_a_folder_of_kinds_and_a_class_of_mvtec(below: str, tmp_path: Path) -> None:
    kinds(tmp_path / "cable" / below)
    if below:
        kinds(tmp_path / "cable" / "train", ("good",))
        kinds(tmp_path / "cable" / "ground_truth", ("hole",))
    images = open_labelled(str(tmp_path / "cable"), size=32, device=CPU, cache_dir=str(tmp_path / "c"), workers=0)
    assert (images.name, images.classes) == ("cable", ("bad", "good", "hole"))
    assert images.class_ids.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert images.batch(torch.tensor([0, 5, 10]), 32)[:, 0, 0, 0].tolist() == [120, 0, 60]
    assert all(re.search(r"\d\.png$", name) for name in images.names)


# Runs


def test_a_run_leaves_rows_split_tables_figures_and_caption(make: Make, wafers: Path, tmp_path: Path) -> None:
    arguments = ["classify", "--data", str(wafers), "--backbone", SMALL, "random:resnet10t", "--mode", "linear"]
    arguments += ["--output", str(out := tmp_path / "out"), "--seeds", "0", "1", "--labels", "10", "100"]
    arguments += ["--budget", "quick", "--size", "32", "--device", "cpu"]
    assert main(arguments) == 0
    rows = read_rows(out)
    assert len(rows) == 8
    by_seed = {(row.backbone, row.labels, row.seed): row for row in rows}
    for row in rows:
        truth, predicted = row.ids()
        assert row.macro_f1 == pytest.approx(f1_score(truth, predicted, average="macro"))
        assert set(row.f1) == set(FIVE)
        assert set(row.pattern_f1) == {"Center", "Edge-Ring", "Scratch"}
        assert row.images == {"trained": 5 if row.labels == 10 else 50, "tested": 10}
    assert by_seed[SMALL, 10, 0].split_sha256 == by_seed["random:resnet10t", 100, 0].split_sha256
    assert len({row.split_sha256 for row in rows}) == 2
    assert len({row.weights_sha256 for row in rows}) == 4  # random weights of two seeds

    (split,) = out.glob("splits/toy-seed0-*.csv")
    lines = list(csv.DictReader(split.open()))
    class_ids = read_wafers(wafers).class_ids
    tested = [int(line["image"]) for line in lines if line["part"] == "test"]
    assert class_ids[tested].tolist() == by_seed[SMALL, 10, 0].truth
    assert [line["labels_from_percent"] for line in lines].count("10") == 5
    assert all(line["class"] == read_wafers(wafers).classes[class_ids[int(line["image"])]] for line in lines)

    table = (out / "table.md").read_text()
    assert "**QUICK:" in table
    assert re.search(
        r"\| 100 % +\| +[\d.]+ ± [\d.]+ \| +[\d.]+ ± [\d.]+ \| +[+-][\d.]+ \[[+-][\d.]+, [+-][\d.]+\] \|", table
    )
    long = [line for line in csv.DictReader((out / "table.csv").open()) if line["metric"] == "macro_f1"]
    assert len(long) == 4
    means = {(line["backbone"], int(line["labels_percent"])): float(line["mean"]) for line in long}
    assert means[SMALL, 10] == pytest.approx(np.mean([by_seed[SMALL, 10, seed].macro_f1 for seed in (0, 1)]))

    assert sorted(path.suffix for path in (out / "confusion").iterdir()) == [
        ".csv",
        ".csv",
        ".png",
        ".png",
        ".svg",
        ".svg",
    ]
    caption = (out / "caption-linear.txt").read_text()
    assert f"python -m tabzoo.benchmark classify --data {wafers}" in caption
    assert by_seed[SMALL, 10, 1].weights_sha256 in caption
    assert rows[0].data_sha256 in caption


def test_rows_are_computed_once_and_a_killed_run_goes_on(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    options = make(seeds=(0, 1), labels=(10, 100))
    measured: list[int] = []
    real = run._Plan.measure

    def measure(plan: Any, job: Any, *, progress: bool) -> ClassifyRow:
        measured.append(job.percent)
        if len(measured) == 3:
            raise KeyboardInterrupt
        return real(plan, job, progress=progress)

    monkeypatch.setattr(run._Plan, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        classify(options, command="", progress=False)
    before = (options.output / RESULTS).read_text()
    assert before.count("\n") == 2
    with (options.output / RESULTS).open("a") as file:
        file.write('{"key": "ab')  # killed while writing
    table = classify(options, command="", progress=False)
    assert measured == [10, 100, 10, 10, 100]
    assert (options.output / RESULTS).read_text().startswith(before)
    assert classify(options, command="", progress=False) == table
    assert len(measured) == 5


@pytest.mark.parametrize(
    "changes", [{"size": 36}, {"mode": "knn"}, {"seeds": (1,)}, {"labels": (50,)}, {"budget": "full"}]
)
def test_what_decides_numbers_makes_another_row(make: Make, changes: dict[str, Any]) -> None:
    classify(make(), command="", progress=False)
    classify(options := make(**changes), command="", progress=False)
    assert len(read_rows(options.output)) == 2


def test_equal_seeds_give_equal_predictions(make: Make, tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        options = make(mode="finetune", output=tmp_path / name, epochs=2)
        classify(options, command="", progress=False)
        found.append(read_rows(options.output)[0])
        torch.rand(3)
    assert found[0].predicted == found[1].predicted
    assert found[0].key == found[1].key


CLASSES, EPOCHS = ("normal", "Loc", "Edge-Loc", "Scratch", "Loc+Scratch"), 20


def test_fine_tuning_beats_a_linear_probe_of_random_features(make: Make, tmp_path: Path) -> None:
    data = make_toy_wafers(tmp_path / "w.npz", per_class=40, classes=CLASSES)
    scores = {}
    for mode, size in (("linear", 32), ("finetune", 32)):
        options = make(data=str(data), mode=mode, size=size, epochs=EPOCHS, lr=3e-3)
        classify(options, command="", progress=False)
        scores[mode] = next(row.macro_f1 for row in read_rows(options.output) if row.mode == mode)
    assert scores["finetune"] > scores["linear"] + 0.1


def test_a_backbone_that_saw_the_images_is_marked(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = str(kinds(tmp_path / "cable"))
    hashes = open_labelled(data, size=32, device=CPU, cache_dir=str(tmp_path / "cache"), workers=0).hashes
    assert hashes is not None
    real = run.find_backbones
    monkeypatch.setattr(run, "find_backbones", lambda names: [real(names)[0]._replace(hashes=hashes[:1])])
    table = classify(make(data=data), command="", progress=False)
    assert read_rows(tmp_path / "out")[0].transductive
    assert f"t: {SMALL} was pre-trained on some of these images." in table
    assert "F1 of basic patterns" not in table


# Figures


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    made: list[Figure] = []
    monkeypatch.setattr(figures, "save_for_paper", lambda figure, stem: made.append(figure))
    return made


def row(**changes: Any) -> ClassifyRow:
    values: dict[str, Any] = {
        **{"key": "0" * 16, "backbone": "a", "origin": "random weights", "mode": "linear", "dataset": "d", "seed": 0},
        **{"labels": 100, "budget": "full", "transductive": False, "accuracy": 0.5, "macro_f1": 0.25, "pattern_f1": {}},
        **{"f1": {"good": 0.5, "hole": 0.5}, "classes": ["good", "hole"], "truth": [0, 0, 1], "predicted": [0, 1, 1]},
        **{"images": {"trained": 8, "tested": 3}, "settings": {"size": 32, "per_class": None}, "weights_sha256": "w"},
        **{"data_sha256": "d", "split_sha256": "s", "versions": {}, "hardware": "h", "seconds": 1.0},
        **{"peak_memory": None, "created": "now"},
    }
    return ClassifyRow(**(values | changes))


def test_label_efficiency_has_a_point_for_each_share_and_a_line_for_each_backbone(
    drawn: list[Figure], tmp_path: Path
) -> None:
    rows = [
        row(backbone=name, labels=percent, seed=seed, accuracy=(percent + seed) / 200, macro_f1=percent / 200)
        for name in ("a", "$b_{$")
        for percent in (1, 10, 100)
        for seed in (0, 1)
    ]
    (group,) = group_rows(rows, order=["a"])
    figures.draw_label_efficiency(tmp_path / "f", group)
    left, right = drawn[0].axes
    assert [axis.get_title() for axis in (left, right)] == ["accuracy", "macro-F1"]
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["a", "$b_{$"]
    assert [label.get_text() for label in left.get_xticklabels()] == ["1 %", "10 %", "100 %"]
    lines = [container.lines[0] for container in left.containers]
    first, second = (np.asarray(line.get_xdata()) for line in lines)
    assert first == pytest.approx([1, 10, 100], rel=0.06)
    assert second / first == pytest.approx([100**0.02] * 3)  # beside each other
    assert lines[0].get_ydata() == pytest.approx([0.75, 5.25, 50.25])
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 2
    bars = left.containers[0].lines[2][0].get_segments()
    assert bars[0][1][1] - bars[0][0][1] == pytest.approx(2 * 100 * np.std([1 / 200, 2 / 200], ddof=1))


def test_confusion_matrix_is_drawn_and_written_with_all_numbers(drawn: list[Figure], tmp_path: Path) -> None:
    rows = [row(seed=seed) for seed in (0, 1)] + [row(labels=10, predicted=[1, 1, 1])]
    (group,) = group_rows(rows, order=[])
    figures.draw_confusion(tmp_path / "c", group, "a")
    axis = drawn[0].axes[0]
    assert np.asarray(axis.images[0].get_array()).tolist() == [[0.5, 0.5], [0, 1]]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["good", "hole"]
    assert axis.get_xticklabels()[0].get_rotation() == 0
    assert [text.get_text() for text in axis.texts] == ["2", "2", "0", "2"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted class", "true class")
    assert (tmp_path / "c.csv").read_text().splitlines()[1:] == ["good,2,2", "hole,0,2"]


def test_a_matrix_of_many_classes_has_short_names(drawn: list[Figure], tmp_path: Path) -> None:
    classes = ["normal", "Center", "Center+Edge-Loc", *(f"k{i}" for i in range(20))]
    (group,) = group_rows([row(classes=classes, f1=dict.fromkeys(classes, 0.5))], order=[])
    figures.draw_confusion(tmp_path / "c", group, "a")
    axis = drawn[0].axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()][:4] == ["normal", "C", "C+EL", "k0"]
    assert [label.get_text() for label in axis.get_yticklabels()][:3] == ["normal", "Center (C)", "C+EL"]
    assert axis.get_xticklabels()[0].get_rotation() == 90
    assert len(axis.get_xticklabels()) == 23
    assert not axis.texts


# Refusals


def refusals(root: Path) -> list[tuple[list[str], str]]:
    one, single, several = kinds(root / "one", ("good",)), kinds(root / "single"), root / "several"
    for image in list((single / "hole").iterdir())[1:]:
        image.unlink()
    for name in ("nut", "bolt"):
        kinds(several / name / "test", ("good", "hole"))
    (root / "full").mkdir()
    (root / "full" / "notes.txt").touch()
    (root / "empty").mkdir()
    return [
        (["--data", str(root / "none")], r"--data .*none: no such folder; expected DIR/KIND/\*\.png"),
        (["--data", str(root / "none.npz")], r"none\.npz: no such file"),
        (["--data", str(root / "empty")], r"no images; expected DIR/KIND"),
        (["--data", str(one)], r"holds images of one class, good; expected at least two kinds"),
        (["--data", str(single)], r"class hole: 1 image; expected at least 2"),
        (["--data", str(several)], r"a folder of several classes; give one of them, such as .*bolt"),
        (["--labels", "0"], r"--labels 0: expected percentages from 1 to 100"),
        (["--labels", "101"], r"--labels 101"),
        (["--labels", "0.5"], r"--labels: expected --labels P"),
        (["--seeds", "-1"], r"--seeds -1: expected at least 0"),
        (["--mode", "lineal"], r"--mode: 'lineal' given, expected finetune, linear, knn. Did you mean 'linear'"),
        (["--lr", "0"], r"--lr 0: expected a learning rate above 0"),
        (["--weight-decay", "-1"], r"--weight-decay -1"),
        (["--size", "8"], r"--size 8: expected at least 16"),
        (["--mode", "finetune", "--optimizer", "adamm"], r"--optimizer adamm: timm can't build it"),
        (["--backbone", "resnet19"], r"--backbone 'resnet19': timm has no such model"),
        (["--output", str(root / "full")], r"holds no results of classify: it has no classify.jsonl, but notes.txt"),
        (["--output", str(root / "full" / "notes.txt")], r"is a file; expected a folder"),
        (["--output", str(one / "out"), "--data", str(one)], r"is inside --data"),
    ]


def test_bad_input_is_told_in_one_line(wafers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usual = {"--data": str(wafers), "--backbone": SMALL, "--mode": "linear", "--output": str(tmp_path / "out")}
    usual |= {
        "--size": "32",
        "--budget": "quick",
        "--device": "cpu",
        "--workers": "0",
        "--cache-dir": str(tmp_path / "c"),
    }
    for arguments, message in refusals(tmp_path):
        given = [*arguments]
        for flag, value in usual.items():
            given += [flag, value] if flag not in arguments else []
        try:
            code = main(["classify", *given])
        except SystemExit as error:
            code = int(error.code or 0)
        error = "\n".join(
            line for line in capsys.readouterr().err.splitlines() if "decoding images" not in line
        ).strip()
        assert code == 2, arguments
        assert re.search(message, error), (arguments, error)
        assert len(error.splitlines()) <= (2 if "See python" in error else 1), error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accuracy": 2}, "accuracy is 2; expected a number from 0 to 1"),
        ({"predicted": [0, 9, 1]}, "predicted is .*; expected the class of each test image"),
        ({"predicted": [0]}, "predicted is"),
        ({"labels": 0}, "labels is 0; expected a percentage"),
        ({"f1": None}, "f1 is None"),
    ],
)
def test_damaged_rows_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    values = json.loads(json.dumps(vars(row())))
    (tmp_path / RESULTS).write_text(json.dumps(values) + "\n" + json.dumps(values | changes) + "\n")
    with pytest.raises(InputError, match=f"{RESULTS}, line 2: not a row of results .{message}"):
        read_rows(tmp_path)
    del values["split_sha256"]
    (tmp_path / RESULTS).write_text(json.dumps(values) + "\n")
    with pytest.raises(InputError, match="lacks split_sha256"):
        read_rows(tmp_path)
