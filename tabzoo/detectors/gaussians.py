"""Gaussians at every position of a pyramid of feature maps, without ever upsampling the coarser maps.

PaDiM repeats the coarse maps up to the finest grid and fits one Gaussian over all channels at each of its positions. The
positions that share a pixel of a coarse map also share a block of the covariance and, if channels are ordered from
coarse to fine, a block of its Cholesky factor. So each block is computed and kept once for all positions that share it:
the same result for about a fifth of the arithmetic and of the memory at three scales of a ResNet.

The order of positions is that of `pyramid.py`.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from tabzoo.detectors.pyramid import as_grid, grouped_by, levels_of, nest, over_levels
from tabzoo.errors import InputError

__all__ = [
    "FewImageGaussians",
    "PyramidGaussians",
    "gaussians_of_state",
    "smaller_gaussians",
]

_SMALL = 64 * 2**20
"""Bytes up to which covariances are kept, whatever the number of images."""


class PyramidGaussians:
    """Gaussians that are fitted batch by batch, and Mahalanobis distances to them.

    Args:
        regularisation: Added to the diagonal of the covariances.
    """

    def __init__(self, regularisation: float) -> None:
        self.regularisation = regularisation
        self.count = 0
        self._means: list[Tensor] = []  # Of each level, coarse to fine, [P, d, 1].
        self._blocks: list[list[Tensor]] = []  # Of each level j with each i <= j, [P_j, d_j, d_i].

    @property
    def num_bytes(self) -> int:
        """Memory that means and covariances take."""
        return sum(tensor.nbytes for tensors in (self._means, *self._blocks) for tensor in tensors)

    def state(self) -> dict[str, Tensor]:
        """Means and factors by name; `gaussians_of_state` makes Gaussians of it that measure the same distances."""
        means = {f"mean.{j}": mean for j, mean in enumerate(self._means)}
        return means | {f"factor.{j}.{i}": block for j, row in enumerate(self._blocks) for i, block in enumerate(row)}

    def load(self, state: Mapping[str, Tensor], levels: int) -> None:
        """Takes means and factors of so many levels; `gaussians_of_state` checks them."""
        self._means = [state[f"mean.{j}"] for j in range(levels)]
        self._blocks = [[state[f"factor.{j}.{i}"] for i in range(j + 1)] for j in range(levels)]

    def update(self, maps: Sequence[Tensor]) -> None:
        """Adds a batch of maps [B, d, h, w], coarse to fine.

        Sums of squares around the mean are merged as by Chan, Golub and LeVeque (1983): one pass is enough, and means that
        are large compared with the spread cost no precision.
        """
        self.update_levels(levels_of(nest(maps)))

    def update_levels(self, levels: Sequence[Tensor]) -> None:
        """The same from the levels of maps, [P, d, B] each, as `levels_of` makes them."""
        batch = levels[0].shape[-1]
        if not self.count:
            self._means = [torch.zeros_like(level[..., :1]) for level in levels]
            self._blocks = [
                [fine.new_zeros(*fine.shape[:2], coarse.shape[1]) for coarse in levels[: j + 1]]
                for j, fine in enumerate(levels)
            ]
        total = self.count + batch
        centred = []
        for level, mean in zip(levels, self._means, strict=True):
            of_batch = level.mean(-1, keepdim=True)
            shift = of_batch - mean
            # One column more, and the product below also accounts for the shift of the mean.
            centred.append(torch.cat([level - of_batch, shift * (self.count * batch / total) ** 0.5], dim=-1))
            mean += shift * (batch / total)
        for fine, row in zip(centred, self._blocks, strict=True):
            for coarse, block in zip(centred, row, strict=False):
                grouped_by(coarse, block).baddbmm_(grouped_by(coarse, fine), coarse.mT)
        self.count = total

    def factorise(self, *, left_out: int = 0) -> None:
        """Turns the sums of squares into Cholesky factors of the covariances, in place. No update can follow.

        Args:
            left_out: By so many images fewer than there were the sums are divided; see `leave_one_out.py`.
        """
        for row in self._blocks:
            for block, above in zip(row, self._blocks, strict=False):
                *factors, pivot = above
                # float64 costs little here and keeps the nearly singular covariances of few images positive definite.
                rest = grouped_by(pivot, block).double() / max(self.count - 1 - left_out, 1)
                for factor, other in zip(row, factors, strict=False):
                    rest -= grouped_by(pivot, factor).double() @ other.double().mT
                if block is pivot:
                    rest.diagonal(dim1=-2, dim2=-1).add_(self.regularisation)
                    rest = torch.linalg.cholesky(rest)
                else:
                    rest = torch.linalg.solve_triangular(pivot.double().mT, rest, upper=True, left=False)
                grouped_by(pivot, block).copy_(rest)

    def mahalanobis(self, maps: Sequence[Tensor]) -> Tensor:
        """Mahalanobis distance of each position of the finest of the maps [B, d, h, w], [B, H, W]."""
        maps = nest(maps)
        return as_grid(self.squares(levels_of(maps)).sqrt(), maps)

    def squares(self, levels: Sequence[Tensor]) -> Tensor:
        """Squares of the distances from levels of maps, [P, d, B] each, at the positions of the finest, [P, B]."""
        whitened: list[Tensor] = []
        _check_positions(levels, self._means)
        for level, mean, row in zip(levels, self._means, self._blocks, strict=True):
            rest = level - mean
            for coarse, factor in zip(whitened, row, strict=False):
                grouped_by(coarse, rest).baddbmm_(grouped_by(coarse, factor), coarse, alpha=-1)
            whitened.append(torch.linalg.solve_triangular(row[-1], rest, upper=False))
        return over_levels([level.square().sum(1) for level in whitened])


class FewImageGaussians:
    """The same distances where there are fewer images than channels: from products of images, without any covariance.

    With centred features X [d, N] and the regularisation r, by the Woodbury identity, the inverse of X X^T / (N - 1) + r I is
    (I - X (X^T X + (N - 1) r I)^-1 X^T) / r. What is factorised is N x N, and products of images are sums over channels, so
    those of a coarse map serve all positions below each of its pixels.

    Args:
        regularisation: Added to the diagonal of the covariances; more than 0.
    """

    def __init__(self, regularisation: float) -> None:
        self.regularisation = regularisation
        self._maps: list[list[Tensor]] = []  # Of each batch.
        self._means: list[Tensor] = []  # Of each level, coarse to fine, [P, d, 1].
        self._centred: list[Tensor] = []  # The same, [P, d, N].
        self._factors = torch.empty(0)  # [P, N, N] at the finest level, float64.

    @property
    def num_bytes(self) -> int:
        """Memory that means, features and factors take."""
        return sum(tensor.nbytes for tensor in (*self._means, *self._centred, self._factors))

    def state(self) -> dict[str, Tensor]:
        """As that of `PyramidGaussians`."""
        means = {f"mean.{j}": mean for j, mean in enumerate(self._means)}
        return (
            means
            | {f"centred.{j}": images for j, images in enumerate(self._centred)}
            | {"products": self._factors.contiguous()}
        )

    def load(self, state: Mapping[str, Tensor], levels: int) -> None:
        """As that of `PyramidGaussians`."""
        self._means = [state[f"mean.{j}"] for j in range(levels)]
        self._centred = [state[f"centred.{j}"] for j in range(levels)]
        self._factors = state["products"]

    def update(self, maps: Sequence[Tensor]) -> None:
        """Adds a batch of maps [B, d, h, w], coarse to fine."""
        self._maps.append(nest(maps))

    def factorise(self) -> None:
        """Factorises the products of the images. No update can follow."""
        levels = levels_of([torch.cat(batches) for batches in zip(*self._maps, strict=True)])
        self._maps = []
        self._means = [level.mean(-1, keepdim=True) for level in levels]
        self._centred = [level - mean for level, mean in zip(levels, self._means, strict=True)]
        # float64: where an image is like those fitted to, `mahalanobis` subtracts nearly equal numbers.
        products = over_levels([level.mT @ level for level in map(Tensor.double, self._centred)])
        count = products.shape[-1]
        products.diagonal(dim1=-2, dim2=-1).add_(max(count - 1, 1) * self.regularisation)
        self._factors = torch.linalg.cholesky(products)

    def mahalanobis(self, maps: Sequence[Tensor]) -> Tensor:
        """Mahalanobis distance of each position of the finest of the maps [B, d, h, w], [B, H, W]."""
        maps = nest(maps)
        levels = levels_of(maps)
        _check_positions(levels, self._means)
        rest = [(level - mean).double() for level, mean in zip(levels, self._means, strict=True)]
        squares = over_levels([level.square().sum(1) for level in rest])  # [P, B]
        products = over_levels([images.double().mT @ level for images, level in zip(self._centred, rest, strict=True)])
        explained = torch.linalg.solve_triangular(self._factors, products, upper=False).square().sum(1)
        distances = ((squares - explained).clamp(min=0) / self.regularisation).sqrt()
        return as_grid(distances.to(maps[-1].dtype), maps)


def smaller_gaussians(
    maps: Sequence[Tensor], count: int, regularisation: float
) -> PyramidGaussians | FewImageGaussians:
    """The form of Gaussians that takes less memory for `count` images with maps [B, d, h, w] like these, coarse to fine.

    Where covariances are small anyway, they are taken: distances to them are faster.
    """
    sizes = [(level.shape[2] * level.shape[3], level.shape[1]) for level in nest(maps)]
    channels, covariances, images = 0, 0, 8 * sizes[-1][0] * count**2
    for positions, width in sizes:
        channels += width
        covariances += 4 * positions * width * (1 + channels)
        images += 4 * positions * width * (1 + count)
    few = covariances > _SMALL and images < covariances
    return (FewImageGaussians if few else PyramidGaussians)(regularisation)


def gaussians_of_state(
    state: Mapping[str, Tensor], widths: Sequence[int], regularisation: float
) -> PyramidGaussians | FewImageGaussians:
    """The Gaussians whose `state` it was; they measure the same distances, and take no more images.

    Args:
        state: Tensors by name.
        widths: Number of channels of each level, coarse to fine.
        regularisation: Of the Gaussians.

    Raises:
        InputError: A tensor is missing, is not known, or has another shape or type than expected.
    """
    levels, few = range(len(widths)), "products" in state
    positions = [len(state.get(f"mean.{j}", ())) for j in levels]
    expected: dict[str, tuple[int, ...]] = {f"mean.{j}": (positions[j], widths[j], 1) for j in levels}
    if few:
        count = state["products"].shape[-1] if state["products"].ndim else 0
        expected |= {f"centred.{j}": (positions[j], widths[j], count) for j in levels}
        expected["products"] = (positions[-1], count, count)
    else:
        expected |= {f"factor.{j}.{i}": (positions[j], widths[j], widths[i]) for j in levels for i in range(j + 1)}
    if wrong := sorted(state.keys() ^ expected.keys()):
        raise InputError(f"Gaussians: the tensor {wrong[0]!r} is {'not known' if wrong[0] in state else 'missing'}")
    for name, shape in expected.items():
        kind = torch.float64 if name == "products" else torch.float32
        if tuple(state[name].shape) != shape or state[name].dtype != kind:
            raise InputError(
                f"Gaussians: {name} is {tuple(state[name].shape)}, {state[name].dtype}; expected {shape}, {kind}"
            )
    if 0 in positions or any(fine % coarse for coarse, fine in pairwise(positions)):
        raise InputError(f"Gaussians: maps of {', '.join(map(str, positions))} positions do not nest")
    gaussians = (FewImageGaussians if few else PyramidGaussians)(regularisation)
    gaussians.load(state, len(widths))
    return gaussians


def _check_positions(levels: Sequence[Tensor], means: Sequence[Tensor]) -> None:
    """Checks that maps are as those fitted to: torch would repeat a mean of one position for all."""
    if [level.shape[:2] for level in levels] != [mean.shape[:2] for mean in means]:
        raise InputError("Gaussians: the maps have other sizes than those that the Gaussians were fitted to")
