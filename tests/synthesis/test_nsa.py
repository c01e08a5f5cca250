"""NSA: pixels compared with OpenCV, and draws with their distributions."""

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import scipy.stats
import torch
from numpy.typing import NDArray
from torch import Tensor

from tabzoo.data import toy
from tabzoo.errors import InputError
from tabzoo.synthesis import Nsa, NsaParams, NsaSettings

Pixels = NDArray[np.uint8]
SIDE = 224


@pytest.fixture(scope="module")
def photographs() -> tuple[Tensor, Tensor]:
    """24 images at 224 px, uint8 [N, 3, H, W], and their classes."""
    pixels = np.stack(
        [toy._render(name, "train/good", i, seed=1, size=SIDE).image for name in toy.TOY_CLASSES for i in range(4)]
    )
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.arange(len(pixels)) // 4


def with_opencv(normal: Pixels, source: Pixels, params: NsaParams, i: int, resize: bool) -> Pixels:
    """Blends the patches of one sample by cv2.resize and cv2.seamlessClone, with the boxes that were drawn."""
    image = normal.copy()
    for p in range(params.cut.shape[1]):
        if not params.active[i, p]:
            continue
        top, left, height, width = params.cut[i, p, 0].tolist()
        y, x, h, w = params.paste[i, p, 0].tolist()
        patch = np.ascontiguousarray(source[top : top + height, left : left + width])
        patch = cv2.resize(patch, (w, h)) if resize else patch
        mask = np.full((h, w), 255, np.uint8)
        mask[0] = mask[-1] = mask[:, 0] = mask[:, -1] = 0
        centre = (x + 1 + (w - 2) // 2, y + 1 + (h - 2) // 2)
        image = cv2.seamlessClone(patch, image, mask, centre, cv2.MIXED_CLONE if params.mixed[i] else cv2.NORMAL_CLONE)
    return image


Compared = tuple[Pixels, Pixels, Pixels, NsaParams, int]


def compared(photographs: tuple[Tensor, Tensor], settings: NsaSettings, epochs: int) -> Iterator[Compared]:
    """For each sample: the normal image, ours, OpenCV's, [H, W, 3], and the draw."""
    images, classes = photographs
    nsa = Nsa(classes, SIDE, SIDE, settings)
    for epoch in range(epochs):
        params = nsa.draw(3, epoch, torch.arange(len(images)))
        made = nsa.apply(images, images[params.source], params).abnormal.permute(0, 2, 3, 1).numpy()
        pixels = images.permute(0, 2, 3, 1).numpy()
        for i in range(len(images)):
            yield (
                pixels[i],
                made[i],
                with_opencv(pixels[i], pixels[params.source[i]], params, i, settings.resize),
                params,
                i,
            )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "epochs", "identical"),
    [
        (NsaSettings(blend="normal", retries=0), 5, 0.999),
        (NsaSettings(blend="mixed", retries=0), 5, 0.999),
        (NsaSettings(gamma_scale=0.15, width_max=0.44, resize_max=1.6, retries=0), 2, 0.998),  # patches up to 100 px
        (NsaSettings(num_patches=3, retries=0), 1, 0.999),
        (NsaSettings(resize=False, width_max=0.1, retries=0), 1, 0.999),
    ],
)
def test_pixels_are_opencvs(
    photographs: tuple[Tensor, Tensor], settings: NsaSettings, epochs: int, identical: float
) -> None:
    changed = equal = 0
    for normal, ours, opencv, params, i in compared(photographs, settings, epochs):
        difference = np.abs(ours.astype(int) - opencv.astype(int))
        assert difference.max() <= 1, (params.cut[i], params.paste[i], params.mixed[i])
        touched = (ours != normal) | (opencv != normal)
        changed += int(touched.sum())
        equal += int((touched & (difference == 0)).sum())
    assert changed > 20_000 * epochs
    assert equal / changed >= identical


