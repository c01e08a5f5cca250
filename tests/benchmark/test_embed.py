"""The feature space: which images are compared, the numbers against plain references, and what the figures show."""

import csv
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score, silhouette_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from test_fid import reference as frechet_reference

from tabzoo.benchmark import embed
from tabzoo.benchmark.__main__ import main
from tabzoo.benchmark.embed import Embed
from tabzoo.benchmark.fid import Preparation
from tabzoo.benchmark.groups import DEFECT, GROUPS, NORMAL, SOURCE, SYNTHETIC, Groups, group_images
from tabzoo.benchmark.scatter import Plane, draw_planes, pca, t_sne
from tabzoo.benchmark.separation import average, corrected_interval, difference, separation
from tabzoo.data.images import read_image
from tabzoo.data.layouts import find_samples
from tabzoo.data.samples import TEST, TRAIN
from tabzoo.errors import WriteError

Array = NDArray[np.float64]
SMALL = Preparation(resize=40, crop=32, cache="ram", workers=0)
FLAGS = ["--resize", "40", "--crop", "32", "--device", "cpu"]


def grouped(toy: Path, seed: int = 0) -> Groups:
    return group_images(
        find_samples(toy), "cutpaste", Preparation(**(vars(SMALL) | {"seed": seed})), torch.device("cpu")
    )


def rows_of(groups: Groups, class_id: int, group: str) -> list[int]:
    return groups.rows[(groups.class_ids == class_id) & (groups.groups == group)].tolist()


def test_groups_share_no_image_and_come_from_the_right_folders(toy: Path) -> None:
    groups = grouped(toy)
    samples = groups.images.samples
    for class_id in range(3):
        found = {group: rows_of(groups, class_id, group) for group in GROUPS}
        assert {group: len(rows) for group, rows in found.items()} == {NORMAL: 2, SOURCE: 3, SYNTHETIC: 3, DEFECT: 3}
        assert found[SOURCE] == found[SYNTHETIC]
        assert all(samples.split[row] == TRAIN and samples.defect_ids[row] == 0 for row in found[SOURCE])
        assert all(samples.split[row] == TEST and samples.defect_ids[row] == 0 for row in found[NORMAL])
        assert all(samples.split[row] == TEST and samples.defect_ids[row] != 0 for row in found[DEFECT])
        assert all(samples.class_ids[row] == class_id for rows in found.values() for row in rows)
    other = grouped(toy, seed=1)
    assert any(rows_of(groups, i, SOURCE) != rows_of(other, i, SOURCE) for i in range(3))


def test_a_class_without_good_test_images_lends_training_images(toy: Path) -> None:
    samples = find_samples(toy)
    samples = samples.select(samples.split == TRAIN)
    groups = group_images(samples, "cutpaste", SMALL, torch.device("cpu"))
    assert groups.lent == ["brushed_steel", "capsule", "hex_nut"]
    for class_id in range(3):
        normal, source = (set(rows_of(groups, class_id, group)) for group in (NORMAL, SOURCE))
        assert (len(normal), len(source)) == (8, 8)
        assert not normal & source


