"""The key of decoded images: it contains everything that decides their pixels, and nothing else."""

import os
from collections.abc import Callable
from dataclasses import fields, replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tabzoo.data import entries
from tabzoo.data.cache import open_images
from tabzoo.data.decoding import Target
from tabzoo.data.entries import Files
from tabzoo.data.images import read_image, read_mask
from tabzoo.data.layouts import find_samples

Inputs = dict[str, Any]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four images of equal size, since they are BMP, and of one date, as an archive may leave them."""
    folder = tmp_path / "bolts"
    folder.mkdir()
    date = folder.stat().st_mtime_ns - 86_400 * 10**9
    rng = np.random.default_rng(0)
    for i in range(4):
        path = folder / f"{i}.bmp"
        Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).save(path)
        os.utime(path, ns=(0, date))
    return folder


@pytest.fixture
def inputs(root: Path) -> Inputs:
    """The arguments of `Files.listed`."""
    return {"root": root, "paths": find_samples(root).paths, "kind": "image", "size": 16, "resampling": "lanczos"}


def key(inputs: Inputs) -> str:
    return Files.listed(**inputs).folder_name


def _paint(path: Path) -> None:
    before = path.stat().st_size
    Image.new("RGB", (8, 6), "red").save(path)
    assert path.stat().st_size == before


def _lengthen(path: Path) -> None:
    date = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes() + b"x")
    os.utime(path, ns=(0, date))


def _rewrite(path: Path) -> None:
    """Other content, with everything that `touch` and `cp -p` can keep."""
    date, content = path.stat().st_mtime_ns, path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(0, date))


def _swap(one: Path, other: Path) -> None:
    aside = one.with_suffix(".aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def _date(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def _copy(root: Path) -> Path:
    """Another folder with equal names, sizes and times."""
    other = root.parent / "elsewhere" / root.name
    other.mkdir(parents=True)
    for path in root.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
        os.utime(other / path.name, ns=(0, path.stat().st_mtime_ns))
    return other


# A change to a function that makes it, on the disk or in the arguments it returns. The first word is the name of the input.
CHANGES: dict[str, Callable[[Inputs, pytest.MonkeyPatch], Inputs | None]] = {
    "content, of the same size": lambda given, _: _paint(given["root"] / "1.bmp"),
    "content, longer, with the same date": lambda given, _: _lengthen(given["root"] / "1.bmp"),
    "content, of the same size and date": lambda given, _: _rewrite(given["root"] / "1.bmp"),
    "content, changing places": lambda given, _: _swap(given["root"] / "1.bmp", given["root"] / "2.bmp"),
    "date": lambda given, _: _date(given["root"] / "3.bmp"),
    "content, missing": lambda given, _: (given["root"] / "2.bmp").unlink(),
    "paths, fewer": lambda given, _: {"paths": given["paths"][:3]},
    "paths, in another order": lambda given, _: {"paths": given["paths"][::-1]},
    "paths, one twice": lambda given, _: {"paths": given["paths"][[0, 1, 2, 3, 3]]},
    "root": lambda given, _: {"root": _copy(given["root"])},
    "kind": lambda given, _: {"kind": "mask"},
    "size": lambda given, _: {"size": 17},
    "resampling": lambda given, _: {"resampling": "bilinear"},
    "white_level": lambda given, _: {"white_level": 4095.0},
    "format": lambda given, patch: patch.setattr(entries, "_FORMAT", entries._FORMAT + 1),
    "pillow": lambda given, patch: patch.setattr(entries.PIL, "__version__", "0"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_input_alone_makes_a_new_key(change: str, inputs: Inputs, monkeypatch: pytest.MonkeyPatch):
    before = key(inputs)
    assert key(inputs) == before
    assert key(inputs | (CHANGES[change](inputs, monkeypatch) or {})) != before


def test_what_does_not_decide_the_pixels_is_not_in_the_key(root: Path, inputs: Inputs, tmp_path: Path):
    before = key(inputs)
    assert key(inputs | {"paths": inputs["paths"].astype("S200")}) == before
    (tmp_path / "link").symlink_to(root)
    assert key(inputs | {"root": tmp_path / "link"}) == before
    (root / "1.bmp").read_bytes()
    assert key(inputs) == before
    masks = inputs | {"kind": "mask"}
    assert key(masks) == key(masks | {"resampling": "bilinear"})  # masks go to the nearest pixel
    assert key(masks) == key(masks | {"white_level": 4095.0})


def test_every_input_of_the_decoder_is_changed_above():
    """Fails when an input is new, until the key depends on it."""
    changed = {change.split(",")[0] for change in CHANGES}
    known = {
        "Files.listed": set(signature(Files.listed).parameters),
        "Target": {field.name for field in fields(Target)} - {"file", "offset"},  # where pixels go
        "Target.decode": set(signature(Target.decode).parameters) - {"self", "path", "facts"},
        "read_image": set(signature(read_image).parameters) - {"path", "facts"},
        "read_mask": set(signature(read_mask).parameters) - {"path", "facts"},
    }
    for place, names in known.items():
        assert names <= changed, f"{place} has a new input: put it into Files.settings and into CHANGES here"


DECIDING = {"size": 17, "resampling": "bilinear", "white_level": 4095.0}
NEUTRAL = {
    "mode": "ram",
    "workers": 3,
    "device": torch.device("cpu"),
    "strict": True,
    "progress": False,
    "masks": True,
    "reported": None,
}


def test_options_of_open_images_make_a_new_entry_exactly_when_they_decide_the_pixels(root: Path, tmp_path: Path):
    samples, cache_dir = find_samples(root), tmp_path / "cache"
    options = set(signature(open_images).parameters) - {"samples", "cache_dir"}
    assert options == DECIDING.keys() | NEUTRAL.keys(), "a new option: does it decide the pixels?"

    def num_entries() -> int:
        return sum(not path.name.startswith(".") for path in cache_dir.iterdir())

    given: dict[str, Any] = {"cache_dir": cache_dir, "size": 16, "progress": True, "workers": 1}
    open_images(samples, **given)
    for name, value in NEUTRAL.items():
        open_images(samples, **{**given, name: value})
        assert num_entries() == 1, name
    for number, (name, value) in enumerate(DECIDING.items(), start=2):
        batch = open_images(samples, **{**given, name: value}).batch(range(4))
        assert num_entries() == number, name
        how = {"size": 16, name: value}
        assert np.array_equal(batch, np.stack([read_image(samples.path(i), **how) for i in range(4)]))


FILES = st.lists(
    st.tuples(st.binary(min_size=1, max_size=9).filter(lambda b: b"\0" not in b), *[st.integers(0, 2**62)] * 4),
    min_size=1,
    max_size=6,
    unique_by=lambda file: file[0],
)


@settings(max_examples=100, deadline=None)
@example(one=[(b"ab", 1, 1, 1, 1), (b"c", 1, 1, 1, 1)], other=[(b"a", 1, 1, 1, 1), (b"bc", 1, 1, 1, 1)])
@given(one=FILES, other=FILES)
def test_keys_are_equal_exactly_when_the_lists_are(one: list[Any], other: list[Any]):
    def key_of(files: list[Any]) -> str:
        paths = np.array([name for name, *_ in files], dtype=np.bytes_)
        stats = np.array([numbers for _, *numbers in files], dtype=np.int64)
        return Files(Target(b"/data", "image", 8), paths, stats).folder_name

    assert (key_of(one) == key_of(other)) == (one == other)
    assert key_of(one) == key_of(list(one))


def test_labels_are_not_in_the_key(root: Path, tmp_path: Path):
    samples = find_samples(root)
    relabelled = replace(samples, classes=("screw",), split=1 - samples.split, defect_ids=samples.defect_ids + 1)
    for some in (samples, relabelled):
        open_images(some, size=16, cache_dir=tmp_path / "cache", workers=1, progress=False)
    assert sum(not path.name.startswith(".") for path in (tmp_path / "cache").iterdir()) == 1
