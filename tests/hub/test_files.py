"""Files that are truncated, damaged or made up."""

import json
import os
import random
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

import tabzoo
from tabzoo.errors import TabzooError, WeightsError
from tabzoo.hub.config import read_config
from tabzoo.hub.files import Digest
from tabzoo.hub.folder import verify
from tabzoo.hub.record import read_record
from tabzoo.hub.store import installed
from tabzoo.hub.tensors import read_tensors

FILES = 150


def _cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content))]


def _flip(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    # Half of them in the first part, where a header is.
    for _ in range(draw.choice([1, 1, 2, 50])):
        changed[draw.randrange(draw.choice([200, len(content)]))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _other_length(content: bytes, draw: random.Random) -> bytes:
    length = draw.choice([0, 1, 7, len(content), 10**6, 10**8, 2**32, 2**63 - 1, 2**64 - 1])
    return struct.pack("<Q", length) + content[8:]


def _other_header(content: bytes, draw: random.Random) -> bytes:
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    entry = header[draw.choice([key for key in header if key != "__metadata__"])]
    entry |= draw.choice(
        [
            {"dtype": draw.choice(["F64", "BF16", "F8_E4M3", "BOOL", "I64", "X", 3, None])},
            {"shape": draw.choice([[2**62, 2**62], [-1], [0], "x", [], [10**9]])},
            {"data_offsets": draw.choice([[0, 2**63], [-1, 4], [4, 0], [0], "x", [0, 10**9]])},
        ]
    )
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def _not_finite(content: bytes, draw: random.Random) -> bytes:
    at = len(content) - 4 * draw.randrange(1, 400)
    return content[:at] + struct.pack("<f", draw.choice([float("nan"), float("inf")])) + content[at + 4 :]


@pytest.mark.slow
def test_mutated_weights_are_an_error_or_the_right_bytes(small_folder: Path, tmp_path: Path) -> None:
    content = (small_folder / "model.safetensors").read_bytes()
    expected = Digest.of(small_folder / "model.safetensors")
    path, draw = tmp_path / "model.safetensors", random.Random(0)
    refused = 0
    for number in range(FILES):
        mutated = draw.choice([_cut, _flip, _other_length, _other_header, _not_finite])(content, draw)
        path.write_bytes(mutated)
        if mutated != content:
            with pytest.raises(WeightsError, match=r"model\.safetensors: wrong (size|checksum)"):
                read_tensors(path, expected)
        try:  # where nothing says what it should be
            tensors, _ = read_tensors(path)
        except WeightsError:
            refused += 1
        else:
            assert all(value.isfinite().all() for value in tensors.values()), number
    assert refused > FILES / 2


@pytest.mark.slow
def test_mutated_folders_are_an_error_or_harmless(
    make_folder: Callable[..., Path], small_folder: Path, tmp_path: Path
) -> None:
    folder = make_folder("test_resnet.tab_bent", seed=1)
    right = load_file(folder / "model.safetensors")
    draw, refused = random.Random(1), 0
    for number in range(FILES):
        name = draw.choice(["config.json", "tabzoo.json"])
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(draw.choice([_cut, _flip, _bend])(content, draw))
        try:
            model = tabzoo.create_model(folder)
        except TabzooError:
            refused += 1
        else:  # then nothing that matters has changed
            assert all(torch.equal(value, right[key]) for key, value in model.state_dict().items()), number
        finally:
            (folder / name).write_bytes(content)
    assert refused > FILES / 2


def _bend(content: bytes, draw: random.Random) -> bytes:
    """Another value somewhere in a JSON file."""
    whole = json.loads(content)
    table = draw.choice([whole, *(value for value in whole.values() if isinstance(value, dict))])
    values = (
        None,
        True,
        -1,
        10**30,
        1e308,
        "",
        "x" * 100_000,
        [],
        [10**9] * 3,
        {},
        {"a": [None]},
        "resnet18",
        float("nan"),
    )
    table[draw.choice([*table, "model_args", "custom_load", "url", "file", "state_dict"])] = draw.choice(values)
    return json.dumps(whole).encode()


def test_every_type_of_weights_is_read_and_nothing_that_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64):
        path.write_bytes(save({"weight": torch.ones(2, dtype=dtype)}))
        assert read_tensors(path)[0]["weight"].dtype == dtype
    for value in (torch.ones(2, dtype=torch.uint8), torch.ones(2).to(torch.float8_e4m3fn)):
        path.write_bytes(save({"weight": value}))
        with pytest.raises(WeightsError, match=r"weight has the type torch\.\w+; expected one of float16, "):
            read_tensors(path)
    for value in (float("nan"), float("-inf")):
        path.write_bytes(save({"bias": torch.ones(2), "weight": torch.tensor([1.0, value])}))
        with pytest.raises(WeightsError, match="weight contains values that are not finite"):
            read_tensors(path)
    path.write_bytes(save({"weight": torch.tensor([1e300], dtype=torch.float64)}))
    with pytest.raises(WeightsError, match="weight contains values that are not finite in single precision"):
        read_tensors(path)
    path.write_bytes(save({}))
    with pytest.raises(WeightsError, match="contains no tensors"):
        read_tensors(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "it is a Git LFS pointer; run `git lfs pull`"),
        (b"PK\x03\x04abcdefgh", "a pickle of torch.save; tabzoo loads no pickles, but `tabzoo convert`"),
        (b"", "it is truncated"),
        (struct.pack("<Q", 100) + b"{", "it is truncated"),
    ],
)
def test_what_was_saved_instead_of_weights_is_recognised(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        read_tensors(tmp_path / "model.safetensors")
    assert str(tmp_path / "model.safetensors") in str(caught.value)


def test_a_folder_is_verified_against_its_record(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_folder("test_resnet.tab_here", seed=2)
    tensors, digest, found = verify(folder)
    assert found is not None
    assert found.digest == digest == Digest.of(folder / "model.safetensors")
    assert verify(folder / "model.safetensors").digest == digest
    (folder / "alone.safetensors").write_bytes(save(tensors))
    assert verify(folder / "alone.safetensors").folder is None
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=f"SHA-256 .*expected {digest.sha256}"):
        verify(folder)


def test_only_fields_about_images_are_read_from_a_configuration(small_folder: Path, tmp_path: Path) -> None:
    whole = json.loads((small_folder / "config.json").read_text())
    whole["pretrained_cfg"] |= {
        **{
            "url": "http://evil",
            "file": "/etc/passwd",
            "custom_load": True,
            "first_conv": "layer1",
            "classifier": "conv1",
        },
        **{"mean": [0.1, 0.2, 0.3], "crop_pct": 0.9},
    }
    (tmp_path / "config.json").write_text(json.dumps(whole))
    config = read_config(tmp_path / "config.json")
    assert (config.mean, config.crop_pct, config.crop_mode) == ((0.1, 0.2, 0.3), 0.9, "squash")
    assert (config.url, config.file, config.custom_load) == (None, None, False)
    assert (config.first_conv, config.classifier) == ("conv1.0", "fc")


@pytest.mark.parametrize(
    "change", [{"name": "\x1b[2Jresnet18.x"}, {"name": "resnet18"}, {"license": "mit\nno"}, {"license": 3}]
)
def test_a_record_contains_no_control_characters(change: dict[str, object], small_folder: Path, tmp_path: Path) -> None:
    record = json.loads((small_folder / "tabzoo.json").read_text())
    (tmp_path / "tabzoo.json").write_text(json.dumps(record | change))
    with pytest.raises(WeightsError, match="expected ARCHITECTURE.TAG under name and one line of text under license"):
        read_record(tmp_path / "tabzoo.json")


@pytest.fixture
def _in_time() -> Iterator[None]:
    """What waits for ever fails."""

    def end(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


IN_PLACE: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
    "sparse": _sparse,
}


@pytest.mark.usefixtures("_in_time")
@pytest.mark.parametrize("kind", IN_PLACE)
@pytest.mark.parametrize("name", ["tabzoo.json", "config.json", "model.safetensors"])
def test_nothing_but_files_of_a_likely_size_is_read(
    name: str, kind: str, make_folder: Callable[..., Path], home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither by `verify` and `create_model`, nor by the store, which every import reads."""
    folder = make_folder("test_resnet.odd")
    store = home / "weights" / "test_resnet.odd"
    shutil.copytree(folder, store)
    for place in (folder, store):
        (place / name).unlink()
        IN_PLACE[kind](place / name)
    with pytest.raises(TabzooError):
        verify(folder)
    with pytest.raises(TabzooError):
        tabzoo.create_model(str(folder))
    with pytest.raises(TabzooError):
        tabzoo.create_model("test_resnet.odd")
    assert [entry.name for entry in installed()] == (["test_resnet.odd"] if (name, kind) == WHOLE else [])
    assert (name, kind) == WHOLE or "the local store's entry test_resnet.odd can't be used" in caplog.text


WHOLE = ("model.safetensors", "sparse")  # the store's list reads no weights
