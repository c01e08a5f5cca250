"""The optimizer, by timm's names, and its learning rate over the steps."""

import math
from typing import Any, Literal

import timm.optim
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from tabzoo.errors import InputError, brief, did_you_mean
from tabzoo.training.recipe import Recipe

__all__ = ["build_optimizer", "check_optimizer", "learning_rate_schedule"]

# torch's own optimizers, by timm's names, which have a fused form.
_FUSED = ("momentum", "adam", "adamw")


def build_optimizer(recipe: Recipe, modules: nn.Module, device: torch.device) -> Optimizer:
    """A recipe's optimizer over all parameters that are trained.

    Args:
        recipe: Its name and settings.
        modules: What is trained.
        device: Where they are.
    """
    # timm's own "sgd" has Nesterov momentum, which neither the paper nor its code names; "momentum" is plain SGD.
    name = "momentum" if recipe.optimizer == "sgd" else recipe.optimizer
    # One kernel for all weights. Not with a scaler of losses: where the gradients of the first step overflow, torch's fused
    # SGD then takes its momentum from memory that was never set.
    fused = device.type == "cuda" and name in _FUSED and recipe.amp != "fp16"
    more: dict[str, Any] = {"fused": True} if fused else {}
    trained = [parameter for parameter in modules.parameters() if parameter.requires_grad]
    return timm.optim.create_optimizer_v2(
        trained,
        name,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        **more,
    )


def check_optimizer(recipe: Recipe, device: torch.device) -> None:
    """Tries a recipe's optimizer on a layer of four weights.

    Raises:
        InputError: No optimizer has that name, or it does not work here.
    """
    name, known = recipe.optimizer, [str(known) for known in timm.optim.list_optimizers()]
    if name not in known:
        raise InputError(
            f"--optimizer {name}: expected sgd or the name of an optimizer of timm.{did_you_mean(name, known)} "
            f"timm.optim.list_optimizers() lists all."
        )
    layer = nn.Linear(2, 2, device=device)
    try:
        optimizer = build_optimizer(recipe, layer, device)
        layer(torch.ones(2, 2, device=device)).sum().backward()
        optimizer.step()
    except Exception as error:  # whatever an optimizer does that needs a GPU, a package or second derivatives
        raise InputError(f"--optimizer {name}: does not work here: {brief(error)}. sgd and adamw always do.") from error


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


def _half_cosine(done: float) -> float:
    return (1 + math.cos(math.pi * done)) / 2
