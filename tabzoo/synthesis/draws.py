"""Random numbers that are looked up, not streamed: a sample's numbers depend on (seed, epoch, sample id) alone.

A counter-based generator hashes the key and a position to a 64-bit integer. Any number can be computed at once: in any
order, in any batch, on any device, after any resume. There is no generator state to save or to keep in step.

The hash is the finaliser of SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators",
OOPSLA). It differs from a SplitMix64 stream in: each sample's stream starts at a chain of finalisers over seed, stream,
epoch and sample id; and only 52 of the 64 bits are used.
"""

import torch
from torch import Tensor

from tabzoo.errors import InputError

__all__ = ["ClassPool", "GammaTable", "draw_shots", "hold_out", "integers", "permutation", "uniforms", "uniforms_at"]

_HOLD_OUT = 103  # stream of `hold_out`, distinct from all other streams
_SHOTS = 201  # the same of `draw_shots`

_WORD = 1 << 64
_GOLDEN = 0x9E3779B97F4A7C15
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def uniforms(seed: int, epoch: int, sample_ids: Tensor, count: int, *, stream: int) -> Tensor:
    """Returns `count` independent uniform numbers for each sample.

    Args:
        seed: Seed of the run; any integer.
        epoch: The epoch; any integer.
        sample_ids: The samples, int64 [B].
        count: How many numbers each sample gets. The first k of them do not depend on `count`.
        stream: Number of the purpose; numbers of different streams are independent.

    Returns:
        float64 [B, count] in the open interval (0, 1), on the device of `sample_ids`, the same bits on every device.
    """
    columns = torch.arange(count, dtype=torch.int64, device=sample_ids.device)
    return uniforms_at(seed, epoch, sample_ids[:, None], columns, stream=stream)


def uniforms_at(seed: int, epoch: int, sample_ids: Tensor, columns: Tensor, *, stream: int) -> Tensor:
    """Returns some of the numbers of `uniforms`, those in the given columns.

    Args:
        seed: Seed of the run; any integer.
        epoch: The epoch; any integer.
        sample_ids: The samples, int64.
        columns: Columns, int64, in a shape that broadcasts with the samples.
        stream: Number of the purpose.
    """
    state = _hash(seed, epoch, sample_ids, stream)
    bits = _shift(_mix(state + (columns + 1) * _signed(_GOLDEN)), 12)
    # The half keeps the smallest number above 0; with 52 bits the largest is still below 1 in float64.
    return bits.double().add_(0.5).mul_(2.0**-52)


def permutation(seed: int, epoch: int, n: int, stream: int) -> Tensor:
    """Returns the order of an epoch: a permutation of 0 ... n - 1, int64 [n], on the CPU."""
    return torch.argsort(_hash(seed, epoch, torch.arange(n), stream), stable=True)


def draw_shots(seed: int, n: int, shots: int, *, number: int = 0) -> Tensor:
    """Draws `shots` of n images to fit to: their positions, sorted, int64 [shots].

    Args:
        seed: Of the draw.
        n: Number of images.
        shots: How many of them.
        number: Which of the draws with this seed.
    """
    return permutation(seed, number, n, _SHOTS)[:shots].sort().values


def integers(u: Tensor, low: Tensor | int, high: Tensor | int) -> Tensor:
    """Maps uniform numbers to integers, low <= i < high, all equally likely (up to 2**-52)."""
    span = high - low
    # u * span can round up to span: the limit keeps the result below `high`.
    return low + (u * span).long().clamp(max=span - 1)


class ClassPool:
    """Picks for an image another image of its class, or an image of another class.

    Images are sorted by class once; a pick is then plain index arithmetic, without a loop over classes.

    Args:
        class_ids: Class of each image, integers [N], in the order of the image indices.
    """

    def __init__(self, class_ids: Tensor) -> None:
        if class_ids.dim() != 1 or class_ids.is_floating_point():
            raise InputError(f"class_ids must be integers [N]; got {class_ids.dtype} {tuple(class_ids.shape)}")
        _, class_ids, counts = torch.unique(class_ids.cpu(), return_inverse=True, return_counts=True)
        order = torch.argsort(class_ids, stable=True)  # all images, class after class
        starts = torch.cumsum(counts, 0) - counts
        position = torch.empty_like(order)
        position[order] = torch.arange(order.numel())
        tables = torch.stack([order, position - starts[class_ids], starts[class_ids], counts[class_ids]])
        self._single = len(counts) == 1
        self._tables = {
            torch.device("cpu"): tables
        }  # [4, N]: order; each image's rank in its class, class start and size

    def __len__(self) -> int:
        return self._tables[torch.device("cpu")].shape[1]

    def pick(self, u: Tensor, images: Tensor) -> Tensor:
        """Returns for each image another image of its class, or the image itself if the class has no other.

        Args:
            u: Uniform numbers, float64 [B].
            images: Image indices, int64 [B].
        """
        order, rank, start, size = self._on(images.device)
        size = size[images]
        others = torch.clamp(size - 1, min=1)
        # Going 1 ... size - 1 images on, cyclically, reaches every other image of the class and never the image itself.
        step = torch.where(size > 1, 1 + integers(u, 0, others), 0)
        picked: Tensor = order[start[images] + (rank[images] + step) % size]
        return picked

    def pick_other(self, u: Tensor, images: Tensor) -> Tensor:
        """Returns for each image an image of another class; if there is only one class, what `pick` returns.

        Args:
            u: Uniform numbers, float64 [B].
            images: Image indices, int64 [B].
        """
        order, _, start, size = self._on(images.device)
        if self._single:
            return self.pick(u, images)
        position = integers(u, 0, len(self) - size[images])  # among the images of other classes
        picked: Tensor = order[torch.where(position < start[images], position, position + size[images])]
        return picked

    def _on(self, device: torch.device) -> Tensor:
        if device not in self._tables:
            self._tables[device] = self._tables[torch.device("cpu")].to(device)
        return self._tables[device]


