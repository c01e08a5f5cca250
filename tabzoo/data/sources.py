"""Where batches come from: a memory map, memory, the device's memory, or files decoded anew."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tabzoo.data.decoding import Target
from tabzoo.data.samples import Bytes
from tabzoo.errors import InputError

__all__ = ["Decoded", "Index", "Resident", "Source", "Stored", "as_numpy"]

Index: TypeAlias = Tensor | NDArray[np.integer] | Sequence[int]


def as_numpy(index: Index) -> NDArray[np.int64]:
    """An index of any kind, [B]."""
    return np.asarray(index.cpu() if isinstance(index, Tensor) else index, dtype=np.int64)


class Source:
    """Rows of uint8 pixels, put together in memory and sent to the device."""

    def __init__(self, row_shape: tuple[int, ...], device: torch.device) -> None:
        self._row_shape = row_shape
        self._device = device

    def read(self, index: Index, out: Tensor | None = None) -> Tensor:
        """A batch on the device, uint8 [B, ...]; in `out` if that is given."""
        rows = as_numpy(index)
        shape = (len(rows), *self._row_shape)
        if out is not None and (out.shape != shape or out.dtype != torch.uint8):
            raise ValueError(f"out is {out.dtype} {tuple(out.shape)}; expected torch.uint8 {shape}")
        if out is not None and out.device.type == "cpu":
            self._fill(rows, out)
            return out
        host = torch.empty(shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        self._fill(rows, host)
        return host.to(self._device, non_blocking=True) if out is None else out.copy_(host, non_blocking=True)

    def _fill(self, rows: NDArray[np.int64], host: Tensor) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Ends worker threads."""


class Stored(Source):
    """In a memory map or in memory; `rows` are those that count."""

    def __init__(self, pixels: NDArray[np.uint8], rows: NDArray[np.intp], device: torch.device) -> None:
        super().__init__(pixels.shape[1:], device)
        self._pixels = np.asarray(pixels)  # A plain view: subclasses of ndarray are slower to index.
        self._rows = rows

    def _fill(self, rows: NDArray[np.int64], host: Tensor) -> None:
        # "clip" writes straight into the batch; looking up the rows has checked the bounds.
        np.take(self._pixels, self._rows[rows], axis=0, out=host.numpy(), mode="clip")


class Decoded(Source):
    """Nowhere: decoded for each batch, by threads, since Pillow decodes and resizes without Python's lock."""

    def __init__(self, target: Target, paths: Bytes, device: torch.device, workers: int) -> None:
        super().__init__(target.row_shape, device)
        self._target = target
        self._paths = paths
        self._threads = ThreadPoolExecutor(max(1, workers))

    def _fill(self, rows: NDArray[np.int64], host: Tensor) -> None:
        paths: list[bytes] = self._paths[rows].tolist()
        for i, pixels in enumerate(self._threads.map(self._target.decode, paths)):
            host[i] = torch.from_numpy(pixels)

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown()


class Resident(Source):
    """In the device's memory; `rows` are those that count."""

    def __init__(self, pixels: NDArray[np.uint8], rows: NDArray[np.intp], device: torch.device) -> None:
        super().__init__(pixels.shape[1:], device)
        shape = (len(rows), *pixels.shape[1:])
        try:
            self._pixels = torch.empty(shape, dtype=torch.uint8, device=device)
        except torch.cuda.OutOfMemoryError as error:
            needed = int(np.prod(shape))
            raise InputError(
                f"the images need {needed:,} bytes on {device}, more than is free; use --cache ram"
            ) from error
        for start in range(0, len(rows), 1024):
            part = rows[start : start + 1024]
            self._pixels[start : start + len(part)] = torch.from_numpy(np.asarray(pixels)[part]).to(device)

    def read(self, index: Index, out: Tensor | None = None) -> Tensor:
        """A batch, without a way through memory."""
        rows = torch.as_tensor(index, device=self._pixels.device, dtype=torch.int64)
        return torch.index_select(self._pixels, 0, rows, out=out)
