"""The objective `ranking`, tabzoo's own: anomalies get higher scores than the hardest places of good images, by each detector.

It is not the paper's. The paper (arXiv 2312.09480) aligns one embedding of each image with texts. This one needs no text. It
works on the feature maps that detectors read, and its scores are theirs. A batch holds B good images of one class and a
synthetic anomaly of each. Every image is scored by the other B - 1 good ones, so that no image meets itself. An anomaly is
scored by the same B - 1 as the image that it was made from. Two scores are used:

- nearest, as in PatchCore (arXiv 2106.08265): s_p = min over m of |e_p - e_m|, the distance of the patch at place p to the
  nearest of the others' patches. e are means of 3 x 3 of the maps with strides 8 and 16, on the finer grid.
- position, as in PaDiM (arXiv 2011.08785), with a diagonal covariance: s_p^2 = mean over channels c of
  (f_pc - mu_pc)^2 / v_pc. mu_pc and v_pc are mean and variance of the others at that place; 0.2 of v_pc is the variance of
  the channel at all places. Once for each of the maps with strides 4, 8 and 16.

An image's score is the mean of ln s_p at its highest places: 2 % of all. An anomaly's is the mean at as many places, the
highest of those that it covers at least by half; of all of these if they are fewer. With h_i for images, a_j for anomalies,
and t = 0.25:

    L_score = mean over i, j of t softplus(-(a_j - h_i) / t)

It falls as the share of pairs in the right order grows, which is the image AUROC. Logarithms make it blind to the scale of
features. The third term holds features near those of the initial weights, f0, wherever the image was not changed. Without
it, features of classes that were not trained on get worse:

    L_drift = mean over layers, places and channels of (f - f0)^2 / var(f0)

    L = L_nearest + L_position + 0.3 L_drift

Batch-norm keeps its statistics. The weights of the result are the initial ones and a fraction of their change: a recipe's
`interpolation`. Classes that a detector was good at already lose less that way.
"""

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabzoo.errors import InputError
from tabzoo.synthesis.pairs import Pairs

__all__ = ["LEAST", "Ranking", "ScoreRanking", "distances_to_others", "distances_to_positions", "ranking_loss"]

LEAST = 4
"""Fewest images of a batch: each needs a few others to be scored by."""

_STRIDES = (4, 8, 16)
_HARDEST = 0.02  # share of an image's places that make its score
_SOFTNESS = 0.25  # t, in logarithms of a distance
_SHARED = 0.2  # share of a channel's variance over all places
_DRIFT = 0.3
_BANK = 2500  # patches that stand for all of a batch's, to save time
_TINY = 1e-6


class Ranking(NamedTuple):
    """What a batch gives; each a scalar.

    Attributes:
        loss: The sum of the three terms.
        nearest: L_nearest.
        position: L_position, mean over layers.
        drift: L_drift.
        auroc: Share of pairs of an anomaly and a good image in the right order, mean of both scores, in [0, 1].
    """

    loss: Tensor
    nearest: Tensor
    position: Tensor
    drift: Tensor
    auroc: Tensor