def test_nothing_changes_outside_the_patch(photographs: tuple[Tensor, Tensor]) -> None:
    images, classes = photographs
    nsa = Nsa(classes, SIDE, SIDE, NsaSettings(num_patches=2, retries=0))
    params = nsa.draw(0, 0, torch.arange(len(images)))
    made = nsa.apply(images, images[params.source], params)
    for i in range(len(images)):
        outside = torch.ones(SIDE, SIDE, dtype=torch.bool)
        for p in range(2):
            y, x, h, w = params.paste[i, p, 0].tolist()
            if params.active[i, p]:
                outside[y : y + h, x : x + w] = False
        assert not (made.abnormal[i] != images[i])[:, outside].any()
        assert not made.mask[i, 0][outside].any()
    change = (made.abnormal.int() - images.int()).abs().sum(dim=1, keepdim=True)
    assert made.mask[change > 6].all()  # two patches can each change 3 levels in sum without entering the mask


def test_the_mask_is_where_a_level_or_more_changed(photographs: tuple[Tensor, Tensor]) -> None:
    images, classes = photographs
    nsa = Nsa(classes, SIDE, SIDE)
    params = nsa.draw(0, 0, torch.arange(len(images)))
    made = nsa.apply(images, images[params.source], params)
    change = (made.abnormal.int() - images.int()).abs().sum(dim=1, keepdim=True)
    assert torch.equal(made.mask, change > 3)  # a mean above 1 over three channels


def test_layout_batch_and_threads_do_not_matter(photographs: tuple[Tensor, Tensor]) -> None:
    images, classes = photographs
    nsa = Nsa(classes, SIDE, SIDE)
    params = nsa.draw(0, 1, torch.arange(len(images)))
    together = nsa.apply(images, images[params.source], params)
    interleaved = images.contiguous(memory_format=torch.channels_last)
    again = nsa.apply(interleaved, interleaved[params.source], params)
    assert torch.equal(together.abnormal, again.abnormal)
    view = torch.nn.functional.pad(images, (16, 16, 16, 16))[:, :, 16:-16, 16:-16]  # a crop, as in training
    assert torch.equal(together.abnormal, nsa.apply(view, view[params.source], params).abnormal)
    for i in (0, 7, 20):
        few = torch.tensor([i])
        assert torch.equal(
            nsa.apply(images[few], images[params.source[few]], params[few]).abnormal[0], together.abnormal[i]
        )


# --- distributions, 20,000 draws

COUNT = 20_000
SIDES = (SIDE, 160)  # not square, so that swapped axes are noticed
BOUNDS = ((11, 45), (11, 32))


def draw(settings: NsaSettings, *, classes: int = 5, sides: tuple[int, int] = SIDES) -> NsaParams:
    return Nsa(torch.arange(100) % classes, *sides, settings).draw(1, 0, torch.arange(COUNT))


@pytest.fixture(scope="module")
def drawn() -> NsaParams:
    return draw(NsaSettings(num_patches=2, retries=0))


def test_source_boxes_follow_the_gamma_distribution(drawn: NsaParams) -> None:
    fractions = 0.05 + 0.07 * scipy.stats.gamma(2).rvs((2, COUNT), random_state=1)
    for axis, (side, (least, most)) in enumerate(zip(SIDES, BOUNDS, strict=True)):
        half = np.floor(np.clip(fractions[axis] * side, least, most))
        length = drawn.cut[:, 0, 0, axis + 2].numpy()
        # The box is cut off at the edge of the image.
        centres = np.random.default_rng(axis).integers(least, side - least, COUNT)
        expected = np.minimum(centres + half, side) - np.maximum(centres - half, 0)
        assert scipy.stats.ks_2samp(length, expected).pvalue > 1e-3


def test_pasted_patches_measure_11_to_45_px(drawn: NsaParams) -> None:
    """The documented consequence of the authors' bounds, which also clip the full sides of the resized patch."""
    for axis, bounds in enumerate(BOUNDS):
        sides = drawn.paste[:, 0, 0, axis + 2]
        assert (int(sides.min()), int(sides.max())) == bounds


