"""Which images are fitted to and tested on, and what the methods see of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fake_cuda import BUILT, CUDA, fake_cuda, in_a_child

from tabzoo.benchmark.class_images import ClassImages
from tabzoo.data.cache import CacheMode, Images, open_images
from tabzoo.data.images import read_image, read_mask
from tabzoo.data.layouts import find_samples
from tabzoo.detectors.batches import NormalisedBatches
from tabzoo.errors import InputError

SIZE, CROP = 40, 32


@pytest.fixture(scope="module")
def opened(toy: Path) -> Images:
    return open_images(find_samples(toy), size=SIZE, mode="ram", workers=0, progress=False, masks=True)


def of_class(opened: Images, name: str) -> ClassImages:
    return ClassImages(opened, opened.samples.classes.index(name), resize=SIZE, crop=CROP)


def test_real_trial(opened: Images) -> None:
    images = of_class(opened, "capsule")
    evaluation = images.evaluation_set(test="real", seed=0)
    assert (len(images.normals), len(evaluation), int(evaluation.labels.sum())) == (16, 5, 3)
    assert [kind == "good" for kind in evaluation.kinds] == [not label for label in evaluation.labels]
    assert evaluation.has_mask.tolist() == evaluation.labels.tolist()
    row = int(np.flatnonzero(evaluation.labels)[0])
    sample = int(np.flatnonzero((opened.samples.class_ids == 1) & (opened.samples.labels == 1))[0])
    edge = slice((SIZE - CROP) // 2, (SIZE + CROP) // 2)
    assert torch.equal(
        evaluation.pixels(evaluation.rows[[row]])[0],
        torch.from_numpy(read_image(opened.samples.path(sample), size=SIZE)[edge, edge].copy()),
    )
    mask = opened.samples.mask_path(sample)
    assert mask is not None
    assert np.array_equal(evaluation.masks[row].numpy(), read_mask(mask, size=SIZE)[edge, edge] != 0)


def test_batches_are_normalised_and_come_again(opened: Images) -> None:
    images = of_class(opened, "hex_nut")
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    rows = torch.from_numpy(images.normals)
    batches = NormalisedBatches(images.pixels, rows, batch_size=5, mean=mean, std=std)
    assert len(batches) == 16
    for _ in range(2):
        parts = list(batches)
        assert [len(part) for part in parts] == [5, 5, 5, 1]
        expected = (images.pixels(rows).double() / 255 - torch.tensor(mean)) / torch.tensor(std)
        assert torch.allclose(torch.cat(parts).double(), expected.permute(0, 3, 1, 2), atol=1e-5)


def test_shots_follow_the_seed_alone_and_grow(opened: Images) -> None:
    images = of_class(opened, "capsule")
    four, again, eight, other = (
        set(images.fitting_set(shots=shots, seed=seed, test="real").paths)
        for shots, seed in ((4, 0), (4, 0), (8, 0), (4, 1))
    )
    assert len(four) == 4
    assert four == again < eight
    assert four != other
    assert all(path.startswith("capsule/train/good/") for path in eight)
    assert len(images.fitting_set(shots=None, seed=0, test="real").rows) == 16
    with pytest.raises(InputError, match="--shots 17: class capsule has only 16 good images"):
        images.fitting_set(shots=17, seed=0, test="real")


def test_synthetic_trial_is_of_images_not_fitted_to(opened: Images) -> None:
    images = of_class(opened, "brushed_steel")
    fitted = images.fitting_set(shots=None, seed=0, test="synthetic:cutpaste").rows
    evaluation = images.evaluation_set(test="synthetic:cutpaste", seed=0)
    assert (len(fitted), len(evaluation), int(evaluation.labels.sum())) == (12, 8, 4)
    good = evaluation.pixels(evaluation.rows[:4])
    held = torch.from_numpy(np.setdiff1d(images.normals, fitted))
    assert torch.equal(good, images.pixels(held))
    changed = (evaluation.pixels(evaluation.rows[4:]) != good).any(dim=-1)
    assert evaluation.masks[4:].flatten(1).any(dim=1).all()
    assert not (evaluation.masks[4:] & ~changed).any()
    assert not evaluation.masks[:4].any()
    other = images.evaluation_set(test="synthetic:cutpaste", seed=1)
    assert not torch.equal(other.pixels(other.rows[:4]), good)


def test_too_few_images_to_hold_some_out(toy: Path) -> None:
    samples = find_samples(toy)
    few = samples.select(np.flatnonzero((samples.class_ids == 0) & (samples.split == 0))[:3], drop=True)
    images = ClassImages(
        open_images(few, size=SIZE, mode="ram", workers=0, progress=False, masks=True), 0, resize=SIZE, crop=CROP
    )
    with pytest.raises(InputError, match="has 3 good training images, too few"):
        images.fitting_set(shots=None, seed=0, test="synthetic:mask")


def test_digest_follows_the_content(opened: Images, toy: Path) -> None:
    digests = {name: of_class(opened, name).digest() for name in opened.samples.classes}
    assert len(set(digests.values())) == 3
    samples = find_samples(toy)
    less = samples.select(np.arange(1, len(samples)))  # one image of the first class taken away
    again = open_images(less, size=SIZE, mode="off", workers=0, progress=False, masks=True)
    assert of_class(again, "capsule").digest() == digests["capsule"]
    assert of_class(again, "brushed_steel").digest() != digests["brushed_steel"]


def test_full_masks_show_what_the_methods_see(opened: Images, toy: Path) -> None:
    images = of_class(opened, "capsule")
    masks, evaluation = images.full_masks(), images.evaluation_set(test="real", seed=0)
    assert all(mask.shape == (38, 38) for mask in masks)  # 48 px, of which 32 / 40 are seen
    for mask, small in zip(masks, evaluation.masks, strict=True):
        again = F.interpolate(mask[None, None].float(), (CROP, CROP), mode="nearest-exact")[0, 0] > 0
        assert (again ^ small).float().mean() < 0.02  # two roundings of the same edge


@pytest.mark.skipif(not BUILT, reason="torch is built without CUDA, whose tensors could be fake")
@pytest.mark.parametrize("mode", ["ram", "device"])
def test_batches_for_a_gpu_do_not_wait(mode: CacheMode, toy: Path) -> None:
    def check() -> None:
        with fake_cuda() as record:
            opened = open_images(
                find_samples(toy), size=SIZE, mode=mode, workers=0, progress=False, masks=True, device=CUDA
            )
            images = of_class(opened, "capsule")
            fitted = images.fitting_set(shots=None, seed=0, test="real").rows
            made = images.evaluation_set(test="synthetic:cutpaste", seed=0)
            for pixels, rows in ((images.pixels, torch.from_numpy(fitted)), (made.pixels, made.rows)):
                batches = NormalisedBatches(pixels, rows, batch_size=5, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.2))
                batches.take(torch.arange(2))
                record.reset()
                assert {batch.device for batch in (*batches, batches.take(torch.tensor([2, 0])))} == {CUDA}
                assert not record.waits

    in_a_child(check)
