"""Grid mask: some blocks of a regular grid are blacked out.

Origin: the random grid masks of RIAD, Zavrtanik, Kristan and Skočaj 2021, "Reconstruction by inpainting for visual
anomaly detection" (Pattern Recognition 112). The TAB authors' setting is in their public repository, Howeng98/TAB @
aa8c4dc: a grid of blocks of 16 px is divided at random into 52 groups, and one group, 4 blocks at 224 px, becomes black.

It differs from the public code in: always 4 blocks are masked, drawn directly (there, the last 3 of the 52 groups are
empty); and where the blocks were black already, others are masked (`first_visible`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tabzoo.errors import InputError
from tabzoo.synthesis.draws import uniforms
from tabzoo.synthesis.interface import Params, Synthetic, check_images, check_settings, first_visible
from tabzoo.synthesis.patches import dense, memory_offsets, pixel_indices, read_pixels, write_pixels

__all__ = ["GridMask", "GridMaskParams", "GridMaskSettings"]

STREAM = 4


@dataclass(frozen=True, kw_only=True)
class GridMaskSettings:
    """The parameters of the grid mask; the defaults are the TAB authors'."""

    block: int = 16
    """Side of a block in pixels. The grid starts at the top left; pixels beyond the last complete block never change."""
    num_blocks: int = 4
    """How many blocks are masked."""
    fill: int = 0
    """Level of masked pixels, 0 ... 255."""
    retries: int = 4
    """How many more sets of blocks to try while no change is visible."""

    def __post_init__(self) -> None:
        checks = (
            ("block", self.block >= 1, "at least 1"),
            ("num_blocks", self.num_blocks >= 1, "at least 1"),
            ("fill", 0 <= self.fill <= 255, "a level, 0 to 255"),
            ("retries", self.retries >= 0, "at least 0"),
        )
        check_settings("mask", self, checks)


@dataclass(frozen=True)
class GridMaskParams(Params):
    """What is drawn for each sample: the blocks, for each of A attempts."""

    corners: Tensor
    """int64 [B, A, K, 2]: top and left of each of K blocks."""


class GridMask:
    """Draws and applies grid masks.

    Args:
        class_ids: Class of each image, integers [N]; only their number matters.
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        settings: The parameters; the TAB authors' by default.

    Raises:
        InputError: The images hold fewer blocks than are masked.
    """

    def __init__(self, class_ids: Tensor, height: int, width: int, settings: GridMaskSettings | None = None) -> None:
        self.settings = settings or GridMaskSettings()
        self._num_images, self._sides = len(class_ids), (height, width)
        self._grid = (height // self.settings.block, width // self.settings.block)
        if self._grid[0] * self._grid[1] < self.settings.num_blocks:
            raise InputError(
                f"mask: num_blocks is {self.settings.num_blocks}, but images of {height} x {width} hold only "
                f"{self._grid[0]} x {self._grid[1]} blocks of {self.settings.block} px"
            )

    def draw(self, seed: int, epoch: int, sample_ids: Tensor) -> GridMaskParams:
        """Draws the blocks of samples; see `Synthesis.draw`."""
        (rows, columns), A, K = self._grid, 1 + self.settings.retries, self.settings.num_blocks
        u = uniforms(seed, epoch, sample_ids, rows * columns, stream=STREAM)
        # Attempts take successive blocks of one random order: distinct within an attempt, and between attempts too
        # until the blocks run out.
        order = torch.topk(u, min(A * K, rows * columns), largest=False).indices  # ascending
        ranks = torch.arange(A * K, device=u.device) % order.shape[1]
        blocks = order[:, ranks].unflatten(1, (A, K))
        corners = torch.stack([blocks // columns, blocks % columns], -1) * self.settings.block
        return GridMaskParams(sample_ids % self._num_images, corners)

    def apply(self, normal: Tensor, source: Tensor, params: GridMaskParams) -> Synthetic:
        """Masks the blocks; `source` is not read; see `Synthesis.apply`."""
        check_images(normal, source, self._sides)
        return first_visible(self._make, dense(normal), source, params, attempts=1 + self.settings.retries)

    def _make(self, normal: Tensor, source: Tensor, params: GridMaskParams, attempt: int) -> Synthetic:
        s, abnormal = self.settings, normal.clone()
        mask = torch.zeros_like(normal[:, :1], dtype=torch.bool, memory_format=torch.contiguous_format)
        for corner in params.corners[:, attempt].unbind(1):
            pixels = pixel_indices(abnormal, torch.cat([corner, torch.full_like(corner, s.block)], 1), s.block)
            offsets = memory_offsets(abnormal, pixels)
            before = read_pixels(abnormal, offsets)  # [B, block, 3, block]
            change = (before.short() - s.fill).abs_()
            write_pixels(mask, pixels, change.sum(2, keepdim=True) > 3)  # of one channel, pixel indices are offsets
            write_pixels(abnormal, offsets, torch.full_like(before, s.fill))
        return Synthetic(abnormal, mask)
