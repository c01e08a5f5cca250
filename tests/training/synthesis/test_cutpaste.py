"""CutPaste: what is pasted where, in which colours, one by one and all at once."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from tabzoo.training.synthesis import CutPaste, CutPasteSettings
from tabzoo.training.synthesis.colour import GREY, colour_matrix
from tabzoo.training.synthesis.cutpaste import _paste_all, _paste_each

COUNT = 20_000


def test_without_jitter_the_piece_is_a_copy(images: Tensor, class_ids: Tensor) -> None:
    method = CutPaste(class_ids, 224, 224, CutPasteSettings(jitter=0.0))
    params = method.draw(0, 0, torch.arange(32))
    abnormal, mask = method.apply(images, images, params)
    for i, ((y, x, h, w), (top, left, height, width)) in enumerate(
        zip(params.cut[:, 0].tolist(), params.paste[:, 0].tolist(), strict=True)
    ):
        assert (h, w) == (height, width)
        expected = images[i].clone()
        expected[:, top : top + h, left : left + w] = images[i, :, y : y + h, x : x + w]
        assert torch.equal(abnormal[i], expected)
        outside = mask[i, 0].clone()
        outside[top : top + h, left : left + w] = False
        assert not outside.any()


@pytest.mark.parametrize("variant", ["patch", "scar", "union"])
def test_one_by_one_equals_all_at_once(images: Tensor, class_ids: Tensor, variant: str) -> None:
    """The CPU's way and the GPU's way, both on the CPU."""
    method = CutPaste(class_ids, 224, 224, CutPasteSettings(variant=variant))  # type: ignore[arg-type]
    for epoch in range(4):
        params = method.draw(1, epoch, torch.arange(32))
        cut, paste = params.cut[:, 0], params.paste[:, 0]
        made = [(images.clone(), torch.zeros(32, 1, 224, 224, dtype=torch.bool)) for _ in range(2)]
        _paste_each(*made[0], images, cut, paste, params)
        _paste_all(*made[1], images, cut, paste, params, method._largest)
        difference = (made[0][0].int() - made[1][0].int()).abs()
        assert difference.max() <= 1
        assert (difference > 0).float().mean() < 1e-5
        assert (made[0][1] != made[1][1]).float().mean() < 1e-5


def test_a_scar_is_a_turned_piece(class_ids: Tensor) -> None:
    """A white image with a black piece pasted: as many pixels as the piece has, turned as drawn."""
    settings = CutPasteSettings(variant="scar", jitter=0.0, scar_width=(8, 8), scar_height=(30, 30))
    method = CutPaste(class_ids, 224, 224, settings)
    params = method.draw(0, 0, torch.arange(300))
    white = torch.full((300, 3, 224, 224), 255, dtype=torch.uint8)
    mask = method.apply(white, torch.zeros_like(white), params).mask[:, 0]
    assert mask.flatten(1).sum(1).float().sub(240).abs().max() <= 16
    for i in range(0, 300, 10):
        y, x = (c - c.double().mean() for c in torch.nonzero(mask[i]).unbind(1))
        slope = 0.5 * math.atan2(2 * float((x * y).mean()), float((y * y).mean() - (x * x).mean()))
        drawn = math.atan2(float(params.turn[i, 1]), float(params.turn[i, 0]))
        assert abs(slope) == pytest.approx(abs(drawn), abs=0.1)


def test_sizes_and_places_are_distributed_as_documented(class_ids: Tensor) -> None:
    params = CutPaste(class_ids, 224, 224).draw(0, 0, torch.arange(COUNT))
    height, width = params.cut[:, 0, 2].double().numpy(), params.cut[:, 0, 3].double().numpy()
    generator = np.random.default_rng(0)
    area, aspect = generator.uniform(0.02, 0.09, COUNT) * 224**2, np.exp(generator.uniform(-1, 1, COUNT) * np.log(5))
    expected = np.sqrt([area / aspect, area * aspect]).round()
    for ours, plain in ((height, expected[0]), (width, expected[1]), (height * width, expected[0] * expected[1])):
        assert scipy.stats.ks_2samp(ours, plain).pvalue > 1e-3
    jitter = generator.random((2, COUNT))
    for k, boxes in enumerate((params.cut, params.paste)):
        share = (boxes[:, 0, 0].numpy() + jitter[k]) / (225 - height)
        assert scipy.stats.kstest(share, "uniform").pvalue > 1e-3


def test_scars_and_patches_are_equally_often(class_ids: Tensor) -> None:
    params = CutPaste(class_ids, 224, 224, CutPasteSettings(variant="union")).draw(0, 0, torch.arange(COUNT))
    scars = params.turn[:, 1] != 0
    assert scipy.stats.binomtest(int(scars.sum()), COUNT, 0.5).pvalue > 1e-3
    sizes = params.cut[scars, 0, 2:]
    assert (sizes.amin(0).tolist(), sizes.amax(0).tolist()) == ([10, 2], [25, 16])
    angle = torch.rad2deg(torch.atan2(params.turn[scars, 1], params.turn[scars, 0]))
    assert scipy.stats.kstest(angle.numpy() / 90 + 0.5, "uniform").pvalue > 1e-3


def test_colours_are_torchvisions(images: Tensor) -> None:
    """Brightness, contrast and saturation in this order; hue has no matrix there."""
    piece = images[:8, :, 20:60, 30:80].float() / 255
    grey = torch.tensor(GREY)
    for i, (brightness, contrast, saturation) in enumerate(np.random.default_rng(0).uniform(0.9, 1.1, (8, 3)).tolist()):
        part = piece[i] * 0.6 + 0.2  # away from the ends, where torchvision clips in between
        expected = TF.adjust_saturation(
            TF.adjust_contrast(TF.adjust_brightness(part, brightness), contrast), saturation
        )
        matrix = colour_matrix(torch.tensor([saturation]), torch.zeros(1))[0] * (brightness * contrast)
        lift = brightness * (1 - contrast) * torch.einsum("c,chw->", grey, part) / part[0].numel()
        ours = torch.einsum("dc,chw->dhw", matrix, part) + lift
        assert (ours - expected).abs().max() < 1.5e-3


def test_hue_turns_around_the_grey_axis() -> None:
    third = colour_matrix(torch.ones(1), torch.full((1,), 1 / 3))[0]
    assert torch.allclose(third @ torch.eye(3), torch.eye(3).roll(1, 0), atol=1e-6)  # red -> green -> blue -> red
    any_ = colour_matrix(torch.tensor([0.7]), torch.tensor([0.08]))[0]
    assert torch.allclose(any_ @ torch.ones(3), torch.ones(3), atol=1e-6)
