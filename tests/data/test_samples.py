"""Samples: selected, merged and sorted."""

from pathlib import Path

import numpy as np
import pytest
from trees import mvtec_class, table, touch

from tabzoo.data.layouts import find_samples
from tabzoo.data.samples import TEST, TRAIN, Samples


def test_select(tmp_path: Path):
    mvtec_class(tmp_path, "a")
    mvtec_class(tmp_path, "b")
    samples = find_samples(tmp_path)
    some = samples.select([17, 10, 0])
    assert table(some) == [table(samples)[i] for i in (17, 10, 0)]
    assert [some.mask_path(i) for i in range(3)] == [samples.mask_path(i) for i in (17, 10, 0)]
    assert (some.classes, some.class_ids.tolist()) == (("a", "b"), [1, 1, 0])
    dropped = samples.select(samples.class_ids == 1, drop=True)
    assert (dropped.classes, set(dropped.class_ids.tolist()), len(dropped)) == (("b",), {0}, 9)
    assert len(samples.select([])) == len(samples.select(np.zeros(18, bool))) == 0
    assert samples.select([0]).split[0] == TRAIN
    assert samples.select([17]).split[0] == TEST


def test_merged_parts_share_names_and_are_sorted(tmp_path: Path):
    """Names that no part uses are dropped, also those of a part that was selected from."""

    def part(name: str, split: int, defect: str, *files: bytes) -> Samples:
        return Samples.alike(name, split, defect, np.array(files), np.array([b"m" + file for file in files]))

    parts = [part("b", TEST, "dent", b"4", b"3"), part("b", TRAIN, "good", b"9"), part("a", TEST, "crack", b"1")]
    parts += [part("b", TEST, "dent", b"35"), part("c", TRAIN, "stain", b"5").select([])]
    merged = Samples.merged(tmp_path, "mvtec", parts, ["a note"])
    assert (merged.root, merged.layout, merged.notes) == (tmp_path, "mvtec", ("a note",))
    assert (merged.classes, merged.defects) == (("a", "b"), ("good", "crack", "dent"))
    assert table(merged) == [
        ("a", "test", "crack", "1"),
        ("b", "train", "good", "9"),
        *(("b", "test", "dent", name) for name in ("3", "35", "4")),
    ]
    assert merged.masks.tolist() == [b"m1", b"m9", b"m3", b"m35", b"m4"]
    assert not Samples.alike("a", TEST, "crack", np.array([b"1"])).mask_path(0)


def test_train_normals_drop_classes_without_any(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    mvtec_class(tmp_path, "a")
    touch(tmp_path, "empty/test/good/1.png", "empty/test/bad/1.png")
    mvtec_class(tmp_path, "z")
    normals = find_samples(tmp_path).train_normals()
    assert normals.classes == ("a", "z")
    assert normals.class_ids.tolist() == [0] * 3 + [1] * 3
    assert "no good images in their train split: empty" in caplog.text
