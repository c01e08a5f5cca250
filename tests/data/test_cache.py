"""The cache: the same pixels in every mode, with killed processes, full disks, and damaged or unreadable files."""

import errno
import gc
import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import filelock
import numpy as np
import pytest
import torch
from PIL import Image

from tabzoo.data import cache, decoding, entries
from tabzoo.data.cache import CACHE_MODES, default_cache_dir, open_images
from tabzoo.data.images import read_image, read_mask
from tabzoo.data.layouts import find_samples
from tabzoo.data.samples import Samples
from tabzoo.errors import ImageError, InputError
from tabzoo.locks import lock

SIZE = 16


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes: 8 and 7 images with 2 masks each, all different."""
    root = tmp_path / "my data"
    rng = np.random.default_rng(0)
    for name, count in (("bolt", 4), ("nut", 3)):
        for folder in ("train/good", "test/good", "test/bad"):
            (root / name / folder).mkdir(parents=True)
            for i in range(count if folder == "train/good" else 2):
                noise = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
                Image.fromarray(noise).save(root / name / folder / f"{i}.png")
        (root / name / "ground_truth/bad").mkdir(parents=True)
        for i in range(2):
            mask = rng.integers(0, 2, (30, 40), dtype=np.uint8) * 255
            Image.fromarray(mask).save(root / name / f"ground_truth/bad/{i}_mask.png")
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all files that are decoded in this process from now on."""
    names: list[str] = []

    def counting(read: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        def call(path: str, **options: object) -> np.ndarray:
            names.append(path)
            return read(path, **options)

        return call

    monkeypatch.setattr(decoding, "read_image", counting(read_image))
    monkeypatch.setattr(decoding, "read_mask", counting(read_mask))
    return names


def opened(samples: Samples, folder: Path, **options: Any) -> cache.Images:
    return open_images(samples, **{"size": SIZE, "cache_dir": folder, "workers": 1, "progress": False, **options})


def expected(samples: Samples) -> torch.Tensor:
    return torch.from_numpy(np.stack([read_image(samples.path(i), size=SIZE) for i in range(len(samples))]))


def check(images: cache.Images) -> None:
    """All batches are what decoding the files gives now."""
    assert torch.equal(images.batch(np.arange(len(images))), expected(images.samples))


def files_of(samples: Samples, size: int = SIZE) -> entries.Files:
    return entries.Files.listed(samples.root, samples.paths, "image", size, "lanczos")


def leftovers(folder: Path) -> list[str]:
    """Hidden files other than the empty lock files, which take no space."""
    hidden = [path for path in folder.iterdir() if path.name.startswith(".")]
    return [path.name for path in hidden if path.suffix != ".lock" or path.stat().st_size]


def published(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


# ----------------------------------------------------------------------------------------------------------------- modes


@pytest.mark.parametrize("mode", CACHE_MODES)
def test_every_mode_gives_the_same(mode: cache.CacheMode, data: Path, folder: Path):
    samples = find_samples(data)
    images = opened(samples, folder, mode=mode, masks=True)
    assert images.samples is samples
    assert len(images) == 15
    check(images)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(0))
    batch = images.batch(order)
    assert (batch.dtype, batch.shape) == (torch.uint8, (15, SIZE, SIZE, 3))
    assert torch.equal(batch, expected(samples)[order])
    for index in ([3, 1, 1], np.array([3, 1, 1]), torch.tensor([3, 1, 1])):
        assert torch.equal(images.batch(index), expected(samples)[[3, 1, 1]])
    assert images.batch([]).shape == (0, SIZE, SIZE, 3)
    with pytest.raises(IndexError):
        images.batch([15])


def test_resident_tensor():
    """What `device` is on a GPU, here without one."""
    pixels = np.random.default_rng(0).integers(0, 255, (9, 4, 4, 3), dtype=np.uint8)
    rows = np.array([0, 2, 3, 8])
    source = cache.Resident(pixels, rows, torch.device("cpu"))
    for index in ([3, 1, 1], np.array([3, 1, 1]), torch.tensor([3, 1, 1])):
        assert np.array_equal(source.read(index).numpy(), pixels[[8, 2, 2]])


@pytest.mark.parametrize("mode", CACHE_MODES)
def test_masks(mode: cache.CacheMode, data: Path, folder: Path):
    samples = find_samples(data)
    images = opened(samples, folder, mode=mode, masks=True)
    masks = images.masks(torch.arange(15))
    assert (masks.dtype, masks.shape) == (torch.uint8, (15, SIZE, SIZE))
    for i in range(15):
        path = samples.mask_path(i)
        wanted = np.zeros((SIZE, SIZE)) if path is None else read_mask(path, size=SIZE)
        assert np.array_equal(masks[i].numpy(), wanted)
    assert not images.masks([0, 1]).any()


def test_masks_where_there_are_none(data: Path, folder: Path):
    normals = find_samples(data).train_normals()
    assert not opened(normals, folder, masks=True).masks([0, 1]).any()
    with pytest.raises(RuntimeError, match=r"open_images\(\.\.\., masks=True\)"):
        opened(normals, folder).masks([0])


def test_second_opening_decodes_nothing(data: Path, folder: Path, decoded: list[str]):
    samples = find_samples(data)
    opened(samples, folder, masks=True)
    assert len(decoded) == 19
    decoded.clear()
    for mode in ("disk", "ram", "device"):
        opened(find_samples(data), folder, mode=mode, masks=True)
    off = opened(samples, folder, mode="off")
    assert decoded == []
    off.batch([0])
    assert len(decoded) == 1


@pytest.mark.parametrize("mode", ["disk", "off"])
def test_hashes_are_those_of_the_files(mode: cache.CacheMode, data: Path, folder: Path, decoded: list[str]):
    """Of files that were decoded, copied from another entry or found in one, in the order of the samples."""
    samples = find_samples(data)
    samples.path(2).write_bytes(b"torn")
    opened(samples.select(np.arange(9)), folder, mode=mode)
    for _ in range(2):
        images = opened(samples, folder, mode=mode)
        wanted = [
            int(hashlib.sha256(images.samples.path(i).read_bytes()).hexdigest()[:16], 16) for i in range(len(images))
        ]
        assert images.hashes.tolist() == wanted
    decoded.clear()
    images.batch([0])
    assert len(decoded) == (mode == "off")


def test_off_checks_every_file_and_stores_nothing(data: Path, folder: Path, decoded: list[str]):
    opened(find_samples(data), folder, mode="off")
    assert len(decoded) == 15
    assert not folder.exists()


def test_off_ends_its_threads_with_the_images(data: Path, folder: Path):
    def decoding_threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("tabzoo-decode")]

    images = opened(find_samples(data), folder, mode="off", workers=3, masks=True)
    images.batch(range(15))
    images.masks(range(15))
    assert len(decoding_threads()) > 2
    del images
    gc.collect()
    deadline = time.monotonic() + 10
    while decoding_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert decoding_threads() == []