def test_features_are_the_networks_of_the_images(toy: Path) -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=0).eval()
    groups = grouped(toy)
    (found,) = groups.features([network], batch_size=2)
    (again,) = groups.features([network], batch_size=7)
    torch.testing.assert_close(found, again, rtol=1e-4, atol=1e-5)
    samples = groups.images.samples
    pixels = [read_image(samples.path(row), size=40)[4:36, 4:36].copy() for row in groups.rows.tolist()]
    with torch.no_grad():
        plain = network((torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5)
    made = torch.from_numpy(groups.groups == SYNTHETIC)
    torch.testing.assert_close(found[~made].float(), plain[~made], rtol=1e-3, atol=1e-4)
    assert ((found[made] - plain[made]).abs().amax(dim=1) > 1e-3).all()  # the sources, changed


@pytest.fixture(scope="module")
def features() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    sizes = {NORMAL: 14, SOURCE: 9, SYNTHETIC: 9, DEFECT: 12}
    shifts = {NORMAL: 0.0, SOURCE: 0.0, SYNTHETIC: 0.3, DEFECT: 0.8}
    return {group: rng.normal(shifts[group], size=(size, 6)) * [1, 2, 1, 3, 1, 1] for group, size in sizes.items()}


def test_numbers_are_those_of_plain_references(features: dict[str, Array]) -> None:
    found = separation(features, seed=3)
    values = np.concatenate([features[NORMAL], features[DEFECT]])
    labels = np.array([0] * 14 + [1] * 12)
    assert found.silhouette == pytest.approx(silhouette_score(values, labels))
    accuracies, aurocs = [], []
    for repeat in range(10):
        folds = list(StratifiedKFold(5, shuffle=True, random_state=3 + repeat).split(values, labels))
        predicted = cross_val_predict(KNeighborsClassifier(5), values, labels, cv=folds)
        accuracies.append(balanced_accuracy_score(labels, predicted))
        for train, test in folds:
            mean, sd = values[train].mean(axis=0), values[train].std(axis=0)
            probe = LogisticRegression(max_iter=2000).fit((values[train] - mean) / sd, labels[train])
            aurocs.append(roc_auc_score(labels[test], probe.decision_function((values[test] - mean) / sd)))
    assert found.knn_accuracy == pytest.approx(np.mean(accuracies))
    assert found.probe is not None
    np.testing.assert_allclose(found.probe.ravel(), aurocs, atol=1e-9)
    variance = np.trace(np.cov(features[NORMAL], rowvar=False))
    for group in (SOURCE, SYNTHETIC):
        expected = frechet_reference(features[NORMAL], features[group])
        assert getattr(found, f"frechet_{group}") == pytest.approx(expected, rel=1e-5)
        assert getattr(found, f"relative_frechet_{group}") == pytest.approx(expected / variance, rel=1e-5)
    # Of 12 defects nine are drawn, since distances shrink with more images.
    assert found.frechet_defect is not None
    assert found.frechet_defect != pytest.approx(frechet_reference(features[NORMAL], features[DEFECT]), rel=1e-3)


def test_the_distance_needs_no_more_images_than_features() -> None:
    rng = np.random.default_rng(1)
    few = {NORMAL: rng.normal(size=(5, 40)), SOURCE: rng.normal(size=(6, 40)) + 1, SYNTHETIC: rng.normal(size=(6, 40))}
    found = separation(few, seed=0)
    means, covariances = zip(
        *((few[g].mean(axis=0), np.cov(few[g], rowvar=False)) for g in (NORMAL, SOURCE)), strict=True
    )
    cross = (few[NORMAL] - means[0]) @ (few[SOURCE] - means[1]).T / np.sqrt(4 * 5)
    root = np.linalg.svd(cross, compute_uv=False).sum()  # tr (S1 S2)^(1/2)
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1]) - 2 * root
    assert found.frechet_source == pytest.approx(expected, rel=1e-4)


def test_an_interval_that_takes_folds_as_dependent() -> None:
    values = np.array([[0.8, 0.9], [0.7, 1.0]])
    mean, low, high = corrected_interval(values)
    half = 3.182446 * np.sqrt((1 / 4 + 1 / 1) * values.var(ddof=1))  # t with 3 degrees of freedom
    assert (mean, low, high) == pytest.approx((0.85, 0.85 - half, 0.85 + half))
    assert corrected_interval(values, bounds=(0, 1)).high == 1


def test_differences_are_on_the_same_folds(features: dict[str, Array]) -> None:
    first = separation(features, seed=3)
    nearer = separation({**features, DEFECT: features[DEFECT] * 0.5}, seed=3)
    gain = difference(first, nearer)
    assert first.probe is not None
    assert nearer.probe is not None
    assert gain == corrected_interval(nearer.probe - first.probe)
    assert difference(first, separation({NORMAL: features[NORMAL]}, seed=3)) is None


