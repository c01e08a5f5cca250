"""`tabzoo score` from the command line to its rows, overlays and exit code, with a detector of brightness."""

import csv
import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tabzoo.inspect.report as report_module
import tabzoo.inspect.score as score_module
import tabzoo.inspect.stream as stream_module
from tabzoo.command import run_command
from tabzoo.data.images import read_image
from tabzoo.detectors import Scores
from tabzoo.errors import InputError
from tabzoo.inspect.__main__ import main
from tabzoo.inspect.detector import Verdicts, load_detector
from tabzoo.inspect.looks import looks_of
from tabzoo.inspect.record import Looks, Scale
from tabzoo.inspect.rows import CSV, JSONL, read_scores
from tabzoo.inspect.score import Score

THRESHOLD = 150.0
DARK, BRIGHT = 100, 200


class Brightness:
    """The score is the largest pixel of the prepared photo, the map its pixels."""

    def __init__(self, *, tile: int | None = None, threshold: float = THRESHOLD) -> None:
        self.record = SimpleNamespace(
            tile=tile,
            size=16,
            resampling="bilinear",
            white_level=None,
            scale=Scale(50.0, 250.0),
            looks=Looks(1.0, 1.0, grey=True),
            good_scores=tuple(range(80, 120)),
            to_json=lambda: {"threshold": threshold, "provenance": time.time()},
        )
        self.threshold = threshold
        self.network = SimpleNamespace(device=torch.device("cpu"))
        self.batches: list[int] = []

    def score_prepared(self, batch: torch.Tensor) -> Scores:
        self.batches.append(len(batch))
        maps = batch[..., 0].float()
        return Scores(maps.amax(dim=(1, 2)), maps)

    def __call__(self, images: list[np.ndarray]) -> Verdicts:
        (image,) = images
        if image.shape[0] != 40:
            raise InputError(f"{image.shape[0]} pixels high, expected 40")
        return Verdicts(np.array([image.max()], np.float32), [image[..., 0].astype(np.float32)])

    def is_defective(self, scores: np.ndarray) -> np.ndarray:
        return np.asarray(scores > self.threshold)

    def percentile(self, scores: np.ndarray) -> np.ndarray:
        return np.asarray(scores / 2)


