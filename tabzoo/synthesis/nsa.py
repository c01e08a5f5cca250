"""NSA: natural synthetic anomalies, patches of another image of the class blended in by the Poisson equation.

Paper: Schlüter, Tan, Hou and Kainz 2022, "Natural Synthetic Anomalies for Self-Supervised Anomaly Detection and
Localization" (ECCV, arXiv 2109.15222). The facts of the TAB authors' setting, `Shift-Intensity-923874273`, come from
the public repository Howeng98/TAB @ aa8c4dc. The defaults below are that setting: half-widths of the source box are
gamma distributed (shape 2, scale 0.07, offset 0.05 of the side) and clipped to 0.05 ... 0.2 of the side; the patch is
resized by a factor around 1 and *its whole sides* are clipped to the same bounds, so that what is pasted measures only
11 to 45 px at 224 although the box may measure 90.

It differs from it in: all draws are keyed by (seed, epoch, sample id), see `draws.py`; a batch is made at once; no
intensity label is computed, which TAB's loss never reads; the mask is not median filtered; a patch of odd width lands
where it was drawn, not one pixel right of it; a patch is at least 11 px high and wide, since of one below 9 px
OpenCV's erosion of the mask leaves nothing; without `shift` a resized patch keeps the centre of its source box; where
no patch shows, they are blended in at other places, with normal cloning if the mode may be chosen (see `retry.py`).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tabzoo.errors import InputError
from tabzoo.synthesis.draws import ClassPool, GammaTable, integers, uniforms
from tabzoo.synthesis.foreground import acceptable, object_mask
from tabzoo.synthesis.interface import Params, Synthetic, check_images, check_settings
from tabzoo.synthesis.patches import dense, places, read, resized, spots, write
from tabzoo.synthesis.poisson import blend, clone_mask
from tabzoo.synthesis.retry import first_that_shows

__all__ = ["Nsa", "NsaParams", "NsaSettings"]

STREAM = 1
MIN_SIDE = 11
CHUNK_PIXELS = 1 << 16


@dataclass(frozen=True, kw_only=True)
class NsaSettings:
    """The parameters of NSA; the defaults are the TAB authors'."""

    gamma_shape: float = 2.0
    gamma_scale: float = 0.07
    """Share of the side."""
    gamma_lower: float = 0.05
    """Share of the side added to the gamma variable: the source box's half-width."""
    width_min: float = 0.05
    """Lower bound, as a share of the side, of the box's half-width and of the resized patch's whole side."""
    width_max: float = 0.2
    """Upper bound of both."""
    resize: bool = True
    resize_min: float = 0.7
    resize_max: float = 1.3
    resize_std: float = 0.5
    """The factor is normal around 1 with this standard deviation, clipped to the two bounds."""
    shift: bool = True
    """Paste at a random place; otherwise where the patch was cut."""
    num_patches: int = 1
    """Patches after the first happen with probability 1/2 each."""
    blend: Literal["mix", "normal", "mixed"] = "mix"
    """How gradients are combined; `mix` chooses one of the two for each image."""
    same_source: bool = False
    """Cut the patch from the normal image itself."""
    mode: Literal["exact", "fast"] = "exact"
    """`exact` resizes in OpenCV's 8-bit integer arithmetic, `fast` in floating point."""
    retries: int = 2
    """Further places for the patches, tried as long as none of them shows."""
    background: float | None = None
    """Brightness, 0 ... 255, of the background; if given, patches are put from object to object."""
    background_threshold: float = 30.0
    """Levels by which an object differs from the background."""
    min_object: float = 0.25
    """Least share of object in a patch."""
    min_overlap: float = 0.25
    """Least share of that object that lands on object."""
    attempts: int = 20
    """Candidate places among which the first that meets the two shares is taken; the first of all if none does."""

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
            ("mode", self.mode in ("exact", "fast"), "exact or fast"),
            ("retries", self.retries >= 0, "at least 0"),
            ("background", self.background is None or 0 <= self.background <= 255, "a grey level, 0 to 255"),
            ("background_threshold", 0 <= self.background_threshold <= 255, "0 to 255 levels"),
            ("min_object", 0 <= self.min_object < 1, "0 to below 1"),
            ("min_overlap", 0 <= self.min_overlap < 1, "0 to below 1"),
            ("attempts", self.attempts >= 1, "at least 1"),
        )
        check_settings("nsa", self, checks)


@dataclass(frozen=True)
class NsaParams(Params):
    """What is drawn for each sample: P patches, of which some may not happen, with A candidate places each."""

    cut: Tensor
    """int64 [B, P, A, 4]: top, left, height and width of the box in the source."""
    paste: Tensor
    """int64 [B, P, A, 4]: the same of the pasted patch."""
    active: Tensor
    """bool [B, P]: whether the patch happens."""
    mixed: Tensor
    """bool [B]: mixed rather than normal cloning."""