def test_averages_are_over_classes_with_all_numbers(features: dict[str, Array]) -> None:
    whole = separation(features, seed=0)
    without = separation({key: value for key, value in features.items() if key != DEFECT}, seed=0)
    assert without.undefined_because == "0 defects; at least 2 needed"
    assert without.silhouette is without.probe_auroc is without.frechet_defect is None
    assert without.frechet_synthetic is not None
    mean = average([whole, without])
    assert mean.frechet_synthetic == whole.frechet_synthetic
    assert mean.images == whole.images
    assert average([without]).frechet_synthetic == without.frechet_synthetic
    other = separation({**features, DEFECT: features[DEFECT] + 1}, seed=0)
    both = average([whole, other])
    assert both.silhouette == pytest.approx(np.mean([whole.silhouette, other.silhouette]))  # type: ignore[list-item]
    np.testing.assert_allclose(both.probe, (whole.probe + other.probe) / 2)  # type: ignore[operator, arg-type]


@pytest.mark.parametrize(
    ("normal", "defects", "reason"), [(1, 5, "1 good image"), (5, 1, "1 defect"), (0, 0, "0 good images")]
)
def test_small_groups_are_undefined_with_the_reason(normal: int, defects: int, reason: str) -> None:
    rng = np.random.default_rng(0)
    found = separation({NORMAL: rng.normal(size=(normal, 3)), DEFECT: rng.normal(size=(defects, 3))}, seed=0)
    assert reason in found.undefined_because
    assert found.silhouette is None
    few = separation({NORMAL: rng.normal(size=(2, 3)), DEFECT: rng.normal(size=(3, 3))}, seed=0)
    assert few.probe is not None
    assert few.probe.shape == (10, 2)  # as many folds as the smaller group has images


def test_planes() -> None:
    values = np.random.default_rng(0).normal(size=(12, 5)) * [9, 4, 1, 1, 1]
    points, shares = pca(values)
    made = PCA(2, svd_solver="full").fit(values)
    np.testing.assert_allclose(points, made.transform(values))
    assert shares == pytest.approx(tuple(made.explained_variance_ratio_))
    assert np.array_equal(t_sne(values, seed=1), t_sne(values, seed=1))
    assert t_sne(values, seed=0).shape == (12, 2)


def test_equal_features_are_a_point_and_have_no_relative_distance(features: dict[str, Array]) -> None:
    constant = np.full((6, 4), 0.1)
    assert not t_sne(constant, seed=0).any()
    points, shares = pca(constant)
    assert not points.any()
    assert shares == (0, 0)
    found = separation(dict.fromkeys(GROUPS, constant), seed=0)
    assert found.undefined_because == "the normal images all have the same features"
    assert found.frechet_defect == pytest.approx(0)
    assert found.relative_frechet_defect is None


def test_means_of_all_backbones_are_over_the_same_classes(toy: Path, tmp_path: Path) -> None:
    groups = grouped(toy)
    varied = np.random.default_rng(0).normal(size=(len(groups), 4))
    collapsed = np.where(groups.class_ids[:, None] == 1, 0.0, varied)
    command = Embed(data=str(toy), backbone=["a", "b"], output=tmp_path)
    table = command._numbers(groups, {"varied": varied, "collapsed": collapsed})
    for ones in table.values():
        assert ones["mean of classes"].images[DEFECT] == 6  # of two classes
    assert table["varied"]["mean of classes"].silhouette == table["collapsed"]["mean of classes"].silhouette


