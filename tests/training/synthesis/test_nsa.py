"""NSA: pixels against OpenCV, and draws against their distributions."""

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import scipy.stats
import torch
from numpy.typing import NDArray
from torch import Tensor

from tabzoo.data.images import read_image
from tabzoo.data.layouts import find_samples
from tabzoo.data.toy import make_toy_factory
from tabzoo.errors import InputError
from tabzoo.training.synthesis import Nsa, NsaParams, NsaSettings

Pixels = NDArray[np.uint8]
SIDE = 224


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensor, Tensor]:
    """48 images at 224 px, uint8 [N, 3, H, W], and their classes."""
    root = make_toy_factory(
        tmp_path_factory.mktemp("nsa") / "f", seed=1, size=SIDE, train=8, test_good=1, test_defect=1
    )
    samples = find_samples(root).train_normals()
    pixels = np.stack([read_image(samples.path(i)) for i in range(len(samples))])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(samples.class_ids).long()


def with_opencv(normal: Pixels, source: Pixels, params: NsaParams, i: int, resize: bool) -> Pixels:
    """The patches of one sample by cv2.resize and cv2.seamlessClone on the boxes that were drawn."""
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
        (NsaSettings(blend="normal", retries=0), 12, 0.999),
        (NsaSettings(blend="mixed", retries=0), 12, 0.999),
        (NsaSettings(gamma_scale=0.15, width_max=0.44, resize_max=1.6, retries=0), 4, 0.998),  # patches up to 100 px
        (NsaSettings(num_patches=3, retries=0), 2, 0.999),
        (NsaSettings(resize=False, width_max=0.1, retries=0), 2, 0.999),
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
    assert changed > 100_000 or epochs < 4
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
    whole = nsa.apply(images, images[params.source], params)
    interleaved = images.contiguous(memory_format=torch.channels_last)
    again = nsa.apply(interleaved, interleaved[params.source], params)
    assert torch.equal(whole.abnormal, again.abnormal)
    view = torch.nn.functional.pad(images, (16, 16, 16, 16))[:, :, 16:-16, 16:-16]  # a crop, as the loop hands over
    assert torch.equal(whole.abnormal, nsa.apply(view, view[params.source], params).abnormal)
    for i in (0, 17, 40):
        few = torch.tensor([i])
        assert torch.equal(
            nsa.apply(images[few], images[params.source[few]], params[few]).abnormal[0], whole.abnormal[i]
        )


def test_fast_mode_stays_close(photographs: tuple[Tensor, Tensor]) -> None:
    images, classes = photographs
    made = []
    for mode in ("exact", "fast"):
        nsa = Nsa(classes, SIDE, SIDE, NsaSettings(mode=mode, blend="normal", retries=0))  # type: ignore[arg-type]
        params = nsa.draw(0, 0, torch.arange(len(images)))
        made.append(nsa.apply(images, images[params.source], params).abnormal.int())
    assert int((made[0] - made[1]).abs().max()) <= 3
    assert not torch.equal(made[0], made[1])


# --- distributions, 20,000 draws

COUNT = 20_000


@pytest.fixture(scope="module")
def drawn() -> NsaParams:
    return Nsa(torch.arange(100) % 5, SIDE, SIDE, NsaSettings(num_patches=2, retries=0)).draw(1, 0, torch.arange(COUNT))


def test_source_boxes_follow_the_gamma_distribution(drawn: NsaParams) -> None:
    half = np.floor(np.clip((0.05 + 0.07 * scipy.stats.gamma(2).rvs((2, COUNT), random_state=1)) * SIDE, 11, 45))
    for axis in (0, 1):
        length = drawn.cut[:, 0, 0, axis + 2].numpy()
        # The box is cut off at the image's edge.
        centres = np.random.default_rng(axis).integers(11, SIDE - 11, COUNT)
        expected = np.minimum(centres + half[axis], SIDE) - np.maximum(centres - half[axis], 0)
        assert scipy.stats.ks_2samp(length, expected).pvalue > 1e-3


