"""Orders of batches, and features that are computed once."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tabzoo.detectors import ImageBatches
from tabzoo.detectors import batches as module
from tabzoo.detectors.batches import FrozenFeatures, check_finite, shuffled_batches


def batches_of(**changes: object) -> list[list[int]]:
    values: dict[str, object] = {"epochs": 3, "steps": None, "seed": 1, "about": "test"}
    return [rows.tolist() for rows in shuffled_batches(10, 4, **(values | changes))]  # type: ignore[arg-type]


def test_every_epoch_has_every_image_in_another_order() -> None:
    found = batches_of()
    assert [len(rows) for rows in found] == [4, 4, 2] * 3
    epochs = [[row for rows in found[start : start + 3] for row in rows] for start in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert batches_of() == found
    assert batches_of(seed=2) != found


def test_steps_end_before_the_epochs_do() -> None:
    assert batches_of(steps=4) == batches_of()[:4]
    assert batches_of(steps=99) == batches_of()


@pytest.mark.parametrize("loss", [torch.nan, torch.inf])
def test_a_diverging_training_is_found_within_a_hundred_steps(loss: float) -> None:
    def a_hundred_steps(value: float) -> None:
        for step in range(1, 101):
            check_finite(step, torch.tensor(value))

    a_hundred_steps(1.0)
    with pytest.raises(FloatingPointError):
        a_hundred_steps(loss)


@pytest.mark.parametrize("limit", [None, 0])
def test_features_are_computed_once_if_they_fit(
    limit: int | None, batches: Callable[..., ImageBatches], monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit is not None:
        monkeypatch.setattr(module, "_MOST_BYTES", limit)
    computed: list[int] = []

    def compute(images: Tensor) -> list[Tensor]:
        computed.append(len(images))
        return [images[:, :1], 2 * images]

    images = torch.rand(7, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    kept = FrozenFeatures(batches(images.split(3)), compute)
    rows = torch.tensor([6, 0, 3])
    for _ in range(2):
        one, two = kept.take(rows)
        assert torch.equal(one, images[rows, :1])
        assert torch.equal(two, 2 * images[rows])
    assert computed == ([3, 3, 1] if limit is None else [3, 3, 3])  # without memory: the first batch, then each taken
