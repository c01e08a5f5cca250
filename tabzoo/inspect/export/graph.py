"""A fitted detector as one graph that ONNX can hold: photos in; score, verdict and map out.

It computes what `tabzoo.detectors` computes, from the same statistics, with operations that every runtime has. What ONNX lacks
is rewritten, which changes no result beyond rounding:

- Triangular systems are products with inverses, which are computed once, here, in float64.
- Upsampling and smoothing are products with fixed matrices.
- PaDiM of few images: the distance is the smallest value of |x - X c|^2 / r + (N - 1) |c|^2, the squares of a ridge
  regression on the N images X. It is a sum without differences of large numbers, so float32 is enough.
- PatchCore: the neighbours in Equation 7 are looked up in a table. The bank is compared in parts, to save memory.
- PatchCore with a width: pooling of neighbourhoods is a convolution with fixed weights.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabzoo.detectors.extractor import FeatureExtractor
from tabzoo.detectors.maps import side_matrix
from tabzoo.detectors.neighbours import squared_distances
from tabzoo.detectors.padim import Padim
from tabzoo.detectors.patchcore import Patchcore
from tabzoo.detectors.pyramid import nested_levels, to_grid

__all__ = ["DetectorGraph", "Normalise"]

_AT_A_TIME = 8192
"""Patches of the bank that are compared at a time: 784 patches of a photo with them take 26 MB."""
_PATCH = 3


class Normalise(nn.Module):
    """Photos uint8 [N, S, S, 3] to what a backbone takes, float32 [N, 3, S, S].

    Args:
        mean: RGB in [0, 1].
        std: The same.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, 255 * torch.tensor(values).view(3, 1, 1))

    def forward(self, photos: Tensor) -> Tensor:
        """The normalised photos."""
        return (photos.permute(0, 3, 1, 2).float() - self.mean) / self.std


class DetectorGraph(nn.Module):
    """Photos uint8 [N, S, S, 3] to score float32 [N], verdict bool [N] (True: defective) and map float32 [N, S, S].

    Args:
        detector: A fitted one, on the CPU.
        size: Side S of the photos in pixels.
        threshold: Photos with a higher score are defective.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, detector: Padim | Patchcore, *, size: int, threshold: float) -> None:
        super().__init__()
        extractor = detector.extractor
        self.normalise, self.body = Normalise(extractor.mean, extractor.std), extractor.body
        shapes = _shapes(extractor, size)
        self.method: nn.Module = (
            _Padim(detector, shapes) if isinstance(detector, Padim) else _Patchcore(detector, shapes)
        )
        height, width = shapes[0][1:]
        sigma = cast(float, detector.settings["sigma"])
        self.register_buffer("rows", side_matrix(height, size, sigma=sigma).float())
        self.register_buffer("columns", side_matrix(width, size, sigma=sigma).float().T.contiguous())
        self.threshold = threshold

    def forward(self, photos: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score, verdict and map."""
        grid, score = self.method(list(self.body(self.normalise(photos))))
        maps = self.rows @ grid @ self.columns
        score = maps.amax(dim=(1, 2)) if score is None else score
        return score, score > self.threshold, maps


@torch.no_grad()
def _shapes(extractor: FeatureExtractor, size: int) -> list[tuple[int, int, int]]:
    """Channels, height and width of each layer's map."""
    maps = extractor(torch.zeros(1, 3, size, size, device=extractor.device)).values()
    return [cast(tuple[int, int, int], tuple(value.shape[1:])) for value in maps]


class _Padim(nn.Module):
    """Distances of the chosen channels, [N, h, w]. The image's score is the map's largest value."""

    back: Tensor

    def __init__(self, detector: Padim, shapes: Sequence[tuple[int, int, int]]) -> None:
        super().__init__()
        self.size = shapes[0][1:]
        # In which order the Gaussians have the positions of each layer, coarse to fine, and the way back.
        places = [torch.arange(h * w, dtype=torch.float64).view(1, 1, h, w) for _, h, w in reversed(shapes)]
        for j, (chosen, level) in enumerate(
            zip(reversed(detector.chosen.values()), nested_levels(places), strict=True)
        ):
            self.register_buffer(f"chosen{j}", torch.tensor(chosen, dtype=torch.int64))
            self.register_buffer(f"order{j}", level.flatten().long())
        height, width = self.size
        self.register_buffer("back", to_grid(torch.arange(height * width)[:, None], places).flatten())
        state, count = detector.gaussians.state(), len(shapes)
        few = "products" in state
        self.gaussians = _FewImages(state, count, detector.gaussians.regularisation) if few else _Factors(state, count)

    def forward(self, features: list[Tensor]) -> tuple[Tensor, None]:
        levels = []
        for j, layer in enumerate(reversed(features)):
            chosen = layer[:, self.get_buffer(f"chosen{j}")]
            levels.append(chosen.flatten(2).permute(2, 1, 0)[self.get_buffer(f"order{j}")])  # [P, d, N]
        distances = self.gaussians(levels).sqrt()  # [P, N]
        return distances[self.back].T.reshape(-1, *self.size), None


