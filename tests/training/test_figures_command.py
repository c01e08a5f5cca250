"""The figures that are drawn anew from a run's folder: their marks, their texts, and what is told when something is missing."""

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tabzoo.synthesis.pairs import RawPairs
from tabzoo.training import pretrain
from tabzoo.training.figures import __main__ as command
from tabzoo.training.figures import finished_run
from tabzoo.training.figures.for_paper import draw_gallery, draw_losses, draw_matrix
from tabzoo.training.prompts import load_prompts
from tabzoo.training.text import load_text_features

WORDS = ["metal nut", "$x_{$"]
CLASSES = ("brushed_steel", "capsule", "hex_nut")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    figures: list[Figure] = []
    save = Figure.savefig

    def saving(self: Figure, path: Path, **options: object) -> None:
        if options["format"] == "png":
            figures.append(self)
        save(self, path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "savefig", saving)
    return figures


def test_the_matrix_is_relative_to_its_lines_on_one_symmetric_range(tmp_path: Path, written: list[Figure]) -> None:
    panels = {
        "class names": torch.tensor([[0.9, 0.5], [0.8, 0.2], [0.1, 0.3]]),
        "sentences": torch.tensor([[0.1, 0.2, 0.4, 0.5], [0.5, 0.1, 0.2, 0.4], [0.0, 0.8, 0.0, 0.0]]),
    }
    draw_matrix(tmp_path / "m", panels, torch.tensor([0, 0, 1]), WORDS)
    (figure,) = written
    axes = {axis.get_title(): axis for axis in figure.axes if axis.get_title()}
    assert list(axes) == list(panels)
    for title, values in panels.items():
        (image,) = axes[title].images
        np.testing.assert_allclose(np.asarray(image.get_array()), values - values.mean(dim=1, keepdim=True), atol=1e-6)
        low, high = image.get_clim()
        assert high == -low == pytest.approx(0.6)
        red, _, blue, _ = image.cmap(1.0)
        assert red > blue
    for title, places in (("class names", [0, 1]), ("sentences", [0.5, 2.5])):
        assert [label.get_text() for label in axes[title].get_xticklabels()] == WORDS
        assert axes[title].get_xticks().tolist() == places
    assert axes["class names"].get_yticks().tolist() == [0.5, 2]
    assert [label.get_text() for label in axes["class names"].get_yticklabels()] == WORDS
    assert figure.axes[-1].get_xlabel() == "cosine similarity, relative to the mean of its line"
    assert figure.get_size_inches()[0] * 25.4 == pytest.approx(85)


@pytest.mark.parametrize(("number", "width"), [(4, 85), (8, 178), (15, 178), (30, 178)])
def test_names_of_classes_do_not_overlap(number: int, width: int, tmp_path: Path, written: list[Figure]) -> None:
    words = [f"Rhombus Carpet {i}" for i in range(number)]
    classes = torch.arange(number).repeat_interleave(2)
    panels = {title: torch.rand(2 * number, number) for title in ("class names", "sentences", "averaged texts")}
    draw_matrix(tmp_path / "m", panels, classes, words)
    (figure,) = written
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for axis in figure.axes[:3]:
        below, beside = axis.get_xticklabels(), axis.get_yticklabels() if axis is figure.axes[0] else []
        for labels in (below, beside):
            boxes = [label.get_window_extent(canvas.get_renderer()) for label in labels if label.get_text()]
            assert not any(box.overlaps(after) for box, after in pairwise(boxes))
    names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    lines = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert figure.get_size_inches()[0] == pytest.approx(width / 25.4)
    if number < 30:
        assert (names, lines) == (words, words)
    else:
        assert names == [str(i) for i in range(1, 31, 3)]
        assert lines == [f"{word}  {i}" for i, word in enumerate(words, start=1)]
        assert figure.axes[0].get_xticks().tolist() == list(range(0, 30, 3))