def test_no_patch_is_below_11_px() -> None:
    """Below 9 px the eroded mask of a patch is empty, and 5 % of a small image can be less than that."""
    for axis, bounds in enumerate(((11, 13), (11, 13))):
        sides = draw(NsaSettings(), sides=(64, 64)).paste[..., axis + 2]
        assert (int(sides.min()), int(sides.max())) == bounds


def test_resize_factor_is_a_clipped_normal() -> None:
    params = draw(NsaSettings(gamma_lower=0.1, gamma_scale=1e-9, width_max=0.45, retries=0), sides=(SIDE, SIDE))
    unclipped = (params.cut[:, 0, 0, 2] == 44) & (params.cut[:, 0, 0, 3] == 44)
    ratio = params.paste[unclipped, 0, 0, 3].numpy() / 44
    factors = np.clip(scipy.stats.norm(1, 0.5).rvs(int(unclipped.sum()), random_state=2), 0.7, 1.3)
    assert scipy.stats.ks_2samp(ratio, np.floor(factors * 44) / 44).pvalue > 1e-3


def test_resizing_keeps_the_aspect_within_the_bounds() -> None:
    params = draw(NsaSettings(width_max=0.45, retries=0))
    cut, paste = params.cut[:, 0, 0, 2:].double(), params.paste[:, 0, 0, 2:].double()
    free = ((paste > 11) & (paste < torch.tensor([100, 72]))).all(1)
    assert free.sum() > COUNT / 2
    off = (paste[:, 0] - paste[:, 1] / cut[:, 1] * cut[:, 0])[free]  # whole pixels, rounded down
    assert -1 < off.min()
    assert off.max() <= 1e-9


