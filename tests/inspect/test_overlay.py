"""Overlays: the photo in its own size, the same colour for the same value on every photo, whatever the photo's size."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tabzoo.inspect.overlay as overlay_module
from tabzoo.inspect.overlay import Scale, draw_legend, draw_overlay, name_of_overlay, save_overlay

SCALE = Scale(low=1.0, high=3.0, threshold=2.5)


def grey(height: int, width: int, value: int = 90) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def drawn(value: float, photo: np.ndarray) -> np.ndarray:
    photo = photo.copy()
    draw_overlay(photo, np.full((8, 8), value, np.float32), SCALE)
    return photo


def test_equal_values_have_equal_colours_on_all_photos() -> None:
    one, other = drawn(2.0, grey(30, 50)), drawn(2.0, grey(400, 300))
    assert {tuple(pixel) for pixel in one.reshape(-1, 3)} == {tuple(pixel) for pixel in other.reshape(-1, 3)}
    assert one.shape == (30, 50, 3)


@pytest.mark.parametrize("value", [-5.0, 0.0, 1.0])
def test_below_the_scale_the_photo_is_seen_in_grey(value: float) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    grey_values = np.asarray(Image.fromarray(photo).convert("L"), np.float32)[..., None]
    assert np.abs(drawn(value, photo) - 0.65 * grey_values).max() <= 1.5


def test_a_colour_stands_for_one_value_and_becomes_brighter_with_it() -> None:
    values = np.linspace(1.0, 2.4, 15)
    colours = [drawn(value, grey(8, 8, 0))[0, 0] for value in values]
    luminances = [colour @ np.array([0.299, 0.587, 0.114]) for colour in colours]
    assert (np.diff(luminances) > 0).all()
    assert (drawn(3.0, grey(8, 8)) == drawn(99.0, grey(8, 8))).all()


def test_a_line_goes_around_what_reaches_the_threshold_and_not_along_the_border() -> None:
    values = np.ones((100, 100), np.float32)
    values[:40, 30:60] = 2.6  # touches the upper border
    photo = grey(100, 100)
    draw_overlay(photo, values, SCALE)
    white, black = (photo == 255).all(axis=2), (photo == 0).all(axis=2)
    assert white[1:39, 30].all()
    assert white[1:39, 59].all()
    assert white[39, 31:59].all()
    assert black[1:39, 29].all()
    assert black[40, 31:59].all()
    assert not white[0, 31:59].any()
    assert not white[10, 31:59].any()
    photo = grey(100, 100)
    draw_overlay(photo, values, SCALE._replace(threshold=2.7))
    assert not (photo == 255).all(axis=2).any()


@pytest.mark.parametrize(("height", "width"), [(97, 61), (40, 300), (5, 7)])
def test_drawing_in_strips_changes_nothing(height: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    photo = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    values = rng.uniform(0, 4, (9, 9)).astype(np.float32)
    whole, strips = photo.copy(), photo.copy()
    draw_overlay(whole, values, SCALE)
    monkeypatch.setattr(overlay_module, "_STRIP", 3 * width)
    draw_overlay(strips, values, SCALE)
    assert (whole == strips).all()


def test_a_map_of_the_photos_size_is_used_as_it_is() -> None:
    values = np.ones((50, 70), np.float32)
    values[20, 30] = 2.2
    photo = grey(50, 70)
    draw_overlay(photo, values, SCALE)
    assert [*zip(*np.nonzero((photo != photo[0, 0]).any(axis=2)), strict=True)] == [(20, 30)]


def test_the_map_lies_where_it_belongs() -> None:
    values = np.ones((8, 8), np.float32)
    values[1, 6] = 2.4
    photo = grey(160, 320)
    draw_overlay(photo, values, SCALE)
    row, column = np.unravel_index(photo[..., 0].astype(int).argmax(), (160, 320))
    assert abs(row - 30) <= 10
    assert abs(column - 260) <= 20


def test_names_do_not_collide_and_are_safe() -> None:
    files = [
        "a/x.png",
        "b/x.png",
        "x.png",
        "x.jpg",
        "X.png",
        "../x.png",
        "a\nb.png",
        "\udcff.png",
        "a/" + "l" * 240 + ".png",
    ]
    names = [name_of_overlay(file, "0" * 64, (10, 10)) for file in files]
    assert len({name.lower() for name in names}) == len(files)
    assert name_of_overlay("x.png", "1" * 64, (10, 10)) != names[2]
    for name in names:
        folder, _, rest = name.partition("/")
        assert folder == "overlays"
        assert "/" not in rest
        assert len(rest.encode()) < 255
        assert rest.isprintable()


@pytest.mark.parametrize(("size", "ending"), [((1000, 1000), ".png"), ((2000, 1000), ".jpg"), ((70_000, 200), ".png")])
def test_large_photos_become_jpeg_unless_they_are_too_long_for_it(size: tuple[int, int], ending: str) -> None:
    assert Path(name_of_overlay("x.png", "0" * 64, size)).suffix == ending


@pytest.mark.parametrize(("ending", "form"), [(".png", "PNG"), (".jpg", "JPEG")])
def test_an_overlay_is_written_as_it_is_called(tmp_path: Path, ending: str, form: str) -> None:
    path = tmp_path / f"one{ending}"
    save_overlay(path, grey(30, 40))
    with Image.open(path) as image:
        assert (image.format, image.size, image.mode) == (form, (40, 30), "RGB")


@pytest.mark.parametrize("scale", [SCALE, Scale(1.0, 1.0, 1.0), Scale(1.0, 2.0, 5.0), Scale(2.0, 3.0, 0.5)])
def test_every_scale_has_a_legend_and_colours(tmp_path: Path, scale: Scale) -> None:
    draw_legend(tmp_path / "legend.png", scale)
    assert Image.open(tmp_path / "legend.png").size[0] > 300
    photo = grey(9, 9)
    draw_overlay(photo, np.full((3, 3), 1.0, np.float32), scale)