@pytest.mark.parametrize("number", [3, 8])
def test_the_gallery_has_columns_in_blocks(number: int, tmp_path: Path, written: list[Figure]) -> None:
    generator = torch.Generator().manual_seed(0)
    normal, abnormal = torch.randint(256, (2, number, 3, 8, 8), generator=generator).byte()
    mask = torch.rand(number, 1, 8, 8, generator=generator) > 0.5
    classes = torch.arange(number) % 2
    draw_gallery(tmp_path / "g", RawPairs(normal, abnormal, mask, classes), WORDS)
    axes = written[0].axes
    assert len(axes) == 3 * number
    for index in range(number):
        of_pair = axes[3 * index : 3 * index + 3]
        shown = [np.asarray(axis.images[0].get_array()) for axis in of_pair]
        np.testing.assert_array_equal(shown[0], normal[index].permute(1, 2, 0))
        np.testing.assert_array_equal(shown[1], abnormal[index].permute(1, 2, 0))
        np.testing.assert_array_equal(shown[2][..., 0], 255 * mask[index, 0].byte())
        assert of_pair[0].get_title() == WORDS[index % 2]
        labels = ["normal", "anomaly", "mask"] if index in (0, 4) else [""] * 3
        assert [axis.get_ylabel() for axis in of_pair] == labels
    boxes = [axis.get_position().bounds for axis in axes]
    assert len(set(boxes)) == len(boxes)
    assert all(0 <= left and left + width <= 1 and bottom > -0.01 for left, bottom, width, _ in boxes)


@pytest.mark.parametrize("with_held_out", [False, True])
def test_losses_go_through_the_rows(with_held_out: bool, tmp_path: Path, written: list[Figure]) -> None:
    names = [f"{key}_{branch}" for key in ("loss", "accuracy") for branch in ("normal", "abnormal")]
    rows = [{"step": 2 * i, **{name: 0.1 * i + n for n, name in enumerate(names)}} for i in range(1, 4)]
    held_out = [{"step": 6, **{name: 0.5 + n for n, name in enumerate(names)}}]
    draw_losses(tmp_path / "l", rows, held_out if with_held_out else [])
    for axis, key, label in zip(written[0].axes, ("loss", "accuracy"), ("loss", "class accuracy"), strict=True):
        assert (axis.get_xlabel(), axis.get_ylabel()) == ("step", label)
        lines = {str(line.get_label()): line for line in axis.lines}
        suffixes = ["", *([", held out"] if with_held_out else [])]
        assert set(lines) == {f"{branch}{suffix}" for branch in ("normal", "abnormal") for suffix in suffixes}
        for branch in ("normal", "abnormal"):
            for suffix, series in zip(suffixes, (rows, held_out), strict=False):
                line = lines[branch + suffix]
                assert list(line.get_xdata()) == [row["step"] for row in series]
                assert list(line.get_ydata()) == [row[f"{key}_{branch}"] for row in series]
        assert lines["normal"].get_linestyle() != lines["abnormal"].get_linestyle()
        ticks = axis.get_xticks()
        assert len(ticks) <= 5
        assert all(tick == round(tick) for tick in ticks)
    labels = [text.get_text() for text in written[0].legends[0].get_texts()]
    assert len(labels) == (4 if with_held_out else 2)


