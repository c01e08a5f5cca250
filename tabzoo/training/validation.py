"""What the trained model makes of pairs: metrics of held-out ones, and the similarities that the figure shows."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tabzoo.jsonl import append_line
from tabzoo.synthesis.pairs import PairMaker, Pairs
from tabzoo.training.log import named_metrics
from tabzoo.training.metrics import STEP, in_one
from tabzoo.training.objective import TextAlignment
from tabzoo.training.output import VALIDATION
from tabzoo.training.run import Run
from tabzoo.training.state import State
from tabzoo.training.text import mixes_classes

__all__ = ["similarities", "validate"]


@torch.no_grad()
def validate(run: Run, state: State) -> None:
    """Appends loss and accuracies on the held-out images and their synthetic anomalies to validation.jsonl.

    The first process does it, and the others wait.
    """
    if run.held_out is not None and run.ranks.is_first:
        _validate(run, run.held_out, state)
    run.ranks.wait()


def _validate(run: Run, held_out: PairMaker, state: State) -> None:
    objective = state.objective.eval()
    total, images = torch.zeros(len(STEP[run.recipe.objective]), device=run.device), 0
    torch.manual_seed(run.recipe.seed)
    for ids in run.batches_of(held_out):
        # Epoch -1: the same anomalies every time, and none that is trained on.
        pairs = held_out(run.recipe.seed, -1, ids)
        total += len(ids) * in_one([objective(*call) for call in objective.calls(pairs)])
        images += len(ids)
    if not images:
        return  # too few of each class to be ranked
    means = named_metrics(run, (total / images).tolist())
    epoch = (state.step - 1) // run.steps_per_epoch
    append_line(run.folder / VALIDATION, {"step": state.step, "epoch": epoch, **means})


@torch.no_grad()
def similarities(run: Run, state: State, pairs: Pairs) -> dict[str, Tensor]:
    """Similarities of image embeddings and the text features that the loss sees, [B, C], for each branch.

    They are cosines, or nearly so where the recipe's `text_layout` reshapes the features; the names of the two then say it.
    """
    objective = state.objective.eval()
    assert isinstance(objective, TextAlignment), "no texts"
    normal = F.normalize(objective.embed(pairs.normal, "normal").float(), dim=-1) @ objective.normal.T
    abnormal = F.normalize(objective.embed(pairs.abnormal, "abnormal").float(), dim=-1) @ objective.abnormal.T
    mixed = mixes_classes(run.recipe.text_layout, len(objective.normal))
    how = "\nreshaped as in the authors' code" if mixed else ""
    return {f"normal images, normal texts{how}": normal.cpu(), f"abnormal images, abnormal texts{how}": abnormal.cpu()}