def boxes(texts: Sequence[Text], figure: Figure) -> list[Bbox]:
    """Where texts are, in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return [text.get_window_extent(canvas.get_renderer()) for text in texts]


@pytest.mark.parametrize("spread", [0.0, 0.02])
def test_numbers_of_classes_lie_beside_each_other(spread: float, drawn: list[Figure], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    class_ids = np.arange(600) % 12
    middles = np.where(np.arange(12)[:, None] < 4, spread * rng.normal(size=(12, 2)), rng.normal(size=(12, 2)))
    points = middles[class_ids] + 0.001 * rng.normal(size=(600, 2)) * (spread > 0)
    plane = Plane("a", points, np.full(600, NORMAL), class_ids)
    draw_planes(tmp_path / "plane", [plane, plane], [f"class {i}" for i in range(12)])
    for axis in drawn[0].axes:
        places = boxes(axis.texts, drawn[0])
        assert len(places) == 12
        inner = [Bbox.from_extents(box.x0 + 2, box.y0 + 2, box.x1 - 2, box.y1 - 2) for box in places]
        assert not any(inner[i].overlaps(inner[j]) for i in range(12) for j in range(i))
        for text, middle in list(zip(axis.texts, middles, strict=True))[4:]:
            if min(np.hypot(*(middle - other)) for other in middles if (other != middle).any()) > 1:
                assert text.get_position() == pytest.approx(tuple(middle), abs=0.01)  # not moved without need
        (crowd,) = axis.collections[:1]
        assert crowd.get_sizes()[0] < 7


def test_many_panels_fit_a_page_and_long_names_their_panels(drawn: list[Figure], tmp_path: Path) -> None:
    groups, class_ids = np.array([NORMAL, DEFECT]), np.zeros(2, dtype=np.int64)
    names = ("resnet18.tv_in1k", "clip_temperature_1e-2_frozen")
    points = np.array([[0.0, 0.0], [1.0, 1.0]])
    planes = [Plane(f"transistor {i}\n{name}", points, groups, class_ids) for i in range(15) for name in names]
    draw_planes(tmp_path / "many", planes, ["transistor"], together=2)
    assert drawn[0].get_size_inches()[1] < 9
    titles = boxes([axis.title for axis in drawn[0].axes[:6]], drawn[0])
    assert all(first.x1 < second.x0 for first, second in pairwise(titles))
    assert len({round(box.y0) for box in titles}) == 1  # six in a line


def test_every_image_is_a_mark_and_every_class_has_its_number(drawn: list[Figure], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    groups = np.array([NORMAL] * 5 + [SYNTHETIC] * 4 + [DEFECT] * 3)
    class_ids = np.arange(12) % 2
    planes = [Plane(name, rng.normal(size=(12, 2)), groups, class_ids, ("x", "y")) for name in ("a", "b")]
    draw_planes(tmp_path / "plane", planes, ["nut", "$x_{$"])
    figure = drawn[0]
    assert figure.get_size_inches()[0] * 25.4 == pytest.approx(85)
    for axis, plane in zip(figure.axes, planes, strict=True):
        marks = [one for one in axis.collections if isinstance(one, PathCollection) and len(one.get_offsets())]
        for one, group in zip(marks, (NORMAL, SYNTHETIC, DEFECT), strict=True):
            np.testing.assert_allclose(one.get_offsets(), plane.points[groups == group])
        assert len({one.get_paths()[0].vertices.tobytes() for one in marks}) == 3  # shapes differ, not colours alone
        assert (axis.get_title(), axis.get_xlabel(), axis.get_ylabel()) == (plane.title, "x", "y")
        for text, class_id in zip(axis.texts, range(2), strict=True):
            assert text.get_text() == str(class_id + 1)
            assert text.get_position() == pytest.approx(tuple(np.median(plane.points[class_ids == class_id], axis=0)))
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["normal", "synthetic anomaly", "real defect"]
    assert re.sub(r"\s+", " ", figure.get_supxlabel()) == "1 nut 2 $x_{$"
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    draw_planes(tmp_path / "plane", planes, ["nut", "$x_{$"])
    assert set(before) == {"plane.png", "plane.svg"}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_command_leaves_the_same_files_twice(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], make_folder: Callable[..., Path]
) -> None:
    weights = make_folder("test_resnet.mine", seed=2)
    (weights / "tabzoo.json").unlink()  # that of a run says what it was trained on
    command = ["embed", "--data", str(toy), "--backbone", "random:test_resnet", str(weights), "--seed", "5", *FLAGS]
    for folder in ("one", "two"):
        assert main([*command, "--output", str(tmp_path / folder)]) == 0
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / of).iterdir()} for of in ("one", "two"))
    figures = [f"{name}.{kind}" for name in ("pca", "tsne", "tsne_classes") for kind in ("png", "svg")]
    assert sorted(first) == sorted([*figures, "caption.txt", "numbers.csv", "points.csv"])
    caption = first.pop("caption.txt").decode()
    assert caption == second.pop("caption.txt").decode().replace("/two", "/one")
    assert first == second
    assert "6 normal images, 9 synthetic anomalies, 9 real defects" in " ".join(caption.split())
    assert f"Command: python -m tabzoo.benchmark embed --data {toy} --backbone random:test_resnet {weights}" in caption
    assert len(re.findall("SHA-256 of .*: [0-9a-f]{64}\n", caption)) == 3
    with (tmp_path / "one" / "numbers.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["backbone"], row["class"]) for row in rows] == [
        (name, of)
        for name in ("random:test_resnet", "test_resnet.mine")
        for of in ("brushed_steel", "capsule", "hex_nut", "mean of classes")
    ]
    assert all(0 <= float(row["probe_auroc_low"]) <= float(row["probe_auroc"]) <= 1 for row in rows)
    assert [bool(row["probe_difference"]) for row in rows] == [False] * 4 + [True] * 4
    with (tmp_path / "one" / "points.csv").open() as lines:
        points = list(csv.DictReader(lines))
    assert len(points) == 2 * 24
    assert {point["kind"] for point in points if point["group"] != DEFECT} == {"good"}
    assert all(Path(point["file"]).is_file() for point in points)
    assert "mean of classes" in capsys.readouterr().out
    assert main([*command, "--output", str(tmp_path / "one"), "--classes", "capsule"]) == 0  # into the same folder
    assert not (tmp_path / "one" / "tsne_classes.png").exists()  # of the earlier call
    assert "mean of classes" not in capsys.readouterr().out


def test_a_command_that_was_stopped_starts_again(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [
        "embed",
        "--data",
        str(toy),
        "--backbone",
        "random:test_resnet",
        "--output",
        str(tmp_path / "out"),
        *FLAGS,
    ]

    def stopped(*_: object, **__: object) -> None:
        raise WriteError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(embed, "write_points", stopped)  # figures are there already
        assert main(command) == 2
    assert main(command) == 0


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("--seed -1", "--seed -1: expected at least 0"),
        ("--crop 300", "--crop 300: more than --resize (256); lower --crop or raise --resize"),
        (
            "--synthesis nsaa",
            "--synthesis nsaa: unknown; there are nsa, cutpaste, perlin, mask, mix. Did you mean 'nsa'?",
        ),
        ("--backbone", "--backbone: expected at least one value"),
        ("--output file", "--output file: is a file; expected a folder"),
        ("--output file/new", "--output file/new: {here}/file is a file; expected a folder"),
        (
            "--output full",
            "--output full: holds no figures of tabzoo: it has no caption.txt, but mine. Name another folder, or",
        ),
        ("--output there/new", "--output there/new: is inside --data there. Name a folder outside the images."),
        ("--white-level 0", "--white-level 0: expected the pixel value that becomes white, above 0"),
    ],
)
def test_what_is_wrong_is_found_before_anything_is_read(
    given: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "there").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    assert main(["embed", "--data", "there", "--backbone", "random", "--output", "out", *given.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {reason.format(here=tmp_path)}")
    assert error.count("\n") == 1


def test_weights_that_give_no_numbers(
    toy: Path, tmp_path: Path, make_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_folder("test_resnet.nan")
    (folder / "tabzoo.json").unlink()
    weights = load_file(folder / "model.safetensors")
    save_file({key: value * float("nan") for key, value in weights.items()}, folder / "model.safetensors")
    arguments = ["embed", "--data", str(toy), "--backbone", str(folder), "--output", str(tmp_path / "out"), *FLAGS]
    assert main(arguments) == 2
    assert "its features are not finite numbers" in capsys.readouterr().err


def test_too_few_images(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.png", "b.png", "c.png"):
        target = tmp_path / "data" / "nut" / "train" / "good" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((toy / "hex_nut" / "train" / "good" / "000.png").read_bytes())
    arguments = [
        "--data",
        str(tmp_path / "data"),
        "--backbone",
        "random:test_resnet",
        "--output",
        str(tmp_path / "out"),
    ]
    assert main(["embed", *arguments, *FLAGS]) == 2
    assert "data: 2 images to compare; expected at least 4. Look at the folder with tabzoo data check." in (
        capsys.readouterr().err
    )
