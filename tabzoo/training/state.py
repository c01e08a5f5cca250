"""What a step changes: weights, optimizer, learning rate and step; saved to a checkpoint, and loaded from one."""

import textwrap
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from tabzoo.errors import InputError
from tabzoo.training.checkpoint import CheckpointWriter
from tabzoo.training.heads import ProjectionHeads
from tabzoo.training.metrics import cut_back
from tabzoo.training.objective import TextAlignment
from tabzoo.training.optimizer import build_optimizer, learning_rate_schedule
from tabzoo.training.output import CHECKPOINTS, METRICS, VALIDATION
from tabzoo.training.ranking import ScoreRanking
from tabzoo.training.recipe import Recipe, changed_fields
from tabzoo.training.run import Run, contents_digest, names_digest
from tabzoo.training.text import laid_out

__all__ = [
    "State",
    "check_same_recipe",
    "checkpoint_writer",
    "drop_later_rows",
    "load_state",
    "new_state",
    "save_state",
]

_AMP_TYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(kw_only=True, eq=False)
class State:
    """The state of a run.

    Attributes:
        objective: All that is trained, and its loss.
        model: The objective to call in a step: itself, or wrapped to average gradients over all processes.
        optimizer: Over its parameters.
        scheduler: Of the optimizer's learning rate; a function of `step`.
        scaler: Of losses in float16; elsewhere it passes them on.
        step: Steps done.
    """

    objective: TextAlignment | ScoreRanking
    model: nn.Module
    optimizer: Optimizer
    scheduler: LambdaLR
    scaler: torch.amp.GradScaler
    step: int = 0

    def unsynchronised(self) -> AbstractContextManager[None]:
        """While gradients are only added up, to be averaged over the processes by a later backward pass."""
        return self.model.no_sync() if isinstance(self.model, DistributedDataParallel) else nullcontext()


def new_state(run: Run, backbone: nn.Module, heads: ProjectionHeads | None) -> State:
    """The state before the first step.

    Args:
        run: What it is a state of.
        backbone: With its initial weights.
        heads: From its embeddings to the text space; None with an objective without texts.
    """
    recipe, device = run.recipe, run.device
    objective = _objective(run, backbone, heads)
    memory_format = torch.channels_last if recipe.channels_last else torch.contiguous_format
    objective = objective.to(device, memory_format=memory_format)  # type: ignore[call-overload]
    if recipe.compile:
        objective.backbone.compile()  # in place: weights keep their names, and synthesis stays outside the graph
    optimizer = build_optimizer(recipe, objective, device)
    if recipe.amp == "fp16":  # the scaler leaves out steps whose gradients overflow, often the first
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
    return State(
        objective=objective,
        model=objective if run.ranks.size == 1 else _distributed(objective, recipe, device),
        optimizer=optimizer,
        scheduler=_schedule(run, optimizer, step=0),
        scaler=torch.amp.GradScaler(device.type, enabled=recipe.amp == "fp16"),
    )


def _objective(run: Run, backbone: nn.Module, heads: ProjectionHeads | None) -> TextAlignment | ScoreRanking:
    recipe = run.recipe
    if recipe.objective == "ranking":
        return ScoreRanking(backbone, name=recipe.backbone, side=recipe.crop, amp=_AMP_TYPES[recipe.amp])
    assert heads is not None, "texts need heads"
    return TextAlignment(
        backbone,
        heads,
        laid_out(run.text.normal, recipe.text_layout),
        laid_out(run.text.abnormal, recipe.text_layout),
        objective=recipe.objective,
        temperature=recipe.temperature,
        learn_temperature=recipe.learn_temperature,
        batch_norm=recipe.batch_norm,
        amp=_AMP_TYPES[recipe.amp],
    )


def _distributed(objective: nn.Module, recipe: Recipe, device: torch.device) -> DistributedDataParallel:
    """The objective with the first process's weights, its gradients averaged over all processes."""
    return DistributedDataParallel(
        objective,
        device_ids=[device] if device.type == "cuda" else None,
        # Gradients of the normal branch's own head come from the backward pass that is not synchronised.
        find_unused_parameters=recipe.projection == "residual",
        gradient_as_bucket_view=True,
    )


