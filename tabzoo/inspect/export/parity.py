"""Proof that an exported file agrees with tabzoo: both look at the same photos, from the files on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tabzoo.errors import TabzooError, brief, count
from tabzoo.inspect.export.onnx_file import PHOTOS

__all__ = ["ALLOWED", "Parity", "ParityError", "compare", "uneven"]

ALLOWED = 1e-4
"""Largest difference, as a share of the range."""
_BATCHES = (1, 3, 8)


class ParityError(TabzooError, RuntimeError):
    """An exported file that does not agree with tabzoo; it is not kept."""


@dataclass
class Parity:
    """How far two programs are apart on the same photos.

    Attributes:
        photos: Their number.
        pixels: Photos whose prepared pixels differ.
        differences: Name of each output to the largest difference, as a share of the range.
        verdicts: Photos whose verdict differs, other than those of `undecided`.
        undecided: Photos whose score is within the allowed difference of the threshold: rounding decides on their verdict,
            so it may differ between any two programs.
    """

    photos: int = 0
    pixels: int = 0
    differences: dict[str, float] = field(default_factory=dict)
    verdicts: int = 0
    undecided: int = 0

    def add(self, name: str, found: NDArray[Any], expected: NDArray[Any], span: float) -> None:
        """Notes the difference of an output.

        Raises:
            ParityError: Its shape or type differs.
        """
        if found.shape != expected.shape or found.dtype != expected.dtype:
            raise ParityError(
                f"{name}: {found.dtype} {found.shape} in the file, {expected.dtype} {expected.shape} here"
            )
        difference = float(np.abs(found - expected).max()) / span
        # NumPy's maximum keeps NaN, which `max` can drop.
        self.differences[name] = float(np.maximum(self.differences.get(name, 0.0), difference))

    def check(self) -> None:
        """Checks that nothing differs by more than is allowed.

        Raises:
            ParityError: Something does; the message has the numbers.
        """
        if self.pixels or self.verdicts or not all(value <= ALLOWED for value in self.differences.values()):
            raise ParityError(
                f"the exported model does not agree with tabzoo, so it was not written. {self.words()}. Allowed: {ALLOWED:g}, "
                f"and no other verdict. Please report it, with the versions of torch and onnxruntime."
            )

    def words(self, range_of: str = "the range") -> str:
        """The result, in a line; `range_of` says which range."""
        shares = ", ".join(f"{name} {value:.1e}" for name, value in self.differences.items())
        parts = [f"{count(self.photos, 'photo')}: largest difference, as a share of {range_of}: {shares}"]
        parts.append(f"prepared pixels differ in {count(self.pixels, 'photo')}")
        if "score" in self.differences:
            parts.append(f"{count(self.verdicts, 'verdict')} differ" + ("s" if self.verdicts == 1 else ""))
        if self.undecided:
            parts.append(
                f"{count(self.undecided, 'photo')} within {ALLOWED:g} of the threshold, where rounding decides"
            )
        return "; ".join(parts)


def uneven(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Parts of 1, 3, 8, 8, ... items: the number of photos in a batch must not matter."""
    start, sizes = 0, iter(_BATCHES)
    while start < len(items):
        size = next(sizes, _BATCHES[-1])
        yield items[start : start + size]
        start += size


def compare(
    session: Any,
    expected: Callable[[Tensor], Sequence[Tensor]],
    photos: Mapping[str, NDArray[np.uint8]],
    *,
    prepare: Callable[[str], NDArray[np.uint8]],
    span: float | None = None,
    threshold: float | None = None,
) -> Parity:
    """Runs both programs.

    Args:
        session: The exported file, in onnxruntime.
        expected: The same outputs, but verdicts, from tabzoo, for prepared photos uint8 [N, S, S, 3].
        photos: File to pixels as tabzoo prepares them, [S, S, 3].
        prepare: The same by the script beside the exported file.
        span: Range that differences of scores and maps are shares of; None: of each output, its own.
        threshold: Of the detector; None: a backbone.
    """
    parity = Parity()
    for part in uneven(list(photos)):
        pixels, here = np.stack([_prepared(path, prepare) for path in part]), np.stack([photos[path] for path in part])
        parity.photos += len(part)
        parity.pixels += int((pixels != here).any(axis=(1, 2, 3)).sum())
        names = [entry.name for entry in session.get_outputs()]
        found = dict(zip(names, session.run(None, {PHOTOS: pixels}), strict=True))
        verdicts = found.pop("verdict", None)
        outputs = [output.numpy() for output in expected(torch.from_numpy(here))]
        for (name, value), output in zip(found.items(), outputs, strict=True):
            parity.add(name, value, output, span if span is not None else float(np.ptp(output)) or 1.0)
        if threshold is not None and span is not None:
            near = np.abs(outputs[0] - threshold) <= ALLOWED * span
            parity.undecided += int(near.sum())
            parity.verdicts += int(((verdicts != (outputs[0] > threshold)) & ~near).sum())
    return parity


def _prepared(path: str, prepare: Callable[[str], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    try:
        return prepare(path)
    except Exception as error:  # of Pillow's decoders
        raise ParityError(
            f"{path}: tabzoo can read it, but the script beside the file can't: {brief(error)}"
        ) from error