class Nsa:
    """Draws and applies natural synthetic anomalies.

    Args:
        class_ids: The class of each image, integers [N].
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        settings: The parameters; the TAB authors' by default.
    """

    def __init__(self, class_ids: Tensor, height: int, width: int, settings: NsaSettings | None = None) -> None:
        self.settings = settings or NsaSettings()
        self._attempts = self.settings.retries + (1 if self.settings.background is None else self.settings.attempts)
        self._pool = ClassPool(class_ids)
        self._gamma = GammaTable(self.settings.gamma_shape)
        self._sides = (height, width)
        self._bounds = tuple(self._bound(side) for side in self._sides)
        self._size = max(most if self.settings.resize else 2 * most for _, most in self._bounds) - 2
        self._largest = 2 * self._bounds[1][1]
        for name, side, (_, most) in zip(("height", "width"), self._sides, self._bounds, strict=True):
            if side < 2 * most + 3:
                raise InputError(f"nsa: images of {name} {side} are too small for patches of up to {most} px")

    def _bound(self, side: int) -> tuple[int, int]:
        least = max(round(self.settings.width_min * side), MIN_SIDE)
        return least, max(round(self.settings.width_max * side), least)

    def draw(self, seed: int, epoch: int, sample_ids: Tensor) -> NsaParams:
        """Draws the parameters of samples from (seed, epoch, sample id) alone; see `Synthesis.draw`."""
        P, A = self.settings.num_patches, self._attempts
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
        """The source box's half-width along one axis, [B, P, 1]."""
        share = self.settings.gamma_lower + self.settings.gamma_scale * self._gamma(u[..., 0], u[..., 1])
        return (share * self._sides[axis]).clamp(*self._bounds[axis]).long()[..., None]

    def _cut(self, half: Tensor, place: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """The source box along one axis: start and length, cut off at the image's edge."""
        side, (least, _) = self._sides[axis], self._bounds[axis]
        centre = integers(place, least, side - least)
        start, stop = (centre - half).clamp(min=0), (centre + half).clamp(max=side)
        return start, stop - start

    def _resized(self, height: Tensor, width: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """The size of the pasted patch: scaled with its aspect kept, as far as the bounds allow."""
        if not self.settings.resize:
            return height, width
        s = self.settings
        scale = (1.0 + s.resize_std * torch.special.ndtri(u)).clamp(s.resize_min, s.resize_max)
        new_height = (scale * height).clamp(*self._bounds[0])
        new_width = (new_height / height * width).long().clamp(*self._bounds[1])
        new_height = (new_width.double() / width * height).long().clamp(*self._bounds[0])
        return new_height, new_width

    def apply(self, normal: Tensor, source: Tensor, params: NsaParams) -> Synthetic:
        """Makes the anomalies; nothing is drawn; see `Synthesis.apply`."""
        check_images(normal, source, self._sides)
        with torch.autocast(normal.device.type, enabled=False):
            return first_that_shows(
                self._make, dense(normal), dense(source), params, attempts=1 + self.settings.retries
            )

    def _make(self, normal: Tensor, source: Tensor, params: NsaParams, attempt: int) -> Synthetic:
        abnormal = normal.clone()
        mask = torch.zeros_like(normal[:, :1], dtype=torch.bool, memory_format=torch.contiguous_format)
        cut, paste = self._placed(normal, source, params, attempt)  # [B, P, 4]
        # Where a mixed clone leaves no trace, the next one is likely to leave none either.
        mixed = params.mixed & (attempt == 0 or self.settings.blend == "mixed")
        for p in range(self.settings.num_patches):
            patch = (abnormal, mask, source, cut[:, p], paste[:, p], mixed, params.active[:, p])
            # On a CPU a chunk's canvases should fit into the cache; on a GPU each chunk would cost its launches again.
            chunk = max(CHUNK_PIXELS // self._size**2, 1) if normal.device.type == "cpu" else len(normal)
            with torch.inference_mode():  # a twentieth faster; what it returns was made outside of it
                for part in zip(*(t.split(chunk) for t in patch), strict=True):
                    self._blend(*part, first=p == 0)
        return Synthetic(abnormal, mask)

    def _placed(self, normal: Tensor, source: Tensor, params: NsaParams, attempt: int) -> tuple[Tensor, Tensor]:
        """The boxes [B, P, 4] of an attempt: from object to object first, if there is a background."""
        s = self.settings
        if s.background is None:
            return params.cut[:, :, attempt], params.paste[:, :, attempt]
        accepted = acceptable(
            object_mask(source, s.background, s.background_threshold),
            object_mask(normal, s.background, s.background_threshold),
            params.cut.flatten(1, 2),
            params.paste.flatten(1, 2),
            size=self._size + 2,
            min_object=s.min_object,
            min_overlap=s.min_overlap,
        ).view(params.cut.shape[:3])
        order = torch.argsort((~accepted).byte(), dim=2, stable=True)[:, :, attempt]
        order = order[:, :, None, None].expand(-1, -1, 1, 4)
        return params.cut.gather(2, order)[:, :, 0], params.paste.gather(2, order)[:, :, 0]

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
        """Blends one patch into each image, in place; the first one is always active."""
        # The authors zero the outermost pixels of the patch's mask: the rectangle solved in is 1 px smaller all around.
        inner, size = torch.cat([paste[:, :2] + 1, paste[:, 2:] - 2], 1), self._size
        rows, columns = inner[:, 2], inner[:, 3]
        exact = self.settings.mode == "exact"
        patch = resized(source, cut, paste[:, 2:], margin=1, size=size, largest=self._largest, exact=exact)
        spot = spots(abnormal, inner, size)
        at = places(abnormal, spot)
        before = read(abnormal, at).short()  # [B, N, 3, N]
        guided = clone_mask(rows, columns, size)
        if not first:
            guided *= active[:, None, None]
        after = blend(patch, before, guided, rows, columns, mixed)
        write(abnormal, at, after)
        change = before.sub_(after).abs_()
        change = change[:, :, 0].add_(change[:, :, 1]).add_(change[:, :, 2])[:, :, None] > 3  # [B, N, 1, N]
        write(mask, spot, change if first else change | read(mask, spot))


def _centred(start: Tensor, length: Tensor, new_length: Tensor, side: int) -> Tensor:
    """The start of a patch around the centre of its box, moved inside the image with a margin of 1 px."""
    return torch.minimum((start + length // 2 - new_length // 2).clamp(min=1), side - 1 - new_length)
