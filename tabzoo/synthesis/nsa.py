"""NSA, natural synthetic anomalies: patches of another image of the class, resized and blended in (Poisson blending).

Paper: Schlüter, Tan, Hou and Kainz 2022, "Natural Synthetic Anomalies for Self-Supervised Anomaly Detection and
Localization" (ECCV, arXiv 2109.15222), section 3. The defaults are the TAB authors' setting
`Shift-Intensity-923874273` in their public repository, Howeng98/TAB @ aa8c4dc. The half-widths of the source box are
gamma distributed (shape 2, scale 0.07, offset 0.05, as fractions of the side) and clipped to 0.05 ... 0.2 of the side.
The patch is then resized by a factor around 1, and *its full sides* are clipped to the same bounds: a pasted patch
measures only 11 to 45 px at 224 px although its source box may measure 90.

It differs from the public code in:
- All draws are keyed by (seed, epoch, sample id), see `draws.py`, and a batch is made at once.
- No label is computed. NSA trains on a logistic function of the intensity change of each pixel; TAB's loss never reads
  it. The mask is where the mean change is above 1 level; it is not median filtered.
- A patch of odd width is placed where it was drawn, not one pixel to the right of it.
- A patch is at least 11 px high and wide: below 9 px, OpenCV's erosion of the mask leaves nothing to blend.
- Without `shift`, a resized patch keeps the centre of its source box.
- Where the change is not visible, the patches are blended in at other places (`first_visible`).
- NSA's own code (hmsch/natural-synthetic-anomalies @ cbacc78) keeps patches on the object for 8 of MVTec AD's 15
  classes, by the brightness of the background of each class, and has other bounds for each class. TAB, which trains
  on all classes at once, does neither.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tabzoo.errors import InputError
from tabzoo.synthesis.draws import ClassPool, GammaTable, integers, uniforms
from tabzoo.synthesis.interface import Params, Synthetic, check_images, check_settings, first_visible
from tabzoo.synthesis.patches import crop_and_resize, dense, memory_offsets, pixel_indices, read_pixels, write_pixels
from tabzoo.synthesis.poisson import blend, clone_mask

__all__ = ["Blend", "Nsa", "NsaParams", "NsaSettings"]

STREAM = 1
MIN_SIDE = 11
CHUNK_PIXELS = 1 << 16

Blend = Literal["mix", "normal", "mixed"]


@dataclass(frozen=True, kw_only=True)
class NsaSettings:
    """The parameters of NSA; the defaults are the TAB authors'. Lengths are fractions of the image side."""

    gamma_shape: float = 2.0
    gamma_scale: float = 0.07
    gamma_lower: float = 0.05
    """Added to the gamma variable; the sum is the half-width of the source box."""
    width_min: float = 0.05
    """Lower bound of two lengths: the half-width of the source box, and the full side of the resized patch."""
    width_max: float = 0.2
    """Upper bound of both."""
    resize: bool = True
    resize_min: float = 0.7
    resize_max: float = 1.3
    resize_std: float = 0.5
    """The factor is normally distributed around 1 with this standard deviation, clipped to the two bounds."""
    shift: bool = True
    """Paste at a random place; otherwise where the patch was cut."""
    num_patches: int = 1
    """The first patch is always blended in; each further one with probability 1/2."""
    blend: Blend = "mix"
    """Normal or mixed cloning; `mix` draws one of the two for each image."""
    same_source: bool = False
    """Cut the patch from the normal image itself."""
    retries: int = 2
    """How many more places to try while no change is visible."""

    def __post_init__(self) -> None:
        checks = (
            ("gamma_shape", 0 < self.gamma_shape <= 1000, "above 0, at most 1000"),
            ("gamma_scale", 0 < self.gamma_scale <= 10, "above 0, at most 10"),
            ("gamma_lower", 0 <= self.gamma_lower < 0.5, "0 to below 0.5"),
            ("width_min", 0 < self.width_min < 0.5, "above 0 and below 0.5"),
            ("width_max", self.width_min <= self.width_max < 0.5, f"--nsa-width-min ({self.width_min}) to below 0.5"),
            ("resize_min", 0.01 <= self.resize_min, "a factor above 0, at least 0.01"),
            (
                "resize_max",
                self.resize_min <= self.resize_max <= 100,
                f"at least --nsa-resize-min ({self.resize_min}), at most 100",
            ),
            ("resize_std", 0 <= self.resize_std <= 100, "0 to 100"),
            ("num_patches", 1 <= self.num_patches <= 64, "1 to 64"),
            ("blend", self.blend in ("mix", "normal", "mixed"), "mix, normal or mixed"),
            ("retries", self.retries >= 0, "at least 0"),
        )
        check_settings("nsa", self, checks)


