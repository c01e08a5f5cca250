"""CutPaste: a piece of the image itself, with its colours jittered, pasted somewhere else.

Paper: Li, Sohn, Yoon and Pfister 2021, "CutPaste: Self-Supervised Learning for Anomaly Detection and Localization"
(CVPR, arXiv 2104.04015), section 2. The defaults are the TAB authors' setting in their public repository,
Howeng98/TAB @ aa8c4dc. A patch covers 0.02 to 0.09 of the image; the logarithm of its aspect ratio is uniform over 0.2
to 5. A scar is 2 to 16 px wide, 10 to 25 px high and rotated by up to 45 degrees. Colours are jittered by 0.1.

It differs from the public code in: `union` makes patches and scars equally often, as in the paper (there, "union" always
makes patches, because its scar branch is switched off; so `patch` is the default here); the colour jitter is one affine
map (see `colour.py`); a piece longer than the image is cut to it; a scar's size is a whole number of pixels; and where
the change is not visible, the piece is cut and pasted elsewhere (`first_visible`).
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tabzoo.errors import InputError
from tabzoo.synthesis.colour import GREY, colour_matrix, grey_weights, jitter_factor
from tabzoo.synthesis.draws import integers, uniforms
from tabzoo.synthesis.interface import Params, Synthetic, check_images, check_settings, first_visible
from tabzoo.synthesis.patches import dense, memory_offsets, read_pixels, write_pixels

__all__ = ["CutPaste", "CutPasteParams", "CutPasteSettings", "Variant"]

STREAM = 2
_GREY = np.array(GREY, np.float32)

Variant = Literal["patch", "scar", "union"]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class CutPasteSettings:
    """The parameters of CutPaste; the defaults are the TAB authors'."""

    variant: Variant = "patch"
    """`union` makes patches and scars equally often."""
    area_min: float = 0.02
    """Smallest area of a patch, as a fraction of the image."""
    area_max: float = 0.09
    aspect_min: float = 0.2
    """Smallest ratio of width to height of a patch; the largest is its inverse."""
    scar_width: tuple[int, int] = (2, 16)
    """Smallest and largest width of a scar, in pixels."""
    scar_height: tuple[int, int] = (10, 25)
    scar_angle: float = 45.0
    """Largest rotation of a scar, in degrees, in either direction."""
    jitter: float = 0.1
    """Strength of the changes of brightness, contrast, saturation and hue."""
    retries: int = 4
    """How many more places to try while no change is visible."""

    def __post_init__(self) -> None:
        checks = (
            ("variant", self.variant in ("patch", "scar", "union"), "patch, scar or union"),
            ("area_min", 0 < self.area_min <= self.area_max, f"above 0, at most area_max ({self.area_max})"),
            ("area_max", self.area_max < 1, "below 1"),
            ("aspect_min", 0 < self.aspect_min <= 1, "above 0, at most 1"),
            ("scar_width", 1 <= self.scar_width[0] <= self.scar_width[1], "two numbers from 1, ascending"),
            ("scar_height", 1 <= self.scar_height[0] <= self.scar_height[1], "two numbers from 1, ascending"),
            ("scar_angle", 0 <= self.scar_angle <= 90, "0 to 90"),
            ("jitter", 0 <= self.jitter <= 0.5, "0 to 0.5"),
            ("retries", self.retries >= 0, "at least 0"),
        )
        check_settings("cutpaste", self, checks)


@dataclass(frozen=True)
class CutPasteParams(Params):
    """What is drawn for each sample: one piece, with A candidate places."""

    cut: Tensor
    """int64 [B, A, 4]: top, left, height and width of the piece in the source."""
    paste: Tensor
    """int64 [B, A, 4]: the box around the pasted, rotated piece."""
    rotation: Tensor
    """float32 [B, 2]: cosine and sine of its angle."""
    colours: Tensor
    """float32 [B, 3, 3]: the matrix that its colours are multiplied by."""
    lift: Tensor
    """float32 [B]: added to all its colours, in units of its mean grey level."""


