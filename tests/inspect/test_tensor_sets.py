"""Sets of tensors are written and read one at a time, in a file that safetensors reads too."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from tabzoo.errors import WriteError
from tabzoo.inspect.tensor_sets import read_set, write_sets
from tabzoo.system import process_use


def sets(count: int) -> Iterator[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield {
            "mean": torch.randn(5, 3, generator=generator),
            "odd": torch.arange(3),
            "factor": torch.randn(2, 3, 4, generator=generator, dtype=torch.float64).mT,  # not contiguous
        }


@pytest.mark.parametrize("count", [1, 3, 12])  # with 12, the names of position 1 and 10 begin alike
def test_what_is_written_is_read(tmp_path: Path, count: int) -> None:
    path = tmp_path / "state.safetensors"
    write_sets(path, sets(count), count=count)
    whole = safetensors.torch.load_file(path)
    assert len(whole) == 3 * count
    for position, expected in enumerate(sets(count)):
        found = read_set(path, position)
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
    assert [float(read_set(path, position)["values"].sum()) for position in range(40)] == [
        i * 2.0**21 for i in range(40)
    ]
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
