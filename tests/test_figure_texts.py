"""Texts of figures: names in several lines, and their size."""

import pytest

from tabzoo.figures import fitting, wrapped


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("resnet18.tv_in1k", ["resnet18.tv_", "in1k"]),
        ("metal_nut, resnet18", ["metal_nut,", "resnet18"]),
        ("random:resnet18", ["random:", "resnet18"]),
        ("nut", ["nut"]),
        ("", [""]),
        ("abcdefghijklmnop", ["abcdefghijkl", "mnop"]),
        ("1e-2_frozen_and_more", ["1e-2_frozen_", "and_more"]),
    ],
)
def test_names_break_after_their_marks(name: str, lines: list[str]) -> None:
    assert wrapped(name, 12).split("\n") == lines


def test_no_letter_is_lost_and_no_line_too_long() -> None:
    name = "runs/2026-11-28 clip_temperature...1e-2--frozen:all, seed 0"
    for letters in range(4, 30):
        lines = wrapped(name, letters).split("\n")
        assert "".join(lines).replace(" ", "") == name.replace(" ", "")
        assert max(map(len, lines)) <= letters


def test_a_word_that_is_longer_has_smaller_letters() -> None:
    assert fitting(["hole"], 1) == 6
    assert 4 < fitting(["hole", "manipulated_front"], 0.7) < 6
    assert fitting(["a" * 99], 1) == 4
