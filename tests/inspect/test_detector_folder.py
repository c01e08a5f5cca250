"""Detectors' folders that were changed, broken or come from elsewhere: one line that names the file, and nothing executed."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tabzoo.errors import InputError, TabzooError, WeightsError
from tabzoo.hub.files import Digest
from tabzoo.inspect.detector import load_detector
from tabzoo.inspect.fit import fit_detector
from tabzoo.inspect.folder import BACKBONE, PHOTOS, RECORD, STATE, sealed
from tabzoo.inspect.options import FitOptions

Fit = Callable[..., Path]


@pytest.fixture
def copy(fit: Fit, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a detector that a test may damage."""

    def make(method: str = "padim") -> Path:
        return Path(shutil.copytree(fit(method=method), tmp_path / method))

    return make


def change_record(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Also seals it again, as somebody who means harm would."""
    record = json.loads((folder / RECORD).read_text())
    change(record)
    (folder / RECORD).write_text(json.dumps(sealed(record)))


def change_tensors(folder: Path, name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Also writes the new digest to detector.json, as somebody who means harm would."""
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / name)
    digest = Digest.of(folder / name)
    change_record(
        folder, lambda record: record["files"].update({name: {"bytes": digest.size, "sha256": digest.sha256}})
    )


@pytest.mark.parametrize("name", [BACKBONE, STATE, PHOTOS])
def test_changed_files(name: str, copy: Callable[..., Path]) -> None:
    folder = copy()
    content = bytearray((folder / name).read_bytes())
    content[-3] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{name}: (wrong checksum|was changed)"):
        load_detector(folder)
    (folder / name).write_bytes(content[:-1])
    with pytest.raises(
        WeightsError, match=rf"{name}: has [\d,]+ bytes, expected [\d,]+\. The detector was changed or copied"
    ):
        load_detector(folder)
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=f"{name}: is missing"):
        load_detector(folder)


def test_sizes_are_compared_before_anything_is_hashed(
    copy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy()
    with (folder / STATE).open("ab") as file:
        file.write(b"x")
    monkeypatch.setattr("tabzoo.inspect.folder.read_tensors", lambda *_: pytest.fail("read"))
    monkeypatch.setattr("tabzoo.inspect.folder.Digest.of", lambda *_: pytest.fail("hashed"))
    with pytest.raises(WeightsError, match=STATE):
        load_detector(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda record: record.update(format=2), r"written by a newer tabzoo \(format 2; this one reads up to 1\)"),
        (lambda record: record.update(format="1"), "format '1'"),
        (lambda record: record.pop("size"), "'size' is missing"),
        (lambda record: record.update(size=10**9), "size"),
        (lambda record: record.update(size=True), "size"),
        (lambda record: record.update(method="rd4ad"), "method 'rd4ad': expected padim or patchcore"),
        (lambda record: record["threshold"].update(value="low"), "expected a finite number"),
        (lambda record: record["threshold"].pop("words"), "words"),
        (lambda record: record.update(good_scores=[2.0, 1.0]), "good_scores"),
        (lambda record: record["files"].update({"../x": {"bytes": 1, "sha256": "0"}}), "files: expected"),
        (lambda record: record["files"].pop(STATE), "files: expected"),
        (lambda record: record.update(std=[0, 1, 1]), "std"),
        (lambda record: record.update(settings=[]), "settings"),
        (lambda record: record["settings"].update(channels=10**6), "--padim-channels 1000000"),
        (lambda record: record["settings"].update(channels="all"), "does not fit"),
        (lambda record: record["backbone"].update(architecture="no_such"), "no architecture 'no_such'"),
        (lambda record: record["backbone"].update(architecture="resnet18"), "do not fit resnet18"),
        (lambda record: record["backbone"].update(architecture=["resnet18"]), "detector.json: backbone"),
        (
            lambda record: record["backbone"].update(arguments={"checkpoint_path": "/etc/passwd"}),
            "'checkpoint_path' is not an",
        ),
        (lambda record: record["backbone"].update(arguments={"layers": [10**9] * 4}), "'layers' is not an argument"),
        (lambda record: record["backbone"].update(out_indices=[77]), "can't build"),
        (lambda record: record.update(layers=["a"]), "detector.json"),
    ],
)
def test_changed_records(change: Callable[[dict[str, Any]], object], said: str, copy: Callable[..., Path]) -> None:
    folder = copy()
    change_record(folder, change)
    with pytest.raises(TabzooError, match=said) as caught:
        load_detector(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_threshold_that_was_changed_by_hand_is_noticed(copy: Callable[..., Path]) -> None:
    folder = copy()
    record = json.loads((folder / RECORD).read_text())
    record["threshold"]["value"] += 1
    (folder / RECORD).write_text(json.dumps(record))
    with pytest.raises(WeightsError, match=f"{RECORD}: .*was changed; to change the threshold, fit again"):
        load_detector(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON"),
        (b"[1]", "expected a JSON object"),
        (b'{"format": NaN}', "NaN"),
        (b"{" + b'"a":{' * 50 + b"}" * 51, "nested deeper"),
        (b"\xff\xfe", "not JSON in UTF-8"),
        (b'{"format": 1}', "is missing"),
    ],
)
def test_other_json(content: bytes, said: str, copy: Callable[..., Path]) -> None:
    folder = copy()
    (folder / RECORD).write_bytes(content)
    with pytest.raises(WeightsError, match=said):
        load_detector(folder)


