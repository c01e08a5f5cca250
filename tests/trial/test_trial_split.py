"""Which photos are held out, tested and left out."""

from pathlib import Path

import numpy as np
import pytest

from tabzoo.data.samples import TEST, TRAIN, Samples
from tabzoo.errors import InputError
from tabzoo.trial.split import split_samples


def photos(*parts: tuple[str, int, str, int]) -> tuple[Samples, list[str]]:
    """Samples of (class, split, kind of defect, number), and a different hash for each."""
    made = [
        Samples.alike(name, split, kind, np.array([f"{name}/{split}{kind}{i:03d}.png".encode() for i in range(number)]))
        for name, split, kind, number in parts
    ]
    samples = Samples.merged(Path("/photos"), "mvtec", made, ())
    return samples, [f"hash {i}" for i in range(len(samples))]


def test_a_quarter_is_held_out_where_there_are_no_good_test_photos() -> None:
    samples, hashes = photos(("bolt", TRAIN, "good", 40), ("nut", TRAIN, "good", 20))
    split = split_samples(samples, hashes, seed=0)
    assert split.synthetic
    assert split.held_out == len(split.good) == 10 + 5
    assert sorted([*split.train, *split.good]) == list(range(60))
    assert split.tested == ("bolt", "nut")
    other = split_samples(samples, hashes, seed=1)
    assert set(split.good) != set(other.good)
    assert (split_samples(samples, hashes, seed=0).good == split.good).all()


def test_only_classes_with_real_defects_are_tested_if_there_are_any() -> None:
    samples, hashes = photos(
        *(("bolt", TRAIN, "good", 40), ("bolt", TEST, "good", 9), ("bolt", TEST, "bent", 7)),
        *(("nut", TRAIN, "good", 20), ("nut", TEST, "good", 5)),
        *(("pin", TRAIN, "good", 8), ("pin", TEST, "cut", 3), ("pin", TRAIN, "cut", 2)),
    )
    split = split_samples(samples, hashes, seed=0)
    assert split.tested == ("bolt", "pin")
    assert len(split.good) == 9 + 2
    assert len(split.defective) == 7 + 3
    assert len(split.train) == 40 + 20 + 6
    assert split.held_out == 2
    assert split.notes == (
        "Trained on but not tested, no real defects: 1 class (nut).",
        "Left out: 2 defective photos in the train split.",
    )


def test_copies_of_test_photos_are_not_trained_on() -> None:
    samples, hashes = photos(("bolt", TRAIN, "good", 8), ("bolt", TEST, "good", 4), ("bolt", TEST, "bent", 4))
    hashes[3] = hashes[8]  # the first good test photo
    hashes[5] = hashes[12]  # the first defect
    split = split_samples(samples, hashes, seed=0)
    assert split.train.tolist() == [0, 1, 2, 4, 6, 7]
    assert split.notes == ("Left out of training: 2 photos whose file is also among the test photos.",)


def test_small_classes_are_only_trained_on() -> None:
    samples, hashes = photos(("bolt", TRAIN, "good", 4), ("nut", TRAIN, "good", 3))
    split = split_samples(samples, hashes, seed=0)
    assert split.tested == ("bolt",)
    assert len(split.train) == 2 + 3
    assert split.notes == ("Trained on but not tested, too few good photos: 1 class (nut).",)
    samples, hashes = photos(("nut", TRAIN, "good", 3))
    with pytest.raises(InputError, match="no class can be tested: expected at least 4 good photos"):
        split_samples(samples, hashes, seed=0)
    samples, _ = photos(("bolt", TRAIN, "good", 9))
    with pytest.raises(InputError, match="no class can be tested"):
        split_samples(samples, ["the same"] * 9, seed=0)