class ScoreRanking(nn.Module):
    """Backbone, its frozen initial weights, and the loss, as one module, which a checkpoint holds.

    Args:
        backbone: A CNN of timm with its initial weights. Weights that none of the maps depends on are not trained.
        name: What the user calls it.
        side: Of the images, in pixels.
        amp: Type of mixed precision, None for none. Scores and losses are always computed in float32.

    Raises:
        InputError: It has no maps of strides 4, 8 and 16.
    """

    def __init__(self, backbone: nn.Module, *, name: str, side: int, amp: torch.dtype | None = None) -> None:
        super().__init__()
        self.backbone, self.amp = backbone, amp
        self._indices = _indices(backbone, name)
        _train_only_what_counts(backbone, self._indices, side)
        self.start = copy.deepcopy(backbone).requires_grad_(False)
        self.eval()

    def calls(self, pairs: Pairs) -> list[tuple[Tensor, ...]]:
        """Arguments of each forward pass that a batch takes."""
        return [(pairs.normal, pairs.abnormal, pairs.mask)]

    def forward(self, normal: Tensor, abnormal: Tensor, mask: Tensor) -> Ranking:
        """Loss and its terms.

        Args:
            normal: Good images of one class, normalised, [B, 3, H, W].
            abnormal: The synthetic anomaly of each, [B, 3, H, W].
            mask: Where it was changed, [B, 1, H, W].
        """
        images = torch.cat((normal, abnormal))
        with torch.autocast(images.device.type, dtype=self.amp, enabled=self.amp is not None):
            maps = _maps(self.backbone, images, self._indices)
            with torch.no_grad():
                first = _maps(self.start, images, self._indices)
        covers = [_cover(mask, value) for value in maps]
        drift = torch.stack([_drift(*of_layer) for of_layer in zip(maps, first, covers, strict=True)]).mean()
        halves = [value.chunk(2) for value in maps]
        by_position = [distances_to_positions(*half) for half in halves]
        ranked = [ranking_loss(*d, cover >= 0.5) for d, cover in zip(by_position, covers, strict=True)]
        position, position_auroc = (torch.stack(values).mean() for values in zip(*ranked, strict=True))
        by_patch = distances_to_others(*(_patches([half[side] for half in halves[1:]]) for side in (0, 1)))
        nearest, auroc = ranking_loss(*by_patch, covers[1] >= 0.5)
        loss = nearest + position + _DRIFT * drift
        return Ranking(loss, nearest, position, drift, (auroc + position_auroc) / 2)

    @torch.no_grad()
    def interpolated(self, fraction: float) -> nn.Module:
        """The backbone with its initial weights and a fraction of their change (WiSE-FT, arXiv 2109.01903).

        Args:
            fraction: From 0, the initial weights, to 1, the present ones.
        """
        backbone: nn.Module = copy.deepcopy(self.start)
        for initial, present in zip(backbone.parameters(), self.backbone.parameters(), strict=True):
            initial.lerp_(present, fraction)
        return backbone

    def train(self, mode: bool = True) -> "ScoreRanking":
        """Stays in evaluation: batch-norm keeps its statistics, and nothing is dropped."""
        return super().train(False)


def distances_to_others(normal: Tensor, abnormal: Tensor) -> tuple[Tensor, Tensor]:
    """Distances of patches to the nearest patch of the other good images.

    Args:
        normal: Patches of good images, [B, P, C].
        abnormal: Those of their anomalies.

    Returns:
        Of the good images and of the anomalies, [B, P] each. Which patch is nearest is taken as given by the gradient.
    """
    images, places, _ = normal.shape
    drawn = torch.randperm(images * places, device=normal.device)[:_BANK]
    bank, owner = normal.flatten(0, 1)[drawn], drawn // places
    own = owner == torch.arange(images, device=normal.device)[:, None, None]

    def nearest(patches: Tensor) -> Tensor:
        with torch.no_grad():
            # Without |e_p|^2, which is the same for all of the bank.
            squares = bank.square().sum(1) - 2 * patches.flatten(0, 1) @ bank.T
            index = squares.view(images, places, -1).masked_fill(own, torch.inf).argmin(2)
        return (patches - bank[index]).square().sum(2).add(_TINY).sqrt()

    return nearest(normal), nearest(abnormal)


def distances_to_positions(normal: Tensor, abnormal: Tensor) -> tuple[Tensor, Tensor]:
    """Distances of places to the mean of the other good images there, in units of their spread.

    Args:
        normal: Maps of good images, [B, C, h, w].
        abnormal: Those of their anomalies.

    Returns:
        Of the good images and of the anomalies, [B, h w] each.
    """
    others = len(normal) - 1
    middle = normal.mean(0, keepdim=True)
    away = normal - middle
    mean = -away / others  # of the others, relative to that of all
    variance = ((away.square().sum(0, keepdim=True) - away.square()) / others - mean.square()).clamp(min=0)
    variance = (1 - _SHARED) * variance * others / (others - 1) + _SHARED * normal.var((0, 2, 3), keepdim=True)

    def distance(relative: Tensor) -> Tensor:
        return ((relative - mean).square() / (variance + _TINY)).mean(1).flatten(1).add(_TINY).sqrt()

    return distance(away), distance(abnormal - middle)


