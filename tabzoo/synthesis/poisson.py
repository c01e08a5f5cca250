"""Poisson image blending of many small rectangles at once, as `cv2.seamlessClone` does one.

Paper: Pérez, Gangnet and Blake 2003, "Poisson Image Editing" (SIGGRAPH). What OpenCV 5.0's `seamlessClone` does beyond
it was found by comparing results: the equation is solved in the bounding box of the mask, whose outermost pixels keep
the destination's values; the guidance field is the source's where the mask, eroded by three 3 x 3 squares, is set, and
the destination's elsewhere; mixed cloning takes, for each channel of a pixel, the source's gradient where
|gx - gy| is larger than the destination's; the result is clipped to 0 ... 255 and truncated.

It differs from it in: the correction u = f - D is solved for rather than f (the boundary becomes zero and numbers stay
small), by a sine transform written as matrix products, for a whole batch, in plain torch on any device. So rounding
moves one pixel in 100,000 by a level; OpenCV's own rounding moves one in 2,000 to 500, growing with the patch, and drops
a level wherever the correction is exactly zero, as in a mixed clone that no gradient of the source wins.

Rectangles of different sizes share one canvas of `N` x `N` pixels. A rectangle lies in its top left corner; whatever
the canvas holds outside it has no influence.

Shapes: canvases are [B, N, C, N] (row, channel, column), so that both transforms are plain batched products.
"""

import functools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["SineTables", "blend", "clone_mask", "eroded", "product_dtype", "sine_tables", "solve"]

ERODED = 3


class SineTables(NamedTuple):
    """The sine transforms of rectangles of all sizes up to N, zero outside each one's unknown pixels."""

    basis: Tensor
    """[N + 1, N, N]: orthonormal, symmetric DST-I matrices."""
    eigenvalues: Tensor
    """[N + 1, N]: of the second difference with zero ends; -1 outside."""
    core: Tensor
    """int16 [N + 1, N]: 1 on what is left of a side after the mask's erosion."""


@functools.lru_cache(maxsize=32)
def sine_tables(size: int, dtype: torch.dtype, device: torch.device) -> SineTables:
    """Returns the tables for rectangles of up to `size` pixels a side, fixed ends included; computed once and kept."""
    with torch.inference_mode(False):  # they outlive the mode that they are first asked for in
        n = (torch.arange(size + 1, dtype=torch.float64) - 2).clamp(min=0)[:, None]  # unknown pixels
        i = torch.arange(size, dtype=torch.float64)
        inside = (i >= 1) & (i <= n)  # [N + 1, N]
        # Reducing the product modulo the period first keeps the sine's argument small and the table exact.
        turns = torch.remainder(i[:, None] * i, 2 * (n[..., None] + 1)) / (n[..., None] + 1)
        basis = torch.sqrt(2 / (n[..., None] + 1)) * torch.sin(math.pi * turns)
        basis = basis * (inside[:, :, None] & inside[:, None, :])
        eigenvalues = torch.where(inside, -4 * torch.sin(0.5 * math.pi * i / (n + 1)) ** 2, -1.0)
        core = (i >= ERODED) & (i < n + 2 - ERODED)
        return SineTables(basis.to(device, dtype), eigenvalues.to(device, dtype), core.to(device, torch.int16))


def product_dtype(device: torch.device) -> torch.dtype:
    """Which dtype matrix products on a device keep float32's precision in, whatever the process has switched on."""
    return torch.float64 if device.type == "cuda" else torch.float32


def solve(rhs: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Solves the discrete Poisson equation, each sample in a rectangle of its own size whose outermost pixels are 0.

    Args:
        rhs: The right side, floating point [B, N, C, N]; the Laplacian is the five-point one.
        rows: Rows of each rectangle with the zero ones, int64 [B], 3 ... N.
        columns: Columns, likewise.

    Returns:
        The solution, [B, N, C, N], zero outside the rectangles.
    """
    B, N, C, _ = rhs.shape
    basis, eigenvalues, _ = sine_tables(N, rhs.dtype, rhs.device)
    left, right = basis[rows], basis[columns]  # [B, N, N]
    spectrum = torch.bmm(left, rhs.reshape(B, N, C * N))
    spectrum = torch.bmm(spectrum.view(B, N * C, N), right).view(B, N, C, N)
    spectrum /= (eigenvalues[rows][:, :, None] + eigenvalues[columns][:, None, :])[:, :, None]
    spectrum = torch.bmm(left, spectrum.view(B, N, C * N))
    return torch.bmm(spectrum.view(B, N * C, N), right).view(B, N, C, N)


def clone_mask(rows: Tensor, columns: Tensor, size: int) -> Tensor:
    """Returns where a full rectangle takes the source's gradient: 1 on all but a frame of 3 px, int16 [B, N, N]."""
    core = sine_tables(size, torch.float32, rows.device).core
    return core[rows][:, :, None] * core[columns][:, None, :]


def eroded(mask: Tensor) -> Tensor:
    """Returns where a mask of any form takes the source's gradient, int16 [B, N, N].

    Args:
        mask: bool [B, N, N], its bounding box in the canvas's top left corner.
    """
    outside = F.pad((~mask).float()[:, None], (ERODED,) * 4, value=1.0)
    return 1 - F.max_pool2d(outside, 2 * ERODED + 1, stride=1)[:, 0].short()


def blend(source: Tensor, destination: Tensor, guided: Tensor, rows: Tensor, columns: Tensor, mixed: Tensor) -> Tensor:
    """Blends sources into destinations of the same size.

    Args:
        source: Levels 0 ... 255, int16 [B, N, C, N].
        destination: The same of the destination.
        guided: 1 where the source's gradient counts, else 0, int16 [B, N, N]; 0 on the rectangle's outermost pixels.
        rows: Rows of each rectangle with its fixed outermost pixels, int64 [B], 3 ... N.
        columns: Columns, likewise.
        mixed: Whether the stronger gradient wins (mixed cloning) rather than the source's, bool [B].

    Returns:
        Levels 0 ... 255, uint8 [B, N, C, N]; the destination where nothing is solved.
    """
    B, N, C, _ = destination.shape
    s, d = source.reshape(-1), destination.reshape(-1)
    # All differences are taken along memory, over the ends of lines and canvases too: `guided` is zero there.
    line, end = C * N, s.numel() - C * N
    # Of |gx - gy| one pixel cancels out. The source's gradient is taken (1) or not (0).
    taken = (s[1 : end + 1] - s[line:]).abs_().sub_((d[1 : end + 1] - d[line:]).abs_())
    taken = F.pad(taken, (0, line)).view(B, N, C, N)
    taken.add_((~mixed).short().mul_(512)[:, None, None, None]).clamp_(0, 1).mul_(guided[:, :, None])
    taken = taken.view(-1)[:end]
    e = s - d
    gx = (e[1 : end + 1] - e[:end]).mul_(taken)
    gy = (e[line:] - e[:end]).mul_(taken)
    divergence = (gx[line:] - gx[line - 1 : -1]).add_(gy[line:]).sub_(gy[:-line])
    rhs = F.pad(divergence.to(product_dtype(s.device)), (line, line)).view(B, N, C, N)
    return solve(rhs, rows, columns).add_(destination.to(rhs.dtype)).clamp_(0, 255).to(torch.uint8)
