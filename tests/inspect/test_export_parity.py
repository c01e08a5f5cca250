"""The proof that an exported file agrees: what counts as a difference, and what rounding may decide."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tabzoo.errors import InputError
from tabzoo.inspect.export import job
from tabzoo.inspect.export.onnx_file import check_bytes
from tabzoo.inspect.export.parity import Parity, ParityError, compare


class FakeSession:
    """A file with given scores."""

    def __init__(self, scores: list[float], threshold: float) -> None:
        self.scores, self.threshold, self.names = scores, threshold, ("score", "verdict", "map")

    def get_outputs(self) -> list[Any]:
        return [type("Output", (), {"name": name}) for name in self.names]

    def run(self, _: None, given: dict[str, NDArray[np.uint8]]) -> list[NDArray[Any]]:
        score, self.scores = np.float32(self.scores[: len(given["photos"])]), self.scores[len(given["photos"]) :]
        return [score, score > self.threshold, np.zeros((len(score), 2, 2), np.float32)]


def proof(theirs: list[float], ours: list[float], threshold: float, *, span: float = 10.0) -> Parity:
    left = list(ours)

    def expected(photos: torch.Tensor) -> list[torch.Tensor]:
        part = [left.pop(0) for _ in range(len(photos))]
        return [torch.tensor(part), torch.zeros(len(part), 2, 2)]

    photos = {str(i): np.zeros((2, 2, 3), np.uint8) for i in range(len(ours))}
    return compare(
        FakeSession(theirs, threshold), expected, photos, prepare=photos.__getitem__, span=span, threshold=threshold
    )


def test_a_verdict_that_rounding_decides_is_told_but_is_no_failure() -> None:
    found = proof([5.0004, 1.0, 9.0], [4.9998, 1.0, 9.0], 5.0)
    found.check()
    assert (found.undecided, found.verdicts) == (1, 0)
    assert "1 photo within 0.0001 of the threshold" in found.words()
    with pytest.raises(ParityError, match="1 verdict differs"):
        proof([5.5, 1.0], [4.5, 1.0], 5.0).check()


@pytest.mark.parametrize("wrong", [float("nan"), 3.01])
def test_every_difference_counts_nan_too(wrong: float) -> None:
    for place in range(5):
        theirs = [3.0] * 5
        theirs[place] = wrong
        with pytest.raises(ParityError, match="score"):
            proof(theirs, [3.0] * 5, 5.0).check()


def test_equal_good_scores_leave_a_range() -> None:
    record = type("Record", (), {"good_scores": (2.0, 2.0), "threshold": type("T", (), {"value": 2.0})})
    assert job._span(record) == 2.0  # type: ignore[arg-type]


def test_a_graph_above_2_gb_is_refused_before_it_is_made() -> None:
    bank = torch.empty(400_000, 1536, device="meta")
    with pytest.raises(InputError, match=r"2\.5 GB, and an ONNX file holds at most 2 GB\. Fit"):
        check_bytes([bank], "Fit with less.")
    check_bytes([bank[:300_000]], "Fit with less.")