def test_index(data: Path, folder: Path):
    samples = find_samples(data)
    opened(samples, folder, masks=True)
    images, masks = published(folder)
    assert images.name.startswith("my_data-16-")
    assert masks.name.startswith("my_data-masks-16-")
    assert np.array_equal(np.load(images / "paths.npy"), samples.paths)
    status = [samples.path(i).stat() for i in range(15)]
    assert np.load(images / "stats.npy").tolist() == [
        [one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino] for one in status
    ]
    index = json.loads((images / "index.json").read_text())
    assert index["unreadable"] == {}
    assert index["settings"]["resize"] == "lanczos"
    assert np.load(images / "pixels.npy").shape == (15, SIZE, SIZE, 3)


def test_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: Path):
    monkeypatch.delenv("TABZOO_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_cache_dir() == Path.home() / ".cache/tabzoo/images"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert default_cache_dir() == tmp_path / "x/tabzoo/images"
    monkeypatch.setenv("TABZOO_CACHE", str(tmp_path / "t"))
    assert default_cache_dir() == tmp_path / "t/images"
    opened(find_samples(data), tmp_path, cache_dir=None)
    assert len(published(tmp_path / "t/images")) == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"mode": "disc"}, "unknown cache mode 'disc'; accepted: disk, ram, device, off"),
        ({"size": 0}, "size 0: expected"),
        ({"workers": -1}, "workers -1: expected"),
    ],
)
def test_bad_arguments(options: dict[str, Any], error: str, data: Path, folder: Path):
    with pytest.raises(InputError, match=error):
        opened(find_samples(data), folder, **options)
    with pytest.raises(InputError, match="no images to open"):
        opened(find_samples(data).select([]), folder)