def test_places_are_uniform(drawn: NsaParams) -> None:
    for axis, side in enumerate(SIDES):
        start, length = drawn.paste[:, 0, 0, axis].double().numpy(), drawn.paste[:, 0, 0, axis + 2].numpy()
        free = side - 2 * (length // 2) - 2  # starts 1 ... side - 2 (length // 2) - 2
        assert start.min() == 1
        assert (start + 2 * (length // 2)).max() == side - 2
        jitter = np.random.default_rng(3).random(COUNT)  # makes whole numbers continuous
        assert scipy.stats.kstest((start - 1 + jitter) / free, "uniform").pvalue > 1e-3


def test_frequencies_of_modes_and_further_patches(drawn: NsaParams) -> None:
    assert bool(drawn.active[:, 0].all())
    for fraction in (drawn.mixed, drawn.active[:, 1]):
        assert scipy.stats.binomtest(int(fraction.sum()), COUNT, 0.5).pvalue > 1e-3
    assert draw(NsaSettings(blend="mixed")).mixed.all()
    assert not draw(NsaSettings(blend="normal")).mixed.any()


def test_draws_are_independent(drawn: NsaParams) -> None:
    cut, paste = drawn.cut[:, 0, 0].double(), drawn.paste[:, 0, 0].double()
    middle, free = cut[:, :2] + cut[:, 2:] / 2, torch.tensor(SIDES) - 2 * (paste[:, 2:] // 2) - 2
    image = torch.arange(COUNT) % 100
    series = torch.stack(
        [
            *cut[:, 2:].unbind(1),
            *middle.unbind(1),
            *((paste[:, :2] - 1) / free).unbind(1),
            *(drawn.cut[:, 1, 0, 2:].unbind(1)),
            ((drawn.source - image) % 100).double(),
            drawn.mixed.double(),
            drawn.active[:, 1].double(),
        ]
    )
    correlation = torch.corrcoef(series) - torch.eye(len(series))
    assert correlation.abs().max() < 5 / COUNT**0.5


def test_same_source_without_shift_or_resizing_stays_in_place() -> None:
    params = draw(NsaSettings(shift=False, same_source=True, resize=False, retries=0))
    assert torch.equal(params.source, torch.arange(COUNT) % 100)
    assert bool(((params.cut - params.paste).abs() <= 1).all())


def test_without_shift_a_resized_patch_keeps_its_centre() -> None:
    params = draw(NsaSettings(shift=False))
    for axis, side in enumerate(SIDES):
        (start, length), (new_start, new_length) = (
            (boxes[..., axis], boxes[..., axis + 2]) for boxes in (params.cut, params.paste)
        )
        assert new_start.min() == 1
        assert (new_start + new_length).max() == side - 1
        inside = (new_start > 1) & (new_start + new_length < side - 1)
        assert inside.double().mean() > 0.8
        assert (start + length // 2 - (new_start + new_length // 2))[inside].abs().max() == 0


# --- changes that are not visible


def test_flat_images_get_another_place() -> None:
    """Half of each image is flat: a flat patch on a flat region changes nothing."""
    generator = np.random.default_rng(0)
    images = torch.full((64, 3, 96, 96), 128, dtype=torch.uint8)
    images[:, :, :48] = torch.from_numpy(generator.integers(0, 256, (64, 3, 48, 96), dtype=np.uint8))
    hidden = []
    for retries in (0, 2):
        nsa = Nsa(torch.zeros(64, dtype=torch.long), 96, 96, NsaSettings(retries=retries))
        params = nsa.draw(0, 0, torch.arange(64))
        hidden.append(int((~nsa.apply(images, images[params.source], params).mask.flatten(1).any(1)).sum()))
    assert hidden[0] > 8
    assert hidden[1] < hidden[0] / 3


def test_an_invisible_mixed_clone_becomes_a_normal_one_if_allowed() -> None:
    """A flat patch on noise: mixed cloning keeps the noise, whose gradients are stronger; normal cloning smooths it."""
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (16, 3, 64, 64), dtype=np.uint8))
    for blend, retries in (("mix", 0), ("mix", 1), ("mixed", 1)):
        nsa = Nsa(torch.zeros(16, dtype=torch.long), 64, 64, NsaSettings(blend=blend, retries=retries))  # type: ignore[arg-type]
        params = nsa.draw(0, 0, torch.arange(16))
        visible = nsa.apply(noise, torch.full_like(noise, 128), params).mask.flatten(1).any(1)
        assert torch.equal(
            visible, torch.ones(16, dtype=torch.bool) if (blend, retries) == ("mix", 1) else ~params.mixed
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("gamma_shape", 0), ("gamma_scale", 0), ("gamma_lower", -0.1), ("gamma_lower", 0.5)),
        *(("width_min", 0), ("width_min", 0.5), ("width_max", 0.04), ("width_max", 0.5)),
        *(("resize_min", 0), ("resize_max", 0.6), ("resize_std", -1)),
        *(("num_patches", 0), ("num_patches", 65), ("blend", "x"), ("retries", -1)),
    ],
)
def test_settings_out_of_range_are_refused(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"^--nsa-{name.replace('_', '-')} .*: expected "):
        NsaSettings(**{name: value})  # type: ignore[arg-type]


def test_images_too_small() -> None:
    with pytest.raises(InputError, match="too small for patches"):
        Nsa(torch.zeros(3, dtype=torch.long), 20, 20)


@pytest.mark.gpu
def test_cuda_makes_the_same_anomalies(photographs: tuple[Tensor, Tensor]) -> None:
    images, classes = photographs
    nsa = Nsa(classes, SIDE, SIDE)
    params = nsa.draw(0, 0, torch.arange(len(images)))
    here = nsa.apply(images, images[params.source], params)
    there = nsa.apply(images.cuda(), images[params.source].cuda(), params.to("cuda"))
    difference = (here.abnormal.int() - there.abnormal.cpu().int()).abs()
    assert int(difference.max()) <= 1
    assert float((difference > 0).float().mean()) < 1e-4