@dataclass(frozen=True)
class NsaParams(Params):
    """What is drawn for each sample: P patches, each with A candidate places."""

    cut: Tensor
    """int64 [B, P, A, 4]: top, left, height and width of the box in the source."""
    paste: Tensor
    """int64 [B, P, A, 4]: top, left, height and width of the pasted patch."""
    active: Tensor
    """bool [B, P]: whether the patch is blended in."""
    mixed: Tensor
    """bool [B]: mixed rather than normal cloning."""


class Nsa:
    """Draws and applies natural synthetic anomalies.

    Args:
        class_ids: Class of each image, integers [N].
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        settings: The parameters; the TAB authors' by default.

    Raises:
        InputError: The images are too small for the largest patch.
    """

    def __init__(self, class_ids: Tensor, height: int, width: int, settings: NsaSettings | None = None) -> None:
        self.settings = settings or NsaSettings()
        self._attempts = 1 + self.settings.retries
        self._pool = ClassPool(class_ids)
        self._gamma = GammaTable(self.settings.gamma_shape)
        self._sides = (height, width)
        self._bounds = tuple(self._bound(side) for side in self._sides)
        # Side of the canvas: a patch without its outermost pixels.
        self._size = max(most if self.settings.resize else 2 * most for _, most in self._bounds) - 2
        for name, side, (_, most) in zip(("height", "width"), self._sides, self._bounds, strict=True):
            if side < 2 * most + 3:
                raise InputError(f"nsa: images of {name} {side} are too small for patches of up to {most} px")

    def _bound(self, side: int) -> tuple[int, int]:
        least = max(round(self.settings.width_min * side), MIN_SIDE)
        return least, max(round(self.settings.width_max * side), least)

    def draw(self, seed: int, epoch: int, sample_ids: Tensor) -> NsaParams:
        """Draws the source images, boxes and cloning modes of samples; see `Synthesis.draw`."""
        P, A = self.settings.num_patches, self._attempts
        # The order of these numbers decides every published run. 2 for the sample; then for each patch 1 for whether it
        # is active, 2 + 2 for its half-height and half-width, 1 for its resize factor, and 4 for each candidate place.
        u = uniforms(seed, epoch, sample_ids, 2 + P * (6 + 4 * A), stream=STREAM)
        images = sample_ids % len(self._pool)
        source = images if self.settings.same_source else self._pool.pick(u[:, 0], images)
        mixed = u[:, 1] < {"mix": 0.5, "normal": 0.0, "mixed": 1.0}[self.settings.blend]
        u = u[:, 2:].unflatten(1, (P, -1))  # [B, P, 6 + 4 A]
        active = u[..., 0] < 0.5
        active[:, 0] = True
        half_height, half_width = self._half(u[..., 1:3], 0), self._half(u[..., 3:5], 1)
        scale, place = u[..., 5:6], u[..., 6:].unflatten(2, (4, A))  # [B, P, 1], [B, P, 4, A]
        top, height = self._cut(half_height, place[:, :, 0], 0)  # [B, P, A]
        left, width = self._cut(half_width, place[:, :, 1], 1)
        cut = torch.stack([top, left, height, width], -1)
        height, width = self._resized(height, width, scale)
        if self.settings.shift:
            top = integers(place[:, :, 2], 1, self._sides[0] - 2 * (height // 2) - 1)
            left = integers(place[:, :, 3], 1, self._sides[1] - 2 * (width // 2) - 1)
        else:
            top = _centred(cut[..., 0], cut[..., 2], height, self._sides[0])
            left = _centred(cut[..., 1], cut[..., 3], width, self._sides[1])
        return NsaParams(source, cut, torch.stack([top, left, height, width], -1), active, mixed)

    def _half(self, u: Tensor, axis: int) -> Tensor:
        """Half-width of the source box along one axis, [B, P, 1]."""
        fraction = self.settings.gamma_lower + self.settings.gamma_scale * self._gamma(u[..., 0], u[..., 1])
        return (fraction * self._sides[axis]).clamp(*self._bounds[axis]).long()[..., None]

    def _cut(self, half: Tensor, place: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """The source box along one axis: start and length, cut off at the edge of the image."""
        side, (least, _) = self._sides[axis], self._bounds[axis]
        centre = integers(place, least, side - least)
        start, stop = (centre - half).clamp(min=0), (centre + half).clamp(max=side)
        return start, stop - start

    def _resized(self, height: Tensor, width: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """The size of the pasted patch: scaled, with its aspect ratio kept as far as the bounds allow."""
        if not self.settings.resize:
            return height, width
        s = self.settings
        scale = (1.0 + s.resize_std * torch.special.ndtri(u)).clamp(s.resize_min, s.resize_max)
        # The clipped height gives the width, and the clipped width gives the height again: each clipping changes the
        # other side too. This order is the authors'.
        new_height = (scale * height).clamp(*self._bounds[0])
        new_width = (new_height / height * width).long().clamp(*self._bounds[1])
        new_height = (new_width.double() / width * height).long().clamp(*self._bounds[0])
        return new_height, new_width

    def apply(self, normal: Tensor, source: Tensor, params: NsaParams) -> Synthetic:
        """Blends the patches in; see `Synthesis.apply`."""
        check_images(normal, source, self._sides)
        with torch.autocast(normal.device.type, enabled=False):
            return first_visible(self._make, dense(normal), dense(source), params, attempts=self._attempts)

    def _make(self, normal: Tensor, source: Tensor, params: NsaParams, attempt: int) -> Synthetic:
        abnormal = normal.clone()
        mask = torch.zeros_like(normal[:, :1], dtype=torch.bool, memory_format=torch.contiguous_format)
        # Where a mixed clone changes nothing, a second one probably changes nothing either: later attempts use normal
        # cloning if the settings allow it.
        mixed = params.mixed & (attempt == 0 or self.settings.blend == "mixed")
        cut, paste = params.cut[:, :, attempt], params.paste[:, :, attempt]  # [B, P, 4]
        for p in range(self.settings.num_patches):
            patch = (abnormal, mask, source, cut[:, p], paste[:, p], mixed, params.active[:, p])
            # On a CPU a chunk's canvases should fit into the cache; on a GPU every chunk repeats all kernel launches.
            chunk = max(CHUNK_PIXELS // self._size**2, 1) if normal.device.type == "cpu" else len(normal)
            with torch.inference_mode():  # 5 % faster; the tensors it writes into were made outside of it
                for part in zip(*(t.split(chunk) for t in patch), strict=True):
                    self._blend(*part, first=p == 0)
        return Synthetic(abnormal, mask)

    def _blend(
        self,
        abnormal: Tensor,
        mask: Tensor,
        source: Tensor,
        cut: Tensor,
        paste: Tensor,
        mixed: Tensor,
        active: Tensor,
        *,
        first: bool,
    ) -> None:
        """Blends one patch into each image, in place; the first patch is always active."""
        # The authors zero the outermost pixels of the patch's mask, so the rectangle to solve is 1 px smaller all around.
        inner, size = torch.cat([paste[:, :2] + 1, paste[:, 2:] - 2], 1), self._size
        rows, columns = inner[:, 2], inner[:, 3]
        patch = crop_and_resize(source, cut, paste[:, 2:], margin=1, size=size)
        pixels = pixel_indices(abnormal, inner, size)
        offsets = memory_offsets(abnormal, pixels)
        before = read_pixels(abnormal, offsets).short()  # [B, N, 3, N]
        guided = clone_mask(rows, columns, size)
        if not first:
            guided *= active[:, None, None]  # without a gradient of the source, the destination stays as it is
        after = blend(patch, before, guided, rows, columns, mixed)
        write_pixels(abnormal, offsets, after)
        change = before.sub_(after).abs_()
        change = change[:, :, 0].add_(change[:, :, 1]).add_(change[:, :, 2])[:, :, None] > 3  # [B, N, 1, N]
        # The mask has one channel: its pixel indices are its memory offsets.
        write_pixels(mask, pixels, change if first else change | read_pixels(mask, pixels))


def _centred(start: Tensor, length: Tensor, new_length: Tensor, side: int) -> Tensor:
    """The start of a patch around the centre of its box, moved inside the image with a margin of 1 px."""
    return torch.minimum((start + length // 2 - new_length // 2).clamp(min=1), side - 1 - new_length)
