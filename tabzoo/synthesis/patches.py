"""Patches: in each image of a batch one rectangle of its own size and place, all read, resized and written at once.

Boxes are int64 [B, 4]: top, left, height, width. A patch is held in the top left corner of a square canvas of N x N
pixels, laid out [B, N, C, N] (row, channel, column). Values of the canvas outside the patch have no meaning.

Images may be planar (NCHW) or interleaved (channels_last); neither is converted to the other. Two kinds of indices say
where pixels are: *pixel indices* count pixels through the batch row by row, without channels; *memory offsets* count
elements of the images' memory up to a pixel's first channel, and so depend on the memory format.

`crop_and_resize` repeats the 8-bit arithmetic of `cv2.resize` of OpenCV 5.0 (INTER_LINEAR), found by comparing results:
weights are rounded to 11 bits. Columns are interpolated first, and 4 bits are dropped. Then rows: each product drops 16
bits, and the sum is rounded to a level. In the first and last column only one pixel is read; in the first and last row
the same pixel is read twice.
"""

import torch
from torch import Tensor

__all__ = ["crop_and_resize", "dense", "memory_offsets", "pixel_indices", "read_pixels", "write_pixels"]

_ONE = 1 << 11  # a weight of 1 in OpenCV's integers


def dense(images: Tensor) -> Tensor:
    """Returns the images without gaps between rows, [B, C, H, W], in their own memory format."""
    if images.is_contiguous() or images.is_contiguous(memory_format=torch.channels_last):
        return images
    interleaved = images.stride(1) == 1
    return images.contiguous(memory_format=torch.channels_last if interleaved else torch.contiguous_format)


def pixel_indices(images: Tensor, box: Tensor, size: int) -> Tensor:
    """Returns the pixels of boxes, counted through the batch row by row, int64 [B, size, 1, size].

    Beyond a box its last row and column are repeated, so that every index is valid.
    """
    i = torch.arange(size, device=box.device)
    return _indices(images, *(torch.minimum(i, box[:, 2:, None] - 1) + box[:, :2, None]).unbind(1))


def _indices(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The pixels where rows [B, N] and columns [B, M] meet, counted through the batch row by row, int64 [B, N, 1, M]."""
    B, _, H, W = images.shape
    first = torch.arange(0, B * H * W, H * W, device=rows.device)[:, None]
    return (rows * W).add_(first)[:, :, None, None] + columns[:, None, None, :]


def memory_offsets(images: Tensor, pixels: Tensor) -> Tensor:
    """Returns where the first channel of each pixel is in the memory of dense images, in the shape of `pixels`."""
    B, C, H, W = images.shape
    if images.stride(3) == C:
        return pixels * C
    b = torch.arange(B, device=pixels.device).view(-1, 1, 1, 1)
    return pixels + b * ((C - 1) * H * W)


def read_pixels(images: Tensor, offsets: Tensor) -> Tensor:
    """Returns all channels of the pixels at memory offsets, [B, N, 1, M] -> [B, N, C, M]."""
    index = offsets.view(-1)
    channels = [flat.index_select(0, index).view(offsets.shape) for flat in _channels(images)]
    return torch.cat(channels, 2) if len(channels) > 1 else channels[0]


def write_pixels(images: Tensor, offsets: Tensor, values: Tensor) -> None:
    """Writes pixels [B, N, C, M] at memory offsets [B, N, 1, M], in place.

    Where an offset is repeated, its values must be equal: which of them is written last is undefined.
    """
    index = offsets.view(-1)
    for c, flat in enumerate(_channels(images)):
        flat.scatter_(0, index, values[:, :, c].reshape(-1))


def crop_and_resize(images: Tensor, box: Tensor, shape: Tensor, *, margin: int, size: int) -> Tensor:
    """Cuts boxes out of dense images and resizes them bilinearly, with pixel centres aligned, as OpenCV does.

    Args:
        images: uint8 [B, C, H, W].
        box: What to cut, int64 [B, 4].
        shape: New height and width, int64 [B, 2], at most `size` + 2 `margin`.
        margin: How many outermost rows and columns of the resized patch to leave out.
        size: Side N of the canvas.

    Returns:
        int16 [B, N, C, N], levels 0 ... 255.
    """
    rows, columns, weights = _taps(box, shape, margin, size)
    offsets = memory_offsets(images, _indices(images, rows.flatten(1), columns.flatten(1)))  # [B, 2 N, 1, 2 N]
    near, far = read_pixels(images, offsets).unflatten(3, (2, size)).int().unbind(3)  # [B, 2 N, C, N]: columns
    across = weights[:, 1, :, None, None].unbind(1)  # [B, 1, 1, N]
    lines = near.mul_(across[0]).add_(far.mul_(across[1])).bitwise_right_shift_(4).unflatten(1, (2, size))
    near, far = lines.mul_(weights[:, 0, ..., None, None]).bitwise_right_shift_(16).unbind(1)  # [B, N, C, N]: rows
    patch: Tensor = near.add_(far).add_(2).bitwise_right_shift_(2).short()
    return patch


def _taps(box: Tensor, shape: Tensor, margin: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """What bilinear resizing reads: rows and columns of the near and the far neighbour, and their weights.

    Returns:
        Rows and columns in the image, int64 [B, 2, N] each; weights along y and x in units of 1 / `_ONE`, int32 [B, 2, 2, N].
    """
    length = box[:, 2:, None]  # [B, 2, 1]
    # In OpenCV's order of operations: another one rounds differently.
    scale = 1.0 / (shape[..., None].double() / length)
    position = (torch.arange(margin + 0.5, margin + size, device=box.device) * scale).sub_(0.5).float()  # [B, 2, N]
    near = torch.floor(position)
    far_weight = position.sub_(near)
    weights = torch.stack([1 - far_weight, far_weight], 2).mul_(_ONE).round_().int()
    taps = torch.stack([near, near + 1], 2).clamp_(min=0).minimum(length[..., None] - 1).long()
    rows, columns = taps.add_(box[:, :2, None, None]).unbind(1)
    return rows, columns, weights


def _channels(images: Tensor) -> list[Tensor]:
    """One flat view per channel, from its first pixel on, so that one memory offset serves all channels."""
    starts = range(0, images.shape[1] * images.stride(1), images.stride(1))
    return [images.as_strided((images.numel() - c,), (1,), images.storage_offset() + c) for c in starts]
