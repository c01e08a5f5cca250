"""Random numbers that are looked up, not streamed: what a sample gets depends on (seed, epoch, sample id) alone.

A counter-based generator: a 64-bit integer is mixed from the key and the position, so that any number can be had at
once, in any order, in any batch, on any device and after any resume, and no generator state exists to be saved.

The mixing step is the finaliser of SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
generators", OOPSLA). It differs from a SplitMix64 stream in: the starting point of each sample's stream is itself a
chain of finalisers over seed, stream, epoch and sample id, and 52 of the 64 bits become a number.
"""

import torch
from torch import Tensor

from tabzoo.errors import InputError

__all__ = ["ClassPool", "GammaTable", "hold_out", "integers", "permutation", "uniforms"]

# Key of `hold_out`, apart from those of other draws.
_HOLD_OUT = 103

_WORD = 1 << 64
_GOLDEN = 0x9E3779B97F4A7C15
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def uniforms(seed: int, epoch: int, sample_ids: Tensor, count: int, *, stream: int) -> Tensor:
    """Returns `count` independent uniform numbers for each sample.

    Args:
        seed: The seed of the run; any integer.
        epoch: The epoch; any integer.
        sample_ids: Whom the numbers are for, int64 [B].
        count: Numbers for each sample. The first k of them don't depend on `count`.
        stream: Which purpose they serve; purposes with different streams are independent.

    Returns:
        float64 [B, count] in the open interval (0, 1), on the device of `sample_ids`, the same bits on every device.
    """
    state = _hash(seed, epoch, sample_ids, stream)  # [B]
    columns = torch.arange(1, count + 1, dtype=torch.int64, device=sample_ids.device)
    bits = _mix(state[:, None] + columns * _signed(_GOLDEN))  # [B, count]
    # 52 bits and a half: the largest and the smallest still differ from 1 and 0 in float64.
    return (_shift(bits, 12).double() + 0.5) * 2.0**-52


def permutation(seed: int, epoch: int, n: int, stream: int) -> Tensor:
    """Returns the order of an epoch: a permutation of 0 ... n - 1, int64 [n], on the CPU."""
    return torch.argsort(_hash(seed, epoch, torch.arange(n), stream), stable=True)


def integers(u: Tensor, low: Tensor | int, high: Tensor | int) -> Tensor:
    """Turns uniform numbers into integers, low <= i < high, each as likely as the others (up to 2**-52)."""
    span = torch.as_tensor(high - low, device=u.device)
    return low + torch.minimum((u * span).long(), span - 1)


class ClassPool:
    """Finds for an image another one of its class, or one of another class.

    Args:
        class_ids: The class of each image, integers [N], in the order of the image indices.
    """

    def __init__(self, class_ids: Tensor) -> None:
        if class_ids.dim() != 1 or class_ids.is_floating_point():
            raise InputError(f"class_ids must be integers [N]; got {class_ids.dtype} {tuple(class_ids.shape)}")
        _, class_ids, counts = torch.unique(class_ids.cpu(), return_inverse=True, return_counts=True)
        order = torch.argsort(class_ids, stable=True)  # all images, class after class
        starts = torch.cumsum(counts, 0) - counts
        place = torch.empty_like(order)
        place[order] = torch.arange(order.numel())
        tables = torch.stack([order, place - starts[class_ids], starts[class_ids], counts[class_ids]])
        self._single = len(counts) == 1
        self._tables = {torch.device("cpu"): tables}  # [4, N]: order; rank in its class, start and size of it

    def __len__(self) -> int:
        return self._tables[torch.device("cpu")].shape[1]

    def pick(self, u: Tensor, images: Tensor) -> Tensor:
        """Returns for each image another of its class; the image itself where the class has no other.

        Args:
            u: Uniform numbers, float64 [B].
            images: Image indices, int64 [B].
        """
        order, rank, start, size = self._on(images.device)
        size = size[images]
        others = torch.clamp(size - 1, min=1)
        step = torch.where(size > 1, 1 + integers(u, 0, others), 0)
        picked: Tensor = order[start[images] + (rank[images] + step) % size]
        return picked

    def pick_other(self, u: Tensor, images: Tensor) -> Tensor:
        """Returns for each image one of another class; with a single class, what `pick` returns.

        Args:
            u: Uniform numbers, float64 [B].
            images: Image indices, int64 [B].
        """
        order, _, start, size = self._on(images.device)
        if self._single:
            return self.pick(u, images)
        place = integers(u, 0, len(self) - size[images])
        picked: Tensor = order[torch.where(place < start[images], place, place + size[images])]
        return picked

    def _on(self, device: torch.device) -> Tensor:
        if device not in self._tables:
            self._tables[device] = self._tables[torch.device("cpu")].to(device)
        return self._tables[device]


