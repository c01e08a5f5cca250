"""Patches: one rectangle of its own size and place in each image of a batch, read, resized and written all at once.

A patch lies in the top left corner of a square canvas of `N` x `N` pixels, laid out [B, N, C, N] (row, channel,
column); what the canvas holds outside the patch means nothing. Boxes are int64 [B, 4]: top, left, height, width.

Images may be planar (NCHW) or interleaved (channels_last); neither is ever converted to the other.

The 8-bit arithmetic of resizing, found by comparing with `cv2.resize` of OpenCV 5.0 (INTER_LINEAR): weights are rounded
to 11 bits; columns are interpolated first, and 4 bits dropped; then rows, each product dropping 16 bits, and the sum is
rounded to a level. At the first and last column one pixel is read alone, at the first and last row twice the same.
"""

import torch
from torch import Tensor

from tabzoo.synthesis.poisson import product_dtype

__all__ = ["dense", "places", "read", "resized", "spots", "write"]

_ONE = 1 << 11


def dense(images: Tensor) -> Tensor:
    """Returns the images without gaps between rows, [B, C, H, W] in the memory format they have."""
    if images.is_contiguous() or images.is_contiguous(memory_format=torch.channels_last):
        return images
    interleaved = images.stride(1) == 1
    return images.contiguous(memory_format=torch.channels_last if interleaved else torch.contiguous_format)


def spots(images: Tensor, box: Tensor, size: int) -> Tensor:
    """Returns the pixels of boxes, counted through a batch of images row by row, int64 [B, size, 1, size].

    Beyond a box its last row and column are repeated, so that every index is a valid one.
    """
    B, _, H, W = images.shape
    i = torch.arange(size, device=box.device)
    y, x = (torch.minimum(i, box[:, 2:, None] - 1) + box[:, :2, None]).unbind(1)  # [B, size]
    first = torch.arange(0, B * H * W, H * W, device=box.device)[:, None]
    return (y * W).add_(first)[:, :, None, None] + x[:, None, None, :]


def places(images: Tensor, spots: Tensor) -> Tensor:
    """Returns where the first channel of spots lies in the memory of dense images, of the shape of the spots."""
    B, C, H, W = images.shape
    if images.stride(3) == C:
        return spots * C
    b = torch.arange(B, device=spots.device).view(-1, 1, 1, 1)
    return spots + b * ((C - 1) * H * W)


def read(images: Tensor, at: Tensor) -> Tensor:
    """Returns the pixels at places, [B, N, 1, M] -> [B, N, C, M]."""
    index = at.view(-1)
    channels = [flat.index_select(0, index).view(at.shape) for flat in _channels(images)]
    return torch.cat(channels, 2) if len(channels) > 1 else channels[0]


def write(images: Tensor, at: Tensor, values: Tensor) -> None:
    """Writes pixels [B, N, C, M] at places [B, N, 1, M]; where a place is repeated, the values must be too."""
    index = at.view(-1)
    for c, flat in enumerate(_channels(images)):
        flat.scatter_(0, index, values[:, :, c].reshape(-1))


def resized(images: Tensor, box: Tensor, shape: Tensor, *, margin: int, size: int, largest: int, exact: bool) -> Tensor:
    """Cuts boxes out of dense images and resizes them bilinearly, pixel centres aligned.

    Args:
        images: uint8 [B, C, H, W].
        box: What to cut, int64 [B, 4].
        shape: Height and width to give it, int64 [B, 2], at most `size` + 2 `margin`.
        margin: The outermost rows and columns of the resized patch to leave out.
        size: Side N of the canvas.
        largest: No box is wider than this; at most W.
        exact: OpenCV's 8-bit arithmetic, rather than floating point that is rounded once.

    Returns:
        int16 [B, N, C, N], levels 0 ... 255.
    """
    rows, columns, shares = _taps(box, shape, margin, size, _ONE if exact else None)
    # Interpolating columns is a product with a matrix of two numbers a column; whole numbers this small stay exact.
    start = box[:, 1:2].clamp(max=images.shape[3] - largest)
    dtype = product_dtype(box.device)
    across = torch.zeros(len(box), largest, size, dtype=dtype, device=box.device)
    across.scatter_add_(1, columns - start[..., None], shares[:, 1].to(dtype))
    stretches = _stretches(images, rows, start, largest).to(dtype)  # [B, 2, N, C, largest]
    lines = torch.bmm(stretches.flatten(1, 3), across).view(*stretches.shape[:4], size)
    down = shares[:, 0, ..., None, None]  # [B, 2, N, 1, 1]
    if exact:
        lines = lines.int().bitwise_right_shift_(4).mul_(down.int()).bitwise_right_shift_(16)
        return lines[:, 0].add_(lines[:, 1]).add_(2).bitwise_right_shift_(2).short()
    lines.mul_(down)
    return lines[:, 0].add_(lines[:, 1]).add_(0.5).short()


def _taps(box: Tensor, shape: Tensor, margin: int, size: int, unit: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Where resizing reads: rows and columns [B, 2, N] of the near and the far neighbour, their weights [B, 2, 2, N].

    The weights, along y and x, are rounded to parts of a `unit` and counted in them, if it is given.
    """
    length = box[:, 2:, None]  # [B, 2, 1]
    scale = 1.0 / (shape[..., None].double() / length)
    at = (torch.arange(margin + 0.5, margin + size, device=box.device) * scale).sub_(0.5).float()  # [B, 2, N]
    near = torch.floor(at)
    share = at.sub_(near)
    shares = torch.stack([1 - share, share], 2)
    if unit is not None:
        shares.mul_(unit).round_()
    taps = torch.stack([near, near + 1], 2).clamp_(min=0).minimum(length[..., None] - 1).long()
    rows, columns = taps.add_(box[:, :2, None, None]).unbind(1)
    return rows, columns, shares


def _stretches(images: Tensor, y: Tensor, x: Tensor, length: int) -> Tensor:
    """Copies stretches of lines, rows [B, K, N] from columns [B, 1] on: [B, K, N, C, length]."""
    C, pitch = images.shape[1], images.stride(3)
    starts = _lines(images, y.flatten(1)).view(*y.shape, C) + (x * pitch)[..., None, None]
    if pitch == 1:
        return _flat(images).unfold(0, length, 1).index_select(0, starts.view(-1)).view(*starts.shape, length)
    interleaved = _flat(images).unfold(0, length * C, 1).index_select(0, starts[..., 0].reshape(-1))
    return interleaved.view(*y.shape, length, C).transpose(3, 4).contiguous()


def _lines(images: Tensor, y: Tensor) -> Tensor:
    """Where rows start in memory, [B, N] -> [B, N, C]."""
    b = torch.arange(0, images.numel(), images[0].numel(), device=y.device)[:, None]
    c = torch.arange(images.shape[1], device=y.device).mul_(images.stride(1))
    return (y * images.stride(2)).add_(b)[..., None] + c


def _channels(images: Tensor) -> list[Tensor]:
    """The memory of dense images from each channel's first pixel on, so that one index serves all channels."""
    starts = range(0, images.shape[1] * images.stride(1), images.stride(1))
    return [images.as_strided((images.numel() - c,), (1,), images.storage_offset() + c) for c in starts]


def _flat(images: Tensor) -> Tensor:
    return images.as_strided((images.numel(),), (1,))
