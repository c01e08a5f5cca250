"""`tabzoo export`: the files that it writes, the proof that it demands, and what it refuses."""

import dataclasses
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from tabzoo import cli
from tabzoo.extras import how_to_install
from tabzoo.inspect import load_detector
from tabzoo.inspect.export import job
from tabzoo.inspect.export.graph import DetectorGraph
from tabzoo.inspect.export.script import load_prepare, write_script

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
Fit = Callable[..., Path]
METHODS = ("padim", "patchcore")


def export(*words: object) -> int:
    return cli.main(["export", *map(str, words)])


def session(path: Path) -> Any:
    return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def exported(fit: Fit, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of both methods."""
    folder = tmp_path_factory.mktemp("exported")
    for method in METHODS:
        assert export(fit(method=method), "--output", folder / f"{method}.onnx") == 0
    return {method: folder / f"{method}.onnx" for method in METHODS}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [1, 3, 8])
def test_the_file_has_the_detectors_scores_verdicts_and_maps(
    method: str, count: int, exported: dict[str, Path], fit: Fit, photos: Path
) -> None:
    files = sorted((photos / "nut/test").rglob("*.png"))[:count]
    detector = load_detector(fit(method=method))
    expected = detector(files)
    prepare = load_prepare(exported[method].with_name(f"{method}_prepare.py"))
    score, verdict, maps = session(exported[method]).run(None, {"photos": np.stack([prepare(str(f)) for f in files])})
    span = np.ptp(detector.record.good_scores)
    np.testing.assert_allclose(score, expected.scores, rtol=0, atol=1e-4 * span)
    np.testing.assert_allclose(maps, np.stack(expected.maps), rtol=0, atol=1e-4 * span)
    assert verdict.dtype == np.bool_
    assert verdict.tolist() == detector.is_defective(expected.scores).tolist()


def test_the_file_says_what_it_is(exported: dict[str, Path], fit: Fit) -> None:
    model = onnx.load(str(exported["padim"]))
    onnx.checker.check_model(model)
    told = {entry.key: entry.value for entry in model.metadata_props}
    record = load_detector(fit(method="padim")).record
    assert (told["class"], told["size"], told["resampling"]) == ("nut", "64", "lanczos")
    assert float(told["threshold"]) == record.threshold.value
    assert set(told) >= {
        "tabzoo_version",
        "detector_sha256",
        "input_photos",
        "output_score",
        "output_verdict",
        "output_map",
    }
    assert [entry.name for entry in model.graph.output] == ["score", "verdict", "map"]
    (entry,) = model.graph.input
    assert entry.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [side.dim_param or side.dim_value for side in entry.type.tensor_type.shape.dim] == ["N", 64, 64, 3]


def test_the_command_prints_the_proof(
    fit: Fit, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--format", "onnx", "--output", tmp_path / "nut.onnx", "--photos", photos / "nut/test")
    (photos / "nut/test/good/broken.png").write_bytes(b"no image")
    try:
        assert export(fit(method="padim"), *given) == 0
    finally:
        (photos / "nut/test/good/broken.png").unlink()
    printed = capsys.readouterr()
    assert "8 photos: largest difference, as a share of the range of the good photos' scores: score " in printed.out
    assert "prepared pixels differ in 0 photos; 0 verdicts differ." in printed.out
    assert "left out: " in printed.err
    assert "broken.png: not an image" in printed.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nut.onnx", "nut_prepare.py"]


class OtherThreshold(DetectorGraph):
    """Its verdicts are those of another threshold."""

    def __init__(self, *given: Any, threshold: float, **more: Any) -> None:
        super().__init__(*given, threshold=threshold / 1.5, **more)


class OtherStd(DetectorGraph):
    """It normalises in another way."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.normalise.std *= 1.02


@pytest.mark.parametrize("wrong", [OtherThreshold, OtherStd])
def test_a_file_that_does_not_agree_is_not_kept(
    wrong: type[DetectorGraph],
    fit: Fit,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(job, "DetectorGraph", wrong)
    (tmp_path / "nut.onnx").write_text("an older one")
    assert export(fit(method="padim"), "--output", tmp_path / "nut.onnx") == 2
    assert "does not agree with tabzoo, so it was not written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["nut.onnx"]
    assert (tmp_path / "nut.onnx").read_text() == "an older one"


def test_a_script_that_prepares_other_pixels_is_noticed(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = write_script

    def nearest(path: Path, **given: Any) -> None:
        real(path, **(given | {"resampling": "bilinear"}))

    monkeypatch.setattr("tabzoo.inspect.export.command.write_script", nearest)
    assert export(fit(method="padim"), "--output", tmp_path / "nut.onnx") == 2
    assert "prepared pixels differ in 12 photos" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_photos_of_the_fit_that_are_away_have_to_be_named(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(fit(method="padim"), copy)
    command = load_detector(copy).record.provenance["command"]
    assert len(job.photos_of_fit(copy, command)) == 12
    with pytest.raises(job.InputError, match="--photos DIR"):
        job.photos_of_fit(copy, "tabzoo fit --data /nowhere")


@pytest.mark.parametrize(
    ("change", "said"),
    [({"tile": 32}, "Fit one without --tile"), ({"amp": "bf16"}, "Fit it with --amp off")],
    ids=["tiles", "bfloat16"],
)
def test_detectors_that_no_file_holds(
    change: dict[str, Any],
    said: str,
    fit: Fit,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def changed(*given: Any, **more: Any) -> Any:
        detector = load_detector(*given, **more)
        detector.record = dataclasses.replace(detector.record, **change)
        return detector

    monkeypatch.setattr(job, "load_detector", changed)
    assert export(fit(method="padim"), "--output", tmp_path / "nut.onnx") == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("DETECTOR --output nut.pt", "ends with .onnx"),
        ("DETECTOR --output nut.onnx --size 32", "Leave --size out"),
        ("DETECTOR --output nut.onnx --photos nowhere", "--photos nowhere: no such folder"),
        ("DETECTOR --output nut.onnx --photos DETECTOR", "holds no images"),
        ("DETECTOR --output nut.onnx --format tflite", "expected onnx"),
        ("nowhere --output nut.onnx", "timm has no such model"),
        ("random --output nut.onnx", "Name a backbone"),
        ("resnet18 --output nut.onnx --size 0", "at least 1"),
    ],
)
def test_mistakes(
    words: str, said: str, fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    detector = str(fit(method="padim"))
    try:
        code = export(*(detector if word == "DETECTOR" else word for word in words.split()))
    except SystemExit as error:
        code = int(str(error.code))
    assert code == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_onnxruntime_it_says_what_to_install(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export(fit(method="padim"), "--output", tmp_path / "nut.onnx") == 2
    assert how_to_install("export") in capsys.readouterr().err


def test_the_script_runs_without_tabzoo(exported: dict[str, Path], fit: Fit, photos: Path, tmp_path: Path) -> None:
    script = exported["patchcore"].with_name("patchcore_prepare.py")
    (tmp_path / "text.png").write_text("no image")
    files = [*sorted(map(str, (photos / "nut/test").rglob("*.png"))), str(tmp_path / "text.png")]
    blocked = "import runpy, sys; sys.modules.update(tabzoo=None, torch=None); sys.argv[:] = sys.argv[1:]; "
    blocked += "runpy.run_path(sys.argv[0], run_name='__main__')"

    def run(*paths: str) -> tuple[int, list[dict[str, Any]]]:
        command = [sys.executable, "-W", "error", "-c", blocked, str(script), *paths]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not done.stderr, done.stderr
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    code, rows = run(*files)
    assert (code, rows[-1]["verdict"]) == (2, "error")
    detector = load_detector(fit(method="patchcore"))
    expected = detector(files[:-1]).scores
    np.testing.assert_allclose([row["score"] for row in rows[:-1]], expected, rtol=1e-4)
    words = ["defective" if bad else "good" for bad in detector.is_defective(expected)]
    assert [row["verdict"] for row in rows[:-1]] == words
    assert "defective" in words
    assert run(*files[:-1])[0] == 1
    assert run(files[words.index("good")])[0] == 0


def test_layers_that_a_backbone_does_not_use_are_not_warned_of(
    make_folder: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("timm").setLevel(logging.NOTSET)
    assert export(make_folder("test_efficientnet.tab_here"), "--output", tmp_path / "out.onnx", "--size", 64) == 0
    assert "Unexpected keys" not in caplog.text


def test_a_backbone(make_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, output = make_folder("test_resnet.tab_here"), tmp_path / "backbone.onnx"
    assert export(folder, "--output", output, "--size", 64) == 0
    assert "12 photos: largest difference, as a share of each output's range: act1 " in capsys.readouterr().out
    outputs = {entry.name: entry.shape for entry in session(output).get_outputs()}
    assert list(outputs) == ["act1", "layer1", "layer2", "layer3", "layer4", "embedding"]
    assert outputs["layer3"][1:] == [192, 4, 4]
    prepare = load_prepare(tmp_path / "backbone_prepare.py")
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    np.testing.assert_array_equal(prepare(str(tmp_path / "picture.png")), picture)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    mean, std = (torch.tensor(model.pretrained_cfg[name]) for name in ("mean", "std"))
    image = ((torch.from_numpy(picture) / 255 - mean) / std).permute(2, 0, 1)[None]
    found = session(output).run(["embedding"], {"photos": picture[None]})[0]
    np.testing.assert_allclose(found, model(image).detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_openvino_reads_the_same_file(method: str, exported: dict[str, Path]) -> None:
    openvino = pytest.importorskip("openvino")
    # Without the hint, a CPU with bfloat16 instructions computes in bfloat16.
    compiled = openvino.Core().compile_model(str(exported[method]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for count in (1, 3):
        photos = np.random.default_rng(count).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
        expected = session(exported[method]).run(None, {"photos": photos})
        found = compiled({"photos": photos})
        for name, value in zip(("score", "verdict", "map"), expected, strict=True):
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4)


@pytest.mark.real_data
@pytest.mark.parametrize("method", METHODS)
def test_real_photos_with_defects(
    method: str, real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector, photos = tmp_path / "detector", real_data / "factory/cookie/test"
    given = ["--data", real_data / "factory", "--class", "cookie", "--backbone", "random:test_resnet", "--size", 128]
    assert cli.main(["fit", *map(str, given), "--method", method, "--output", str(detector)]) == 0
    assert export(detector, "--output", tmp_path / "cookie.onnx", "--photos", photos) == 0
    assert "46 photos: " in capsys.readouterr().out
