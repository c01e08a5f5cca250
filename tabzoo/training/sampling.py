"""Which images make an epoch, in which order, and which are held out: pure functions of the seed."""

from typing import Literal

import torch
from torch import Tensor

from tabzoo.synthesis.draws import permutation

__all__ = ["Sampling", "epoch_samples", "one_class_batches"]

Sampling = Literal["uniform", "balanced", "sequential"]

# Keys of the draws made here, apart from those of the synthetic anomalies.
_SHUFFLE, _WITHIN_CLASS, _BATCHES = 101, 102, 104


def epoch_samples(class_ids: Tensor, *, seed: int, epoch: int, sampling: Sampling, repeats: int) -> Tensor:
    """The sample ids of one epoch, in the order they are trained on.

    A sample id is `image + N * round`: the same image in another round of the same epoch gets another anomaly.

    Args:
        class_ids: Class of each of the N images, [N].
        seed: The run's seed.
        epoch: Which epoch, from 0.
        sampling: "uniform" takes every image `repeats` times; "balanced" takes every class equally often, N * `repeats`
            samples in all, rounded up to whole classes; both are shuffled. "sequential" is the order of the authors' code, the
            same in each epoch: all images of the first class, all of the second and so on, and that `repeats` times.
        repeats: Rounds per epoch.

    Returns:
        int64 [S].
    """
    images = len(class_ids)
    if sampling == "sequential":
        rounds = images * torch.arange(repeats)
        return (class_ids.argsort(stable=True) + rounds[:, None]).flatten()
    if sampling == "uniform":
        samples = torch.arange(images * repeats)
    else:
        samples = _balanced(class_ids, seed, epoch, images * repeats)
    return samples[permutation(seed, epoch, len(samples), _SHUFFLE)]


def one_class_batches(order: Tensor, class_ids: Tensor, size: int, *, seed: int, epoch: int, shuffled: bool) -> Tensor:
    """The samples of an epoch in batches of one class each, no image twice in one.

    Args:
        order: Sample ids, as `epoch_samples` returns them.
        class_ids: Class of each of the N images, [N].
        size: Samples of a batch.
        seed: The run's seed.
        epoch: Which epoch, from 0.
        shuffled: Whether the batches are.

    Returns:
        int64 [batches * size]. Of each class and round, what does not fill a batch is left out.
    """
    images = len(class_ids)
    group = class_ids[order % images] * (1 + int(order.max()) // images) + order // images
    parts = [order[group == index] for index in group.unique()]
    batches = torch.cat([part[: len(part) // size * size] for part in parts]).view(-1, size)
    return (batches[permutation(seed, epoch, len(batches), _BATCHES)] if shuffled else batches).flatten()


def _balanced(class_ids: Tensor, seed: int, epoch: int, total: int) -> Tensor:
    classes = class_ids.unique()
    count = -(-total // len(classes))  # of every class, rounded up
    rounds = torch.arange(count)
    order = permutation(seed, epoch, len(class_ids), _WITHIN_CLASS)
    picked = []
    for class_id in classes:
        members = order[class_ids[order] == class_id]
        # A class with fewer images than that begins again, with new sample ids and so with new anomalies.
        picked.append(members[rounds % len(members)] + len(class_ids) * (rounds // len(members)))
    return torch.cat(picked)
