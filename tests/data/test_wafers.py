"""Files of wafer maps: read, refused, checked, generated and drawn."""

import io
import json
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tabzoo.benchmark.__main__ import main as benchmark
from tabzoo.data import show
from tabzoo.data.__main__ import main
from tabzoo.data.check_wafers import check_wafers
from tabzoo.data.layouts import find_samples
from tabzoo.data.toy_wafers import draw_wafer, make_toy_wafers
from tabzoo.data.wafers import PATTERNS, PUBLIC, Wafers, _read, read_wafers
from tabzoo.errors import InputError

MAPS = np.stack([draw_wafer(name, np.random.default_rng(i)) for i, name in enumerate(("normal", "Loc", "Loc+Scratch"))])
LABELS = np.array([[0] * 8, [0, 0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0, 1, 0]])


def save(path: Path, **arrays: Any) -> Path:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return save(tmp_path / "wafers.npz", arr_0=MAPS.astype(np.int32), arr_1=LABELS)


def test_public_counts_are_those_that_are_published() -> None:
    """1 normal class, 8 single and 29 mixed ones: 13 of two patterns, 12 of three, 4 of four; 38,015 maps."""
    assert len(PUBLIC) == 38
    assert sum(PUBLIC.values()) == 38_015
    patterns = Counter(0 if name == "normal" else name.count("+") + 1 for name in PUBLIC)
    assert patterns == {0: 1, 1: 8, 2: 13, 3: 12, 4: 4}
    per_number = {
        k: sum(n for name, n in PUBLIC.items() if name != "normal" and name.count("+") == k - 1) for k in (1, 2, 3, 4)
    }
    assert per_number == {1: 7_015, 2: 13_000, 3: 13_000, 4: 4_000}


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_maps_labels_and_classes(tmp_path: Path, dtype: Any) -> None:
    order = [2, 0, 1, 0]
    wafers = read_wafers(save(tmp_path / "w.npz", arr_0=MAPS[order].astype(dtype), arr_1=LABELS[order].astype(dtype)))
    assert wafers.classes == ("normal", "Loc", "Loc+Scratch")
    assert wafers.class_ids.tolist() == [2, 0, 1, 0]
    assert np.array_equal(wafers.maps, MAPS[order])
    assert [[PATTERNS[i] for i in np.flatnonzero(row)] for row in wafers.labels] == [
        ["Loc", "Scratch"],
        [],
        ["Loc"],
        [],
    ]
    assert wafers.counts() == {"normal": 2, "Loc": 1, "Loc+Scratch": 1}
    grey = wafers.grey(np.array([1]))
    assert [sorted(set(grey[0][MAPS[0] == value].tolist())) for value in (0, 1, 2)] == [[0], [127], [255]]


def test_more_maps_than_are_read_at_a_time(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).integers(0, 3, (2500, 52, 52))
    labels = np.eye(8, dtype=int)[np.arange(2500) % 8]
    assert np.array_equal(read_wafers(save(tmp_path / "w.npz", arr_0=maps, arr_1=labels)).maps, maps)


def test_threes_count_as_failed_dies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maps = MAPS.copy()
    maps[0, 25, 20:23] = 3
    maps[2, 30, 30] = 3
    wafers = read_wafers(path := save(tmp_path / "w.npz", arr_0=maps, arr_1=LABELS))
    assert wafers.threes == (4, 2)
    assert (wafers.maps[0, 25, 20:23] == 2).all()
    main(["check", str(path)])
    assert "4 dies with the value 3, in 2 maps: read as 2" in capsys.readouterr().out


