"""TAB's training loop: Algorithm 1 of the supplement of arXiv 2312.09480, in its order and symbols.

The objective `ranking` takes the same loop: it has one forward pass a batch where Algorithm 1 has two.
"""

from contextlib import closing, nullcontext

import torch
from torch import Tensor

from tabzoo.compute import CoreWatch
from tabzoo.signals import StopRequest
from tabzoo.synthesis.pairs import Pairs
from tabzoo.training.log import Log, progress_of
from tabzoo.training.metrics import STEP, in_one
from tabzoo.training.ranks import StopVote
from tabzoo.training.run import Run
from tabzoo.training.state import State, checkpoint_writer, save_state
from tabzoo.training.validation import validate

__all__ = ["optimise", "train"]


def train(run: Run, state: State, stop: StopRequest) -> int:
    """Algorithm 1, from the state's step to the last; or to the step at which a stop is asked for.

    Returns:
        The signal that asked, 0 if none did. All is saved.
    """
    recipe, vote, watch, asked = run.recipe, StopVote(run.ranks), CoreWatch(run.device), 0
    writer = checkpoint_writer(run)
    log = Log(run, state.step, before_error=writer.wait)
    batches = ((epoch, run.ranks.share(ids)) for epoch, ids in run.batches(state.step))
    with progress_of(run, state.step) as progress, closing(run.pairs.stream(recipe.seed, batches)) as stream, writer:
        for pairs in stream:  # synthesis: (X, y) -> X, its anomalies X', their masks M and classes y
            log.add(optimise(run, state, pairs), learning_rate=state.optimizer.param_groups[0]["lr"])
            state.scheduler.step()
            state.step += 1

            progress.update()
            if state.step % recipe.log_every == 0 or state.step == run.total_steps:
                progress.tell(log.write_row())
                watch.check()
            if state.step % run.steps_per_epoch == 0:
                validate(run, state)
            asked = vote(stop.signal)
            if asked or state.step % recipe.save_every == 0 or state.step == run.total_steps:
                log.check()  # no checkpoint of weights that are not finite
                save_state(run, state, writer)
            if asked:
                break
    return asked


def optimise(run: Run, state: State, pairs: Pairs) -> Tensor:
    """One step of the weights.

    Returns:
        This process's part of the batch's metrics, in the order of `metrics.STEP`.
    """
    recipe = run.recipe
    # Dropout, where a backbone or a head has it, and the patches that `ranking` draws follow from seed, step and process: a
    # resumed run draws the same.
    torch.manual_seed((recipe.seed * 1_000_003 + state.step) * run.ranks.size + run.ranks.rank)
    state.objective.train()
    state.optimizer.zero_grad(set_to_none=True)
    metrics = torch.zeros(len(STEP[recipe.objective]), device=run.device)
    for part in (parts := pairs.split(run.passes)):
        weight = len(part.classes) / run.batch_size  # of this part in the batch
        # tab: f^V = norm(E_V(X)), its similarities to f^T, cross entropy with y; for X with f_n^T and for X' with f_a^T.
        # loss = (loss_normal + loss_abnormal) / 2 is a sum: each branch goes backward alone, with half the activations.
        calls, outcomes = state.objective.calls(part), []
        share = 1 / len(calls) if recipe.reduction == "mean" else 1.0
        for index, call in enumerate(calls, start=1):
            # The gradients of all passes are averaged over the processes once, in the last one.
            is_last = part is parts[-1] and index == len(calls)
            with nullcontext() if is_last else state.unsynchronised():
                outcome = state.model(*call)
                # The processes' gradients are averaged, and should be added.
                state.scaler.scale(outcome.loss * (share * weight * run.ranks.size)).backward()
            outcomes.append(outcome)
        metrics += weight * in_one(outcomes)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return metrics
