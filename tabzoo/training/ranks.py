"""Several processes that train one model: which of them this is, and what they exchange besides gradients.

torchrun starts them and numbers them in the environment. DistributedDataParallel averages the gradients, over NCCL between
GPUs and over Gloo between CPUs. Everything else is a few numbers over Gloo, so no GPU has to wait for them.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from tabzoo.errors import InputError

__all__ = ["Ranks", "StopVote", "join_ranks", "launcher"]

T = TypeVar("T")

# Decoding a million images takes hours, and one node may have to wait for another. This time-out delays nothing else: the
# connection to a process that died breaks at once.
_PATIENCE = timedelta(hours=24)
# Within a step, processes wait for each other no longer than for a slow disk.
_STUCK = timedelta(minutes=30)


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The processes of a run, as one of them sees them. The default is a single process.

    Attributes:
        rank: Which of them this is, from 0; the one numbered 0 writes.
        size: How many there are.
        local: Which of those on this machine.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    group: Any = None  # for numbers in main memory; None in a run of a single process

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, samples: Tensor) -> Tensor:
        """This process's part of a batch, [B] -> [b]: consecutive ones, as many as the others have, give or take one."""
        return samples.tensor_split(self.size)[self.rank]

    def total(self, values: Tensor) -> Tensor:
        """The sum of all processes' values, in main memory."""
        values = values.cpu()
        if self.size > 1:
            dist.all_reduce(values, group=self.group)
        return values

    def from_first(self, make: Callable[[], T]) -> T:
        """What the first process makes, sent to all others, which wait for it.

        An error in the first process ends it, and with it the others.
        """
        if self.size == 1:
            return make()
        made = [make() if self.is_first else None]
        dist.broadcast_object_list(made, group=self.group)
        return made[0]  # type: ignore[return-value]

    def agree(self, data: str, seen: Mapping[str, object]) -> None:
        """Waits for all processes, and checks that they see the same images.

        Args:
            data: The folder of the images, for the message.
            seen: What this process sees; the first difference in this order is reported.

        Raises:
            InputError: In all processes, if one of them differs from the first.
        """
        if self.size == 1:
            return
        of_all: list[Any] = [None] * self.size
        dist.all_gather_object(of_all, dict(seen), group=self.group)
        for rank, of_one in enumerate(of_all):
            for what, of_first in of_all[0].items():
                if of_one[what] != of_first:
                    counts = f": {of_one[what]} and {of_first}" if isinstance(of_first, int) else ""
                    raise InputError(
                        f"--data {data}: process {rank} does not see the same images as process 0. What differs is their "
                        f"{what}{counts}. Give all machines the same folder."
                    )

    def wait(self) -> None:
        """Waits for all processes, as long as it takes; in a collective of GPUs, `_STUCK` would end the run."""
        if self.size > 1:
            dist.barrier(group=self.group)

    def leave(self) -> None:
        """Leaves the group of processes."""
        if self.size > 1:
            dist.destroy_process_group()


class StopVote:
    """Lets all processes stop after the same step, although a signal reaches each at another moment.

    At each step, every process sends whether it was asked to stop, and reads what all sent one step ago. That reduction has
    finished by then, so nobody waits; all read the same value, so all stop after the same step.

    Args:
        ranks: The processes.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._sent: tuple[Tensor, Any] | None = None

    def __call__(self, signal: int) -> int:
        """Takes the signal that this process got, 0 for none; returns one that all processes agree to stop for, or 0."""
        if self._ranks.size == 1:
            return signal
        agreed = self._received()
        sent = torch.tensor([signal])
        # The largest number wins where processes got different signals.
        self._sent = sent, dist.all_reduce(sent, dist.ReduceOp.MAX, group=self._ranks.group, async_op=True)
        return agreed

    def _received(self) -> int:
        if self._sent is None:
            return 0
        sent, work = self._sent
        work.wait()
        return int(sent)


def join_ranks(device: str) -> Ranks:
    """The processes that torchrun started with this one; a run of a single process without it.

    Args:
        device: "cpu" or "cuda", where to train.

    Raises:
        InputError: There are more processes on this machine than GPUs.
    """
    rank, size, local = _numbers()
    if size == 1:
        return Ranks()
    if rank >= size or not {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
        raise InputError(
            f"WORLD_SIZE is {size} in the environment, without a valid RANK, MASTER_ADDR and MASTER_PORT. Start with "
            f"torchrun, or unset it."
        )
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise InputError(
                f"torchrun --nproc-per-node {_on_this_machine()}: this machine has {torch.cuda.device_count()} GPUs, and "
                f"each process needs one. Type --nproc-per-node {torch.cuda.device_count()}, or --device cpu."
            )
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=_STUCK)
    return Ranks(rank=rank, size=size, local=local, group=dist.new_group(backend="gloo", timeout=_PATIENCE))


def launcher() -> list[str]:
    """The first words of the command that started this program: python, or torchrun with its options."""
    _, size, _ = _numbers()
    if size == 1:
        return ["python"]
    here = _on_this_machine()
    nodes = ["--nnodes", str(size // here)] if size > here else []
    return ["torchrun", *nodes, "--nproc-per-node", str(here)]


def _numbers() -> tuple[int, int, int]:
    """Rank, number of processes and rank on this machine, as torchrun gives them; of a single process without it."""
    given = [
        os.environ.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
    ]
    if not all(re.fullmatch("[0-9]{1,9}", value) for value in given) or int(given[1]) < 1:
        raise InputError(
            f"RANK {given[0]}, WORLD_SIZE {given[1]}, LOCAL_RANK {given[2]} in the environment: expected numbers, as torchrun "
            f"sets them. Start with torchrun, or unset these variables."
        )
    rank, size, local = map(int, given)
    return rank, size, local


def _on_this_machine() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("WORLD_SIZE", "1"))
