"""The demo page: what it says of photos, what of mistakes, and that a browser that opens it asks nobody else."""

import html
import logging
import runpy
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import needs_browser
from driven_browser import driven_page
from huggingface_hub import constants
from PIL import Image

from tabzoo.demo import __main__ as command
from tabzoo.demo import inspection
from tabzoo.demo.choices import backbones_here, checked_backbones
from tabzoo.demo.inspection import Finding, Settings, inspect_photo
from tabzoo.demo.page import show_findings
from tabzoo.errors import InputError
from tabzoo.inspect.detector import InspectionDetector
from tabzoo.inspect.fit import fit_detector
from tabzoo.inspect.looks import Comparison
from tabzoo.inspect.options import FitOptions
from tabzoo.signals import StopRequest

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["random:test_resnet", "random:test_efficientnet"]
Output = pytest.CaptureFixture[str]


def part(path: Path, seed: int, *, defect: bool = False, size: tuple[int, int] = (72, 72), grey: bool = False) -> Path:
    """Writes a photo of a textured part; a defect is a square of noise."""
    rng = np.random.default_rng(seed)
    pixels = 110 + 40 * np.sin(np.arange(size[0]) / 5)[:, None, None] + rng.normal(0, 12, (*size, 3))
    if defect:
        pixels[20:40, 30:50] = rng.uniform(0, 255, (20, 20, 3))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    image.convert("L" if grey else "RGB").save(path)
    return path


