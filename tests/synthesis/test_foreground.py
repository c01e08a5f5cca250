"""Skipping the background: from object to object."""

import dataclasses

import cv2
import numpy as np
import torch
from torch import Tensor

from tabzoo.synthesis import Nsa, NsaSettings
from tabzoo.synthesis.foreground import acceptable, object_mask


def discs(count: int) -> Tensor:
    """Noisy discs of radius 50 at changing places on a background of 20, uint8 [count, 3, 224, 224]."""
    generator = np.random.default_rng(0)
    images = np.full((count, 224, 224, 3), 20.0)
    for image in images:
        cv2.circle(image, generator.integers(60, 164, 2).tolist(), 50, (180, 150, 120), -1)
        image += generator.normal(0, 8, image.shape)
    return torch.from_numpy(images.clip(0, 255).astype(np.uint8)).permute(0, 3, 1, 2).contiguous()


def test_object_mask_is_thresholded_and_median_filtered() -> None:
    images = discs(4)
    images[:, :, 5, 5] = 255  # grain
    mask = object_mask(images, 20.0, 30.0)
    for image, ours in zip(images, mask, strict=True):
        plain = (np.abs(image.numpy().mean(0, dtype=np.float32) - 20) > 30).astype(np.uint8)
        assert np.array_equal(ours.numpy(), cv2.medianBlur(plain, 7) > 0)
    assert not mask[:, 5, 5].any()


def test_acceptable_counts_object_and_overlap() -> None:
    source, destination = torch.zeros(1, 60, 60, dtype=torch.bool), torch.zeros(1, 60, 60, dtype=torch.bool)
    source[:, :, :30] = True  # left half
    destination[:, :30] = True  # upper half
    cut = torch.tensor([[[10, 0, 20, 20], [10, 20, 20, 20], [10, 38, 20, 20], [10, 25, 20, 20], [0, 0, 20, 20]]])
    paste = torch.tensor([[[0, 5, 10, 10], [0, 5, 10, 10], [0, 5, 10, 10], [0, 5, 10, 10], [40, 5, 10, 10]]])
    limits = {"size": 20, "min_object": 0.3, "min_overlap": 0.5}
    # All object; half; none; a quarter; all object, but onto background.
    assert acceptable(source, destination, cut, paste, **limits).tolist() == [[True, True, False, False, False]]  # type: ignore[arg-type]


def test_patches_go_from_object_to_object() -> None:
    """The source's object is its left half, the normal image's its right half; acceptable places come first, in order."""
    source = torch.from_numpy(np.random.default_rng(0).integers(150, 256, (32, 3, 96, 96), dtype=np.uint8))
    normal = source.flip(2)
    source[:, :, :, 48:] = normal[:, :, :, :48] = 20
    left = torch.arange(96).expand(32, 96, 96) < 48
    limits = {"min_object": 0.3, "min_overlap": 0.8}
    nsa, plain = (
        Nsa(torch.zeros(32, dtype=torch.int64), 96, 96, NsaSettings(blend="normal", **settings))  # type: ignore[arg-type]
        for settings in (limits | {"background": 20.0}, {})
    )
    params = nsa.draw(0, 0, torch.arange(32))
    accepted = acceptable(left, ~left, params.cut[:, 0], params.paste[:, 0], size=19, **limits)  # type: ignore[arg-type]
    order = torch.argsort(~accepted, dim=1, stable=True)
    assert (accepted.sum(1) > 0).all()
    assert (order[:, 0] > 0).any()
    for attempt in (0, 1):
        cut, paste = (boxes[torch.arange(32), :, order[:, attempt], None] for boxes in (params.cut, params.paste))
        expected = plain._make(normal, source, dataclasses.replace(params, cut=cut, paste=paste), 0)
        assert torch.equal(nsa._make(normal, source, params, attempt).abnormal, expected.abnormal)


def test_where_no_candidate_is_acceptable_the_first_are_taken() -> None:
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 100, (8, 3, 96, 96), dtype=np.uint8))
    settings = NsaSettings(background=50.0, background_threshold=60.0)  # nothing is object
    made = []
    for nsa in (Nsa(torch.zeros(8, dtype=torch.int64), 96, 96, s) for s in (settings, NsaSettings(retries=21))):
        params = nsa.draw(0, 0, torch.arange(8))
        made.append(nsa.apply(noise, 99 - noise, params))
    assert torch.equal(made[0].abnormal, made[1].abnormal)


def test_background_leaves_the_rest_of_the_draw_alone() -> None:
    """Source, mode and the sizes of the boxes' halves don't change with the number of candidate places."""
    classes = torch.arange(20) % 3
    plain, candidates = (
        Nsa(classes, 224, 224, settings).draw(0, 0, torch.arange(500))
        for settings in (NsaSettings(), NsaSettings(background=0.0, attempts=7))
    )
    assert torch.equal(plain.source, candidates.source)
    assert torch.equal(plain.mixed, candidates.mixed)
    assert candidates.cut.shape == (500, 1, 9, 4)