class GammaTable:
    """Gamma-distributed numbers of a shape and scale 1, from two uniform numbers each.

    Shape 2, the one of the NSA paper, is exact: the sum of two exponential variables. Any other shape reads the first
    uniform number's quantile from a table with linear interpolation (its error is far below a thousandth of the
    standard deviation).
    """

    _NODES = 1 << 14

    def __init__(self, shape: float) -> None:
        if not shape > 0:
            raise InputError(f"gamma_shape must be above 0; got {shape}")
        self._shape = shape
        # The nodes crowd near 0, where a shape below 1 has its pole; beyond the last lies less than 1e-12.
        top = shape + 10.0 * shape**0.5 + 40.0
        nodes = torch.linspace(0.0, 1.0, self._NODES, dtype=torch.float64) ** max(2.0, 4.0 / shape) * top
        self._nodes = nodes
        self._cdf = torch.special.gammainc(torch.full_like(nodes, shape), nodes)

    def __call__(self, u: Tensor, v: Tensor) -> Tensor:
        """Returns gamma-distributed numbers for uniform numbers `u` and `v` of one shape, float64."""
        if self._shape == 2.0:
            return -torch.log(u * v)
        nodes, cdf = self._nodes.to(u.device), self._cdf.to(u.device)
        right = torch.searchsorted(cdf, u.contiguous()).clamp(1, self._NODES - 1)
        low, high = cdf[right - 1], cdf[right]
        share = torch.where(high > low, (u - low) / (high - low), 0.0).clamp(0.0, 1.0)
        return torch.lerp(nodes[right - 1], nodes[right], share)


def _hash(seed: int, epoch: int, sample_ids: Tensor, stream: int) -> Tensor:
    """Chains the finaliser over the key and then the sample ids: one well-mixed 64-bit word each, int64 [B]."""
    key = 0
    for word in (seed, stream, epoch):
        key = _mix_int((key + _GOLDEN + word) % _WORD)
    return _mix(_mix(sample_ids.long() + _signed(_GOLDEN)) + _signed(key))


def _mix(x: Tensor) -> Tensor:
    """The finaliser on int64 tensors; products wrap around, as they do in 64-bit hardware."""
    x = (x ^ _shift(x, 30)) * _signed(_FACTORS[0])
    x = (x ^ _shift(x, 27)) * _signed(_FACTORS[1])
    return x ^ _shift(x, 31)


def _mix_int(x: int) -> int:
    """The finaliser on one Python integer, 0 <= x < 2**64."""
    x = (x ^ x >> 30) * _FACTORS[0] % _WORD
    x = (x ^ x >> 27) * _FACTORS[1] % _WORD
    return x ^ x >> 31


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shifts right and fills with zeros; `>>` alone would copy the sign bit."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    """The two's complement reading of an unsigned 64-bit integer."""
    return x - _WORD if x >= _WORD >> 1 else x


def hold_out(class_ids: Tensor, share: float, *, seed: int) -> tuple[Tensor, Tensor]:
    """Splits images into those to train on and those held out, class by class.

    Args:
        class_ids: Class of each image, [N].
        share: Share of every class to hold out; of a class with n images floor(n * share), so that one always remains.
        seed: The run's seed.

    Returns:
        Indices to train on and held-out indices, each ascending.
    """
    order = permutation(seed, 0, len(class_ids), _HOLD_OUT)
    held = torch.zeros(len(class_ids), dtype=torch.bool)
    for class_id in class_ids.unique():
        members = order[class_ids[order] == class_id]
        held[members[: int(len(members) * share)]] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()
