"""Perlin anomalies: a foreign texture blended over the region where Perlin noise is high.

Paper: Zavrtanik, Kristan and Skočaj 2021, "DRAEM - A discriminatively trained reconstruction embedding for surface
anomaly detection" (ICCV, arXiv 2108.07610), "Simulated anomaly generation". The defaults are the TAB authors' setting
in their public repository, Howeng98/TAB @ aa8c4dc. Perlin noise with 1, 2, 4 ... 32 cells along each axis is rotated by
up to 90 degrees in either direction and thresholded at 0.65. There the image becomes (1 - beta) texture + beta image,
with beta uniform in 0 ... 0.8. The texture is a photo of a texture collection after 5 of 11 random operations.

It differs from the public code in: textures are images of the other classes, or a given set of textures; each operation
happens independently with probability 5/11; sharpening, automatic contrast and equalising, which need the full texture,
are left out, and hue and saturation are one matrix (see `colour.py`); where the noise is nowhere above the threshold, the
threshold is lowered to nine tenths of the way from the noise's minimum to its maximum, so that no region is empty.
"""

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tabzoo.errors import InputError
from tabzoo.synthesis.colour import colour_matrix, jitter_factor
from tabzoo.synthesis.draws import ClassPool, integers, uniforms, uniforms_at
from tabzoo.synthesis.interface import Params, Synthetic, check_images, check_settings
from tabzoo.synthesis.patches import dense, read_pixels, write_pixels
from tabzoo.synthesis.poisson import product_dtype

__all__ = ["Perlin", "PerlinParams", "PerlinSettings", "perlin_noise"]

STREAM = 3
CHUNK = 8


@dataclass(frozen=True, kw_only=True)
class PerlinSettings:
    """The parameters of Perlin anomalies; the defaults are the TAB authors'."""

    scales: int = 6
    """The numbers of cells along each axis are 2 to the power of 0 ... scales - 1."""
    max_angle: float = 90.0
    """Largest rotation of the noise, in degrees, in either direction."""
    threshold: float = 0.65
    """Where the noise is above it, the image becomes abnormal."""
    beta_max: float = 0.8
    """Largest weight of the image in the blend."""
    change_probability: float = 5 / 11
    """Probability of each operation on the texture."""

    def __post_init__(self) -> None:
        checks = (
            ("scales", 1 <= self.scales <= 8, "1 to 8"),
            ("max_angle", 0 <= self.max_angle <= 180, "0 to 180"),
            ("threshold", 0 < self.threshold < 1, "above 0 and below 1"),
            ("beta_max", 0 <= self.beta_max < 1, "0 to below 1"),
            ("change_probability", 0 <= self.change_probability <= 1, "0 to 1"),
        )
        check_settings("perlin", self, checks)


@dataclass(frozen=True)
class PerlinParams(Params):
    """What is drawn for each sample: noise, texture and the operations on it."""

    texture: Tensor
    """int64 [B]: index into the given textures; unused without any."""
    scales: Tensor
    """int64 [B, 2]: the numbers of noise cells along y and x are 2 to the power of these."""
    angles: Tensor
    """float32 [B, n, n]: directions of the noise's gradients at the nodes; 0 at nodes that the sample does not use."""
    rotations: Tensor
    """float32 [B, 2]: rotations of the noise and of the texture, in radians."""
    beta: Tensor
    """float32 [B]: weight of the image in the blend."""
    tone_curves: Tensor
    """uint8 [B, 3, 256]: new level of each level of the texture, in each channel."""
    colours: Tensor
    """float32 [B, 3, 3]: the matrix that the texture's colours are multiplied by."""


