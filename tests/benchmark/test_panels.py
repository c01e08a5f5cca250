"""Localisation figures: what a run keeps, how maps are scaled, and what stands where."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tabzoo.benchmark import measure, panels
from tabzoo.benchmark.__main__ import main
from tabzoo.benchmark.class_images import EvaluationSet
from tabzoo.benchmark.kept_maps import LEVELS, Kept, keep_raw_maps, read_kept
from tabzoo.benchmark.localisation import can_scale, draw_localisation, scaled
from tabzoo.benchmark.options import Options
from tabzoo.benchmark.run import run
from tabzoo.errors import InputError, WriteError
from tabzoo.scores.rows import Row, append_row, read_rows

pytestmark = pytest.mark.usefixtures("sketches")
SMALL, OTHER = "random:test_resnet", "random:resnet10t"


def an_evaluation(kinds: list[str]) -> EvaluationSet:
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (len(kinds), 8, 8, 3), np.uint8))
    labels = np.array([kind != "good" for kind in kinds])
    masks = (
        torch.from_numpy(rng.integers(0, 2, (len(kinds), 8, 8)).astype(bool)) & torch.from_numpy(labels)[:, None, None]
    )
    return EvaluationSet(lambda rows: pixels[rows], torch.arange(len(kinds)), labels, kinds, masks, labels)


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    evaluation = an_evaluation(["good", "good", "hole", "good", "scratch"])
    maps = torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(0)) * 40
    shown = torch.tensor([2, 4, 0])
    keep_raw_maps(tmp_path, "a", evaluation, maps, shown)
    keep_raw_maps(tmp_path, "b", evaluation, 2 * maps, shown)
    assert len(list(tmp_path.iterdir())) == 3  # rows share their images
    assert load_file(tmp_path / "a.safetensors")["maps"].dtype == torch.float16
    kept = read_kept(tmp_path, "a")
    assert kept is not None
    np.testing.assert_allclose(kept.maps, maps[shown], rtol=1e-3)
    assert np.array_equal(kept.images, evaluation.pixels(shown))
    assert np.array_equal(kept.masks, evaluation.masks[shown])
    assert kept.kinds == ["hole", "scratch", "good"]
    assert kept.has_mask.tolist() == [True, True, False]
    good = maps[[0, 1, 3]].numpy()
    assert kept.quantiles == pytest.approx({level: np.quantile(good, level) for level in LEVELS})
    expected = (kept.maps - np.quantile(good, 0.5)) / (np.quantile(good, 0.999) - np.quantile(good, 0.5))
    np.testing.assert_allclose(scaled(kept), expected, rtol=1e-5)
    other = read_kept(tmp_path, "b")
    assert other is not None
    np.testing.assert_allclose(scaled(other), scaled(kept), atol=2e-3)  # whatever the backbone's own scale
    assert read_kept(tmp_path, "c") is None


@pytest.mark.parametrize("factor", [1e-9, 1e7])
def test_maps_that_float16_cannot_hold(factor: float, tmp_path: Path) -> None:
    maps = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0)) * factor
    keep_raw_maps(tmp_path, "a", an_evaluation(["good", "hole"]), maps, torch.tensor([0, 1]))
    kept = read_kept(tmp_path, "a")
    assert kept is not None
    np.testing.assert_allclose(kept.maps, maps)


def test_maps_without_good_images_have_no_scale(tmp_path: Path) -> None:
    keep_raw_maps(tmp_path, "a", an_evaluation(["hole", "hole"]), torch.rand(2, 8, 8), torch.tensor([0]))
    keep_raw_maps(tmp_path, "b", an_evaluation(["hole", "good"]), torch.ones(2, 8, 8), torch.tensor([0]))
    for key in ("a", "b"):
        kept = read_kept(tmp_path, key)
        assert kept is not None
        assert not can_scale(kept)


def test_damaged_files_are_an_error(tmp_path: Path) -> None:
    keep_raw_maps(tmp_path, "a", an_evaluation(["good", "hole"]), torch.rand(2, 8, 8), torch.tensor([0, 1]))
    (images,) = tmp_path.glob("images-*")
    content = images.read_bytes()
    images.write_bytes(content[:50])
    with pytest.raises(InputError, match="images-.*missing, damaged or not written by tabzoo"):
        read_kept(tmp_path, "a")
    images.unlink()
    with pytest.raises(InputError, match="missing, damaged"):
        read_kept(tmp_path, "a")
    images.write_bytes(content)
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="it holds x"):
        read_kept(tmp_path, "a")


def test_tensors_of_other_shapes_are_an_error(tmp_path: Path) -> None:
    keep_raw_maps(tmp_path, "a", an_evaluation(["good", "hole"]), torch.rand(2, 8, 8), torch.tensor([0, 1]))
    path = tmp_path / "a.safetensors"
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    tensors = load_file(path)
    others = {"quantiles": torch.zeros(3), "maps": torch.zeros(2, 8), "images": torch.zeros(2, 8, 8, 1).byte()}
    for name, other in others.items():
        (images,) = tmp_path.glob("images-*")
        if name in tensors:
            save_file(tensors | {name: other}, path, metadata=about)
        else:
            save_file(tensors, path, metadata=about)
            with safe_open(images, framework="pt") as file:
                of_images = file.metadata()
            save_file(load_file(images) | {name: other}, images, metadata=of_images)
        with pytest.raises(InputError, match=re.escape(f"{path}: does not fit its images")):
            read_kept(tmp_path, "a")


def make_kept(seed: int, has_mask: list[bool]) -> Kept:
    rng = np.random.default_rng(seed)
    return Kept(
        maps=rng.normal(seed, 1 + seed, (3, 8, 8)).astype(np.float32),
        quantiles={0.5: float(seed), 0.999: 3.0 + seed},
        images=rng.integers(0, 256, (3, 8, 8, 3), np.uint8),
        masks=rng.integers(0, 2, (3, 8, 8), np.uint8),
        has_mask=np.array(has_mask),
        kinds=["$x_{$", "hole", "good"],
        images_sha256="0" * 64,
    )


@pytest.mark.parametrize("has_mask", [[True, False, False], [False] * 3])
def test_each_tile_is_in_its_place(has_mask: list[bool], drawn: list[Figure], tmp_path: Path) -> None:
    kept = {name: make_kept(seed, has_mask) for seed, name in enumerate(("imagenet", "a name as long as a folder's"))}
    draw_localisation(tmp_path / "new" / "nut", kept)
    figure = drawn[0]
    columns = 4 if any(has_mask) else 3
    assert figure.get_size_inches()[0] * 25.4 == pytest.approx(85 if columns == 4 else 64.7, abs=0.1)
    axes = np.array(figure.axes[: 3 * columns]).reshape(3, columns)
    (bar,) = figure.axes[3 * columns :]
    titles = [axis.get_title().replace("\n", " ") for axis in axes[0]]
    assert titles == ["image", *kept, "mask"][:columns]
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["$x_{$", "hole", "good"]
    for line in range(3):
        assert np.array_equal(axes[line, 0].images[0].get_array(), kept["imagenet"].images[line])
        for axis, one in zip(axes[line, 1:3], kept.values(), strict=True):
            (tile,) = axis.images
            np.testing.assert_allclose(tile.get_array(), (one.maps[line] - one.quantiles[0.5]) / 3, rtol=1e-5)
            assert tile.get_clim() == (0, 2)
    if any(has_mask):
        assert np.array_equal(axes[0, 3].images[0].get_array(), kept["imagenet"].masks[0])
        assert [text.get_text() for text in axes[1, 3].texts] == ["no mask"]
        assert len(axes[2, 3].images) == 1  # of a good image: black
    assert bar.get_xlabel() == "anomaly score; 0: median, 1: above 99.9 %\nof the pixels of good images"
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["nut.png", "nut.svg"]


@pytest.fixture
def results(options: Callable[..., Options], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    run(options(backbone=[SMALL, OTHER], classes=["capsule", "hex_nut"], seeds=[3, 2]), progress=False)
    return tmp_path / "out"


def test_the_command_draws_what_the_run_measured(
    results: Path, tmp_path: Path, drawn: list[Figure], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["panels", str(results), "--backbone", OTHER, SMALL]
    for folder in ("one", "two", "one"):
        assert main([*command, "--output", str(tmp_path / folder)]) == 0
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / of).iterdir()} for of in ("one", "two"))
    assert set(first) == {"caption.txt", "capsule.png", "capsule.svg", "hex_nut.png", "hex_nut.svg"}
    caption = first.pop("caption.txt").decode()
    assert caption == second.pop("caption.txt").decode().replace("/two", "/one")
    assert first == second
    figure = drawn[0]
    assert [axis.get_title().replace("\n", "") for axis in figure.axes[:4]] == ["image", OTHER, SMALL, "mask"]
    assert len(figure.axes) == 5 * 4 + 1  # three defects, two good images
    words = " ".join(caption.split())
    assert "1 is the value that 99.9 % of their pixels lie below" in words
    row = next(row for row in read_rows(results) if (row.backbone, row.class_name, row.seed) == (SMALL, "hex_nut", 2))
    assert row.image_auroc is not None
    assert row.pixel_auroc is not None
    assert f"{SMALL} {100 * row.image_auroc:.1f} / {100 * row.pixel_auroc:.1f}." in words
    assert f"panels {results} --output {tmp_path / 'one'} --backbone {OTHER} {SMALL}" in caption
    assert "capsule.png" in capsys.readouterr().out


def test_a_folder_is_whole_or_can_be_used_again(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["panels", str(results), "--output", str(tmp_path / "new")]
    row = next(row for row in read_rows(results) if (row.class_name, row.seed) == ("hex_nut", 2))
    file = results / "maps" / "kept" / f"{row.key}.safetensors"
    content = file.read_bytes()
    file.unlink()
    assert main(command) == 2  # hex_nut is the second class
    assert not (tmp_path / "new").exists()
    file.write_bytes(content)

    def full(path: Path, kept: dict[str, Kept]) -> None:
        if path.name == "hex_nut":
            raise WriteError("no space left")
        draw_localisation(path, kept)

    with monkeypatch.context() as patched:
        patched.setattr(panels, "draw_localisation", full)
        assert main(command) == 2
    assert (tmp_path / "new" / "capsule.png").is_file()
    assert main(command) == 0


def test_maps_are_those_of_the_row(
    options: Callable[..., Options], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[torch.Tensor] = []
    keep = measure.keep_maps
    monkeypatch.setattr(measure, "keep_maps", lambda *values: (given.append(values[3]), keep(*values)))
    run(options(classes=["capsule"]), progress=False)
    (row,) = read_rows(tmp_path / "out")
    kept = read_kept(tmp_path / "out" / "maps" / "kept", row.key)
    assert kept is not None
    tested = given[0].numpy()  # good images come first
    np.testing.assert_allclose(kept.maps, tested[[2, 3, 4, 0, 1]], rtol=1e-3)
    assert kept.quantiles[0.999] == pytest.approx(np.quantile(tested[:2], 0.999))


def test_rows_of_older_versions_say_what_to_type(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (results / "maps" / "kept").glob("*.safetensors"):
        path.unlink()
    assert main(["panels", str(results), "--output", str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err
    assert "holds no raw anomaly maps of random:test_resnet on capsule: it was measured by an older version" in error
    assert (
        "python -m tabzoo.benchmark run --backbone random:test_resnet --method padim --data DIR --output NEW" in error
    )
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("--backbone nothing", "--backbone nothing: the run has random:test_resnet, random:resnet10t."),
        ("--backbone", "--backbone: expected at least one value"),
        ("--method patchcor", "--method patchcor: the run has padim."),
        ("--classes capsul", "--classes capsul: the run has capsule, hex_nut. Did you mean 'capsule'?"),
        (
            "--seed 7",
            "{out}: nothing to draw. capsule: not every backbone (random:test_resnet, random:resnet10t) has a row",
        ),
        (
            "--output {out}",
            "--output {out}: holds no figures of tabzoo: it has no caption.txt, but index.html, maps, results.jsonl",
        ),
    ],
)
def test_mistakes_are_one_line(
    given: str, reason: str, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["panels", str(results), "--output", str(tmp_path / "new"), *given.format(out=results).split()]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {reason.format(out=results)}")
    assert error.count("\n") == 1


def test_folders_that_hold_no_rows_of_one_method(
    make_row: Callable[..., Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "two").mkdir()
    assert main(["panels", str(tmp_path / "none"), "--output", str(tmp_path / "new")]) == 2
    assert "none: no results.jsonl with rows; give the output folder of a run" in capsys.readouterr().err
    for name in ("padim", "patchcore"):
        append_row(tmp_path / "two", make_row(method=name))
    assert main(["panels", str(tmp_path / "two"), "--output", str(tmp_path / "new")]) == 2
    assert "has rows of padim, patchcore. Choose one: --method padim" in capsys.readouterr().err