class GammaTable:
    """Gamma-distributed numbers of a given shape and scale 1, from two uniform numbers each.

    Shape 2, which NSA uses, is exact: -ln u is exponentially distributed, a sum of two independent exponential variables
    has a gamma distribution of shape 2, and -ln u - ln v = -ln(u v). Any other shape takes the quantile of the first
    number from a table with linear interpolation; the error is far below a thousandth of the standard deviation.

    Args:
        shape: Shape of the distribution, above 0.

    Raises:
        InputError: The shape is not above 0.
    """

    _NODES = 1 << 14

    def __init__(self, shape: float) -> None:
        if not shape > 0:
            raise InputError(f"gamma_shape must be above 0; got {shape}")
        self._shape = shape
        # Nodes are denser near 0, where the density of a shape below 1 has its pole. The mass beyond the last node is
        # below 1e-12.
        top = shape + 10.0 * shape**0.5 + 40.0
        nodes = torch.linspace(0.0, 1.0, self._NODES, dtype=torch.float64) ** max(2.0, 4.0 / shape) * top
        self._nodes = nodes
        self._cdf = torch.special.gammainc(torch.full_like(nodes, shape), nodes)

    def __call__(self, u: Tensor, v: Tensor) -> Tensor:
        """Returns gamma-distributed numbers for uniform numbers `u` and `v` of equal tensor shape, float64."""
        if self._shape == 2.0:
            return -torch.log(u * v)
        nodes, cdf = self._nodes.to(u.device), self._cdf.to(u.device)
        right = torch.searchsorted(cdf, u.contiguous()).clamp(1, self._NODES - 1)
        low, high = cdf[right - 1], cdf[right]
        fraction = torch.where(high > low, (u - low) / (high - low), 0.0).clamp(0.0, 1.0)
        return torch.lerp(nodes[right - 1], nodes[right], fraction)


def _hash(seed: int, epoch: int, sample_ids: Tensor, stream: int) -> Tensor:
    """Chains the finaliser over key and sample ids: one well-mixed 64-bit word per sample, int64 [B].

    Each word is mixed before the next one is added, so that neighbouring keys, such as (seed, epoch + 1) and
    (seed + 1, epoch), give unrelated numbers.
    """
    key = 0
    for word in (seed, stream, epoch):
        key = _mix_int((key + _GOLDEN + word) % _WORD)
    return _mix(_mix(sample_ids.long() + _signed(_GOLDEN)) + _signed(key))


def _mix(x: Tensor) -> Tensor:
    """The finaliser on int64 tensors. Products overflow and keep their low 64 bits, as unsigned ones would."""
    x = _shift(x, 30).bitwise_xor_(x).mul_(_signed(_FACTORS[0]))
    x = _shift(x, 27).bitwise_xor_(x).mul_(_signed(_FACTORS[1]))
    return _shift(x, 31).bitwise_xor_(x)


def _mix_int(x: int) -> int:
    """The finaliser on one Python integer, 0 <= x < 2**64."""
    x = (x ^ x >> 30) * _FACTORS[0] % _WORD
    x = (x ^ x >> 27) * _FACTORS[1] % _WORD
    return x ^ x >> 31


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right: `>>` on int64 copies the sign bit, which is masked out."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    """The int64 with the same bits as an unsigned 64-bit integer (two's complement)."""
    return x - _WORD if x >= _WORD >> 1 else x


def hold_out(class_ids: Tensor, fraction: float, *, seed: int) -> tuple[Tensor, Tensor]:
    """Splits images into training images and held-out images, class by class.

    Args:
        class_ids: Class of each image, [N].
        fraction: Fraction of every class to hold out, 0 to below 1. Of n images floor(n * fraction) are held out, so
            at least one remains for training.
        seed: Seed of the run.

    Returns:
        Indices of the training images and of the held-out images, each ascending.
    """
    order = permutation(seed, 0, len(class_ids), _HOLD_OUT)
    held = torch.zeros(len(class_ids), dtype=torch.bool)
    for class_id in class_ids.unique():
        members = order[class_ids[order] == class_id]
        held[members[: int(len(members) * fraction)]] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()