def ranking_loss(normal: Tensor, abnormal: Tensor, covered: Tensor) -> tuple[Tensor, Tensor]:
    """L_score, and the share of pairs in the right order.

    Args:
        normal: Distances at the places of good images, [B, P].
        abnormal: Those of their anomalies.
        covered: Which places an anomaly covers, bool, [B, P] or [B, h, w]. Anomalies that cover none are left out.

    Returns:
        Both are scalars. If no anomaly covers a place: 0 and 0.5.
    """
    covered = covered.flatten(1)
    most = max(1, int(_HARDEST * normal.shape[1]))
    image = normal.log().topk(most, dim=1).values.mean(1)
    count = covered.sum(1)
    highest = abnormal.log().masked_fill(~covered, -torch.inf).topk(most, dim=1).values
    kept = torch.arange(most, device=count.device) < count[:, None]
    anomaly = torch.where(kept, highest, 0).sum(1) / count.clamp(1, most)
    gap = anomaly[:, None] - image
    weight = (count > 0).float()[:, None].expand_as(gap)
    pairs = weight.sum()
    loss = (_SOFTNESS * F.softplus(-gap / _SOFTNESS) * weight).sum() / pairs.clamp(min=1)
    return loss, torch.where(pairs > 0, ((gap > 0) * weight).sum() / pairs, 0.5)


def _patches(maps: list[Tensor]) -> Tensor:
    """Means of 3 x 3 of each map, side by side on the finest grid, [B, P, C]."""
    means = [F.avg_pool2d(value, 3, stride=1, padding=1) for value in maps]
    means[1:] = [_enlarged(value, means[0]) for value in means[1:]]
    return torch.cat(means, 1).flatten(2).mT


def _enlarged(maps: Tensor, like: Tensor) -> Tensor:
    """Bilinear enlargement, as two matrix products: on a GPU, the gradient of torch's own differs from run to run."""
    rows, columns = (
        F.interpolate(torch.eye(now, device=maps.device, dtype=maps.dtype)[None], size=new, mode="linear")[0]
        for now, new in zip(maps.shape[-2:], like.shape[-2:], strict=True)
    )
    return rows.T @ maps @ columns


def _cover(mask: Tensor, maps: Tensor) -> Tensor:
    """Share of each place that was changed, [B, h, w]."""
    height, width = maps.shape[-2:]
    return F.adaptive_avg_pool2d(mask.float(), (height, width))[:, 0]


def _drift(maps: Tensor, first: Tensor, cover: Tensor) -> Tensor:
    unchanged = torch.cat((torch.ones_like(cover), (cover == 0).float()))[:, None]
    spread = first[: len(cover)].var((0, 2, 3), keepdim=True)
    return ((maps - first).square() / (spread + _TINY) * unchanged).mean()


def _maps(backbone: nn.Module, images: Tensor, indices: list[int]) -> list[Tensor]:
    maps: list[Tensor] = backbone.forward_intermediates(  # type: ignore[operator]
        images, indices=indices, stop_early=True, intermediates_only=True
    )
    return [value.float() for value in maps]


def _indices(backbone: nn.Module, name: str) -> list[int]:
    """Of the last map of each stride."""
    by_stride = {info["reduction"]: index for index, info in enumerate(getattr(backbone, "feature_info", ()))}
    if not hasattr(backbone, "forward_intermediates") or not set(_STRIDES) <= set(by_stride):
        raise InputError(
            f"--backbone {name}: --objective ranking needs maps of strides 4, 8 and 16. Choose a CNN of timm, such as "
            f"resnet18.tv_in1k."
        )
    return [by_stride[stride] for stride in _STRIDES]


def _train_only_what_counts(backbone: nn.Module, indices: list[int], side: int) -> None:
    """What comes after the last map has no gradient, for which DistributedDataParallel would wait."""
    backbone.eval()
    parameters = list(backbone.parameters())
    total = sum(value.sum() for value in _maps(backbone, torch.zeros(1, 3, side, side), indices))
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)  # type: ignore[arg-type]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)