class CutPaste:
    """Draws and applies CutPaste anomalies.

    Args:
        class_ids: Class of each image, integers [N]; only their number matters.
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        settings: The parameters; the TAB authors' by default.

    Raises:
        InputError: The images are too small for the longest scar.
    """

    def __init__(self, class_ids: Tensor, height: int, width: int, settings: CutPasteSettings | None = None) -> None:
        self.settings = settings or CutPasteSettings()
        self._num_images, self._sides = len(class_ids), (height, width)
        longest = math.ceil(math.hypot(self.settings.scar_width[1], self.settings.scar_height[1])) + 2
        if self.settings.variant != "patch" and longest >= min(height, width):
            raise InputError(f"cutpaste: images of {height} x {width} are too small for scars of up to {longest} px")
        scar, patch = longest**2, math.ceil(self._patch_limit())
        self._largest = {"patch": patch, "scar": scar, "union": max(patch, scar)}[self.settings.variant]

    def _patch_limit(self) -> float:
        """Area of the largest patch, in pixels: rounding to whole pixels may add half a pixel to each side."""
        height, width = self._sides
        area = self.settings.area_max * height * width
        longest = min(math.sqrt(area / self.settings.aspect_min), max(height, width))
        return area + longest + 1

    def draw(self, seed: int, epoch: int, sample_ids: Tensor) -> CutPasteParams:
        """Draws the boxes, rotations and colours of samples; see `Synthesis.draw`."""
        A = 1 + self.settings.retries
        # Scar or patch, two for the size, angle, the four colour changes; then four for each candidate place.
        u = uniforms(seed, epoch, sample_ids, 8 + 4 * A, stream=STREAM)
        size, angle = self._patch(u[:, 1], u[:, 2]), torch.zeros_like(u[:, 0])
        if self.settings.variant != "patch":
            scar = u[:, 0] < (0.5 if self.settings.variant == "union" else 1.0)
            size = torch.where(scar[:, None], self._scar(u[:, 1], u[:, 2]), size)
            angle = torch.where(scar, (2 * u[:, 3] - 1) * math.radians(self.settings.scar_angle), angle)
        rotation = torch.stack([torch.cos(angle), torch.sin(angle)], 1)
        box = self._bounding_box(size, rotation)
        corners = u[:, 8:].view(-1, A, 4)
        cut, paste = self._placed(corners[..., :2], size), self._placed(corners[..., 2:], box)
        jitter = self.settings.jitter
        # With brightness b, contrast c and mean grey level m, a colour x becomes c b x + (1 - c) b m: contrast scales
        # the distance from the mean grey. c b goes into the matrix, (1 - c) b into `lift`; saturation and hue, which come
        # after, change only the matrix, because they leave greys as they are.
        brightness, contrast, saturation = jitter_factor(u[:, 4:7], jitter).unbind(1)
        colours = colour_matrix(saturation, jitter * (2 * u[:, 7] - 1)) * (brightness * contrast)[:, None, None]
        lift = brightness * (1 - contrast)
        source = sample_ids % self._num_images
        return CutPasteParams(source, cut, paste, rotation.float(), colours.float(), lift.float())

    def _patch(self, u: Tensor, v: Tensor) -> Tensor:
        """Height and width of a patch, int64 [B, 2]."""
        s, (height, width) = self.settings, self._sides
        area = torch.lerp(torch.full_like(u, s.area_min), torch.full_like(u, s.area_max), u) * (height * width)
        aspect = torch.exp((2 * v - 1) * math.log(1 / s.aspect_min))
        sizes = zip((torch.sqrt(area / aspect), torch.sqrt(area * aspect)), self._sides, strict=True)
        return torch.stack([size.round().long().clamp(1, side) for size, side in sizes], 1)

    def _scar(self, u: Tensor, v: Tensor) -> Tensor:
        """Height and width of a scar, int64 [B, 2]."""
        (low_h, high_h), (low_w, high_w) = self.settings.scar_height, self.settings.scar_width
        return torch.stack([integers(u, low_h, high_h + 1), integers(v, low_w, high_w + 1)], 1)

    @staticmethod
    def _bounding_box(size: Tensor, rotation: Tensor) -> Tensor:
        """Height and width of the box around a rotated piece; the piece's own if it is not rotated."""
        cosine, sine = rotation.abs().unbind(1)
        height, width = size.unbind(1)
        box = torch.stack([height * cosine + width * sine, height * sine + width * cosine], 1)
        return torch.ceil(box - 1e-9).long()  # rounding must not add a pixel to a piece that is not rotated

    def _placed(self, u: Tensor, size: Tensor) -> Tensor:
        """Boxes of the given size [B, 2] at random places inside the image, [B, A, 4]."""
        corner = [integers(u[..., axis], 0, side - size[:, axis, None] + 1) for axis, side in enumerate(self._sides)]
        return torch.cat([torch.stack(corner, 2), size[:, None].expand(-1, u.shape[1], -1)], 2)

    def apply(self, normal: Tensor, source: Tensor, params: CutPasteParams) -> Synthetic:
        """Pastes the pieces; see `Synthesis.apply`."""
        check_images(normal, source, self._sides)
        with torch.autocast(normal.device.type, enabled=False):
            attempts = 1 + self.settings.retries
            return first_visible(self._make, dense(normal), dense(source), params, attempts=attempts)

    def _make(self, normal: Tensor, source: Tensor, params: CutPasteParams, attempt: int) -> Synthetic:
        abnormal, cut, paste = normal.clone(), params.cut[:, attempt], params.paste[:, attempt]
        mask = torch.zeros_like(normal[:, :1], dtype=torch.bool, memory_format=torch.contiguous_format)
        if normal.device.type == "cpu":
            # Pieces differ in size by a factor of five: one by one is faster than all padded to the largest size.
            _paste_each(abnormal, mask, source, cut, paste, params)
        else:
            _paste_all(abnormal, mask, source, cut, paste, params, self._largest)
        return Synthetic(abnormal, mask)