def test_a_huge_record_is_not_read(copy: Callable[..., Path]) -> None:
    folder = copy()
    os.truncate(folder / RECORD, 10**9)
    with pytest.raises(WeightsError, match="too large"):
        load_detector(folder)


@pytest.mark.parametrize(
    ("method", "name", "change"),
    [
        ("padim", STATE, lambda state: state.pop("gaussians.mean.0")),
        ("padim", STATE, lambda state: state.update({"gaussians.mean.1": state["gaussians.mean.1"][:1].clone()})),
        (
            "padim",
            STATE,
            lambda state: state.update({key: one[:1].clone() for key, one in state.items() if "gauss" in key}),
        ),
        ("padim", STATE, lambda state: state.update({"chosen.layer1": state["chosen.layer1"] + 10**6})),
        ("padim", STATE, lambda state: state.update(more=torch.zeros(1))),
        ("padim", STATE, lambda state: state.update({"gaussians.factor.0.0": state["gaussians.factor.0.0"].half()})),
        ("patchcore", STATE, lambda state: state.update(bank=state["bank"][:, :-1].clone())),
        ("patchcore", STATE, lambda state: state.update(bank=state["bank"][:0])),
        ("patchcore", STATE, lambda state: state.update(bank=state["bank"] * float("nan"))),
        ("patchcore", BACKBONE, lambda weights: weights.update({"conv1.0.weight": torch.zeros(1)})),
        ("patchcore", BACKBONE, lambda weights: weights.pop("conv1.0.weight")),
        (
            "patchcore",
            BACKBONE,
            lambda weights: weights.update({key: 3 * one for key, one in weights.items() if one.ndim > 1}),
        ),
    ],
)
def test_tensors_that_do_not_fit(
    method: str, name: str, change: Callable[[dict[str, torch.Tensor]], object], copy: Callable[..., Path]
) -> None:
    folder = copy(method)
    change_tensors(folder, name, change)
    with pytest.raises(WeightsError) as caught:
        load_detector(folder)
    assert str(folder) in str(caught.value)


def test_a_pickle_is_not_opened(copy: Callable[..., Path]) -> None:
    folder = copy()
    (folder / STATE).write_bytes(pickle.dumps({"bank": 1}))
    digest = Digest.of(folder / STATE)
    change_record(
        folder, lambda record: record["files"].update({STATE: {"bytes": digest.size, "sha256": digest.sha256}})
    )
    with pytest.raises(WeightsError, match="looks like a pickle"):
        load_detector(folder)


def test_what_is_no_detector(tmp_path: Path, photos: Path) -> None:
    for folder, said in (
        (tmp_path / "none", "no such folder"),
        (photos, f"no {RECORD} in it"),
        (Path(__file__), "a file"),
    ):
        with pytest.raises(InputError, match=said):
            load_detector(folder)


def options(photos: Path, output: Path, **more: Any) -> FitOptions:
    return FitOptions(
        **{
            "data": str(photos),
            "class_name": "bolt",
            "backbone": "random:test_resnet",
            "size": 64,
            "output": output,
            **more,
        }
    )


def test_a_fit_that_fails_leaves_what_was_there(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "line" / "detector"
    fit_detector(options(photos, place))
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    assert set(before) == {RECORD, BACKBONE, STATE, PHOTOS}
    assert all(path.stat().st_mode & 0o777 == (place / RECORD).stat().st_mode & 0o777 for path in place.iterdir())
    with pytest.raises(InputError, match="holds a detector. Type --overwrite"):
        fit_detector(options(photos, place))
    with monkeypatch.context() as patch:

        def fail(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr("tabzoo.inspect.folder.write_json", fail)
        with pytest.raises(OSError, match="No space left on device"):
            fit_detector(options(photos, place, overwrite=True, method="patchcore"))
        with pytest.raises(OSError, match="No space left on device"):
            fit_detector(options(photos, tmp_path / "other"))
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["line"]
    assert [path.name for path in place.parent.iterdir()] == ["detector"]
    fit_detector(options(photos, place, overwrite=True, method="patchcore"))
    assert load_detector(place).record.method == "patchcore"
    assert [path.name for path in place.parent.iterdir()] == ["detector"]


def test_outputs_that_are_refused_before_anything_is_read(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    (tmp_path / "file").touch()
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for name in (RECORD, "mine.txt"):
        (mixed / name).touch()
    for output, said in (
        (tmp_path / "notes", r"holds something else than a detector \(a.txt\)"),
        (mixed, r"holds something else than a detector \(mine.txt\)"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "below", "can't be made in"),
        (photos / "out", "is inside --data"),
    ):
        with pytest.raises(InputError, match=said):
            fit_detector(options(photos, output, overwrite=True, backbone="no_such_backbone"))