def _schedule(run: Run, optimizer: Optimizer, *, step: int) -> LambdaLR:
    return learning_rate_schedule(
        optimizer,
        run.recipe.schedule,
        steps_per_epoch=run.steps_per_epoch,
        epochs=run.recipe.epochs,
        warmup_epochs=run.recipe.warmup_epochs,
        step=step,
    )


def checkpoint_writer(run: Run) -> CheckpointWriter:
    """Writes the run's checkpoints, in the background on a GPU: a CPU has no idle cores to do it with."""
    return CheckpointWriter(run.folder / CHECKPOINTS, in_background=run.device.type != "cpu")


def save_state(run: Run, state: State, writer: CheckpointWriter) -> None:
    """Writes a checkpoint, in the first process."""
    if not run.ranks.is_first:
        return
    content = {
        "modules": state.objective.state_dict(),
        # Its numbers alone: learning rate and other settings are the recipe's.
        "optimizer": state.optimizer.state_dict()["state"],
        "scaler": state.scaler.state_dict(),
        "recipe": run.recipe.identity(),
        "samples": names_digest(run.samples),
        "contents": contents_digest(run.hashes, run.pairs.textures),
    }
    writer.save(state.step, content)


def load_state(run: Run, state: State, saved: dict[str, Any]) -> None:
    """Goes back to a checkpoint.

    Args:
        run: What is trained.
        state: Takes the weights, the optimizer's numbers and the step.
        saved: What `save_state` wrote.

    Raises:
        InputError: It was written on other images, or does not fit.
    """
    _check_same_images(run, saved)
    modules = {key.removeprefix("objective."): value for key, value in saved["modules"].items()}  # older ones
    try:
        state.objective.load_state_dict(modules)
        if saved["recipe"].get("optimizer") == run.recipe.optimizer:  # another one starts without them
            state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": saved["optimizer"]})
        if saved["scaler"]:  # of a run in float16
            state.scaler.load_state_dict(saved["scaler"])
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = textwrap.shorten(str(error), 240)
        if saved["recipe"] != run.recipe.identity():
            raise InputError(f"--resume: the checkpoint does not fit the changed recipe: {why}") from error
        raise InputError(
            f"--resume: the checkpoint of step {saved['step']} in {run.folder / CHECKPOINTS} is damaged: {why}. "
            f"Remove it with its .json to continue from the one before it, or type --overwrite to start again."
        ) from error
    state.step = saved["step"]
    state.scheduler = _schedule(run, state.optimizer, step=state.step)


def drop_later_rows(run: Run, state: State) -> None:
    """Drops rows of metrics after the present step: those of a run that was killed after its last checkpoint."""
    for name in (METRICS, VALIDATION) if run.ranks.is_first else ():
        cut_back(run.folder / name, state.step)


def check_same_recipe(recipe: Recipe, folder: Path, saved: dict[str, Any]) -> None:
    """Checks that a run is resumed with the settings that it was started with.

    Args:
        recipe: The present settings.
        folder: The run's.
        saved: What `save_state` wrote.

    Raises:
        InputError: They differ; the message names the fields.
    """
    changes = changed_fields(saved["recipe"], recipe.identity())
    if changes:
        listed = "; ".join(f"{name} {was} -> {is_now}" for name, (was, is_now) in changes.items())
        raise InputError(
            f"--resume: the run in {folder} was started with another recipe: {listed}. Leave these flags as they were, type "
            f"--allow-recipe-change to continue with the new values, or --overwrite to start again."
        )


def _check_same_images(run: Run, saved: dict[str, Any]) -> None:
    if saved["samples"] != names_digest(run.samples):
        raise InputError(
            f"--resume: the run in {run.folder} was started with other images than those found now. Give it the same "
            f"(its run.json says which folder), or type --overwrite to start again."
        )
    contents = contents_digest(run.hashes, run.pairs.textures)
    if saved.get("contents", contents) != contents:  # older checkpoints do not say
        raise InputError(
            f"--resume: the run in {run.folder} was started with images of the same names but other contents than those "
            f"found now{' (or with other textures)' if run.pairs.textures is not None else ''}. Put those back, or type "
            f"--overwrite to start again."
        )