class _Levels(nn.Module):
    """Means, and sums over levels of values at shared positions."""

    def __init__(self, state: Mapping[str, Tensor], count: int) -> None:
        super().__init__()
        self.shapes = []  # P and d of each level
        for j in range(count):
            self.register_buffer(f"mean{j}", state[f"mean.{j}"])
            self.shapes.append(state[f"mean.{j}"].shape[:2])

    def centred(self, levels: Sequence[Tensor]) -> list[Tensor]:
        return [level - self.get_buffer(f"mean{j}") for j, level in enumerate(levels)]

    def total(self, levels: Sequence[Tensor]) -> Tensor:
        """Sum of values [P_j, ...] of each level at the positions of the finest, [P, ...]."""
        total = levels[0]
        for (coarse, _), (fine, _), level in zip(self.shapes, self.shapes[1:], levels[1:], strict=False):
            grouped = level.unflatten(0, (coarse, fine // coarse))
            total = (grouped + total[:, None]).flatten(0, 1)
        return total


class _Factors(_Levels):
    """Squared distances [P, N] of levels [P_j, d_j, N], coarse to fine, by covariances' Cholesky factors."""

    def __init__(self, state: Mapping[str, Tensor], count: int) -> None:
        super().__init__(state, count)
        for j in range(count):
            pivot = state[f"factor.{j}.{j}"].double()
            unit = torch.eye(pivot.shape[-1], dtype=torch.float64)
            inverse = torch.linalg.solve_triangular(pivot, unit.expand_as(pivot), upper=False)
            self.register_buffer(f"inverse{j}", inverse.float())
            for i in range(j):
                factor = state[f"factor.{j}.{i}"]
                grouped = factor.reshape(self.shapes[i][0], -1, factor.shape[-1])  # [Q, P / Q * d, d_i]
                self.register_buffer(f"factor{j}{i}", grouped)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        whitened: list[Tensor] = []
        for j, rest in enumerate(self.centred(levels)):
            for i, coarse in enumerate(whitened):
                rest = rest - (self.get_buffer(f"factor{j}{i}") @ coarse).reshape(*self.shapes[j], -1)
            whitened.append(self.get_buffer(f"inverse{j}") @ rest)
        return self.total([level.square().sum(1) for level in whitened])


class _FewImages(_Levels):
    """The same by products of images: the ridge regression of each patch on those of the images."""

    inverse: Tensor

    def __init__(self, state: Mapping[str, Tensor], count: int, regularisation: float) -> None:
        super().__init__(state, count)
        self.regularisation = regularisation
        for j in range(count):
            self.register_buffer(f"images{j}", state[f"centred.{j}"])  # [P, d, images]
        self.register_buffer("inverse", torch.cholesky_inverse(state["products"]).float())  # [P, images, images]
        self.positions, self.images = self.inverse.shape[:2]
        self.weight = max(self.images - 1, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        rest = self.centred(levels)
        products = [self.get_buffer(f"images{j}").transpose(1, 2) @ level for j, level in enumerate(rest)]
        found = self.inverse @ self.total(products)  # c, [P, images, N]
        squares = self.weight * found.square().sum(1)
        for j, level in enumerate(rest):
            below = self.positions // self.shapes[j][0]  # positions that share a pixel of this level, and its images
            shared = found.unflatten(0, (self.shapes[j][0], below))
            residual = level[:, None] - self.get_buffer(f"images{j}")[:, None] @ shared  # [Q, P / Q, d, N]
            squares = squares + residual.square().sum(2).flatten(0, 1) / self.regularisation
        return squares


class _Patchcore(nn.Module):
    """Distances to the nearest patches of the bank, [N, h, w], and the image's score, [N]."""

    bank: Tensor
    neighbours: Tensor

    def __init__(self, detector: Patchcore, shapes: Sequence[tuple[int, int, int]]) -> None:
        super().__init__()
        self.patches = _Means(shapes) if detector.width is None else _Pooled(shapes, detector.width)
        self.size = shapes[0][1:]
        self.register_buffer("bank", detector.bank)
        count = min(detector.neighbours, len(detector.bank))
        if count >= 2:
            found = squared_distances(detector.bank, detector.bank)
            self.register_buffer(
                "neighbours", torch.cat([part.topk(count, largest=False).indices for _, part in found])
            )
        self.weighted = count >= 2
        self.starts, self.channels = range(0, len(detector.bank), _AT_A_TIME), detector.bank.shape[1]

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        patches = self.patches(features)  # [N, C, h, w]
        patches = patches.permute(0, 2, 3, 1).reshape(-1, self.channels)
        nearest = self._nearest(patches)
        height, width = self.size
        distances = (patches - self.bank[nearest]).norm(dim=1).reshape(-1, height * width)
        farthest = distances.argmax(1, keepdim=True)
        score = distances.amax(1)
        if self.weighted:
            of_image = farthest[:, :, None].expand(-1, -1, self.channels)
            m_test = patches.reshape(-1, height * width, self.channels).gather(1, of_image)  # [N, 1, C]
            m_star = nearest.reshape(-1, height * width).gather(1, farthest)[:, 0]
            around = (m_test - self.bank[self.neighbours[m_star]]).norm(dim=2)  # [N, b]
            score = score * (1 - 1 / (around - score[:, None]).exp().sum(1))  # w of Equation 7, without large exponents
        return distances.reshape(-1, height, width), score

    def _nearest(self, patches: Tensor) -> Tensor:
        smallest: list[Tensor] = []
        indices: list[Tensor] = []
        for start, part in zip(self.starts, self.bank.split(_AT_A_TIME), strict=True):
            squares = part.square().sum(1) - 2 * (patches @ part.T)  # less |patch|^2, which changes no order
            indices.append(squares.argmin(1) + start)
            smallest.append(squares.amin(1))
        if len(indices) == 1:
            return indices[0]
        best = torch.stack(smallest, dim=1).argmin(1, keepdim=True)
        nearest: Tensor = torch.stack(indices, dim=1).gather(1, best)[:, 0]
        return nearest


class _Means(nn.Module):
    """Means of 3 x 3 positions, all layers on the finest grid, [N, C, h, w]."""

    def __init__(self, shapes: Sequence[tuple[int, int, int]]) -> None:
        super().__init__()
        self.resize = nn.ModuleList(_Bilinear(shape, shapes[0]) for shape in shapes)

    def forward(self, features: list[Tensor]) -> Tensor:
        means = [F.avg_pool2d(layer, _PATCH, stride=1, padding=_PATCH // 2) for layer in features]
        return torch.cat([resize(layer) for resize, layer in zip(self.resize, means, strict=True)], dim=1)


class _Pooled(nn.Module):
    """Neighbourhoods pooled to `width` numbers, layer by layer, then all together, [N, width, h, w]."""

    def __init__(self, shapes: Sequence[tuple[int, int, int]], width: int) -> None:
        super().__init__()
        for j, (channels, *_) in enumerate(shapes):
            weights = _pooling(channels * _PATCH**2, width)
            self.register_buffer(f"pool{j}", weights.view(width, channels, _PATCH, _PATCH))
        self.register_buffer("together", _pooling(len(shapes) * width, width)[:, :, None, None])
        self.resize = nn.ModuleList(_Bilinear(shape, shapes[0]) for shape in shapes)

    def forward(self, features: list[Tensor]) -> Tensor:
        pooled = [F.conv2d(x, self.get_buffer(f"pool{j}"), padding=_PATCH // 2) for j, x in enumerate(features)]
        maps = torch.cat([resize(layer) for resize, layer in zip(self.resize, pooled, strict=True)], dim=1)
        return F.conv2d(maps, self.get_buffer("together"))


class _Bilinear(nn.Module):
    """Maps of one size to another, as two matrix products."""

    def __init__(self, small: tuple[int, int, int], large: tuple[int, int, int]) -> None:
        super().__init__()
        self.same = small[1:] == large[1:]
        self.register_buffer("rows", side_matrix(small[1], large[1], sigma=None).float())
        self.register_buffer("columns", side_matrix(small[2], large[2], sigma=None).float().T.contiguous())

    def forward(self, maps: Tensor) -> Tensor:
        return maps if self.same else self.get_buffer("rows") @ maps @ self.get_buffer("columns")


def _pooling(length: int, width: int) -> Tensor:
    """The matrix of `F.adaptive_avg_pool1d`, [width, length]."""
    return F.adaptive_avg_pool1d(torch.eye(length)[None], width)[0].T.contiguous()
