"""Progress: plain lines in a log file, a bar in a terminal, nothing from Python, and never another number."""

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tabzoo import progress
from tabzoo.benchmark.__main__ import main
from tabzoo.data.cache import open_images
from tabzoo.data.layouts import find_samples
from tabzoo.detectors.neighbours import k_center_greedy
from tabzoo.progress import Progress, duration, showing, track

Clock = SimpleNamespace


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that stands still until a test moves it."""
    moved = Clock(now=0.0)
    monkeypatch.setattr(progress, "monotonic", lambda: moved.now)
    return moved


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A clock that goes on by twenty seconds whenever it is read: all work is long."""
    now = iter(range(0, 10**9, 20))
    monkeypatch.setattr(progress, "monotonic", lambda: next(now))
    with showing():
        yield


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines on stderr without the time of day."""
    text = capsys.readouterr().err
    assert "\r" not in text
    lines = text.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)
    return [line[9:] for line in lines]


def test_a_log_file_gets_lines_now_and_then(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with showing(), Progress(1000, "coreset", done=100) as bar:
        for _ in range(900):
            clock.now += 1
            bar.update()
    assert printed(capsys)[:3] == [
        "coreset: 110 of 1,000, 15 min left",
        "coreset: 140 of 1,000, 14 min left",
        "coreset: 170 of 1,000, 14 min left",
    ]


def test_lines_become_rare_and_the_last_one_has_the_whole_time(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with showing():
        for _ in track(range(24 * 3600), 24 * 3600, "training"):
            clock.now += 1
    lines = printed(capsys)
    assert 250 < len(lines) < 400  # every 30 s there would be 2,880
    assert lines[-1] == "training: 86,400 in 24 h 0 min"
    assert any("left" in line for line in lines[-5:-1])


def test_short_work_and_work_without_steps_say_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with showing():
        for _ in track(range(9), 9, "decoding"):
            clock.now += 1
        with Progress(0, "decoding"):
            clock.now += 100
    assert printed(capsys) == []


def test_each_row_has_a_line_and_work_within_says_where_it_is(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with showing(), Progress(40, done=10, each=True) as rows:
        rows.tell("patchcore resnet18 capsule\x1b seed 0")
        for _ in track(range(10), 10, "coreset"):
            clock.now += 10
        rows.update(line="patchcore capsule: 100 s")
        rows.update(29, line="the rest")
    assert printed(capsys) == [
        r"patchcore resnet18 capsule\x1b seed 0: coreset: 1 of 10, 2 min left",
        r"patchcore resnet18 capsule\x1b seed 0: coreset: 4 of 10, 1 min left",
        r"patchcore resnet18 capsule\x1b seed 0: coreset: 7 of 10, 30 s left",
        r"patchcore resnet18 capsule\x1b seed 0: coreset: 10 in 2 min",
        "11/40 patchcore capsule: 100 s, 48 min left",
        "40/40 the rest",
    ]


def test_stopped_work_is_not_told_as_done(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with showing(), pytest.raises(KeyboardInterrupt), Progress(9, "coreset") as bar:  # noqa: PT012
        clock.now += 20
        bar.update()
        raise KeyboardInterrupt
    with showing(), Progress(9, "fit") as bar:
        clock.now += 20
        bar.update()
    lines = printed(capsys)
    assert [line for line in lines if " in " in line] == ["fit: 1 in 20 s"]
    assert not any("coreset: fit" in line for line in lines)


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with showing():
        for _ in track(range(12), 12, "coreset", unit="patch"):
            pass
        with Progress(2, each=True, kept=True) as rows:
            rows.update(line="capsule: 3 s")
    assert "coreset:   0%|" in terminal.getvalue()
    assert "1/2 capsule: 3 s" in terminal.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "1 s"), (59, "59 s"), (90, "2 min"), (3599, "1 h 0 min"), (7500, "2 h 5 min")]
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def coreset() -> torch.Tensor:
    points = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0))
    return k_center_greedy(points, 1500, start=0)


def test_a_coreset_is_shown_and_is_the_same(
    slow: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = coreset()
    lines = printed(capsys)
    assert len(lines) > 3
    assert re.fullmatch(r"coreset: [\d,]+ of 1,500, .* left", lines[0])
    assert lines[-1].startswith("coreset: 1,500 in ")
    with showing(False):
        assert torch.equal(coreset(), shown)
    assert printed(capsys) == []


def test_decoding_and_every_method_are_shown_by_a_command(
    slow: None, toy: Path, tmp_path: Path, sketches: None, capsys: pytest.CaptureFixture[str]
) -> None:
    few = "--rd4ad-steps 3 --simplenet-steps 3 --simplenet-width 16 --simplenet-hidden 8".split()
    few += "--regad-steps 3 --regad-draws 1".split()
    arguments = ["run", "--backbone", "random:resnet10t", "--data", str(toy), "--classes", "capsule", "--shots", "2"]
    arguments += ["--method", "padim", "patchcore", "rd4ad", "simplenet", "regad", *few, "--batch-size", "3"]
    arguments += ["--resize", "64", "--crop", "64", "--workers", "0", "--device", "cpu", "--amp", "off"]
    arguments += ["--cache-dir", str(tmp_path / "cache"), "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    lines = printed(capsys)
    rows = [line for line in lines if re.match(r"\d/5 ", line)]
    assert re.fullmatch(r"1/5 padim 2 shots random:resnet10t capsule seed 0: \d+ s, .* left", rows[0])
    assert rows[-1].startswith("5/5 regad")
    assert len(rows) == 5
    told = "\n".join(lines)
    for name, work in [
        *(("padim", "features"), ("patchcore", "coreset"), ("rd4ad", "RD4AD"), ("simplenet", "SimpleNet")),
        *(("regad", "RegAD"), ("regad", "test")),
    ]:
        assert f"\n{name} 2 shots random:resnet10t capsule seed 0: {work}: " in told
    assert re.search(r"^decoding images: [\d,]+ of [\d,]+, .* left$", told, re.MULTILINE)
    assert re.search(r"^decoding masks: ", told, re.MULTILINE)


def test_calls_from_python_say_nothing(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter(range(0, 10**9, 20))
    monkeypatch.setattr(progress, "monotonic", lambda: next(now))
    open_images(find_samples(toy), size=20, mode="off", workers=0)
    assert printed(capsys) == []


def test_hidden_work_is_silent_in_a_command_too(slow: None, toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_images(find_samples(toy), size=20, mode="off", workers=0, progress=False)
    assert printed(capsys) == []
