"""What the figures of a run show: the marks themselves, read back from matplotlib."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from tabzoo.synthesis.pairs import RawPairs
from tabzoo.training import figures

WORDS = ["metal nut", "$x_{$"]  # the second is not a valid formula


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Figure]]:
    """The last figure that was written, whose file is a picture."""
    written: list[Figure] = []
    original = Figure.savefig

    def savefig(self: Figure, path: Path, **options: Any) -> None:
        written.append(self)
        original(self, path, **options)
        assert Image.open(path).format == "PNG"

    monkeypatch.setattr(Figure, "savefig", savefig)
    yield lambda: written[-1]
    assert len(written) == 1


def test_samples_are_columns_of_normal_anomaly_and_mask(tmp_path: Path, drawn: Callable[[], Figure]) -> None:
    normal, abnormal = torch.randint(256, (2, 3, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    mask = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.5
    figures.draw_samples(tmp_path / "new" / "s.png", RawPairs(normal, abnormal, mask, torch.tensor([1, 0, 1])), WORDS)
    axes = np.array(drawn().axes).reshape(3, 3)
    for column in range(3):
        shown = [np.asarray(axis.images[0].get_array()) for axis in axes[:, column]]
        np.testing.assert_array_equal(shown[0], normal[column].permute(1, 2, 0))
        np.testing.assert_array_equal(shown[1], abnormal[column].permute(1, 2, 0))
        np.testing.assert_array_equal(shown[2][..., 0], 255 * mask[column, 0].byte())
    assert [axis.get_title() for axis in axes[0]] == ["$x_{$", "metal nut", "$x_{$"]
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["normal", "synthetic anomaly", "mask"]


@pytest.mark.parametrize("with_held_out", [False, True])
def test_curves_go_through_the_rows(tmp_path: Path, drawn: Callable[[], Figure], with_held_out: bool) -> None:
    def row(step: int, loss: float) -> dict[str, float]:
        return {"step": step, "loss": loss, "accuracy_normal": 1 - loss / 3, "accuracy_abnormal": 0.5 - loss / 9}

    rows, held_out = [row(2, 2.0), row(4, 1.5), row(6, 0.3)], [row(3, 1.8), row(6, 0.6)]
    figures.draw_curves(tmp_path / "c.png", rows, held_out if with_held_out else [])
    loss, accuracy = drawn().axes
    expected = {"loss": (rows, "loss"), "loss, held out": (held_out, "loss")}
    of_accuracy = {
        **{branch: (rows, f"accuracy_{branch}") for branch in ("normal", "abnormal")},
        **{f"{branch}, held out": (held_out, f"accuracy_{branch}") for branch in ("normal", "abnormal")},
    }
    for axis, name, lines in ((loss, "loss", expected), (accuracy, "class accuracy", of_accuracy)):
        shown = {str(line.get_label()): line for line in axis.lines}
        assert set(shown) == {label for label in lines if with_held_out or "held out" not in label}
        for label, line in shown.items():
            series, key = lines[label]
            assert list(line.get_xdata()) == [entry["step"] for entry in series]
            assert list(line.get_ydata()) == [entry[key] for entry in series]
        assert (axis.get_xlabel(), axis.get_ylabel()) == ("step", name)
    low, high = accuracy.get_ylim()
    assert low == 0
    assert high >= 1


def test_similarity_is_relative_to_each_rows_mean_and_red_is_high(tmp_path: Path, drawn: Callable[[], Figure]) -> None:
    values = torch.tensor([[0.9, 0.5], [0.8, 0.2], [0.1, 0.3]])
    panels = {"normal images, normal texts": values, "abnormal images, abnormal texts": values.flip(1)}
    figures.draw_similarity(tmp_path / "m.png", panels, torch.tensor([0, 0, 1]), WORDS)
    axes = [axis for axis in drawn().axes if axis.get_title()]
    assert [axis.get_title() for axis in axes] == list(panels)
    for axis, panel in zip(axes, panels.values(), strict=True):
        (image,) = axis.images
        np.testing.assert_allclose(np.asarray(image.get_array()), panel - panel.mean(dim=1, keepdim=True), atol=1e-6)
        low, high = image.get_clim()
        assert high == -low == pytest.approx(0.3)
        red, _, blue, _ = image.cmap(1.0)
        assert red > blue
        assert [label.get_text() for label in axis.get_xticklabels()] == WORDS
        ticks = zip(axis.get_yticks(), axis.get_yticklabels(), strict=True)
        assert [(int(place), label.get_text()) for place, label in ticks] == [(0, "metal nut"), (2, "$x_{$")]