# ---------------------------------------------------------------------------------------------------------- shared rows


@pytest.mark.parametrize("mode", ["disk", "off"])
def test_each_resampling_has_its_own_pixels_and_all_share_the_masks(
    mode: cache.CacheMode, data: Path, folder: Path, decoded: list[str]
):
    samples = find_samples(data)
    smooth, sharp = (
        opened(samples, folder, mode=mode, resampling=how, masks=True).batch(np.arange(len(samples)))
        for how in ("bilinear", "lanczos")
    )
    assert torch.equal(sharp, expected(samples))
    pictures = [read_image(samples.path(i), size=SIZE, resampling="bilinear") for i in range(len(samples))]
    assert torch.equal(smooth, torch.from_numpy(np.stack(pictures)))
    assert not torch.equal(smooth, sharp)
    if mode == "disk":
        assert len(published(folder)) == 3
        assert len(decoded) == 2 * len(samples) + int((samples.masks != b"").sum())


def test_a_changed_file_alone_is_decoded_again(data: Path, folder: Path, decoded: list[str]):
    samples = find_samples(data)
    opened(samples, folder)
    decoded.clear()
    Image.new("RGB", (5, 5), "red").save(samples.path(3))
    check(opened(samples, folder))
    assert decoded == [str(samples.path(3))]
    assert len(published(folder)) == 2


def swap(one: Path, other: Path) -> None:
    """Lets two files or folders change places."""
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


@pytest.mark.parametrize("folders", [False, True])
def test_files_that_change_places_are_decoded_again(
    folders: bool, data: Path, folder: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
):
    """Also with equal sizes and dates, as archives leave them; those of a folder that moves keep all but their place."""
    samples = find_samples(data)
    paths = [samples.path(i) for i in range(len(samples))]
    for path in paths:
        size = max(other.stat().st_size for other in paths)
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))
        os.utime(path, ns=(0, 10**18))
    before = opened(samples, folder).batch(np.arange(len(samples)))
    check(opened(samples, folder))
    decoded.clear()
    first, second = data / "bolt/test/good", data / "nut/test/good"
    swap(*(first, second) if folders else (first / "0.png", first / "1.png"))
    images = opened(find_samples(data), folder)
    check(images)
    assert not torch.equal(images.batch(np.arange(len(samples))), before)
    assert len(decoded) == (4 if folders else 2)


def test_more_files_and_fewer_files_share_rows(data: Path, folder: Path, decoded: list[str]):
    samples = find_samples(data)
    normals = samples.train_normals()
    opened(normals, folder)
    assert len(decoded) == 7
    check(opened(samples, folder))
    assert len(decoded) == 15
    check(opened(samples.select(samples.class_ids == 1, drop=True), folder))
    check(opened(samples.select([3, 3, 0]), folder))
    # The row of a file that is listed twice is copied once and decoded once: rare, and right.
    assert len(decoded) <= 16
    opened(samples, folder, size=8)
    assert len(decoded) >= 30


def test_rows_of_unreadable_files_are_not_shared(data: Path, folder: Path):
    samples = find_samples(data)
    samples.path(2).write_bytes(b"")
    opened(samples, folder)
    images = opened(samples.select(np.arange(5)), folder)
    assert list(images.unreadable) == [os.fsdecode(samples.paths[2])]
    check(images)


