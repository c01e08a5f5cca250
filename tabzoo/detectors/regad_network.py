"""RegAD's network: a backbone with a spatial transformer after each stage, and Siamese heads that compare its maps."""

import copy
from collections.abc import Iterator, Sequence
from itertools import product

import torch
import torch.nn.functional as F
from timm.models import FeatureListNet
from torch import Tensor, nn
from torchvision.models.resnet import conv1x1, conv3x3

from tabzoo.detectors.extractor import FeatureExtractor
from tabzoo.errors import InputError

__all__ = ["Registration", "SiameseHeads", "SpatialTransformer", "inverse", "registration_loss", "sample", "warp"]

_SMALLEST = 3
"""Side of maps that, halved, leave batch-norm more than one value to train on, even of a single image."""


class Registration(nn.Module):
    """A copy of a backbone, all of it trained, whose maps are rotated and scaled after each stage.

    Args:
        extractor: Whose backbone is copied.
        sizes: Height and width of the map of each of its layers.

    Raises:
        InputError: The backbone's stages can't be separated.
    """

    def __init__(self, extractor: FeatureExtractor, sizes: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        if not isinstance(extractor.body, FeatureListNet):
            raise InputError(
                "--method regad: it puts spatial transformers between the stages of its backbone, and the stages of this one "
                "can't be separated. Choose a ResNet, such as resnet18 or resnet50."
            )
        self.body = copy.deepcopy(extractor.body).requires_grad_(True)
        channels = extractor.channels.values()
        self.transformers = nn.ModuleList(
            SpatialTransformer(width, size) for width, size in zip(channels, sizes, strict=True)
        )

    def forward(self, images: Tensor) -> Tensor:
        """The last stage's map [B, C, h, w], warped."""
        *_, (warped, _theta) = self._stages(images)
        return warped

    @torch.no_grad()
    def unwarped(self, images: Tensor) -> list[Tensor]:
        """The map of each stage aligned with the image: all warps up to it are undone, the last one first; float32."""
        maps: list[Tensor] = []
        undo: list[Tensor] = []
        for warped, theta in self._stages(images):
            undo.insert(0, inverse(theta))
            for transform in undo:
                warped = warp(warped, transform)
            maps.append(warped)
        return maps

    def _stages(self, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        transformers = iter(self.transformers)
        maps = images
        for name, module in self.body.items():
            maps = module(maps)
            if name in self.body.return_layers:
                maps, theta = next(transformers)(maps)
                yield maps, theta


class SpatialTransformer(nn.Module):
    """Predicts a rotation and two scales for each map, and warps it by them; before training it leaves maps as they are.

    Args:
        channels: Of the maps.
        size: Their height and width.

    Raises:
        InputError: They are too small.
    """

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        if min(size) < _SMALLEST:
            raise InputError(
                f"--method regad: maps of {size[0]} x {size[1]} are too small for its spatial transformers, which "
                f"need {_SMALLEST} x {_SMALLEST}. Raise --resize and --crop."
            )
        height, width = (-(-side // 4) for side in size)  # two poolings, each rounds up
        self.locate = nn.Sequential(*_shrink(channels, 64), *_shrink(64, 16), nn.Flatten())
        last = nn.Linear(1024, 3)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(torch.tensor([0.0, 1.0, 1.0]))
        self.regress = nn.Sequential(nn.Linear(16 * height * width, 1024), nn.ReLU(inplace=True), last)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Warped maps, float32, and the transforms [B, 2, 3] that warped them."""
        located = self.locate(maps)
        with torch.autocast(maps.device.type, enabled=False):  # bfloat16 has too few digits for coordinates
            angle, scale_x, scale_y = self.regress(located.float()).unbind(dim=1)
        zero, cosine, sine = torch.zeros_like(angle), angle.cos(), angle.sin()
        rows = [cosine * scale_x, -sine, zero, sine, cosine * scale_y, zero]
        theta = torch.stack(rows, dim=1).view(-1, 2, 3)
        # On the CPU, torch's backward pass of such a warp would crash the process. On a GPU, looking would wait for the device.
        if self.training and theta.device.type == "cpu" and not theta.isfinite().all():
            raise FloatingPointError
        return warp(maps, theta), theta


def _shrink(channels: int, out: int) -> list[nn.Module]:
    return [conv3x3(channels, out), nn.BatchNorm2d(out), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]


def warp(maps: Tensor, theta: Tensor) -> Tensor:
    """Maps [B, C, h, w] sampled where transforms [B, 2, 3] of the target's coordinates point to; mirrored beyond the edge."""
    with torch.autocast(maps.device.type, enabled=False):
        grid = F.affine_grid(theta, list(maps.shape), align_corners=False)
        # On a GPU the gradient of `F.grid_sample` differs from run to run: it is added up in a random order.
        differentiated = torch.is_grad_enabled() and (maps.requires_grad or theta.requires_grad)
        if differentiated and maps.device.type != "cpu":
            return sample(maps.float(), grid)
        return F.grid_sample(maps.float(), grid, padding_mode="reflection", align_corners=False)


def sample(maps: Tensor, grid: Tensor) -> Tensor:
    """Pixels of maps by bilinear interpolation, with gradients that are the same in every run on a GPU.

    As `F.grid_sample(maps, grid, padding_mode="reflection", align_corners=False)`, which adds gradients up in a random order.
    Here each pixel is a weighted mean of four that are looked up, and for the gradient of a lookup torch sorts the indices.
    A coordinate that is not finite gives NaN.

    Args:
        maps: float32 [B, C, h, w].
        grid: Coordinates x and y in [-1, 1], [B, h, w, 2]; mirrored beyond.
    """
    batch, _, height, width = maps.shape
    pixels = maps.permute(0, 2, 3, 1).flatten(0, 2)  # [B * h * w, C]
    starts = height * width * torch.arange(batch, device=maps.device).view(-1, 1, 1)
    rows, columns = _neighbours(grid[..., 1], height), _neighbours(grid[..., 0], width)
    corners = [(starts + width * i + j, (a * b)[..., None]) for (i, a), (j, b) in product(rows, columns)]
    return sum(pixels[index] * weight for index, weight in corners).permute(0, 3, 1, 2).contiguous()  # type: ignore[union-attr]


def _neighbours(coordinates: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """The two pixels of a side next to coordinates in [-1, 1], mirrored beyond, and their weights."""
    at = ((coordinates + 1) * size - 1) / 2
    distance = (at + 0.5).abs()  # from the left edge of the first pixel
    beyond, times = distance % size, distance.div(size, rounding_mode="floor")
    at = torch.where(times % 2 == 0, beyond - 0.5, size - beyond - 0.5)
    at = torch.where((at > 0) & (at < size - 1), at, at.detach().clamp(0, size - 1))  # no gradient at the border
    first = at.detach().floor()
    second = at - first
    index = first.nan_to_num(0).long()
    return [(index, 1 - second), ((index + 1).clamp(max=size - 1), second)]


def inverse(theta: Tensor) -> Tensor:
    """The transforms that undo transforms [B, 2, 3] without a shift; not finite where there is none."""
    return F.pad(torch.linalg.inv_ex(theta[:, :, :2]).inverse, (0, 1))  # `inv` would wait for a GPU to check that


class SiameseHeads(nn.Module):
    """Encoder and predictor of a registered map; both keep its number of channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encode = nn.Sequential(*_mix(width), *_mix(width), conv1x1(width, width))
        self.predict = nn.Sequential(*_mix(width), conv1x1(width, width))

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Encoded maps z, and predictions p from them."""
        encoded = self.encode(maps)
        return encoded, self.predict(encoded)


def _mix(width: int) -> list[nn.Module]:
    return [conv1x1(width, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


def registration_loss(query: tuple[Tensor, Tensor], support: tuple[Tensor, Tensor]) -> Tensor:
    """The symmetric loss L = (D(p_a, z_b) + D(p_b, z_a)) / 2, where D(p, z) = -cosine of p and z, no gradient through z.

    Cosines are over channels; the mean is over images and positions.

    Args:
        query: Encoded and predicted maps z_a and p_a, [B, C, h, w].
        support: The same of the other image, z_b and p_b.
    """
    (z_a, p_a), (z_b, p_b) = query, support
    pairs = ((p_a, z_b), (p_b, z_a))
    cosines = [F.cosine_similarity(p.float(), z.detach().float(), dim=1).mean() for p, z in pairs]
    return -torch.stack(cosines).mean()