def _paste_each(
    abnormal: Tensor, mask: Tensor, source: Tensor, cut: Tensor, paste: Tensor, params: CutPasteParams
) -> None:
    """Pastes the pieces one by one, in place, with NumPy, which has the least overhead per small operation."""
    rotations, colours, lifts = params.rotation.tolist(), params.colours.numpy(), params.lift.tolist()
    boxes = zip(abnormal.numpy(), mask.numpy(), source.numpy(), cut.tolist(), paste.tolist(), strict=True)
    for i, (image, region, other, (y, x, h, w), (top, left, height, width)) in enumerate(boxes):
        piece, inside = other[:, y : y + h, x : x + w], None
        if rotations[i][1] != 0:
            rows, columns, inside = _rotate_back_one(height, width, h, w, rotations[i])
            piece = piece[:, rows, columns]
        levels = piece.reshape(3, -1).astype(np.float32)
        counted = levels if inside is None else levels[:, inside.reshape(-1)]
        mean = _GREY @ (counted.sum(1) / max(counted.shape[1], 1))
        levels = colours[i] @ levels
        levels += np.float32(lifts[i]) * mean + np.float32(0.5)
        piece = np.clip(levels, 0, 255, out=levels).astype(np.uint8).reshape(3, height, width)
        box = (slice(top, top + height), slice(left, left + width))
        image, region = image[:, *box], region[0, *box]
        if inside is not None:
            piece = np.where(inside, piece, image)
        change = np.maximum(piece, image) - np.minimum(piece, image)  # |piece - image| without leaving uint8
        region[...] = change[0].astype(np.int16) + change[1] + change[2] > 3
        image[...] = piece