@pytest.fixture
def good(tmp_path: Path) -> list[Path]:
    return [part(tmp_path / f"good {seed}.png", seed) for seed in range(4)]


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    return part(tmp_path / "<b>bad.png", 9, defect=True)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    (tmp_path / "work").mkdir()
    yield Settings(device="cpu", size=64, work=tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == []  # nothing is kept


def shown(good: list[Path], photo: Path | None, settings: Settings, names: list[str] | None = None) -> str:
    """The page at the end."""
    paths = [str(path) for path in good]
    given: dict[str, Any] = {"backbones": NAMES[:1] if names is None else names, "method": "padim"}
    return list(show_findings(paths, photo and str(photo), **given, settings=settings))[-1]


@pytest.mark.parametrize("method", ["padim", "patchcore"])
def test_it_finds_what_fit_and_score_find(
    method: str, good: list[Path], bad: Path, settings: Settings, tmp_path: Path
) -> None:
    findings = list(inspect_photo(good, bad, backbones=NAMES, method=method, settings=settings))
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in good:
        (folder / path.name).write_bytes(path.read_bytes())
    for name, finding in zip(NAMES, findings, strict=True):
        given: dict[str, Any] = {"backbone": name, "method": method, "size": 64, "device": "cpu", "workers": 0}
        detector = fit_detector(FitOptions(data=str(folder), output=tmp_path / name, **given))
        assert finding.backbone == name
        assert finding.score == pytest.approx(float(detector(bad).scores[0]), rel=1e-5)
        assert finding.highest == pytest.approx(detector.record.good_scores[-1], rel=1e-5)
        assert finding.threshold == detector.record.threshold
        assert finding.score > finding.highest
        assert finding.overlay is not None
        assert finding.overlay.shape == (72, 72, 3)
        assert min(finding.milliseconds, finding.seconds) > 0


def test_a_verdict_needs_enough_photos(good: list[Path], bad: Path, settings: Settings) -> None:
    def found(number: int, photo: Path) -> Finding:
        asked = Settings(device="cpu", size=64, work=settings.work, false_alarms=0.2)
        (finding,) = inspect_photo(good[:number], photo, backbones=NAMES[:1], method="padim", settings=asked)
        return finding

    assert [found(4, bad).verdict, found(4, good[0]).verdict, found(3, bad).verdict] == ["defective", "good", ""]


def test_the_page_tells_it(good: list[Path], bad: Path, settings: Settings) -> None:
    states = list(show_findings([*map(str, good)], str(bad), backbones=NAMES, method="padim", settings=settings))
    assert [state.count('class="finding"') for state in states] == [0, 1, 2]
    assert [state.count('class="waiting"') for state in states] == [1, 1, 0]
    last = states[-1]
    assert last.count("data:image/jpeg") == 3
    assert last.count("higher than all 4 good photos") == 2
    assert last.count("No verdict: 4 different good photos are too few") == 2
    assert last.count(" ms a photo") == 2
    assert last.count("The baseline: random weights") == 2


@pytest.mark.parametrize(
    ("number", "photo", "names", "said"),
    [
        (0, True, NAMES, "no good photos: at least 2 are needed. Add good photos."),
        (1, True, NAMES, "1 good photo: at least 2 are needed. Add good photos."),
        (4, False, NAMES, "There is no photo to inspect. Add one."),
        (4, True, [], "No backbone is chosen. Choose one or several."),
    ],
)
def test_what_is_missing_is_said(
    number: int, photo: bool, names: list[str], said: str, good: list[Path], bad: Path, settings: Settings
) -> None:
    text = shown(good[:number], bad if photo else None, settings, names)
    assert f'<p class="problem">{said}</p>' in text
    assert 'class="finding"' not in text


def test_files_that_are_no_photos_are_named(good: list[Path], bad: Path, settings: Settings, tmp_path: Path) -> None:
    broken = tmp_path / "<i>broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    for photos, photo in (([*good, broken], bad), (good, broken)):
        text = shown(photos, photo, settings)
        assert "&lt;i&gt;broken.png: " in text
        assert "Remove this file and add another one." in text
        assert "<i>" not in text
    copies = [tmp_path / f"{number}.png" for number in range(3)]
    for copy in copies:
        copy.write_bytes(good[0].read_bytes())
    assert "3 good photos, all of them copies of one" in shown(copies, bad, settings)


def test_a_backbone_without_weights_does_not_stop_the_others(
    good: list[Path], bad: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    text = shown(good, bad, settings, ["resnet10t.c3_in1k", NAMES[0]])
    assert "the weights of resnet10t.c3_in1k can&#39;t be loaded: HF_HUB_OFFLINE is set" in text
    assert text.count("data:image/jpeg") == 2
    assert "Traceback" not in text


def test_a_backbone_too_large_for_the_device_does_not_stop_the_others(
    good: list[Path], bad: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(options: FitOptions) -> InspectionDetector:
        if options.backbone == NAMES[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return fit_detector(options)

    monkeypatch.setattr(inspection, "fit_detector", fit)
    before = threading.active_count()
    first, second = inspect_photo(good, bad, backbones=NAMES, method="padim", settings=settings)
    assert (first.error, second.error) == ("CUDA out of memory", "")
    assert threading.active_count() == before


def test_odd_photos_are_inspected_with_a_note(good: list[Path], settings: Settings, tmp_path: Path) -> None:
    wide = part(tmp_path / "<b>wide.png", 7, size=(60, 120))
    grey = part(tmp_path / "grey.png", 8, grey=True)
    for photos, photo, said in (
        (good, wide, "<b>wide.png: 2.00 times as wide as high; the fitted photos: 1.00 times."),
        (good, grey, "grey.png: grey; the fitted photos are in colour."),
        ([*good, wide], good[0], "The good photos have different shapes: 1.00 to 2.00 times as wide as high."),
        ([*good, grey], good[0], "Some of the good photos are grey and some are in colour."),
        ([*good, part(tmp_path / "large.png", 6, size=(144, 144))], good[0], ""),
    ):
        text = shown(photos, photo, settings)
        assert text.count('class="finding"') == 1
        assert text.count('class="note"') == bool(said)
        assert html.escape(said, quote=False) in text


def test_warnings_of_another_thread_are_not_heard() -> None:
    logger = logging.getLogger(Comparison.__module__)
    with inspection._warnings_of_looks() as heard:
        other = threading.Thread(target=logger.warning, args=("of another page",))
        other.start()
        other.join()
        logger.warning("of this one")
    assert heard == ["of this one"]
    assert logger.handlers == []


def test_backbones_of_this_machine_are_offered(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert backbones_here() == ["resnet18.tab_mvtec", "random"]
    for name, file in (
        ("resnet10t.c3_in1k", "model.safetensors"),
        ("resnet14t.c3_in1k", "config.json"),  # its weights are not there
        ("no_such_model.at_all", "model.safetensors"),
    ):
        folder = tmp_path / "hub" / f"models--timm--{name}"
        snapshot = folder / "snapshots" / ("a" * 40)
        for path, content in ((folder / "refs" / "main", "a" * 40), (snapshot / file, "")):
            path.parent.mkdir(parents=True)
            path.write_text(content)
    assert backbones_here() == ["resnet18.tab_mvtec", "resnet10t.c3_in1k", "random"]
    assert checked_backbones(["random", "random"]) == ["random"]
    with pytest.raises(InputError, match="Did you mean 'resnet18'?"):
        checked_backbones(["resnet81"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "0"], "--port 0: expected 1 to 65535"),
        (["--host", ""], "--host: '' given, expected an address"),
        (["--false-alarms", "2"], "--false-alarms 2: expected a share"),
        (["--size", "0"], "--size 0: expected at least 1"),
        (["--backbone", "resnet81"], "--backbone 'resnet81': timm has no such model. Did you mean 'resnet18'?"),
        (["--backbone", "random"], 'the demo page needs gradio: pip install -e ".[demo]"'),
    ],
)
def test_mistakes_of_the_command(
    arguments: list[str], said: str, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)  # as if it were not installed
    assert command.main(arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: {said}")


def test_the_guide_has_the_file_of_the_space() -> None:
    guide = (ROOT / "docs" / "guides" / "demo.md").read_text(encoding="utf-8")
    file = (ROOT / "tabzoo" / "demo" / "app.py").read_text(encoding="utf-8")
    assert f"```python\n{file[file.index('import os') :]}```" in guide
    assert "app_file: app.py" in guide


@pytest.mark.parametrize("names", [NAMES, []])
def test_a_space_finds_its_page(names: list[str], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gradio = pytest.importorskip("gradio")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TABZOO_DEMO_BACKBONES", " ".join(names))
    page = runpy.run_path(str(ROOT / "tabzoo" / "demo" / "app.py"))["demo"]
    assert isinstance(page, gradio.Blocks)
    (choice,) = [one for one in page.blocks.values() if isinstance(one, gradio.CheckboxGroup)]
    assert choice.value == (names or ["random"])
    texts = "".join(str(one.value) for one in page.blocks.values() if isinstance(one, gradio.Markdown))
    assert ("Only *random* is on offer" in texts) == (not names)


@needs_browser
def test_a_browser_inspects_a_photo(
    good: list[Path], bad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    pytest.importorskip("gradio")
    asked = watch_names(monkeypatch)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    address = f"http://127.0.0.1:{free_port()}/"
    opened = []

    def drive(_: StopRequest) -> None:
        with driven_page(address, tmp_path / "profile") as page:
            page.choose("#good input[type=file]", good)
            page.choose("#photo input[type=file]", [bad])
            page.wait_for(
                f"{[path.name[-5] for path in good]}.every(n => document.body.innerText.includes('good ' + n))"
            )
            page.wait_for("document.querySelector('#photo').innerText.includes('bad')")
            page.click("#inspect button, button#inspect")
            page.wait_for(
                "document.querySelectorAll('.finding img').length == 2 && !document.querySelector('.waiting')"
            )
            loaded = "[...document.querySelectorAll('.findings img')].map(one => one.naturalWidth)"
            assert page.evaluate(loaded) == [72, 72, 72]
            assert page.text().count(" ms a photo") == 2
            assert page.text().count("higher than all 4 good photos") == 2
            assert page.console == []
            opened.extend(page.requests)

    monkeypatch.setattr(command, "_wait", drive)
    arguments = ["--backbone", *NAMES, "--size", "64", "--device", "cpu", "--port", address.rpartition(":")[2][:-1]]
    assert command.main(arguments) == 0
    assert f"The page is at {address} until Ctrl-C." in capsys.readouterr().out
    assert len([one for one in opened if one.startswith(address)]) > 10
    assert [one for one in opened if not one.startswith((address, "data:", "blob:"))] == []
    assert set(asked) == {"127.0.0.1"}
    assert list((tmp_path / "temporary").iterdir()) == []


def watch_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Hosts that this process looks up from now on."""
    asked: list[str] = []
    look_up = socket.getaddrinfo

    def noted(host: Any, *rest: Any, **options: Any) -> Any:
        asked.append(host.decode() if isinstance(host, bytes) else str(host))
        return look_up(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", noted)
    return asked


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Gradio leaves its socket open
def test_a_port_in_use_is_said(capsys: Output) -> None:
    pytest.importorskip("gradio")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert command.main(["--backbone", "random", "--port", str(port)]) == 2
    assert f"--port {port}: can't be served at" in capsys.readouterr().err


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
