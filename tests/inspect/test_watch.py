"""Watching folders: what is complete, what is tried again, and what is looked at only once."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tabzoo.inspect.photos import find_photos
from tabzoo.inspect.watch import TRIES, Watch


@pytest.fixture
def line(tmp_path: Path) -> Path:
    (tmp_path / "line").mkdir()
    return tmp_path / "line"


@pytest.fixture
def put(line: Path) -> Callable[[str, str], str]:
    def put(name: str, content: str = "photo") -> str:
        (line / name).parent.mkdir(parents=True, exist_ok=True)
        (line / name).write_text(content)
        return str(line / name)

    return put


def test_a_photo_is_complete_when_two_looks_find_it_unchanged(line: Path, put: Callable[..., str]) -> None:
    watch = Watch([str(line)], without=None)
    assert watch.look() == []  # the folder may be empty
    a = put("a.png", "ha")
    assert watch.look() == []
    put("a.png", "half")
    assert watch.look() == []
    assert watch.look() == [a]
    assert watch.look() == [a]  # not settled
    assert watch.settle(a, readable=True)
    assert watch.look() == []


def test_a_photo_that_is_replaced_comes_again_even_with_the_same_size(line: Path, put: Callable[..., str]) -> None:
    watch = Watch([str(line)], without=None)
    a = put("a.png", "one")
    before = os.stat(a)
    watch.look()
    assert watch.look() == [a]
    watch.settle(a, readable=True)
    os.rename(put("b.tmp", "two"), a)  # as cameras do it, with another inode
    os.utime(a, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert watch.look() == []
    assert watch.look() == [a]


def test_a_photo_that_cannot_be_read_is_tried_again_and_then_final(line: Path, put: Callable[..., str]) -> None:
    watch = Watch([str(line)], without=None)
    a = put("a.png")
    watch.look()
    for number in range(TRIES):
        assert watch.look() == [a]
        assert watch.settle(a, readable=False) == (number == TRIES - 1)
    assert watch.look() == []
    put("a.png", "whole")  # at last
    watch.look()
    assert watch.look() == [a]
    assert watch.settle(a, readable=True)


def test_deleted_photos_do_not_matter(line: Path, put: Callable[..., str]) -> None:
    watch = Watch([str(line)], without=None)
    a, b = put("a.png"), put("b.png")
    watch.look()
    os.unlink(a)
    assert watch.look() == [b]
    os.unlink(b)
    watch.settle(b, readable=False)
    assert watch.look() == []


def test_a_folder_that_is_away_for_a_while_is_told_once_and_forgets_nothing(
    line: Path, put: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    watch = Watch([str(line)], without=None)
    a = put("a.png")
    watch.look()
    assert watch.look() == [a]
    watch.settle(a, readable=True)
    away = line.rename(line.with_name("away"))
    with caplog.at_level(logging.WARNING):
        assert watch.look() == watch.look() == []
    assert len(caplog.records) == 1
    assert "no such folder" in caplog.text
    away.rename(line)
    assert watch.look() == watch.look() == []


def test_photos_are_found_in_a_stable_order_each_once(
    line: Path, put: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["b/x.png", "a/x.PNG", "a/x.jpg", "z.tif", "1/2/3/4/5/6/7/deep.png"]
    for name in [*names, ".hidden.png", ".git/x.png", "a/notes.txt", "@eaDir/x.png"]:
        put(name)
    (line / "loop").symlink_to(line)
    (line / "link.png").symlink_to(line / "z.tif")
    found = find_photos([str(line)])
    assert found == [str(line / name) for name in sorted([*names, "link.png"])]
    monkeypatch.chdir(line)
    assert find_photos(["z.tif", ".", "./z.tif", "missing.png"]) == [
        "z.tif",
        *sorted({*names, "link.png"} - {"z.tif"}),
        "missing.png",
    ]


def test_what_score_wrote_is_no_photo(line: Path, put: Callable[..., str]) -> None:
    photo = put("a.png")
    put("out/overlays/a.png")
    put("other/scores.json")
    put("other/overlays/a.png")
    (line / "linked").symlink_to(line / "out")
    assert find_photos([str(line)], without=line / "out") == [photo]
