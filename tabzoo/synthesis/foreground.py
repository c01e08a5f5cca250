"""Where the object is: masks from the background's brightness, and whether a patch is placed on the object.

Paper: Schlüter et al. 2022, "Natural Synthetic Anomalies" (arXiv 2109.15222), section 3; facts from the public
repository Howeng98/TAB @ aa8c4dc. A pixel belongs to the object if its mean over the channels differs from the
background's brightness by more than a threshold; a 7 x 7 median removes grain. A patch is accepted if more than
`min_object` of its source box is object, and more than `min_overlap` of the pasted object falls on object.

It differs from it in: a placement is a pair of source box and destination, accepted or not as a whole, out of a fixed
number of keyed candidates; and the object in the patch is resized to the nearest pixel.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["acceptable", "object_mask"]


def object_mask(images: Tensor, background: float, threshold: float) -> Tensor:
    """Returns where the object is, bool [B, H, W], for images uint8 [B, C, H, W]."""
    difference = (images.float().mean(1, keepdim=True) - background).abs() > threshold
    # The median of zeros and ones is what most of them are.
    votes = F.avg_pool2d(F.pad(difference.float(), (3, 3, 3, 3), mode="replicate"), 7, stride=1)
    return votes[:, 0] > 0.5


def acceptable(
    source: Tensor, destination: Tensor, cut: Tensor, paste: Tensor, *, size: int, min_object: float, min_overlap: float
) -> Tensor:
    """Says which candidate placements put enough of the object on the object.

    Args:
        source: Object mask of the source, bool [B, H, W].
        destination: Object mask of the destination, bool [B, H, W].
        cut: Boxes in the source, int64 [B, A, 4]: top, left, height, width.
        paste: Where they are pasted, likewise.
        size: No pasted patch is larger.
        min_object: Least share of object in a patch.
        min_overlap: Least share of that object that lands on object.

    Returns:
        bool [B, A].
    """
    accepted = []
    for a in range(cut.shape[1]):
        patch, inside = _sampled(source, cut[:, a], paste[:, a, 2:], size)
        below, _ = _sampled(destination, paste[:, a], paste[:, a, 2:], size)
        area = inside.flatten(1).sum(1)
        covered = (patch & inside).flatten(1).sum(1)
        shared = (patch & below & inside).flatten(1).sum(1)
        accepted.append((covered > min_object * area) & (shared > min_overlap * covered))
    return torch.stack(accepted, 1)


def _sampled(mask: Tensor, box: Tensor, shape: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Reads a box at the nearest pixels of another size, [B, size, size], and which of them are inside that size."""
    i = torch.arange(size, device=mask.device)
    length = shape[..., None]  # [B, 2, 1]
    at = ((2 * i + 1) * box[:, 2:, None]) // (2 * length)
    y, x = (at.minimum(box[:, 2:, None] - 1) + box[:, :2, None]).unbind(1)  # [B, size]
    b = torch.arange(len(mask), device=mask.device)[:, None, None]
    high, wide = (i < length).unbind(1)
    return mask[b, y[:, :, None], x[:, None, :]], high[:, :, None] & wide[:, None, :]