def photo(path: Path, value: int = DARK, size: tuple[int, int] = (40, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, value, np.uint8)).save(path)
    return path


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> Brightness:
    made = Brightness()
    monkeypatch.setattr(report_module, "write_page", lambda *_, **__: None)  # it needs a whole record
    monkeypatch.setattr(score_module, "load_detector", lambda *_, **__: made)
    return made


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Four good photos and a defective one."""
    for name in ("a/x.png", "b/x.png", "x.bmp", "x.tif"):
        photo(tmp_path / "photos" / name)
    photo(tmp_path / "photos" / "y.png", BRIGHT)
    return tmp_path / "photos"


def score(*arguments: object) -> int:
    return run_command(Score, ["detector", *map(str, arguments)], prog="tabzoo score")


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_row_for_each_photo_and_the_exit_code(
    detector: Brightness, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(parts) == 1
    said = capsys.readouterr()
    rows = table(said.out)
    assert [row["file"] for row in rows] == [
        str(parts / name) for name in ("a/x.png", "b/x.png", "x.bmp", "x.tif", "y.png")
    ]
    assert [row["verdict"] for row in rows] == ["good"] * 4 + ["defective"]
    assert [float(row["score"]) for row in rows] == [100.0] * 4 + [200.0]
    assert {row["threshold"] for row in rows} == {"150.0"}
    assert rows[0]["percentile"] == "50.0"
    assert all(float(row["milliseconds"]) > 0 for row in rows)
    assert all(row["error"] == row["overlay"] == "" for row in rows)
    assert said.err.splitlines()[-1] == "5 photos: 4 good, 1 defective."
    os.unlink(parts / "y.png")
    assert score(parts) == 0


def test_unreadable_photos_are_named_and_stop_nothing(
    detector: Brightness, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (parts / "a" / "broken.png").write_bytes((parts / "y.png").read_bytes()[:60])
    (parts / "c.jpg").write_text("")
    (parts / "d.png").symlink_to("nowhere.png")
    assert score(parts, "missing.png") == 2  # errors win over the defect
    said = capsys.readouterr()
    rows = {Path(row["file"]).name: row for row in table(said.out)}
    assert len(rows) == 8
    assert rows["c.jpg"] | {"file": ""} == {
        **dict.fromkeys(rows["c.jpg"], ""),
        "threshold": "150.0",
        "verdict": "error",
        "error": "the file is empty (0 bytes)",
    }
    assert f"{parts}/a/broken.png: can't be decoded" in said.err
    assert "missing.png: no such file" in said.err
    assert said.err.splitlines()[-1] == "9 photos: 4 good, 1 defective, 4 could not be read."


def test_overlays_have_the_photos_own_size_and_orientation(detector: Brightness, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    photo(folder / "a.png", size=(30, 70))
    turned = Image.fromarray(np.full((30, 70), DARK, np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "b.jpg", exif=exif)
    Image.fromarray(np.full((50, 20), 65535 * 100 // 255, np.uint16)).save(folder / "c.png")
    Image.new("CMYK", (33, 44)).save(folder / "d.tif")
    Image.fromarray(np.full((2, 3), DARK, np.uint8)).save(folder / "e.png")
    assert score(folder, "--output", tmp_path / "out") in (0, 1)
    rows = read_scores(tmp_path / "out")
    sizes = [Image.open(tmp_path / "out" / row.overlay).size for row in rows]
    assert sizes == [(70, 30), (30, 70), (20, 50), (33, 44), (3, 2)]
    assert [row.score for row in rows[:3]] == [100.0, pytest.approx(100.0, abs=1), 100.0]
    assert (tmp_path / "out" / "legend.png").is_file()


def test_equal_photos_in_two_folders_have_rows_and_overlays_of_their_own(
    detector: Brightness, parts: Path, tmp_path: Path
) -> None:
    assert score(parts, "--output", tmp_path / "out") == 1
    rows = read_scores(tmp_path / "out")
    overlays = {row.overlay for row in rows}
    assert len(overlays) == 5
    assert {f"overlays/{path.name}" for path in (tmp_path / "out" / "overlays").iterdir()} == overlays
    assert (tmp_path / "out" / CSV).read_text().count("\n") == 6


def test_a_second_call_scores_only_what_is_new_or_has_changed(
    detector: Brightness, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (parts / "broken.png").write_text("no photo")
    assert score(parts, "--output", tmp_path / "out") == 2
    first = (tmp_path / "out" / JSONL).read_text()
    detector.batches.clear()
    capsys.readouterr()
    assert score(parts, "--output", tmp_path / "out") == 2
    assert detector.batches == []
    assert (tmp_path / "out" / JSONL).read_text() == first
    assert (
        "6 photos: 4 good, 1 defective, 1 could not be read. 5 of them had been scored before."
        in capsys.readouterr().err
    )
    photo(parts / "broken.png")
    photo(parts / "x.bmp", BRIGHT)
    photo(parts / "new.png")
    (parts / "x.tif").touch()
    assert score(parts, "--output", tmp_path / "out") == 1
    assert detector.batches == [1, 1, 1]
    assert "7 photos: 5 good, 2 defective. 4 of them had been scored before." in capsys.readouterr().err
    assert {Path(row.file).name: row.verdict for row in read_scores(tmp_path / "out")}["x.bmp"] == "defective"


def test_drift_is_told_once_and_earlier_calls_count(
    detector: Brightness, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(80):
        photo(tmp_path / "photos" / f"{i // 40}" / f"{i:02d}.png", 130 + i % 7)
    (tmp_path / "photos" / "1").rename(tmp_path / "later")
    assert score(tmp_path / "photos", "--output", tmp_path / "out") == 0
    assert "warning" not in capsys.readouterr().err
    assert score(tmp_path / "later", "--output", tmp_path / "out") == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    (line,) = warnings
    assert line.startswith(
        "warning: the scores of the last 50 good photos are higher than those of the good photos that"
    )
    assert score(tmp_path / "photos", tmp_path / "later", "--output", tmp_path / "out") == 0
    assert "warning" not in capsys.readouterr().err


def test_another_detector_does_not_write_into_the_same_folder(
    detector: Brightness,
    parts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert score(parts, "--output", tmp_path / "out") == 1
    before = (tmp_path / "out" / JSONL).read_text()
    monkeypatch.setattr(score_module, "load_detector", lambda *_, **__: Brightness(threshold=151.0))
    assert score(parts, "--output", tmp_path / "out") == 2
    assert "holds scores of another detector" in capsys.readouterr().err
    assert (tmp_path / "out" / JSONL).read_text() == before


def test_an_output_folder_among_the_photos_is_not_scored(detector: Brightness, parts: Path, tmp_path: Path) -> None:
    out = parts / "out"
    for _ in range(2):
        assert score(parts, "--output", out) == 1
        assert len(read_scores(out)) == 5
    assert score(parts, "--output", tmp_path / "other") == 1
    assert len(read_scores(tmp_path / "other")) == 5


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_scores_do_not_depend_on_batch_size_and_workers(
    device: str, detector: Brightness, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector.network.device = torch.device(device)
    rng = np.random.default_rng(0)
    for number in range(19):
        photo(tmp_path / "photos" / f"{number:02}.png", int(rng.integers(50, 250)))
    (tmp_path / "photos" / "05.png").write_text("no photo")
    seen = []
    for batch_size, workers in ((1, 1), (8, 4), (100, 2)):
        assert score(tmp_path / "photos", "--batch-size", batch_size, "--workers", workers) == 2
        rows = table(capsys.readouterr().out)
        seen.append([{name: row[name] for name in ("file", "score", "verdict", "percentile", "error")} for row in rows])
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]) == 19
    assert set(detector.batches) == {1} if device == "cpu" else {16}


def test_a_score_that_is_no_number_is_not_good(
    detector: Brightness, parts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        detector, "score_prepared", lambda batch: Scores(torch.full((1,), torch.nan), batch[..., 0].float())
    )
    assert score(parts / "y.png") == 2
    assert "its score is nan" in capsys.readouterr().err


def test_a_detector_with_tiles_sees_photos_in_their_own_size(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(score_module, "load_detector", lambda *_, **__: Brightness(tile=8))
    monkeypatch.setattr(report_module, "write_page", lambda *_, **__: None)
    photo(parts / "z.png", size=(41, 40))
    assert score(parts, "--output", tmp_path / "out") == 2
    assert "z.png: 41 pixels high, expected 40" in capsys.readouterr().err
    rows = read_scores(tmp_path / "out")
    assert [row.verdict for row in rows] == ["good"] * 4 + ["defective", "error"]
    assert Image.open(tmp_path / "out" / rows[0].overlay).size == (40, 40)


def test_large_photos_are_not_kept_but_read_again(
    detector: Brightness, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "_KEPT_PIXELS", 100)
    calls = []

    def read(file: str, **options: Any) -> np.ndarray:
        calls.append(file)
        if calls.count(str(parts / "y.png")) == 2 and file.endswith("y.png"):
            photo(parts / "y.png", DARK)  # another photo takes its place before it is drawn
        return read_image(file, **options)

    monkeypatch.setattr(stream_module, "read_image", read)
    assert score(parts, "--output", tmp_path / "out") == 1
    assert len(calls) == 10
    assert [bool(row.overlay) for row in read_scores(tmp_path / "out")] == [True] * 4 + [False]


def test_photos_unlike_the_fitted_ones_are_warned_of_once(
    detector: Brightness, parts: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    photo(parts / "wide.png", size=(20, 40))
    photo(parts / "wider.png", size=(20, 60))
    for name in ("red.png", "red2.png"):
        Image.new("RGB", (40, 40), (90, 0, 0)).save(parts / name)
    assert score(parts) == 1
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("tabzoo.inspect")]
    assert len(messages) == 2
    assert "red.png: in colour; the fitted photos are grey" in messages[0]
    assert "wide.png: 2.00 times as wide as high; the fitted photos: 1.00 times" in messages[1]


def test_what_the_good_photos_look_like_is_found(tmp_path: Path) -> None:
    paths = [photo(tmp_path / f"{number}.png", size=(40, 40 + number)) for number in range(50)]
    assert looks_of(paths, white_level=None) == Looks(1.0, 89 / 40, grey=True)
    Image.new("RGB", (40, 40), (90, 0, 0)).save(paths[0])
    assert looks_of(paths, white_level=None).grey is None
    assert looks_of(paths[:1], white_level=None) == Looks(1.0, 1.0, grey=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{parts}/a/x.png", "--watch"], "is not a folder"),
        (["{parts}", "--batch-size", "0"], "--batch-size 0: expected 1 to"),
        (["{parts}", "--workers", "0"], "--workers 0: expected 1 to"),
        (["{parts}/nowhere"], "nowhere: no such file or folder"),
        (["{empty}"], "no photos; expected files that end with .bmp"),
        ([], "PHOTO|DIR: none given, expected photos"),
        ([""], "'' given, expected a photo"),
        (["{parts}", "--output", "{parts}/../photos"], "is the folder of the photos"),
        (["{parts}", "--output", "{parts}/a"], "holds no scores of tabzoo"),
        (["{parts}", "--output", "{parts}/y.png"], "is a file"),
    ],
)
def test_mistakes_are_told_in_a_line(
    arguments: list[str],
    said: str,
    detector: Brightness,
    parts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    assert score(*[word.format(parts=parts, empty=tmp_path / "empty") for word in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_swapped_arguments_are_told_of_the_detector(
    tmp_path: Path, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "detector").mkdir()
    assert main(["score", str(parts), str(tmp_path / "detector")]) == 2
    assert "no detector.json in it" in capsys.readouterr().err


def test_a_closed_output_is_not_taken_for_a_defect(
    detector: Brightness, parts: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert score(parts / "a") == 2
    assert "stdout is closed" in capfd.readouterr().err


@pytest.mark.parametrize("method", ["padim", "patchcore"])
def test_a_fitted_detector_says_the_same_here_as_in_python(
    method: str, fit: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fit(method=method)
    data = Path(load_detector(folder).record.provenance["command"].split("--data ")[1].split()[0]) / "nut" / "test"
    capsys.readouterr()
    code = main(["score", str(folder), str(data), "--output", str(tmp_path / "out")], prog="tabzoo")
    rows = read_scores(tmp_path / "out")
    detector = load_detector(folder)
    scores = detector([row.file for row in rows]).scores
    assert [row.score for row in rows] == pytest.approx(scores.tolist(), rel=1e-4)
    assert [row.verdict == "defective" for row in rows] == detector.is_defective(scores).tolist()
    assert [row.percentile for row in rows] == pytest.approx(detector.percentile(scores).tolist(), abs=0.01)
    assert code == int(any(row.verdict == "defective" for row in rows))
    assert len(rows) == 8
    assert capsys.readouterr().err.startswith("8 photos: ")
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert page.count("data:image/") >= 8


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], int]:
    """Runs `tabzoo score --watch` while a function of the test works in a thread; then Ctrl-C."""
    monkeypatch.setattr(score_module, "_PAUSE", 0.05)

    def run(work: Callable[[], None]) -> int:
        failed: list[BaseException] = []

        def working() -> None:
            try:
                work()
            except BaseException as error:
                failed.append(error)
            finally:
                os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=working)
        thread.start()
        code = score(tmp_path / "line", "--watch", "--output", tmp_path / "out")
        thread.join()
        if failed:
            raise failed[0]
        return code

    (tmp_path / "line").mkdir()
    return run


def test_watching_scores_what_arrives_and_ends_with_what_was_found(
    detector: Brightness, tmp_path: Path, watched: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    line, out = tmp_path / "line", tmp_path / "out"

    def verdicts() -> dict[str, str]:
        return {Path(row.file).name: row.verdict for row in read_scores(out)}

    def work() -> None:
        photo(line / "a.png")
        eventually(lambda: verdicts() == {"a.png": "good"})
        whole = photo(tmp_path / "b.png", BRIGHT).read_bytes()
        (line / "b.png").write_bytes(whole[:60])
        time.sleep(0.2)  # two looks and more find it unchanged
        (line / "b.png").write_bytes(whole)
        eventually(lambda: verdicts() == {"a.png": "good", "b.png": "defective"})
        photo(line / "a.png", BRIGHT)
        eventually(lambda: verdicts()["a.png"] == "defective")
        photo(line / "a.png")
        os.unlink(line / "b.png")
        eventually(lambda: verdicts()["a.png"] == "good")

    assert watched(work) == 1
    assert [row["verdict"] for row in map(json.loads, (out / JSONL).read_text().splitlines())] == [
        *("good", "defective", "defective", "good")
    ]
    assert capsys.readouterr().err.splitlines()[-1] == f"4 photos: 2 good, 2 defective. Page: {out / 'index.html'}"


def test_watching_names_a_photo_that_stays_unreadable(
    detector: Brightness, tmp_path: Path, watched: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        (tmp_path / "line" / "a.png").write_text("no photo")
        eventually(lambda: bool(read_scores(tmp_path / "out")))

    assert watched(work) == 2
    said = capsys.readouterr().err
    assert said.count("a.png: ") == 1
    assert "1 photo: 0 good, 0 defective, 1 could not be read." in said


def test_a_stop_keeps_what_was_scored(
    detector: Brightness,
    parts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stopping(batch: torch.Tensor) -> Scores:
        if not detector.batches:  # a second signal would end the process at once
            os.kill(os.getpid(), signal.SIGTERM)
        return Brightness.score_prepared(detector, batch)

    monkeypatch.setattr(detector, "score_prepared", stopping)
    assert score(parts, "--output", tmp_path / "out", "--batch-size", 1) == 128 + signal.SIGTERM
    kept = len(read_scores(tmp_path / "out"))
    assert 1 <= kept < 5
    assert f"Stopped after {kept} of 5 photos" in capsys.readouterr().err
