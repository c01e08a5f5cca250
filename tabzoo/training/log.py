"""What a run says while it trains: rows of metrics.jsonl, a bar, and an error once a loss is not a finite number."""

import itertools
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from tabzoo.errors import TrainingError
from tabzoo.jsonl import append_line
from tabzoo.progress import Progress
from tabzoo.training.metrics import ACCURACY, STEP
from tabzoo.training.objective import total_loss
from tabzoo.training.output import CHECKPOINTS, METRICS
from tabzoo.training.run import Run

__all__ = ["Log", "named_metrics", "progress_of"]


class Log:
    """Losses and accuracies of the steps. They are copied from the device when they are needed, not at each step.

    Args:
        run: What is trained.
        step: Steps done already.
        before_error: Called before an error names the last checkpoint, which may still be on its way to the disk.
    """

    def __init__(self, run: Run, step: int, *, before_error: Callable[[], None]) -> None:
        self._run, self._step, self._before_error = run, step, before_error
        self._learning_rate = 0.0
        self._on_device: list[Tensor] = []
        self._since_row: list[list[float]] = []
        self._clock = time.perf_counter(), step

    def add(self, metrics: Tensor, *, learning_rate: float) -> None:
        """Takes a step's metrics, as `loop.optimise` returns them, and its learning rate."""
        self._on_device.append(metrics)
        self._learning_rate = learning_rate
        self._step += 1

    def write_row(self) -> str:
        """Appends the means over the steps since the last row to metrics.jsonl.

        Returns:
            The row in short, for a person.

        Raises:
            TrainingError: As `check`.
        """
        self.check()
        run, (then, first) = self._run, self._clock
        self._clock = now, _ = time.perf_counter(), self._step
        row = {
            "step": self._step,
            "epoch": (self._step - 1) // run.steps_per_epoch,
            **named_metrics(run, np.mean(self._since_row, axis=0).tolist()),
            "lr": self._learning_rate,
            "images_per_second": 2 * run.batch_size * (self._step - first) / (now - then),
        }
        self._since_row = []
        if run.ranks.is_first:
            append_line(run.folder / METRICS, row)
        if run.recipe.objective == "ranking":
            reached = f"AUROC of synthetic anomalies {row['auroc']:.3f}"
        else:
            accuracies = f"{row['accuracy_normal']:.2f} normal, {row['accuracy_abnormal']:.2f} abnormal"
            reached = f"{ACCURACY[run.recipe.objective]} {accuracies}"
        return f"loss {row['loss']:.3f}, {reached}, {row['images_per_second']:.0f} images/s"

    def check(self) -> None:
        """Copies what is still on the device, the sum over all processes.

        Raises:
            TrainingError: A loss is not a finite number.
        """
        if not self._on_device:
            return
        values = self._run.ranks.total(torch.stack(self._on_device)).tolist()
        self._on_device = []
        for step, row in enumerate(values, start=self._step - len(values)):
            if not all(np.isfinite(row)):
                self._before_error()
                raise TrainingError(_not_finite(self._run, step))
        self._since_row += values


def named_metrics(run: Run, values: Sequence[float]) -> dict[str, float]:
    """A step's metrics by their names, and the whole loss."""
    named = dict(zip(STEP[run.recipe.objective], values, strict=True))
    if "loss" in named:
        return named
    return {"loss": total_loss(named["loss_normal"], named["loss_abnormal"], run.recipe.reduction), **named}


def progress_of(run: Run, step: int) -> Progress:
    """Progress over the steps of the run, of which `step` are done."""
    return Progress(run.total_steps, "training", done=step, kept=True, show=run.ranks.is_first)


def _not_finite(run: Run, step: int) -> str:
    epoch, ids = next(itertools.islice(run.batches(step), 1))
    files = [str(run.samples.path(int(row))) for row in run.pairs.rows(ids)]
    kept = sorted(entry.name for entry in (run.folder / CHECKPOINTS).glob("step_*.pt"))
    return (
        f"the loss is not a finite number at step {step + 1} (epoch {epoch}). Images of that batch: "
        f"{', '.join(files[:4])}{f' and {len(files) - 4} more' if len(files) > 4 else ''}. "
        f"Last good checkpoint: {run.folder / CHECKPOINTS / kept[-1] if kept else 'none was written yet'}. "
        f"A lower --lr, a longer --warmup-epochs or --amp off usually helps."
    )