class Perlin:
    """Draws and applies Perlin anomalies.

    Args:
        class_ids: Class of each image, integers [N].
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        settings: The parameters; the TAB authors' by default.
        textures: Textures to use, uint8 [T, 3, height, width], also an attribute; images of other classes by default.

    Raises:
        InputError: The textures have another shape, or there are none.
    """

    def __init__(
        self,
        class_ids: Tensor,
        height: int,
        width: int,
        settings: PerlinSettings | None = None,
        *,
        textures: Tensor | None = None,
    ) -> None:
        self.settings = settings or PerlinSettings()
        self._pool, self._sides, self.textures = ClassPool(class_ids), (height, width), textures
        if textures is not None and (textures.shape[1:] != (3, height, width) or len(textures) == 0):
            raise InputError(f"perlin: textures must be [T, 3, {height}, {width}]; got {list(textures.shape)}")

    def draw(self, seed: int, epoch: int, sample_ids: Tensor) -> PerlinParams:
        """Draws noise, textures and the operations on them; see `Synthesis.draw`."""
        s = self.settings
        # 6 for texture, scales, rotations and beta; 8 for which operations happen; 10 for their amounts.
        u = uniforms(seed, epoch, sample_ids, 6 + 8 + 10, stream=STREAM)
        images = sample_ids % len(self._pool)
        texture = integers(u[:, 0], 0, 1 if self.textures is None else len(self.textures))
        scales = integers(u[:, 1:3], 0, s.scales)
        changed, amounts = u[:, 6:14] < s.change_probability, u[:, 14:]  # [B, 8], [B, 10]
        noise_angle = (2 * u[:, 3] - 1) * math.radians(s.max_angle)
        rotations = torch.stack([noise_angle, (2 * u[:, 4] - 1) * (math.pi / 4)], 1)
        rotations[:, 1] *= changed[:, 0]
        saturation = torch.where(changed[:, 1], jitter_factor(amounts[:, 0], 0.5), 1.0)
        hue = torch.where(changed[:, 2], 0.2 * (2 * amounts[:, 1] - 1), 0.0)
        return PerlinParams(
            source=self._pool.pick_other(u[:, 0], images) if self.textures is None else images,
            texture=texture,
            scales=scales,
            angles=self._angles(seed, epoch, sample_ids, scales),
            rotations=rotations.float(),
            beta=(s.beta_max * u[:, 5]).float(),
            tone_curves=_tone_curves(changed[:, 3:], amounts[:, 2:]),
            colours=colour_matrix(saturation, hue).float(),
        )

    def _angles(self, seed: int, epoch: int, sample_ids: Tensor, scales: Tensor) -> Tensor:
        """The gradients' directions, [B, n, n]; 0 at nodes that a sample's noise does not have, seven eighths of all."""
        n = 2 ** (self.settings.scales - 1) + 1
        row, column = (torch.arange(n, device=scales.device) <= 2 ** scales[..., None]).unbind(1)  # [B, n]
        used = torch.nonzero((row[:, :, None] & column[:, None, :]).view(-1))[:, 0]
        drawn = uniforms_at(seed, epoch, sample_ids[used // (n * n)], used % (n * n), stream=STREAM + 100)
        angles = torch.zeros(len(sample_ids), n, n, device=scales.device)
        angles.view(-1)[used] = drawn.mul_(2 * math.pi).float()
        return angles

    def apply(self, normal: Tensor, source: Tensor, params: PerlinParams) -> Synthetic:
        """Blends the textures over the images; see `Synthesis.apply`."""
        check_images(normal, source, self._sides)
        if self.textures is not None:
            self.textures = self.textures.to(normal.device)
        texture = dense(source) if self.textures is None else self.textures[params.texture]
        abnormal = dense(normal).clone()
        # On a CPU a chunk's noise should fit into the cache; on a GPU every chunk repeats all kernel launches.
        chunk = CHUNK if normal.device.type == "cpu" else len(normal)
        with torch.autocast(normal.device.type, enabled=False):
            parts = [slice(i, i + chunk) for i in range(0, len(normal), chunk)]
            masks = [self._overlay(abnormal[part], texture[part], params[part]) for part in parts]
        return Synthetic(abnormal, torch.cat(masks))

    def _overlay(self, image: Tensor, texture: Tensor, params: PerlinParams) -> Tensor:
        """Blends the texture over the images in place; returns the mask."""
        noise = perlin_noise(params.angles, params.scales, *self._sides)
        if self.settings.max_angle > 0:
            noise = _rotate(noise, params.rotations[:, 0])
        highest, lowest = noise.amax((1, 2), keepdim=True), noise.amin((1, 2), keepdim=True)
        lowered = 0.9 * highest + 0.1 * lowest
        threshold = torch.where(highest > self.settings.threshold, self.settings.threshold, lowered)
        return _blend_region(image, texture, noise > threshold, params, as_list=image.device.type == "cpu")


def perlin_noise(angles: Tensor, scales: Tensor, height: int, width: int) -> Tensor:
    """Returns Perlin noise, within -1 ... 1, [B, height, width].

    At each of the four nodes around a pixel, the product of the node's gradient with the offset from node to pixel counts
    with a weight that fades with the distance along y and x, 6 t^5 - 15 t^4 + 10 t^3. Weights and offsets are products
    or sums of one term per axis, so the noise is two pairs of matrix products. With gradients of length 1 its range is
    1 / sqrt(2) either way; the factor sqrt(2) normalises it.

    Args:
        angles: Directions of the gradients at the nodes, [B, n, n]; of a sample only its first nodes count.
        scales: The numbers of cells along y and x are 2 to the power of these, int64 [B, 2], at most n - 1 cells.
        height: Number of rows.
        width: Number of columns.
    """
    n, dtype, device = angles.shape[1], product_dtype(angles.device), angles.device
    fade_y, offset_y = (t[scales[:, 0]] for t in _ramps(height, n, dtype, device))  # [B, height, n]
    fade_x, offset_x = (t[scales[:, 1]] for t in _ramps(width, n, dtype, device))
    along_y = torch.bmm(torch.cos(angles).to(dtype), fade_x.transpose(1, 2))  # [B, n, width]
    along_x = torch.bmm(torch.sin(angles).to(dtype), offset_x.transpose(1, 2))
    noise = torch.bmm(torch.cat([offset_y, fade_y], 2), torch.cat([along_y, along_x], 1))
    return noise.mul_(math.sqrt(2)).float()


@functools.lru_cache(maxsize=16)
def _ramps(side: int, n: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each number of cells, 1, 2, 4 ...: weight of each node at each pixel, and weight times offset, [log n, side, n]."""
    nodes = torch.arange(n, dtype=torch.float64)
    cells = 2 ** torch.arange((n - 1).bit_length(), dtype=torch.float64)[:, None, None]
    offset = torch.arange(side, dtype=torch.float64)[:, None] * cells / side - nodes  # [log n, side, n]
    t = (1 - offset.abs()).clamp(min=0)
    fade = t**3 * (t * (6 * t - 15) + 10)
    return fade.to(device, dtype), (fade * offset).to(device, dtype)


def _rotate(noise: Tensor, angle: Tensor) -> Tensor:
    """Rotates noise [B, H, W] around its centre by bilinear interpolation, with zeros from outside."""
    H, W = noise.shape[1:]
    y = torch.arange(0.5, H, device=noise.device) - H / 2
    x = torch.arange(0.5, W, device=noise.device) - W / 2
    cosine, sine = torch.cos(angle)[:, None], torch.sin(angle)[:, None]
    # In the units of grid_sample, where -1 and 1 are the edges of the image.
    grid = noise.new_empty(2, *noise.shape)
    torch.sub((cosine * x * (2 / W))[:, None, :], (sine * y * (2 / W))[:, :, None], out=grid[0])
    torch.add((sine * x * (2 / H))[:, None, :], (cosine * y * (2 / H))[:, :, None], out=grid[1])
    return F.grid_sample(noise[:, None], grid.permute(1, 2, 3, 0), align_corners=False)[:, 0]


def _tone_curves(changed: Tensor, amounts: Tensor) -> Tensor:
    """The texture's tone curves, uint8 [B, 3, 256]: gamma, brightness, solarise, posterise and invert, where drawn.

    Args:
        changed: Which of the five operations happen, bool [B, 5].
        amounts: Uniform numbers, float64 [B, 8]: three gammas, factor and summand of the brightness, level from which to
            solarise, coin for solarising (half of the time it does nothing), bits to posterise.
    """
    level = torch.arange(256, dtype=torch.float64, device=amounts.device)
    gamma = torch.exp((2 * amounts[:, 0:3] - 1) * math.log(2.0))[..., None]  # [B, 3, 1]: 0.5 ... 2
    factor, summand, limit, coin, bits = amounts[:, 3:8, None, None].unbind(1)
    gammas, brightness, solarise, posterise, invert = changed[:, :, None, None].unbind(1)
    # Most of the work is in passes over [B, 3, 256]: what does not happen is left out in the numbers of a sample.
    level = torch.where(gammas, ((level / 255) ** gamma).mul_(255), level)
    level.mul_(torch.where(brightness, 0.8 + 0.4 * factor, 1.0)).add_(torch.where(brightness, 60 * summand - 30, 0.0))
    level.clamp_(0, 255)
    limit = torch.where(solarise & (coin < 0.5), 32 + 96 * limit, torch.inf)
    level = torch.where(level >= limit, 255 - level, level)
    step = 2.0 ** integers(bits, 0, 8)
    level = torch.where(posterise, (level / step).floor_().mul_(step), level)
    level.mul_(torch.where(invert, -1.0, 1.0)).add_(torch.where(invert, 255.0, 0.0))
    return level.round_().to(torch.uint8)


def _blend_region(image: Tensor, texture: Tensor, region: Tensor, params: PerlinParams, *, as_list: bool) -> Tensor:
    """Blends the changed texture over the image's region, bool [B, H, W], in place; returns the mask of the change.

    With `as_list` it works on the region's pixels, which are few; making their list would wait for a GPU.
    """
    B, _, H, W = image.shape
    if as_list:
        pixels = torch.nonzero(region.view(-1))[:, 0]  # [n]
        b, y, x = pixels // (H * W), pixels // W % H, pixels % W
    else:  # all pixels, [B, H, W], by broadcasting
        b, y, x = (torch.arange(side, device=region.device) for side in (B, H, W))
        b, y = b[:, None, None], y[:, None]
    after = _changed_texture(texture, params, b, y, x)  # [3, n] or [3, B, H, W]
    # `image` may be a slice of a batch, with its own strides and start: offsets are computed from the strides.
    offsets = b * image.stride(0) + (y * image.stride(2) + x * image.stride(3))
    before = _read(image, offsets).float()
    after = torch.lerp(after, before, params.beta[b]).add_(0.5).floor_().clamp_(0, 255)
    if not as_list:
        after = torch.where(region, after, before)
    write_pixels(image, offsets.view(1, 1, 1, -1), after.to(torch.uint8).view(1, 1, 3, -1))
    changed = after.sub_(before).abs_().sum(0) > 3
    if as_list:
        changed = torch.zeros_like(region).view(-1).index_copy_(0, pixels, changed)
    return changed.view(B, 1, H, W)


def _changed_texture(texture: Tensor, params: PerlinParams, b: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The texture after its operations at pixels y, x of samples b, which broadcast to the shape S: float32 [3, *S].

    It is rotated around its centre, mirrored at its edges, and gets new tones and colours.
    """
    H, W = texture.shape[2:]
    cosine, sine = torch.cos(params.rotations[:, 1])[b], torch.sin(params.rotations[:, 1])[b]
    v, u = y - (H - 1) / 2, x - (W - 1) / 2
    v, u = _mirrored(cosine * v - sine * u, H), _mirrored(sine * v + cosine * u, W)
    levels = _read(texture, (v * texture.stride(2)).add_(u * texture.stride(3)) + b * texture.stride(0))
    curves, first = params.tone_curves.view(-1), 768 * b.int()  # where a sample's three curves of 256 levels start
    levels = torch.stack([_look_up(curves, first + 256 * c + levels[c]) for c in range(3)]).float()
    colours = params.colours.permute(1, 2, 0)[:, :, b]  # [3, 3, n] or [3, 3, B, 1, 1]
    mixed = (colours[:, 0] * levels[0]).add_(colours[:, 1] * levels[1]).add_(colours[:, 2] * levels[2])
    return mixed.clamp_(0, 255)


def _read(images: Tensor, offsets: Tensor) -> Tensor:
    """All channels of the pixels at memory offsets of the shape S, [3, *S]."""
    return read_pixels(images, offsets.view(1, 1, 1, -1)).view(3, *offsets.shape)


def _look_up(table: Tensor, index: Tensor) -> Tensor:
    """`table[index]`, also for 32-bit indices, which need half the memory."""
    return table.index_select(0, index.view(-1)).view(index.shape)


def _mirrored(offset: Tensor, side: int) -> Tensor:
    """Distances from the centre as indices 0 ... side - 1, mirrored at the ends, int32."""
    i = torch.round(offset + (side - 1) / 2).int().remainder_(2 * side)
    return torch.minimum(i, 2 * side - 1 - i)
