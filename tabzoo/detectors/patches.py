"""Patches pooled to a given number of values, as the public codes of PatchCore and SimpleNet do."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["WIDEST", "embed"]

_PATCH = 3
WIDEST = 16_384
"""Largest width: above the 16,128 numbers of a patch of wide ResNet-50-2, pooling only repeats them until memory is full."""
_AT_A_TIME = 2**25
"""Numbers unfolded at a time: 128 MiB, where the neighbourhoods of a batch of a wide ResNet need gigabytes."""


def embed(layers: Sequence[Tensor], width: int) -> Tensor:
    """Embeddings o(h, w) of patches from maps [B, C, h, w], fine to coarse: [B, h, w, width] on the finest one's grid.

    The C * 9 numbers of a neighbourhood of 3 x 3 positions are averaged to `width` numbers, layer by layer; then those of all
    layers together are averaged to `width` numbers.
    """
    largest = max(layer[0].numel() for layer in layers) * _PATCH**2
    parts = zip(*(layer.split(max(1, _AT_A_TIME // largest)) for layer in layers), strict=True)
    return torch.cat([_embed(part, width) for part in parts])


def _embed(layers: Sequence[Tensor], width: int) -> Tensor:
    size, pooled = layers[0].shape[-2:], []
    for layer in layers:
        patches = F.unfold(layer, _PATCH, padding=_PATCH // 2)  # [B, C * 9, h * w]
        narrow = F.adaptive_avg_pool2d(patches, (width, None)).unflatten(2, layer.shape[-2:])
        pooled.append(narrow if layer.shape[-2:] == size else F.interpolate(narrow, size=size, mode="bilinear"))
    together = torch.cat(pooled, dim=1).flatten(2)  # [B, layers * width, h * w]
    embedded: Tensor = F.adaptive_avg_pool2d(together, (width, None)).mT.unflatten(1, size)
    return embedded.contiguous()
