"""Poisson image blending of many small rectangles at once, with the results of `cv2.seamlessClone`.

Paper: Pérez, Gangnet and Blake 2003, "Poisson Image Editing" (SIGGRAPH): the Poisson equation with fixed values at the
boundary (equation 4), where the guidance field is the source's gradient (normal cloning, equation 9) or the stronger
gradient of source and destination (mixed cloning, equation 12). What `seamlessClone` of OpenCV 5.0 does in detail was
found by comparing results: it solves the equation in the bounding box of the mask, whose outermost pixels keep the
destination's values; the guidance field is the source's gradient where the mask, eroded by three 3 x 3 squares, is set,
and the destination's elsewhere; mixed cloning decides for each channel of each pixel, and takes the source's gradient
where its |gx - gy| (not its length) is larger than the destination's; the result is clipped to 0 ... 255 and truncated.

It differs from OpenCV in: the unknown is the correction u = f - D of the destination D, not the result f, so that the
boundary values are zero and the numbers stay small; and the equation is solved by a sine transform, written as matrix
products, for the full batch, in plain torch on any device. As a result, rounding changes one pixel in 100,000 by a
level. OpenCV's own rounding changes one in 2,000 to 500, more for larger patches, and lowers a pixel by a level wherever
the correction is exactly zero, as in a mixed clone where no gradient of the source is stronger.

Rectangles of different sizes share a canvas of N x N pixels. Each one is in the top left corner of its canvas; values
outside it have no influence. Canvases are laid out [B, N, C, N] (row, channel, column), so that the transforms along
both axes are plain batched matrix products.
"""

import functools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["SineTables", "blend", "clone_mask", "product_dtype", "sine_tables", "solve"]

_EROSION = 3  # px: three erosions by a 3 x 3 square


class SineTables(NamedTuple):
    """The sine transforms of rectangles of all sizes up to N; the first index is the size."""

    basis: Tensor
    """[N + 1, N, N]: orthonormal, symmetric DST-I matrices; zero outside the unknown pixels."""
    eigenvalues: Tensor
    """[N + 1, N]: eigenvalues of the second difference with zero ends; -1 outside, so that dividing by them is safe."""
    core: Tensor
    """int16 [N + 1, N]: 1 on the part of a side that the mask's erosion leaves."""


@functools.lru_cache(maxsize=32)
def sine_tables(size: int, dtype: torch.dtype, device: torch.device) -> SineTables:
    """Returns the tables for rectangles of up to `size` pixels a side, fixed ends included; computed once and kept."""
    # Callers may be in inference mode; the tables outlive it, and must be ordinary tensors.
    with torch.inference_mode(False):
        n = (torch.arange(size + 1, dtype=torch.float64) - 2).clamp(min=0)[:, None]  # unknown pixels
        i = torch.arange(size, dtype=torch.float64)
        inside = (i >= 1) & (i <= n)  # [N + 1, N]
        # sin(pi i j / (n + 1)). Reducing i j modulo the period first keeps the argument small and the table exact.
        cycles = torch.remainder(i[:, None] * i, 2 * (n[..., None] + 1)) / (n[..., None] + 1)
        basis = torch.sqrt(2 / (n[..., None] + 1)) * torch.sin(math.pi * cycles)
        basis = basis * (inside[:, :, None] & inside[:, None, :])
        eigenvalues = torch.where(inside, -4 * torch.sin(0.5 * math.pi * i / (n + 1)) ** 2, -1.0)
        core = (i >= _EROSION) & (i < n + 2 - _EROSION)
        return SineTables(basis.to(device, dtype), eigenvalues.to(device, dtype), core.to(device, torch.int16))


def product_dtype(device: torch.device) -> torch.dtype:
    """Returns the dtype in which matrix products keep float32's precision, even if the process allows TF32."""
    return torch.float64 if device.type == "cuda" else torch.float32


def solve(rhs: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Solves the discrete Poisson equation, each sample in a rectangle of its own size whose outermost pixels are 0.

    The sine transform diagonalises the five-point Laplacian: transform, divide by the eigenvalues, transform back. The
    matrices are symmetric and orthonormal, so each one is its own inverse.

    Args:
        rhs: The right-hand side, floating point [B, N, C, N].
        rows: Rows of each rectangle, its outermost ones included, int64 [B], 3 ... N.
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
    # Differences are taken in flat memory: a step to the right is 1 element, a step down is a line. They also cross the
    # ends of lines and canvases, where `guided` is zero.
    line, end = C * N, s.numel() - C * N
    # |gx - gy| compares a pixel's right and lower neighbour: the pixel itself cancels out.
    # `taken` is 1 where the source's gradient is taken, else 0; without mixed cloning, 512 makes the source always win.
    taken = (s[1 : end + 1] - s[line:]).abs_().sub_((d[1 : end + 1] - d[line:]).abs_())
    taken = F.pad(taken, (0, line)).view(B, N, C, N)
    taken.add_((~mixed).short().mul_(512)[:, None, None, None]).clamp_(0, 1).mul_(guided[:, :, None])
    taken = taken.view(-1)[:end]
    # The correction's guidance field is the gradient of source - destination where taken, and zero elsewhere. The
    # right-hand side is its divergence: forward differences for the gradient, backward differences for the divergence.
    e = s - d
    gx = (e[1 : end + 1] - e[:end]).mul_(taken)
    gy = (e[line:] - e[:end]).mul_(taken)
    divergence = (gx[line:] - gx[line - 1 : -1]).add_(gy[line:]).sub_(gy[:-line])
    rhs = F.pad(divergence.to(product_dtype(s.device)), (line, line)).view(B, N, C, N)
    return solve(rhs, rows, columns).add_(destination.to(rhs.dtype)).clamp_(0, 255).to(torch.uint8)
