"""`classify`: the feature space before and after fine-tuning."""

import csv
import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from safetensors.torch import load_file, save_file
from sklearn.metrics import balanced_accuracy_score, silhouette_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from tabzoo.benchmark.classify import embedding, run
from tabzoo.benchmark.classify.embedding import draw_embedding, drawn_images
from tabzoo.benchmark.classify.images import open_labelled
from tabzoo.benchmark.classify.kept_features import FEATURES, keep_features, kept_path
from tabzoo.benchmark.classify.learners import features_of, fine_tune
from tabzoo.benchmark.classify.options import BUDGETS, Options
from tabzoo.benchmark.classify.rows import ClassifyRow, read_rows
from tabzoo.benchmark.classify.run import classify
from tabzoo.benchmark.classify.split import Split, split_path, write_split
from tabzoo.benchmark.classify.summary import group_rows
from tabzoo.benchmark.fid import Preparation, embedding_network
from tabzoo.benchmark.separation import separation_of_classes
from tabzoo.data.toy_wafers import make_toy_wafers
from tabzoo.data.wafers import PATTERNS, PUBLIC

SMALL, OTHER = "random:test_resnet", "random:resnet10t"
STEM = "embedding-finetune"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Options]:
    """Of a run that is done."""
    root = tmp_path_factory.mktemp("run")
    data = make_toy_wafers(root / "toy.npz", per_class=25, classes=("normal", "Center", "Scratch", "Center+Scratch"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BUDGETS, "quick", BUDGETS["quick"]._replace(least_steps=3, epochs=1, size=32))
        made = Options(
            data=str(data),
            backbone=[SMALL, OTHER],
            mode="finetune",
            output=root / "out",
            seeds=(3, 1),
            labels=(100, 10),
            budget="quick",
            device="cpu",
        )
        classify(made, command="", progress=False)
        yield made


def lines(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def test_features_are_kept_for_the_first_seed_and_the_most_labels(options: Options) -> None:
    rows = read_rows(options.output)
    assert len(rows) == 8
    kept = [row for row in rows if kept_path(options.output, row.key).exists()]
    assert [(row.backbone, row.seed, row.labels) for row in kept] == [(SMALL, 3, 100), (OTHER, 3, 100)]
    assert len(list((options.output / FEATURES).iterdir())) == 2

    # They are the network's, and that they are taken changes nothing.
    images = open_labelled(options.data, size=32, device=CPU)
    split = run._Plan(options).splits[3]
    network = embedding_network(SMALL, Preparation(crop=32, seed=3), CPU, flag="--backbone")
    features = load_file(kept_path(options.output, kept[0].key))
    assert features["before"].dtype == torch.float16
    expected = features_of(network, images, split.test, options, amp=False)
    torch.testing.assert_close(features["before"].float(), expected, rtol=1e-3, atol=1e-3)
    predicted = fine_tune(network, images, split.labelled(100), split.test, options, seed=3, amp=False, label="")
    assert predicted.tolist() == kept[0].predicted
    expected = features_of(network, images, split.test, options, amp=False)
    torch.testing.assert_close(features["after"].float(), expected, rtol=1e-3, atol=1e-3)
    assert (features["after"] - features["before"]).abs().max() > 0.01


def test_the_run_leaves_figure_points_numbers_and_a_sentence(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    row = next(row for row in read_rows(options.output) if (row.backbone, row.seed, row.labels) == (SMALL, 3, 100))
    points = lines(options.output / f"{STEM}.csv")
    assert len(points) == 4 * 20
    assert {(line["backbone"], line["state"]) for line in points} == {
        (name, state) for name in (SMALL, OTHER) for state in ("before", "after")
    }
    tested = {
        line["image"]: line["class"]
        for line in lines(split_path(options.output, "toy", 3, row.split_sha256))
        if line["part"] == "test"
    }
    assert {line["image"]: line["class"] for line in points} == tested
    numbers = lines(options.output / f"{STEM}-numbers.csv")
    features = load_file(kept_path(options.output, row.key))["after"].double().numpy()
    assert (numbers[1]["backbone"], numbers[1]["state"], numbers[1]["images"]) == (SMALL, "after", "20")
    assert float(numbers[1]["silhouette"]) == pytest.approx(silhouette_score(features, row.truth), rel=1e-4)
    caption = (options.output / "caption-finetune.txt").read_text().replace("\n", " ")
    assert f"{STEM}: t-SNE of the features (averaged over positions) of all 20 test images" in caption
    assert f"{SMALL}: silhouette {float(numbers[0]['silhouette']):.2f} before" in caption

    def hashes() -> dict[str, str]:
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in options.output.glob(f"{STEM}*")}

    before = hashes()
    assert len(before) == 4
    monkeypatch.setattr(run._Plan, "measure", None)  # the figure needs no training
    classify(options, command="", progress=False)
    assert hashes() == before


def test_a_run_that_was_stopped_before_its_first_row_goes_on(options: Options, tmp_path: Path) -> None:
    (tmp_path / FEATURES).mkdir()
    (tmp_path / "splits").mkdir()
    run._check_output(dataclasses.replace(options, output=tmp_path))


# Without training


def row(classes: list[str], truth: list[int], **changes: Any) -> ClassifyRow:
    values: dict[str, Any] = {
        **{"key": "a" * 16, "backbone": "a", "origin": "random weights", "mode": "finetune", "dataset": "d", "seed": 0},
        **{"labels": 100, "budget": "full", "transductive": False, "accuracy": 0.5, "macro_f1": 0.25, "pattern_f1": {}},
        **{"f1": dict.fromkeys(classes, 0.5), "classes": classes, "truth": truth, "predicted": truth},
        **{"images": {"trained": 8, "tested": len(truth)}, "settings": {}, "weights_sha256": "w", "data_sha256": "d"},
        **{"split_sha256": "s" * 64, "versions": {}, "hardware": "h", "seconds": 1.0, "peak_memory": None},
        **{"created": "now"},
    }
    return ClassifyRow(**(values | changes))


def keep(folder: Path, one: ClassifyRow, scale: float = 1.0) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(len(one.truth), 6)) + np.array(one.truth)[:, None]
    before, after = (torch.from_numpy(part * scale).float() for part in (values, 2 * values))
    keep_features(folder, one.key, before=before, after=after)
    images = [str(1000 + i) for i in range(len(one.truth))]
    split = Split(np.arange(len(images)), (np.empty(0, dtype=np.int64),))
    write_split(split_path(folder, one.dataset, one.seed, one.split_sha256), split, images, images, [100])


def test_mixtures_are_grey_and_basic_patterns_have_a_mark_each(
    drawn: list[Figure], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "drawn_images", lambda truth, seed: drawn_images(truth, seed=seed, most=76))
    classes = sorted(PUBLIC, key=lambda name: (name.count("+"), name != "normal"))
    one = row(classes, [i % 38 for i in range(3 * 38)], pattern_f1=dict.fromkeys(PATTERNS, 0.5))
    keep(tmp_path, one)
    (group,) = group_rows([one], order=[])
    found = draw_embedding(tmp_path, group)
    assert not found.missing
    assert "of 76 of 114 test images, at most 2 of a class, by each" in found.sentences[0]
    assert "Grey: the 29 classes of mixed patterns." in found.sentences[0]
    figure = drawn[0]
    assert figure.get_size_inches()[0] * 25.4 == pytest.approx(85)
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [*classes[:9], "mixtures"]
    for axis, state in zip(figure.axes, ("before", "after"), strict=True):
        assert axis.get_title().startswith(f"a, {state}\nsilhouette ")
        clouds = [one for one in axis.collections if isinstance(one, PathCollection) and len(one.get_offsets())]
        assert [len(cloud.get_offsets()) for cloud in clouds] == [*[2] * 9, 58]
        colours = {
            tuple((cloud.get_edgecolor() if len(cloud.get_edgecolor()) else cloud.get_facecolor())[0])
            for cloud in clouds
        }
        assert len(colours) == 10
        assert not axis.texts
    # The legend is within the figure.
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = legend.get_window_extent(canvas.get_renderer())
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    assert {line["image"] for line in lines(tmp_path / f"{STEM}.csv")} <= {str(1000 + i) for i in range(114)}


def test_many_classes_of_another_kind_have_numbers(drawn: list[Figure], tmp_path: Path) -> None:
    classes = [f"kind {i}" for i in range(11)]
    one = row(classes, [i % 11 for i in range(33)])
    keep(tmp_path, one)
    (group,) = group_rows([one], order=[])
    assert "A class's number is at the median of its points" in draw_embedding(tmp_path, group).sentences[0]
    for axis in drawn[0].axes:
        assert sorted(int(text.get_text()) for text in axis.texts) == list(range(1, 12))
        clouds = [one for one in axis.collections if isinstance(one, PathCollection) and len(one.get_offsets())]
        looks = {(tuple(one.get_edgecolor()[0]), one.get_paths()[0].vertices.tobytes()) for one in clouds}
        assert len(clouds) == len(looks) == 11
    assert not drawn[0].legends
    assert "11\N{NO-BREAK SPACE}kind" in drawn[0]._supxlabel.get_text()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("sketches")
def test_backbones_without_features_are_named_and_the_others_drawn(tmp_path: Path) -> None:
    rows = [
        row(["x", "y"], [0, 1] * 4, key=f"{name}{seed}", backbone=name, seed=seed)
        for name in ("a", "b", "c")
        for seed in (0, 1)
    ]
    group = group_rows(rows, order=[])[0]
    hint = "no features of these test images were kept. To draw it, type the same command with a new --output."
    assert draw_embedding(tmp_path, group) == ([], [f"{STEM} has no panel of a, b, c: {hint}"])
    for key in ("a0", "b1", "c1"):  # of seed 1 there are more
        keep(tmp_path, next(one for one in rows if one.key == key))
    found = draw_embedding(tmp_path, group)
    assert found.missing == [f"{STEM} has no panel of a: {hint}"]
    assert {line["backbone"] for line in lines(tmp_path / f"{STEM}.csv")} == {"b", "c"}
    for key in ("b1", "c1"):
        kept_path(tmp_path, key).unlink()
    kept_path(tmp_path, "a0").unlink()
    assert draw_embedding(tmp_path, group).sentences == []
    assert not list(tmp_path.glob(f"{STEM}*"))  # an earlier run's figure is not this one's


@pytest.mark.usefixtures("sketches")
def test_features_that_can_not_be_drawn_are_named(tmp_path: Path) -> None:
    def message(truth: list[int], tensors: dict[str, torch.Tensor] | None) -> str:
        one = row(["x", "y"], truth)
        keep(tmp_path, one)
        path = kept_path(tmp_path, one.key)
        if tensors is None:
            path.write_bytes(b"damaged")
        elif tensors:
            save_file(tensors, str(path), metadata={"tabzoo": f'{{"row": "{one.key}"}}'})
        found = draw_embedding(tmp_path, group_rows([one], order=[])[0])
        assert not found.sentences
        (line,) = found.missing
        return line

    half = torch.rand(6, 3).half()
    assert "3 test images; t-SNE needs at least 4" in message([0, 1, 1], {})
    assert "damaged or not written by tabzoo" in message([0, 1] * 3, None)
    assert "does not fit its row" in message([0, 1] * 2, {"before": half, "after": half.clone()})
    assert "it holds before" in message([0, 1] * 3, {"before": half})
    assert "are not finite" in message([0, 1] * 3, {"before": half, "after": torch.full((6, 3), torch.nan)})
    assert "are the same for all images" in message([0, 1] * 3, {"before": half, "after": torch.ones(6, 3).half()})


def test_at_most_so_many_images_are_drawn_evenly_and_by_the_seed() -> None:
    truth = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [500, 400, 30]))
    found = drawn_images(truth, seed=0, most=331)
    assert np.bincount(truth[found]).tolist() == [150, 150, 30]
    assert np.array_equal(found, np.unique(found))
    assert np.array_equal(found, drawn_images(truth, seed=0, most=331))
    assert not np.array_equal(found, drawn_images(truth, seed=1, most=331))
    assert np.array_equal(drawn_images(truth, seed=0, most=930), np.arange(930))
    assert len(drawn_images(truth, seed=0, most=1)) == 3


def test_numbers_of_classes_are_those_of_plain_references() -> None:
    rng = np.random.default_rng(0)
    class_ids = np.array([0] * 9 + [2] * 7 + [3] * 4 + [5])
    values = rng.normal(size=(21, 5)) + class_ids[:, None] / 2
    silhouette, accuracy = separation_of_classes(values, class_ids, seed=2)
    values, class_ids = values[:20], class_ids[:20]  # without the class of a single image
    assert silhouette == pytest.approx(silhouette_score(values, class_ids))
    expected = []
    for repeat in range(10):
        folds = StratifiedKFold(4, shuffle=True, random_state=2 + repeat)
        predicted = cross_val_predict(KNeighborsClassifier(5), values, class_ids, cv=folds)
        expected.append(balanced_accuracy_score(class_ids, predicted))
    assert accuracy == pytest.approx(np.mean(expected))
    assert separation_of_classes(values[:4], np.arange(4), seed=0) == (None, None)
    assert separation_of_classes(values[:4], np.array([0, 0, 0, 1]), seed=0) == (None, None)
