"""Grid mask: some blocks of a regular grid are blacked out.

Origin: the random grid masks of RIAD, Zavrtanik, Kristan and Skočaj 2021, "Reconstruction by inpainting for visual
anomaly detection" (Pattern Recognition 112). Facts of the TAB authors' setting: public repository Howeng98/TAB @
aa8c4dc: the grid's blocks of 16 px are dealt at random into 52 groups, and one group, 4 blocks at 224 px, becomes black.

It differs from it in: always 4 blocks are dropped (the authors' last 3 groups of the 52 are empty), chosen directly; and
other blocks are dropped where the first ones were black already (`retry.py`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tabzoo.errors import InputError
from tabzoo.synthesis.draws import uniforms
from tabzoo.synthesis.interface import Params, Synthetic, check_images, check_settings
from tabzoo.synthesis.patches import dense, places, read, spots, write
from tabzoo.synthesis.retry import first_that_shows

__all__ = ["GridMask", "GridMaskParams", "GridMaskSettings"]

STREAM = 4


@dataclass(frozen=True, kw_only=True)
class GridMaskSettings:
    """The parameters of the grid mask; the defaults are the TAB authors'."""

    block: int = 16
    """Side of a block in pixels; the grid starts at the top left, and pixels beyond the last whole block stay."""
    num_blocks: int = 4
    """Blocks that are dropped."""
    fill: int = 0
    """Level, 0 ... 255, that they get."""
    retries: int = 4
    """Further sets of blocks, tried as long as nothing shows."""

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
    """What is drawn for each sample: the blocks."""

    corners: Tensor
    """int64 [B, A, K, 2]: top and left of each block, for each attempt."""


class GridMask:
    """Draws and applies grid masks.

    Args:
        class_ids: The class of each image, integers [N]; only their number matters.
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        settings: The parameters; the TAB authors' by default.
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
        """Draws the parameters of samples from (seed, epoch, sample id) alone; see `Synthesis.draw`."""
        rows, columns = self._grid
        u = uniforms(seed, epoch, sample_ids, rows * columns, stream=STREAM)
        # Distinct within an attempt, and between attempts as far as there are blocks.
        order = torch.argsort(u, dim=1)
        first = torch.arange(1 + self.settings.retries, device=u.device)[:, None] * self.settings.num_blocks
        blocks = order[
            :, (first + torch.arange(self.settings.num_blocks, device=u.device)) % order.shape[1]
        ]  # [B, A, K]
        corners = torch.stack([blocks // columns, blocks % columns], -1) * self.settings.block
        return GridMaskParams(sample_ids % self._num_images, corners)

    def apply(self, normal: Tensor, source: Tensor, params: GridMaskParams) -> Synthetic:
        """Makes the anomalies; nothing is drawn, and `source` is not read; see `Synthesis.apply`."""
        check_images(normal, source, self._sides)
        return first_that_shows(self._make, dense(normal), source, params, attempts=1 + self.settings.retries)

    def _make(self, normal: Tensor, source: Tensor, params: GridMaskParams, attempt: int) -> Synthetic:
        s, abnormal = self.settings, normal.clone()
        mask = torch.zeros_like(normal[:, :1], dtype=torch.bool, memory_format=torch.contiguous_format)
        for corner in params.corners[:, attempt].unbind(1):
            spot = spots(abnormal, torch.cat([corner, torch.full_like(corner, s.block)], 1), s.block)
            at = places(abnormal, spot)
            before = read(abnormal, at)  # [B, block, 3, block]
            change = (before.short() - s.fill).abs_()
            write(mask, spot, change.sum(2, keepdim=True) > 3)
            write(abnormal, at, torch.full_like(before, s.fill))
        return Synthetic(abnormal, mask)
