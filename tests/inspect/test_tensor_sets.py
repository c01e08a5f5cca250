"""Sets of tensors are written and read one at a time, in a file that safetensors reads too."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from tabzoo.errors import WeightsError, WriteError
from tabzoo.hub.files import Digest
from tabzoo.inspect.tensor_sets import TensorSets, write_sets
from tabzoo.system import process_use


def sets(count: int) -> Iterator[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield {
            "mean": torch.randn(5, 3, generator=generator),
            "odd": torch.arange(3),
            "factor": torch.randn(2, 3, 4, generator=generator, dtype=torch.float64).mT,  # not contiguous
        }


def opened(path: Path) -> TensorSets:
    return TensorSets(path, Digest.of(path))


@pytest.mark.parametrize("count", [1, 3, 12])  # with 12, the names of positions 1 and 10 begin alike
def test_what_is_written_is_read(tmp_path: Path, count: int) -> None:
    path = tmp_path / "state.safetensors"
    write_sets(path, sets(count), count=count)
    whole, read = safetensors.torch.load_file(path), opened(path)
    assert len(whole) == 3 * count
    assert read.count == count
    for position, expected in reversed(list(enumerate(sets(count)))):
        found = read.read(position)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor)
            assert torch.equal(whole[f"{position}.{name}"], tensor)
            assert found[name].dtype == tensor.dtype


def test_only_one_set_is_in_memory(tmp_path: Path) -> None:
    """40 sets of 8 MB each are written and read; at no time are there more than a few."""
    before = process_use()
    path = tmp_path / "state.safetensors"
    write_sets(path, ({"values": torch.full((2**21,), float(i))} for i in range(40)), count=40)
    read = opened(path)
    assert [float(read.read(i)["values"].sum()) for i in range(40)] == [i * 2.0**21 for i in range(40)]
    after = process_use()
    if before is not None and after is not None:
        assert after.peak_memory - before.peak_memory < 100e6


def test_nothing_is_left_of_sets_that_fail(tmp_path: Path) -> None:
    def failing() -> Iterator[dict[str, Tensor]]:
        yield {"mean": torch.zeros(3)}
        raise OSError(28, "No space left on device")

    with pytest.raises(WriteError, match=r"state\.safetensors: can't be written: No space left on device"):
        write_sets(tmp_path / "state.safetensors", failing(), count=2)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_replaces_it_is_not_read(tmp_path: Path) -> None:
    path, other = tmp_path / "state.safetensors", tmp_path / "other.safetensors"
    write_sets(path, sets(2), count=2)
    read = opened(path)
    write_sets(other, ({"mean": torch.zeros(5, 3)} for _ in range(2)), count=2)
    other.replace(path)
    assert torch.equal(read.read(0)["mean"], next(sets(1))["mean"])


def test_a_changed_file(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    write_sets(path, sets(2), count=2)
    digest, content = Digest.of(path), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"state\.safetensors: was changed: SHA-256"):
        TensorSets(path, digest)


def change_shape(header: dict[str, Any]) -> None:
    header["1.mean"]["shape"] = [3, 5]


def change_place(header: dict[str, Any]) -> None:
    header["1.mean"]["data_offsets"] = [0, 60]


def change_type(header: dict[str, Any]) -> None:
    header["0.mean"]["dtype"] = "F8"


def drop(header: dict[str, Any]) -> None:
    del header["1.odd"]


def add_empty(header: dict[str, Any]) -> None:
    for name in list(header):
        del header[name]


def negative(header: dict[str, Any]) -> None:
    header["0.mean"]["shape"] = [-5, -3]


@pytest.mark.parametrize("change", [change_shape, change_place, change_type, drop, add_empty, negative])
def test_foreign_files_with_a_digest_of_their_own(tmp_path: Path, change: Any) -> None:
    path = tmp_path / "state.safetensors"
    write_sets(path, sets(2), count=2)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    with pytest.raises(WeightsError, match=r"state\.safetensors: not a file of tensors for each tile"):
        opened(path)


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x02" + b"\0" * 7 + b"[]", b"\x02" + b"\0" * 7 + b"{}"])
def test_files_that_are_something_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"state\.safetensors: not a file of tensors for each tile"):
        opened(path)


def test_tensors_that_do_not_fill_the_file(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    write_sets(path, sets(2), count=2)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(WeightsError, match="they do not fill it"):
        opened(path)
