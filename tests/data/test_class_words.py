"""The words that stand for each class in prompts."""

import logging

import pytest

from tabzoo.data.class_words import class_words, is_words
from tabzoo.data.industrial import INDUSTRIAL
from tabzoo.errors import InputError


@pytest.mark.parametrize(
    ("name", "layout", "words"),
    [
        ("metal_nut", "mvtec", "metal nut"),
        ("toothbrush", "mvtec", "toothbrush"),
        ("01", "btad", "round metal part"),
        ("02", "btad", "wood surface"),
        ("03", "btad", "wheel"),
        ("pcb3", "visa", "printed circuit board 3"),
        ("macaroni2", "visa", "macaroni 2"),
        ("chewinggum", "mvtec", "chewing gum"),
        ("pipe_fryum", "visa", "pipe fryum"),
        ("bracket_black", "mpdd", "black bracket"),
        ("Metal ornament", "industrial", "metal ornament"),
        ("Bent Metal Stripe", "industrial", "bent metal stripe"),
        ("KSDD2", "ksdd2", "metal surface"),
        ("Front-Cover__v12", "folder", "front cover v 12"),
        ("M8x20", "folder", "m8x 20"),
        ("__", "folder", "__"),
        ("Schraube_groß", "folder", "schraube groß"),
    ],
)
def test_words(name: str, layout: str, words: str):
    assert class_words([name], {}, layout) == {name: words}


def test_words_of_known_data_sets_are_all_different():
    visa = "candle capsules cashew chewinggum fryum macaroni1 macaroni2 pcb1 pcb2 pcb3 pcb4 pipe_fryum".split()
    mvtec = (
        "bottle cable capsule carpet grid hazelnut leather metal_nut pill screw tile toothbrush transistor wood zipper"
    ).split()
    mpdd = "bracket_black bracket_brown bracket_white connector metal_plate tubes".split()
    for classes, layout in (
        (visa, "visa"),
        (mvtec, "mvtec"),
        (mpdd, "mpdd"),
        ([entry.name for entry in INDUSTRIAL], "industrial"),
        (["01", "02", "03"], "btad"),
    ):
        assert len(set(class_words(classes, {}, layout).values())) == len(classes)


def test_overrides_win():
    assert class_words(["01", "02"], {"01": "casting plate"}, "btad") == {"01": "casting plate", "02": "wood surface"}


@pytest.mark.parametrize("layout", ["mvtec", "btad", "visa", "ksdd2", "folder"])
@pytest.mark.parametrize("name", ["metal_nut", "pcb1", "01", "Metal Pole", "chewinggum", "A-B "])
def test_folder_names_as_they_are(name: str, layout: str):
    assert class_words([name], {}, layout, spelling="folder") == {name: name}
    assert class_words([name, "x_y"], {name: "nut"}, layout, spelling="folder") == {name: "nut", "x_y": "x_y"}


def test_override_of_a_class_that_is_not_there():
    with pytest.raises(
        InputError,
        match=r"--class-names: no class 'botle'; there are 2 classes \(bottle, cable\)\. Did you mean 'bottle'\?",
    ):
        class_words(["bottle", "cable"], {"botle": "flask"}, "mvtec")
    with pytest.raises(InputError, match="no words for class 'bottle'"):
        class_words(["bottle"], {"bottle": " "}, "mvtec")


@pytest.mark.parametrize("words", ["metal nut", "zip", "m8 nut", "schraube groß", "螺丝", "pcb strip", "Rye"])
def test_what_may_be_words(words: str):
    assert is_words(words)


@pytest.mark.parametrize("words", ["01", "pn 4711", "m8x 20", "pcb", "__", "a1 b2", "i o", "a_b_e"])
def test_what_is_no_word(words: str):
    assert not is_words(words)


def test_poor_words_give_warnings(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        class_words(["01", "a_b", "A-B"], {}, "folder")
    assert "class '01' has no words for the prompts" in caplog.text
    assert "classes a_b, A-B share the words 'a b'" in caplog.text
    caplog.clear()
    class_words(["01", "a_b", "A-B"], {}, "btad", spelling="folder")
    assert "class '01' has no words for the prompts" in caplog.text
    assert "share the words" not in caplog.text