def bomb() -> bytes:
    """A header that promises far more maps than follow."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 52, 52)})
    return header.getvalue()


LOC = LABELS.copy()
LOC[:] = LABELS[1]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"arr_0": MAPS}, r"has no array arr_1, but arr_0"),
    ({"maps": MAPS, "labels": LABELS}, r"has no array arr_1, but labels, maps"),
    ({"arr_0": MAPS[:, :50], "arr_1": LABELS}, r"arr_0 is uint8 \[3, 50, 52\]; expected .* arr_0 \[N, 52, 52\]"),
    ({"arr_0": MAPS, "arr_1": LABELS[:, :7]}, r"arr_1 is int64 \[3, 7\]"),
    ({"arr_0": MAPS.astype(np.float32), "arr_1": LABELS}, r"arr_0 is float32"),
    ({"arr_0": MAPS.astype(object), "arr_1": LABELS}, r"arr_0 is object"),
    ({"arr_0": np.asfortranarray(MAPS), "arr_1": LABELS}, r"in Fortran order"),
    ({"arr_0": MAPS, "arr_1": LABELS[:2]}, r"3 maps in arr_0, but 2 labels in arr_1"),
    ({"arr_0": MAPS + np.uint8(3), "arr_1": LABELS}, r"arr_0 holds the value 5; expected 0 \(no die\)"),
    ({"arr_0": MAPS.astype(int) - 1, "arr_1": LABELS}, r"arr_0 holds the value -1"),
    ({"arr_0": MAPS.astype(int) * 256, "arr_1": LABELS}, r"arr_0 holds the value 512"),
    ({"arr_0": MAPS, "arr_1": 2 * LABELS}, r"arr_1 holds 2; expected labels of 0 and 1"),
    ({"arr_0": MAPS, "arr_1": LOC}, r"holds one class, Loc; expected at least two"),
    ({"arr_0": MAPS[:0], "arr_1": LABELS[:0]}, r"holds no maps"),
]


@pytest.mark.parametrize(("arrays", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_wrong_arrays_are_told_in_one_line(
    arrays: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "bad.npz", **arrays)
    assert main(["check", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)
    assert "bad.npz" in line


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "can't be read"), (b"PK\x03\x04 no", "can't be read"), (b"\x93NUMPY", "can't be read")],
)
def test_what_is_not_an_npz(content: bytes, message: str, tmp_path: Path) -> None:
    (path := tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(InputError, match=f"bad.npz: {message}"):
        read_wafers(path)


def test_sizes_are_read_before_memory_is_taken(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(member: bytes) -> Path:
        path = tmp_path / "bomb.npz"
        with zipfile.ZipFile(file) as good, zipfile.ZipFile(path, "w") as archive:
            archive.writestr("arr_1.npy", good.read("arr_1.npy"))
            archive.writestr("arr_0.npy", member)
        return path

    with zipfile.ZipFile(file) as good:
        whole = good.read("arr_0.npy")
    monkeypatch.setattr(np, "empty", None)  # labels of a bomb are never reached
    for member, message in ((bomb(), "1,000,000,000 rows"), (whole[:-1], "should hold"), (whole + b"0", "should hold")):
        path = write(member)
        with zipfile.ZipFile(path) as archive, pytest.raises(InputError, match=message):
            _read(path, archive, "arr_0", (52, 52))


def test_a_damaged_map_is_noticed(file: Path, tmp_path: Path) -> None:
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        start = archive.getinfo("arr_0.npy").header_offset
    content[start + 300] ^= 0xFF
    (bad := tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(InputError, match="bad.npz"):
        read_wafers(bad)


def test_check_counts_classes_and_names_the_next_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_toy_wafers(tmp_path / "toy.npz", per_class=2)
    assert main(["check", str(path)]) == 0
    out = capsys.readouterr().out
    assert "layout mixedwm38, 76 maps, 38 classes" in out
    assert re.search(r"\n  Center\+Edge-Loc\+Scratch +2\n", out)
    assert f"python -m tabzoo.benchmark classify --data {path}" in out
    assert main(["check", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["classes"] == dict.fromkeys(PUBLIC, 2)
    assert told["total"] == 76


def test_the_public_file_would_be_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    class_ids = np.repeat(np.arange(38), list(PUBLIC.values()))
    maps = np.random.default_rng(0).integers(0, 3, (len(class_ids), 4), dtype=np.uint8)
    wafers = Wafers(Path("w.npz"), maps, np.zeros((len(maps), 8), bool), tuple(PUBLIC), class_ids, (0, 0))
    assert (
        check_wafers(wafers).notes[0] == "as many maps of each class as MixedWM38's public file: 38,015 in 38 classes"
    )


def test_check_finds_maps_that_occur_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [0, 1, 2, 0, 1]
    labels = LABELS[[0, 1, 2, 0, 2]]
    assert main(["check", str(save(tmp_path / "w.npz", arr_0=MAPS[rows], arr_1=labels))]) == 1
    out = capsys.readouterr().out
    assert "1 map the same as an earlier one of its class" in out
    assert "duplicate:" in out
    assert "1 map the same as an earlier one of another class" in out


def test_other_commands_refuse_wafer_maps(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="a file of wafer maps"):
        find_samples(file)
    assert benchmark(["run", "--backbone", "random", "--data", str(file), "--output", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "python -m tabzoo.benchmark classify" in line


def test_generated_wafers_are_repeatable_and_differ_by_pattern(tmp_path: Path) -> None:
    few, many = (read_wafers(make_toy_wafers(tmp_path / f"{n}.npz", per_class=n, seed=3)) for n in (2, 3))
    assert few.classes == tuple(sorted(PUBLIC, key=lambda name: many.classes.index(name)))
    assert np.array_equal(few.maps[:2], many.maps[:2])
    share = {name: (few.maps[few.class_ids == i] == 2).mean() for i, name in enumerate(few.classes)}
    assert share["normal"] < share["Scratch"] < share["Donut"] < share["Near-full"]
    middle = {name: (few.maps[few.class_ids == i][:, 23:29, 23:29] == 2).mean() for i, name in enumerate(few.classes)}
    assert middle["Center"] > 0.6 > 0.3 > middle["Edge-Ring"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["t.txt"], "ends in .npz"),
        (["t.npz", "--per-class", "0"], "--per-class 0"),
        (["t.npz", "--classes", "normal", "Locc"], "Did you mean 'Loc'"),
        (["there.npz"], "exists"),
    ],
)
def test_toy_wafers_refuses(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.npz").touch()
    assert main(["toy-wafers", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    made: list[Figure] = []
    real = show.save_for_paper
    monkeypatch.setattr(show, "save_for_paper", lambda figure, stem: (made.append(figure), real(figure, stem)))
    return made


def test_show_draws_each_class_of_wafers(file: Path, tmp_path: Path, figures: list[Figure]) -> None:
    assert main(["show", str(file), "--output", str(tmp_path / "f" / "w.png"), "--columns", "2"]) == 0
    drawn = [axis for axis in figures[0].axes if axis.images]
    assert [axis.get_title() for axis in drawn] == ["normal", "Loc (L)", "L+S"]
    pixels = np.asarray(drawn[1].images[0].get_array())
    assert pixels.shape == (156, 156, 3)
    failed = (pixels[::3, ::3] == pixels[::3, ::3][MAPS[1] == 2][0]).all(-1)
    assert np.array_equal(failed, MAPS[1] == 2)
    assert sorted(path.name for path in (tmp_path / "f").iterdir()) == ["w.png", "w.svg", "w.txt"]
    with Image.open(tmp_path / "f" / "w.png") as image:
        assert image.width > 2000
    caption = (tmp_path / "f" / "w.txt").read_text()
    assert f"python -m tabzoo.data show {file} --output" in caption
    assert "SHA-256 of wafers.npz: " in caption
    assert "L Loc" in caption


def test_show_draws_normal_images_of_a_folder(tmp_path: Path, figures: list[Figure]) -> None:
    for kind, level in (("train/good", 200), ("test/good", 200), ("test/hole", 20)):
        for name in ("nut", "$x_{$"):
            (folder := tmp_path / "d" / name / kind).mkdir(parents=True)
            Image.new("L", (40, 30), level).save(folder / "0.png")
    arguments = ["show", str(tmp_path / "d"), "--output", str(tmp_path / "s.svg"), "--each", "3"]
    assert main(arguments) == 0
    drawn = [axis for axis in figures[0].axes if axis.images]
    assert [axis.get_title() for axis in drawn] == ["$x_{$", "nut"]
    for axis in drawn:  # only one normal training image each
        assert (np.asarray(axis.images[0].get_array()) == 200).all()
    first = (tmp_path / "s.svg").read_bytes(), (tmp_path / "s.png").read_bytes()
    assert main(arguments) == 0
    assert first == ((tmp_path / "s.svg").read_bytes(), (tmp_path / "s.png").read_bytes())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "s.jpg"], "ends in .png or .svg"),
        (["--output", "s.png", "--each", "0"], "--each 0: expected 1 to 400"),
        (["--output", "s.png", "--columns", "401"], "--columns 401"),
    ],
)
def test_show_refuses(
    arguments: list[str], message: str, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    assert main(["show", str(file), *arguments]) == 2
    assert message in capsys.readouterr().err
