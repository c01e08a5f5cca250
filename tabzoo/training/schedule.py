"""Learning rate over the steps, as a factor on the recipe's `lr`."""

import math
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

__all__ = ["learning_rate_schedule"]


def learning_rate_schedule(
    optimizer: Optimizer,
    kind: Literal["constant", "cosine", "cosine_authors"],
    *,
    steps_per_epoch: int,
    epochs: int,
    warmup_epochs: float = 0.0,
    step: int = 0,
) -> LambdaLR:
    """A torch scheduler to be stepped once a training step.

    Args:
        optimizer: Its learning rates are the highest of the schedule.
        kind: "constant"; "cosine", which falls to 0 at the end of the run; or "cosine_authors", as the authors' code has
            it (Howeng98/TAB @ aa8c4dc, train.py): a cosine that changes once an epoch and has *steps per epoch* for its
            half period counted in epochs, so that long epochs leave it almost constant.
        steps_per_epoch: Training steps an epoch.
        epochs: Epochs of the run.
        warmup_epochs: Linear rise from 0 at the start, with any kind.
        step: Steps done already; the schedule has no other state, so a resumed run needs nothing else.
    """
    warmup, total = warmup_epochs * steps_per_epoch, epochs * steps_per_epoch

    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (math.floor(warmup) + 1)
        if kind == "cosine":
            return _half_cosine((step - warmup) / max(1, total - warmup))
        if kind == "cosine_authors":
            return _half_cosine(step // steps_per_epoch / steps_per_epoch)
        return 1.0

    return LambdaLR(optimizer, factor, last_epoch=step - 1)


def _half_cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2