def _rotate_back_one(
    height: int, width: int, h: int, w: int, rotation: list[float]
) -> tuple[IntArray, IntArray, BoolArray]:
    """`_rotate_back` of one box, height x width, and piece, h x w."""
    cosine, sine = np.float32(rotation[0]), np.float32(rotation[1])
    y = np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5 - height / 2)
    x = np.arange(width, dtype=np.float32) + np.float32(0.5 - width / 2)
    rows = np.floor(cosine * y - sine * x + np.float32(h / 2)).astype(np.int64)
    columns = np.floor(sine * y + cosine * x + np.float32(w / 2)).astype(np.int64)
    inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
    return rows.clip(0, h - 1), columns.clip(0, w - 1), inside


def _paste_all(
    abnormal: Tensor, mask: Tensor, source: Tensor, cut: Tensor, paste: Tensor, params: CutPasteParams, largest: int
) -> None:
    """Pastes all pieces at once, in place; each is a list of `largest` pixels."""
    y, x, counted = _pixels(paste, largest)
    target = _pixel_indices(abnormal, paste, y, x)
    y, x, inside = _rotate_back(y, x, params.rotation, cut, paste)
    piece = read_pixels(source, memory_offsets(source, _pixel_indices(source, cut, y, x)))[:, 0]  # [B, 3, L]
    piece = _coloured(piece, counted & inside, params)
    offsets = memory_offsets(abnormal, target)
    before = read_pixels(abnormal, offsets)[:, 0].short()
    change = (piece - before).mul_(inside[:, None])
    write_pixels(abnormal, offsets, (before + change).to(torch.uint8)[:, None])
    write_pixels(mask, target, (change.abs_().sum(1) > 3)[:, None, None])  # one channel: indices are offsets


def _pixels(box: Tensor, largest: int) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels of boxes, row by row: row and column in the box, float32 [B, L], and which of the L exist, bool.

    After a box's last pixel that pixel is repeated, so that all positions are valid.
    """
    height, width = box[:, 2:3].float(), box[:, 3:4].float()
    area = height * width
    i = torch.arange(largest, dtype=torch.float32, device=box.device)
    counted = i < area
    i = i.minimum(area - 1)
    y = torch.floor((i + 0.5) / width)  # the half keeps a quotient's rounding away from whole numbers
    return y, i.sub_(y * width), counted


def _pixel_indices(images: Tensor, box: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The pixels y, x of boxes, counted through the batch row by row, int64 [B, 1, 1, L]."""
    _, _, H, W = images.shape
    corner = torch.arange(len(images), device=box.device) * (H * W) + box[:, 0] * W + box[:, 1]
    return (y * W).add_(x).long().add_(corner[:, None])[:, None, None]


def _rotate_back(y: Tensor, x: Tensor, rotation: Tensor, cut: Tensor, paste: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where pixels of the pasted box come from in the cut piece, and whether from inside it, all [B, L]."""
    cosine, sine = rotation[:, 0:1], rotation[:, 1:2]
    size, box = cut[:, 2:].float(), paste[:, 2:].float()
    y, x = y + 0.5 - box[:, 0:1] / 2, x + 0.5 - box[:, 1:2] / 2
    y, x = torch.floor(cosine * y - sine * x + size[:, 0:1] / 2), torch.floor(sine * y + cosine * x + size[:, 1:2] / 2)
    inside = (y >= 0) & (y < size[:, 0:1]) & (x >= 0) & (x < size[:, 1:2])
    return y.clamp(min=0).minimum(size[:, 0:1] - 1), x.clamp(min=0).minimum(size[:, 1:2] - 1), inside


def _coloured(piece: Tensor, counted: Tensor, params: CutPasteParams) -> Tensor:
    """The piece, uint8 [B, 3, L], with jittered colours, int16; its mean is taken over the `counted` pixels."""
    levels = piece.float()
    weights = counted.float()[..., None]  # [B, L, 1]
    mean = torch.bmm(levels, weights)[..., 0] / weights.sum(1).clamp(min=1)  # [B, 3]
    lift = params.lift * (mean @ grey_weights(levels.dtype, levels.device))
    levels = torch.baddbmm(lift[:, None, None], params.colours, levels)
    return levels.add_(0.5).clamp_(0, 255).short()