def test_pasted_patches_measure_11_to_45_px(drawn: NsaParams) -> None:
    """The documented consequence of the authors' bounds, which clip the whole sides of the resized patch too."""
    for axis in (2, 3):
        sides = drawn.paste[:, 0, 0, axis]
        assert (int(sides.min()), int(sides.max())) == (11, 45)


def test_resize_factor_is_a_clipped_normal() -> None:
    settings = NsaSettings(gamma_lower=0.1, gamma_scale=1e-9, width_max=0.45, retries=0)
    params = Nsa(torch.zeros(2, dtype=torch.long), SIDE, SIDE, settings).draw(0, 0, torch.arange(COUNT))
    whole = (params.cut[:, 0, 0, 2] == 44) & (params.cut[:, 0, 0, 3] == 44)
    ratio = params.paste[whole, 0, 0, 3].numpy() / 44
    factors = np.clip(scipy.stats.norm(1, 0.5).rvs(int(whole.sum()), random_state=2), 0.7, 1.3)
    assert scipy.stats.ks_2samp(ratio, np.floor(factors * 44) / 44).pvalue > 1e-3


def test_places_are_uniform(drawn: NsaParams) -> None:
    for axis in (0, 1):
        start, length = drawn.paste[:, 0, 0, axis].double().numpy(), drawn.paste[:, 0, 0, axis + 2].numpy()
        free = SIDE - 2 * (length // 2) - 2  # starts 1 ... SIDE - 2 (length // 2) - 2
        assert (start >= 1).all()
        assert (start + length <= SIDE - 1 + length % 2).all()
        jitter = np.random.default_rng(3).random(COUNT)  # of whole numbers a continuous share
        assert scipy.stats.kstest((start - 1 + jitter) / free, "uniform").pvalue > 1e-3


def test_shares_of_modes_and_further_patches(drawn: NsaParams) -> None:
    assert bool(drawn.active[:, 0].all())
    for share in (drawn.mixed, drawn.active[:, 1]):
        assert scipy.stats.binomtest(int(share.sum()), COUNT, 0.5).pvalue > 1e-3


def test_shift_and_same_source() -> None:
    nsa = Nsa(
        torch.zeros(5, dtype=torch.long),
        SIDE,
        SIDE,
        NsaSettings(shift=False, same_source=True, resize=False, retries=0),
    )
    params = nsa.draw(0, 0, torch.arange(50))
    assert torch.equal(params.source, torch.arange(50) % 5)
    assert bool(((params.cut - params.paste).abs() <= 1).all())


# --- anomalies that would not show


def test_flat_images_get_another_place() -> None:
    """Half of each image is flat: a patch from flat onto flat leaves no trace."""
    generator = np.random.default_rng(0)
    images = torch.full((64, 3, SIDE, SIDE), 128, dtype=torch.uint8)
    images[:, :, : SIDE // 2] = torch.from_numpy(generator.integers(0, 256, (64, 3, SIDE // 2, SIDE), dtype=np.uint8))
    hidden = []
    for retries in (0, 2):
        nsa = Nsa(torch.zeros(64, dtype=torch.long), SIDE, SIDE, NsaSettings(retries=retries))
        params = nsa.draw(0, 0, torch.arange(64))
        hidden.append(int((~nsa.apply(images, images[params.source], params).mask.flatten(1).any(1)).sum()))
    assert hidden[0] > 8
    assert hidden[1] < hidden[0] / 3


@pytest.mark.parametrize(
    "bad", [{"width_max": 0.6}, {"gamma_scale": 0}, {"num_patches": 0}, {"resize_min": 0}, {"blend": "x"}]
)
def test_settings_that_do_not_fit(bad: dict[str, object]) -> None:
    (name,) = bad
    with pytest.raises(InputError, match=f"nsa: {name} is"):
        NsaSettings(**bad)  # type: ignore[arg-type]


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