# ------------------------------------------------------------------------------------------------------------ bad files


@pytest.mark.parametrize("mode", CACHE_MODES)
def test_unreadable_files_are_left_out_with_a_warning(
    mode: cache.CacheMode, data: Path, folder: Path, caplog: pytest.LogCaptureFixture
):
    samples = find_samples(data)
    samples.path(2).write_bytes(b"")
    samples.path(9).write_bytes(b"text")
    for _ in range(2):  # The second time from the index.
        caplog.clear()
        images = opened(samples, folder, mode=mode, masks=True)
        assert len(images) == 13
        assert images.samples.paths.tolist() == np.delete(samples.paths, [2, 9]).tolist()
        assert images.samples.classes == samples.classes
        check(images)
        assert images.masks(np.arange(13)).any(dim=(1, 2)).sum() == 4
        warnings = [record.getMessage() for record in caplog.records]
        assert warnings[0] == f"left out: {samples.path(2)}: the file is empty (0 bytes)"
        assert warnings[1].startswith(f"left out: {samples.path(9)}: not an image")
        assert warnings[2] == f"{data}: left out 2 images that can't be read"
        assert list(images.unreadable) == [os.fsdecode(samples.paths[2]), os.fsdecode(samples.paths[9])]


def test_strict_lists_all_unreadable_files(data: Path, folder: Path, decoded: list[str]):
    samples = find_samples(data)
    for i in (2, 9):
        samples.path(i).write_bytes(b"")
    with pytest.raises(InputError) as caught:
        opened(samples, folder, strict=True)
    text = str(caught.value)
    assert text.startswith("2 images can't be read; without --strict, they are left out:\n")
    assert f"  {samples.path(2)}: the file is empty (0 bytes)\n  {samples.path(9)}: the file" in text
    decoded.clear()
    Image.new("RGB", (3, 3)).save(samples.path(2))
    Image.new("RGB", (3, 3)).save(samples.path(9))
    check(opened(samples, folder, strict=True))
    assert sorted(set(decoded)) == sorted([str(samples.path(2)), str(samples.path(9))])  # The others were kept.