def test_figures_of_a_run_without_texts(
    small: Callable[..., list[str]], tmp_path: Path, written: list[Figure], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (
        "--objective",
        "ranking",
        "--batch-norm",
        "frozen",
        "--batch-size",
        "6",
        "--val-share",
        "0.3",
        "--lr",
        "0.001",
    )
    assert pretrain.main(small(*flags)) == 0
    capsys.readouterr()
    assert command.main([str(tmp_path / "out"), "--output", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().err.startswith("similarity_matrix: not drawn.")
    names = [f"{name}.{kind}" for name in ("gallery", "losses") for kind in ("png", "svg", "txt")]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == names
    for axis, label, curves in zip(
        written[-1].axes, ("loss", "AUROC"), (["nearest", "position"], ["mean of both"]), strict=True
    ):
        assert axis.get_ylabel() == label
        assert [line.get_label() for line in axis.lines] == [f"{c}{s}" for c in curves for s in ("", ", held out")]
        assert all(len(line.get_xdata()) for line in axis.lines)  # type: ignore[arg-type]
    colors = {line.get_label(): line.get_color() for axis in written[-1].axes for line in axis.lines}
    assert len({colors[name] for name in ("nearest", "position", "mean of both")}) == 3
    assert [text.get_text() for text in written[-1].legends[0].get_texts()] == list(colors)
    caption = " ".join((tmp_path / "new" / "losses.txt").read_text().split())
    assert "AUROC of synthetic anomalies against the normal images" in caption
    assert "text" not in caption.replace("test_", "").split("Command:")[0]
    assert "text_features" not in caption


Tower = Callable[[list[str]], torch.Tensor]


def tower(sentences: list[str]) -> torch.Tensor:
    """A stand-in for the text tower: the same sentence gives the same vector."""
    seeds = [sum(ord(letter) * (i + 1) for i, letter in enumerate(sentence)) for sentence in sentences]
    return torch.stack([torch.randn(96, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@pytest.fixture
def finished(
    small: Callable[..., list[str]],
    make_text_file: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Path:
    """A finished run with a linear head, against the texts of `tower`."""
    prompts = load_prompts("tab")
    averaged = [
        [F.normalize(F.normalize(tower(list(of)), dim=-1).mean(dim=0), dim=-1) for of in prompts.sentences(words)]
        for words in ("brushed steel", "capsule", "hex nut")
    ]
    normal, abnormal = (torch.stack(list(of_state)) for of_state in zip(*averaged, strict=True))
    text = make_text_file(*CLASSES, normal=normal, abnormal=abnormal)
    assert pretrain.main(small("--text-pretrained", str(text), "--projection", "linear", "--val-share", "0.25")) == 0
    capsys.readouterr()
    monkeypatch.setattr(finished_run, "load_encoder", lambda *_, **__: tower)
    return tmp_path / "out"


def test_figures_are_drawn_anew_from_the_folder(
    finished: Path,
    tmp_path: Path,
    written: list[Figure],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    matrices: list[dict[str, torch.Tensor]] = []
    draw = draw_matrix
    monkeypatch.setattr(command, "draw_matrix", lambda *given: (matrices.append(given[1]), draw(*given)))
    for folder in ("one", "two"):
        assert command.main([str(finished), "--output", str(tmp_path / folder), "--images", "12"]) == 0
    assert {path: path.read_bytes() for path in before} == before
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / of).iterdir()} for of in ("one", "two"))
    names = ("gallery", "losses", "similarity_matrix")
    assert sorted(first) == sorted(f"{name}.{kind}" for name in names for kind in ("png", "svg", "txt"))
    assert {name: content.replace(b"/two", b"/one") for name, content in second.items()} == first
    panels = matrices[0]
    assert {title: tuple(values.shape) for title, values in panels.items()} == {
        **{"class names": (12, 3), "sentences": (12, 3 * 17), "averaged texts": (12, 3)}
    }
    run = finished_run.read_run(finished, None, torch.device("cpu"))
    network = finished_run.read_network(run, torch.device("cpu"))
    last = max((finished / "checkpoints").glob("step_*.pt"))
    head = torch.load(last, weights_only=True)["modules"]["heads.heads.abnormal.weight"]
    ids = torch.cat([(run.pairs.class_ids == i).nonzero().flatten()[:4] for i in range(3)])
    embedded = F.normalize(network.backbone.eval()(run.pairs(0, 0, ids).abnormal) @ head.T, dim=-1).detach()
    text = load_text_features(finished / "text_features.safetensors")
    assert text is not None
    torch.testing.assert_close(panels["averaged texts"], embedded @ text.abnormal.T, atol=1e-5, rtol=1e-4)
    sentence = F.normalize(tower(["a photo of a capsule with hole."]), dim=-1)[0]
    torch.testing.assert_close(panels["sentences"][:, 17 + 16], embedded @ sentence, atol=1e-5, rtol=1e-4)
    name = F.normalize(tower(["hex nut"]), dim=-1)[0]
    torch.testing.assert_close(panels["class names"][:, 2], embedded @ name, atol=1e-5, rtol=1e-4)
    caption = (tmp_path / "one" / "similarity_matrix.txt").read_text()
    assert "17 abnormal sentences of each class" in " ".join(caption.split())
    assert f"Command: python -m tabzoo.training.figures {finished} --output {tmp_path / 'one'} --images 12" in caption
    assert f"Weights of step {int(last.stem[5:])}." in caption
    assert capsys.readouterr().err == ""


def test_without_the_text_tower_only_averaged_texts_are_drawn(
    finished: Path, written: list[Figure], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()  # the run's weights have the made-up name "made_up"
    assert command.main([str(finished)]) == 0
    error = capsys.readouterr().err
    assert error.startswith(
        "similarity_matrix: only averaged texts are drawn; class names and sentences need the text tower and the prompts."
    )
    assert error.count("\n") == 1
    caption = (finished / "figures" / "similarity_matrix.txt").read_text()
    assert "Class names and sentences are not shown" in caption
    assert {"curves.png", "samples.png", "similarity.png"} <= {path.name for path in (finished / "figures").iterdir()}


def test_another_text_tower_is_not_taken(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(finished_run, "load_encoder", lambda *_, **__: lambda sentences: -tower(sentences))
    assert command.main([str(finished), "--output", str(tmp_path / "new")]) == 0
    assert "the text tower ViT-B-16 made_up is not that of the run" in capsys.readouterr().err


def test_prompts_of_a_file_are_named_again(
    finished: Path, tmp_path: Path, written: list[Figure], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = finished / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("prompts: tab\n", "prompts: mine.yaml\n"))
    arguments = [str(finished), "--output", str(tmp_path / "new")]
    titles = []
    for more, reason in (
        ([], "the run's prompts are in a file, and there is no mine.yaml here. Type --prompts FILE.\n"),
        (["--prompts", "authors"], "the prompts authors are not those of the run\n"),
        (["--prompts", "tab"], ""),
    ):
        assert command.main([*arguments, *more]) == 0
        assert capsys.readouterr().err.endswith(reason)
        titles.append([axis.get_title() for axis in written[-1].axes if axis.get_title()])
    assert titles == [["averaged texts"], ["averaged texts"], ["class names", "sentences", "averaged texts"]]


def test_without_checkpoints_a_run_with_heads_has_no_matrix(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(finished / "checkpoints")
    (finished / "metrics.jsonl").unlink()
    assert command.main([str(finished), "--output", str(tmp_path / "new")]) == 0
    error = capsys.readouterr().err
    assert "losses: not drawn" in error
    assert "similarity_matrix: not drawn" in error
    assert "has no checkpoints, which hold the projection from images to texts (linear)" in error
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["gallery.png", "gallery.svg", "gallery.txt"]


def test_a_matrix_of_one_class_or_without_numbers_is_not_drawn(
    finished: Path,
    toy: Path,
    tmp_path: Path,
    written: list[Figure],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(toy / "capsule", tmp_path / "one" / "capsule")
    command_line = [str(finished), "--output", str(tmp_path / "new")]
    assert command.main([*command_line, "--data", str(tmp_path / "one")]) == 0
    titles = [axis.get_title() for axis in written[-1].axes if axis.get_title()]
    assert titles == ["sentences"]  # one name, and one averaged text, have nothing beside them
    run = finished_run.read_run(finished, str(tmp_path / "one"), torch.device("cpu"))
    assert list(run.text.words) == ["capsule"]
    capsys.readouterr()
    no_numbers = torch.full((64, 96), float("nan"))
    monkeypatch.setattr(finished_run.Network, "abnormal", lambda _, images: no_numbers[: len(images)])
    assert command.main(command_line) == 0
    reason = f"The embeddings of {finished} are not finite numbers."
    assert capsys.readouterr().err == f"similarity_matrix: not drawn. {reason}\n"
    for path in (finished / "checkpoints").glob("step_*.pt"):
        path.write_bytes(path.read_bytes()[:99])
    assert command.main(command_line) == 0
    reason = f"{finished / 'checkpoints'}: no checkpoint is intact"
    assert capsys.readouterr().err == f"similarity_matrix: not drawn. {reason}\n"


def test_moved_images(finished: Path, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    about = json.loads((finished / "run.json").read_text())
    (finished / "run.json").write_text(json.dumps(about | {"data": str(tmp_path / "gone")}))
    arguments = [str(finished), "--output", str(tmp_path / "new")]
    assert command.main(arguments) == 2
    assert capsys.readouterr().err == (
        f"error: {finished}: its images are not in {tmp_path / 'gone'} any more. Type --data DIR, where they are now.\n"
    )
    shutil.copytree(toy, tmp_path / "moved")
    (tmp_path / "moved" / "capsule" / "train" / "good" / "000.png").unlink()
    assert command.main([*arguments, "--data", str(tmp_path / "moved")]) == 0
    assert "are not exactly those of the run" in " ".join((tmp_path / "new" / "gallery.txt").read_text().split())
    (tmp_path / "moved" / "capsule").rename(tmp_path / "moved" / "pill")
    assert command.main([*arguments, "--data", str(tmp_path / "moved")]) == 2
    assert (
        "has classes that the run does not know: pill; it has brushed_steel, capsule, hex_nut"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("--images 0", "--images 0: expected at least 1"),
        ("--output file", "--output file: is a file; expected a folder"),
        ("--device cuda", "--device cuda: torch finds no CUDA device here. Type --device cpu."),
        ("", "empty: is not a run of tabzoo: it has no run.json. Give the output folder of a run."),
    ],
)
def test_mistakes_are_one_line(
    given: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert command.main(["empty", *given.split()]) == 2
    assert capsys.readouterr().err == f"error: {reason}\n"