def test_very_many_unreadable_files_are_counted(
    data: Path, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    samples = find_samples(data)
    monkeypatch.setattr(cache, "_MAX_NAMED", 2)
    for i in range(5):
        samples.path(i).write_bytes(b"")
    assert len(opened(samples, folder).unreadable) == 5
    assert len(caplog.records) == 4
    assert "left out: and 3 more" in caplog.text
    assert "left out 5 images that can't be read" in caplog.text


def test_nothing_readable(data: Path, folder: Path):
    samples = find_samples(data)
    for i in range(15):
        samples.path(i).write_bytes(b"")
    with pytest.raises(InputError, match="none of the 15 images can be read"):
        opened(samples, folder)


def test_a_class_without_a_readable_image_is_named(data: Path, folder: Path, caplog: pytest.LogCaptureFixture):
    samples = find_samples(data).train_normals()
    for i in np.flatnonzero(samples.class_ids == 1):
        samples.path(i).write_bytes(b"")
    assert len(opened(samples, folder)) == 4
    assert "no readable image in: nut" in caplog.text


def test_a_missing_file_and_its_return(data: Path, folder: Path):
    samples = find_samples(data)
    content = samples.path(1).read_bytes()
    samples.path(1).unlink()
    assert len(opened(samples, folder)) == 14
    samples.path(1).write_bytes(content)
    assert len(opened(samples, folder)) == 15


def test_a_file_that_is_repaired_without_a_new_date(data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """A network disk may come back; nothing of the file then changes, and so the fingerprint stays."""
    samples = find_samples(data)

    def broken(path: str, **how: Any) -> np.ndarray:
        if path == str(samples.path(1)):
            raise ImageError(path, "Input/output error")
        return read_image(path, **how)

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "read_image", broken)
        assert len(opened(samples, folder)) == 14
    images = opened(samples, folder)
    assert len(images) == 15
    check(images)
    assert (len(published(folder)), leftovers(folder)) == (1, [])


def test_unreadable_mask_is_no_mask(data: Path, folder: Path, caplog: pytest.LogCaptureFixture):
    samples = find_samples(data)
    index = np.flatnonzero(samples.masks != b"")
    samples.mask_path(index[1]).write_bytes(b"torn")
    images = opened(samples, folder, masks=True)
    assert images.samples.mask_path(index[1]) is None
    assert images.masks(index).any(dim=(1, 2)).tolist() == [True, False, True, True]
    assert "left out 1 mask that can't be read" in caplog.text
    with pytest.raises(InputError, match="1 mask can't be read"):
        opened(samples, folder, masks=True, strict=True)


# ----------------------------------------------------------------------------------------------- killed, damaged, at once


def in_child(work: Callable[[], object]) -> multiprocessing.process.BaseProcess:
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    return child


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


POINTS = {
    "at the first file": (decoding, "read_image", 0),
    "in the middle": (decoding, "read_image", 7),
    "at the last file": (decoding, "read_image", 14),
    "while removing remains": (entries, "_remove_remains", 0),
    "while it makes room": (entries, "_reserve", 0),
    "before the index": (entries, "_save_index", 0),
    "before the rows": (entries, "_save_rows", 0),
    "before it is published": (entries, "_publish", 0),
    "before the first flush": (entries, "_flush", 0),
    "while flushing": (entries, "_flush", 4),
    "before the last flush": (entries, "_flush", 6),
}


@pytest.mark.parametrize("point", POINTS)
def test_kill_9_leaves_nothing_half_valid(point: str, data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    samples = find_samples(data)
    module, name, count = POINTS[point]
    original, calls = getattr(module, name), []

    def deadly(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) > count:
            killed()
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, deadly)
        child = in_child(lambda: opened(samples, folder))
        child.join()
    assert child.exitcode == -signal.SIGKILL
    assert not published(folder)
    check(opened(samples, folder))
    assert (len(published(folder)), leftovers(folder)) == (1, [])


def test_kill_9_at_random_moments(data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    samples = find_samples(data)
    monkeypatch.setattr(decoding, "read_image", lambda path, **how: time.sleep(0.005) or read_image(path, **how))
    for delay in np.random.default_rng(0).uniform(0.01, 0.12, 8):
        child = in_child(lambda: opened(samples, folder))
        time.sleep(delay)
        child.kill()
        child.join()
    check(opened(samples, folder))
    assert (len(published(folder)), leftovers(folder)) == (1, [])


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_the_next_build_continues(
    signal_number: int, data: Path, folder: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
):
    """Rows that were noted before the end are not decoded again."""
    samples = find_samples(data)
    monkeypatch.setattr(decoding, "_CHUNK", 1)
    with monkeypatch.context() as patch:
        original, calls = read_image, []

        def deadly(path: str, **how: Any) -> np.ndarray:
            calls.append(1)
            if len(calls) > 9:
                os.kill(os.getpid(), signal_number)
            return original(path, **how)

        def build() -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # For the interrupted child's traceback.
            opened(samples, folder)

        patch.setattr(decoding, "read_image", deadly)
        patch.setattr(decoding, "_SAVE_EVERY", 0)
        child = in_child(build)
        child.join()
    assert child.exitcode not in (0, None)
    assert len(leftovers(folder)) == 1
    check(opened(samples, folder))
    assert sorted(decoded) == sorted(str(samples.path(i)) for i in range(9, 15))
    assert (len(published(folder)), leftovers(folder)) == (1, [])


def test_remains_make_room(data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    remains = folder / ".x-16-0.tmp"
    remains.mkdir(parents=True)
    (folder / ".x-16-0.lock").touch()
    monkeypatch.setattr(entries.shutil, "disk_usage", lambda _: SimpleNamespace(free=0 if remains.exists() else 10**9))
    check(opened(find_samples(data), folder))


def test_what_gets_a_name_is_on_the_disk(data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """A power cut leaves names without content where files were not flushed before they were renamed."""
    flushed: dict[int, bytes] = {}
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def is_flushed(path: Path) -> bool:
        return flushed.get(path.stat().st_ino) == path.read_bytes()

    def watched_fsync(file: int) -> None:
        fsync(file)
        flushed[os.fstat(file).st_ino] = os.pread(file, os.fstat(file).st_size, 0)

    def watched_replace(source: Path, target: Path) -> None:
        assert is_flushed(source)
        assert is_flushed(source.parent / "pixels.npy"), "rows must be there before rows.npy names them"
        replace(source, target)
        renamed.append(target)

    def watched_rename(source: Path, target: Path) -> None:
        assert all(is_flushed(path) for path in source.iterdir())
        rename(source, target)
        renamed.append(target)

    renamed: list[Path] = []
    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    monkeypatch.setattr(os, "rename", watched_rename)
    opened(find_samples(data), folder)
    assert [path.name for path in renamed] == ["rows.npy", published(folder)[0].name]


@pytest.mark.slow
def test_kill_9_of_a_build_with_processes_ends_these(data: Path, folder: Path, tmp_path: Path):
    """No orphan keeps decoding, and the next run clears up."""
    script = tmp_path / "build.py"  # Without `if __name__ == "__main__"`, as users write it.
    script.write_text(
        "import time\nfrom tabzoo.data import cache, decoding, entries\nfrom tabzoo.data.layouts import find_samples\n"
        "decoding._POOL_START = 0\ndecoding._CHUNK = 1\nprint('started', flush=True)\n"
        "entries._publish = lambda *_, **__: (print('built', flush=True), time.sleep(60))\n"
        f"cache.open_images(find_samples({str(data)!r}), size=16, cache_dir={str(folder)!r}, workers=2, progress=False)\n"
    )
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert [process.stdout.readline(), process.stdout.readline()] == ["started\n", "built\n"]
    temporary = next(path for path in folder.iterdir() if path.name.endswith(".tmp"))
    samples = find_samples(data)
    pixels = torch.from_numpy(np.load(temporary / "pixels.npy"))
    assert torch.equal(pixels, expected(samples))  # The same pixels as decoded in this process.
    process.kill()
    assert process.stdout.read() == ""  # Ends when all that inherited it have ended; nothing ran the script again.
    process.wait()
    check(opened(samples, folder))
    assert (len(published(folder)), leftovers(folder)) == (1, [])


@pytest.mark.parametrize("locking", [True, False])
def test_two_builders_at_once(locking: bool, data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    samples = find_samples(data)
    counter = multiprocessing.get_context("fork").Value("i")

    def slow(path: str, **how: Any) -> np.ndarray:
        with counter.get_lock():
            counter.value += 1
        time.sleep(0.01)
        return read_image(path, **how)

    def no_locks(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "read_image", slow)
        if not locking:
            patch.setattr(filelock, "lock_descriptor", no_locks)
        children = [in_child(lambda: check(opened(samples, folder))) for _ in range(3)]
        for child in children:
            child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert counter.value == 15 if locking else 15 <= counter.value <= 45
    check(opened(samples, folder))
    assert (len(published(folder)), leftovers(folder)) == (1, [])


def test_remains_of_a_live_builder_stay(data: Path, folder: Path):
    remains = folder / ".other-16-0.tmp"
    remains.mkdir(parents=True)
    with lock(folder / "other-16-0") as locked:
        opened(find_samples(data), folder)
    assert locked
    assert leftovers(folder) == [remains.name]
    opened(find_samples(data), folder, size=8)
    assert leftovers(folder) == []


def test_a_lock_file_that_is_not_ours(data: Path, folder: Path):
    """As when another user's killed build has left its file in a shared folder."""
    samples = find_samples(data)
    (folder / f".{files_of(samples).folder_name}.lock").mkdir(parents=True)
    check(opened(samples, folder))
    assert len(published(folder)) == 1
    assert not list(folder.glob(".*.tmp"))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "short pixels": lambda entry: os.truncate(entry / "pixels.npy", 2000),
    "no pixels": lambda entry: (entry / "pixels.npy").unlink(),
    "no index": lambda entry: (entry / "index.json").unlink(),
    "torn index": lambda entry: os.truncate(entry / "index.json", 50),
    "empty arrays": lambda entry: os.truncate(entry / "rows.npy", 0),
    "other shape": lambda entry: np.save(entry / "pixels.npy", np.zeros((3, SIZE, SIZE, 3), np.uint8)),
    "other index": lambda entry: (entry / "index.json").write_text('{"fingerprint": "0", "unreadable": {}}'),
    "index of another kind": lambda entry: (entry / "index.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_built_again(damage: str, data: Path, folder: Path, caplog: pytest.LogCaptureFixture):
    samples = find_samples(data)
    opened(samples, folder)
    DAMAGE[damage](published(folder)[0])
    images = opened(samples, folder)
    check(images)
    assert "damaged" in caplog.text
    caplog.clear()
    check(opened(samples, folder))
    assert not caplog.text
    assert leftovers(folder) == []


# ------------------------------------------------------------------------------------------------------------- disk full


def no_room(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("module", "name"),
    [(entries, "_reserve"), (np, "save"), (os, "fsync"), (decoding, "decode_chunk"), (decoding.Target, "write")],
)
def test_disk_full_at_any_point(module: Any, name: str, data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    samples = find_samples(data)
    old = samples.select(np.arange(5))
    opened(old, folder)
    with monkeypatch.context() as patch:
        patch.setattr(module, name, no_room)
        with pytest.raises(InputError) as caught:
            opened(samples, folder)
    needed = 15 * SIZE * SIZE * 3
    for part in (str(folder), f"it needs {needed:,} bytes", "--cache-dir", "--cache off"):
        assert part in str(caught.value)
    assert leftovers(folder) == []
    check(opened(old, folder))
    assert len(published(folder)) == 1


def test_too_little_room_is_known_before_anything_is_decoded(
    data: Path, folder: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(entries.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match="1,000 bytes are free"):
        opened(find_samples(data), folder)
    assert decoded == leftovers(folder) == []


def test_a_folder_that_is_not_writable(data: Path, tmp_path: Path):
    samples = find_samples(data)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        InputError, match=r"file/cache: can't write the cache to this folder: .*--cache-dir.*--cache off"
    ):
        opened(samples, tmp_path / "file/cache")
    check(opened(samples, tmp_path / "file/cache", mode="off"))


# ------------------------------------------------------------------------------------------------------------- processes


class FragilePool:
    """Stands for processes that die when they decode a certain file, or that can't start."""

    deadly: bytes | None = b"bolt/train/good/2.png"
    started: int = 0

    def __init__(self, workers: int) -> None:
        FragilePool.started += 1
        self.broken = FragilePool.deadly is None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        jobs = arguments[1] if len(arguments) > 1 else []
        self.broken |= any(FragilePool.deadly in (job, job[1]) for job in jobs)
        if self.broken:
            future.set_exception(BrokenProcessPool("died"))
        else:
            future.set_result(function(*arguments))
        return future

    def close(self) -> None:
        pass


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> type[FragilePool]:
    monkeypatch.setattr(decoding, "Pool", FragilePool)
    monkeypatch.setattr(decoding, "_POOL_START", -1e-9)
    monkeypatch.setattr(decoding, "_CHUNK", 2)
    monkeypatch.setattr(FragilePool, "started", 0)
    return FragilePool


def test_a_file_that_kills_its_process_is_found_and_left_out(fragile: type[FragilePool], data: Path, folder: Path):
    images = opened(find_samples(data), folder, workers=4)
    assert len(images) == 14
    check(images)
    assert list(images.unreadable) == ["bolt/train/good/2.png"]
    assert "the process that decoded it died" in images.unreadable["bolt/train/good/2.png"]
    assert fragile.started > 1


def test_without_processes_this_one_decodes(
    fragile: type[FragilePool], data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fragile, "deadly", None)
    images = opened(find_samples(data), folder, workers=4)
    assert len(images) == 15
    check(images)


@pytest.mark.slow
def test_processes_decode_the_same(data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """The real ones, also for batches; the same whatever their number."""
    monkeypatch.setattr(decoding, "_POOL_START", 0)
    monkeypatch.setattr(decoding, "_CHUNK", 1)
    samples = find_samples(data)
    samples.path(14).write_bytes(b"")
    images = opened(samples, folder, workers=2, masks=True)
    assert len(images) == 14
    check(images)
    off = opened(samples, folder, mode="off", workers=2)
    check(off)
    samples.path(0).unlink()
    with pytest.raises(ImageError, match=r"0\.png: no such file"):
        off.batch([0])


@pytest.mark.slow
def test_a_dead_process_is_an_error_at_once():
    with closing(decoding.Pool(1)) as pool:
        for function in (os._exit, os._exit, os.getpid):
            with pytest.raises(BrokenProcessPool):
                pool.submit(function, *[1] * (function is os._exit)).result(timeout=60)


def test_few_files_start_no_processes(data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decoding, "Pool", None)
    check(opened(find_samples(data), folder, workers=16))


# ---------------------------------------------------------------------------------------------------------- size, devices


def test_many_images_take_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With a generated index and a sparse file of one-pixel images."""
    count = 100_000
    paths = np.char.mod(b"class/train/good/%07d.png", np.arange(count))
    zeros = np.zeros(count, np.int32)
    samples = Samples(
        tmp_path, "mvtec", ("class",), paths, zeros, zeros.astype(np.uint8), zeros, ("good",), np.zeros(count, "S1")
    )
    monkeypatch.setattr(entries, "_stats", lambda root, paths: np.ones((len(paths), 4), np.int64))
    listed = files_of(samples, 1)
    entry = tmp_path / "cache" / listed.folder_name
    entry.mkdir(parents=True)
    entries._reserve(entry / "pixels.npy", listed, there=False)
    entries._save_index(entry, listed, {})
    rows = np.zeros(count, decoding.ROW)
    rows["hash"] = 1
    entries._save_rows(entry, rows)
    tracemalloc.start()
    images = open_images(samples, size=1, cache_dir=tmp_path / "cache", workers=1, progress=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak / count < 300  # A million take 300 MB at most, for a moment.
    assert len(images) == count
    assert images.batch([0, count - 1]).shape == (2, 1, 1, 3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(data: Path, folder: Path):
    samples = find_samples(data)
    samples.path(2).write_bytes(b"")
    order = torch.randperm(14)
    for mode in CACHE_MODES:
        images = opened(samples, folder, mode=mode, device="cuda", masks=True)
        batch = images.batch(order)
        assert batch.device.type == images.masks(order).device.type == "cuda"
        assert torch.equal(batch.cpu(), expected(images.samples)[order])
        assert torch.equal(images.batch(order.cuda()), batch)


@pytest.mark.real_data
@pytest.mark.skipif("TABZOO_TEST_DATA" not in os.environ, reason="TABZOO_TEST_DATA does not name a folder of images")
def test_real_packs(folder: Path):
    for name, count in (("factory", 1485), ("native/mvtec", 120)):
        samples = find_samples(Path(os.environ["TABZOO_TEST_DATA"]) / name)
        some = samples.select(np.arange(0, count, 5))
        images = opened(some, folder, masks=True)
        assert (len(images), images.unreadable) == (len(some), {})
        check(images)
        index = np.flatnonzero(some.masks != b"")
        assert images.masks(index).any(dim=(1, 2)).all()
