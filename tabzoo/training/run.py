"""One pre-training run: all that it is built from, and what a step, a row of metrics and a checkpoint are."""

import hashlib
import json
import textwrap
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import timm.optim
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR

from tabzoo.data.decoding import Hashes
from tabzoo.data.layouts import Samples
from tabzoo.errors import InputError, TrainingError, brief, did_you_mean
from tabzoo.jsonl import append_line
from tabzoo.synthesis.pairs import PairMaker, Pairs
from tabzoo.training.aligner import Aligner
from tabzoo.training.checkpoint import save_checkpoint
from tabzoo.training.metrics import cut_back
from tabzoo.training.objective import BRANCHES, ProjectionHeads, TextAlignment
from tabzoo.training.output import CHECKPOINTS, METRICS, VALIDATION
from tabzoo.training.ranks import Ranks
from tabzoo.training.recipe import Recipe
from tabzoo.training.sampling import epoch_samples
from tabzoo.training.schedule import learning_rate_schedule
from tabzoo.training.text import TextFeatures

__all__ = ["Run", "check_optimizer", "contents_digest", "names_digest"]

_COLUMNS = ("loss", "loss_normal", "loss_abnormal", "accuracy_normal", "accuracy_abnormal")
_AMP_TYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
# torch's own optimisers, by timm's names, which have a fused form.
_FUSED = ("momentum", "adam", "adamw")


class Run:
    """The state of a run and the operations of its loop.

    Args:
        recipe: The settings.
        folder: Output folder.
        device: Where to train.
        samples: The images, in the order of the pair makers' indices.
        hashes: Of their files, [N].
        text: Text features of their classes.
        backbone: The image encoder.
        heads: From its embeddings to the text space.
        pairs: Makes the pairs to train on.
        held_out: Makes the pairs of the held-out images, None where there are none.
        ranks: The processes that train together.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        device: torch.device,
        samples: Samples,
        hashes: Hashes,
        text: TextFeatures,
        backbone: nn.Module,
        heads: ProjectionHeads,
        pairs: PairMaker,
        held_out: PairMaker | None,
        ranks: Ranks,
    ) -> None:
        self.recipe, self.folder, self.device, self.text = recipe, folder, device, text
        self.samples, self.hashes = samples, hashes
        self.pairs, self.held_out, self.ranks = pairs, held_out, ranks
        epoch_length = len(self.order(0))
        # The remainder of an epoch is dropped, another one each epoch; a larger batch becomes the epoch.
        self.batch_size = min(recipe.batch_size, epoch_length)
        self._check_batch(epoch_length)
        self.steps_per_epoch = epoch_length // self.batch_size
        self.total_steps = self.steps_per_epoch * recipe.epochs
        self.step = 0
        self._rate = 0.0  # of the step just done; the scheduler is one ahead
        self._build(backbone, heads)
        self._unread: list[Tensor] = []  # metrics of steps that were not copied from the device yet
        self._since_row: list[list[float]] = []
        self._clock = (time.perf_counter(), 0)

    def _check_batch(self, epoch_length: int) -> None:
        if epoch_length < 2:
            raise InputError(f"{self.recipe.data}: one image to train on; expected at least two")
        if self.batch_size < 2 * self.ranks.size:
            raise InputError(
                f"--batch-size {self.recipe.batch_size}: {self.batch_size} images a step are too few for {self.ranks.size} "
                f"processes, each of which needs two at least, for batch-norm. Type --batch-size {2 * self.ranks.size} or "
                f"more, or start fewer processes."
            )

    def _build(self, backbone: nn.Module, heads: ProjectionHeads) -> None:
        recipe = self.recipe
        memory_format = torch.channels_last if recipe.channels_last else torch.contiguous_format
        objective = TextAlignment(
            self.text.normal,
            self.text.abnormal,
            objective=recipe.objective,
            temperature=recipe.temperature,
            learn_temperature=recipe.learn_temperature,
            reduction=recipe.reduction,
        )
        aligner = Aligner(backbone, heads, objective, batch_norm=recipe.batch_norm, amp=_AMP_TYPES[recipe.amp])
        self.aligner = aligner.to(self.device, memory_format=memory_format)  # type: ignore[call-overload]
        self.backbone = self.aligner.backbone
        if recipe.compile:
            self.backbone.compile()  # in place: weights keep their names, and synthesis stays outside the graph
        self._align = self.aligner if self.ranks.size == 1 else self._distributed()
        self.optimizer = _optimizer(recipe, self.aligner, fused=self.device.type == "cuda")
        self.scheduler = self._schedule()
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.amp == "fp16")

    def _distributed(self) -> DistributedDataParallel:
        """The aligner with the first process's weights, its gradients averaged over all processes."""
        return DistributedDataParallel(
            self.aligner,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            # Gradients of the normal branch's own head come from the backward pass that is not synchronised.
            find_unused_parameters=self.recipe.projection == "residual",
            gradient_as_bucket_view=True,
        )

    def _schedule(self) -> LambdaLR:
        recipe = self.recipe
        return learning_rate_schedule(
            self.optimizer,
            recipe.schedule,
            steps_per_epoch=self.steps_per_epoch,
            epochs=recipe.epochs,
            warmup_epochs=recipe.warmup_epochs,
            step=self.step,
        )

    def order(self, epoch: int) -> Tensor:
        """Sample ids of an epoch, in the order they are trained on."""
        recipe = self.recipe
        return epoch_samples(
            self.pairs.class_ids, seed=recipe.seed, epoch=epoch, sampling=recipe.sampling, repeats=recipe.repeats
        )

    def batches(self) -> Generator[Pairs, None, None]:
        """This process's share of every batch from the present step to the last one."""
        batches = ((step // self.steps_per_epoch, self.ranks.share(ids)) for step, ids in self._steps())
        return self.pairs.stream(self.recipe.seed, batches)

    def _steps(self) -> Iterator[tuple[int, Tensor]]:
        """Each step from the present one on, from 0, and the sample ids of its whole batch."""
        order = torch.empty(0)
        for step in range(self.step, self.total_steps):
            epoch, index = divmod(step, self.steps_per_epoch)
            if index == 0 or step == self.step:
                order = self.order(epoch)
            yield step, order[index * self.batch_size : (index + 1) * self.batch_size]

    def optimise(self, pairs: Pairs) -> None:
        """One step on a batch: normal and abnormal images in turn, forward and backward, then the weights."""
        # Dropout, where a backbone or a head has it, follows from seed, step and process: a resumed run draws the same.
        torch.manual_seed((self.recipe.seed * 1_000_003 + self.step) * self.ranks.size + self.ranks.rank)
        self.aligner.train()
        self.optimizer.zero_grad(set_to_none=True)
        metrics = torch.zeros(4, device=self.device)
        size = len(pairs.classes)
        micro = self.recipe.micro_batch or size
        # With parts of two, an odd batch has one of three: batch-norm can't work on one image.
        parts = list(_parts(pairs, min(-(-size // micro), max(1, size // min(micro, 2)))))
        for part in parts:
            share = len(part.classes) / self.batch_size
            results = []
            for images, branch in zip((part.normal, part.abnormal), BRANCHES, strict=True):
                # The gradients of all passes are averaged over the processes once, in the last one.
                last = part is parts[-1] and branch == BRANCHES[-1]
                with nullcontext() if last else self._unsynchronised():
                    loss, accuracy = self._align(images, part.classes, branch)
                    weight = self.aligner.objective.branch_weight * share * self.ranks.size
                    self.scaler.scale(loss * weight).backward()
                results += [loss.detach(), accuracy]
            metrics += share * torch.stack([results[0], results[2], results[1], results[3]])
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._rate = self.optimizer.param_groups[0]["lr"]
        self.scheduler.step()
        self._unread.append(metrics)

    def log(self, epoch: int) -> dict[str, str]:
        """Appends a row to metrics.jsonl, the mean over the steps since the last row; returns it short, for a person."""
        self._read()
        means = np.mean(self._since_row, axis=0)
        self._since_row = []
        then, first = self._clock
        self._clock = (time.perf_counter(), self.step)
        row = {
            "step": self.step,
            "epoch": epoch,
            **self._named(means),
            "lr": self._rate,
            "images_per_second": 2 * self.batch_size * (self.step - first) / (self._clock[0] - then),
        }
        if self.ranks.is_first:
            append_line(self.folder / METRICS, row)
        return {
            "loss": f"{row['loss']:.3f}",
            "accuracy": f"{row['accuracy_normal']:.2f}/{row['accuracy_abnormal']:.2f}",
            "images/s": f"{row['images_per_second']:.0f}",
        }

    @torch.no_grad()
    def validate(self, epoch: int) -> None:
        """Appends loss and accuracies on the held-out images and their synthetic anomalies to validation.jsonl."""
        if self.held_out is None or not self.ranks.is_first:
            return
        self.aligner.eval()
        total = torch.zeros(4, device=self.device)
        for ids in torch.arange(len(self.held_out)).split(self.batch_size):
            # Epoch -1: the same anomalies every time, none of them trained on.
            pairs = self.held_out(self.recipe.seed, -1, ids)
            normal, abnormal = (
                self.aligner(images, pairs.classes, branch)
                for images, branch in zip((pairs.normal, pairs.abnormal), BRANCHES, strict=True)
            )
            total += len(ids) * torch.stack([normal.loss, abnormal.loss, normal.accuracy, abnormal.accuracy])
        means = (total / len(self.held_out)).tolist()
        append_line(self.folder / VALIDATION, {"step": self.step, "epoch": epoch, **self._named(means)})

    def save(self) -> None:
        """Writes a checkpoint, once it is seen that all losses so far are numbers."""
        self._read()
        if not self.ranks.is_first:
            return
        state = {
            "modules": self.aligner.state_dict(),
            # Its numbers alone: learning rate and the like are the recipe's.
            "optimizer": self.optimizer.state_dict()["state"],
            "scaler": self.scaler.state_dict(),
            "recipe": self.recipe.identity(),
            "samples": self.samples_digest(),
            "contents": contents_digest(self.hashes, self.pairs.textures),
        }
        save_checkpoint(self.folder / CHECKPOINTS, self.step, state)

    def load(self, state: dict[str, Any], *, allow_recipe_change: bool = False) -> None:
        """Goes back to a checkpoint; rows of metrics written after it are dropped.

        Args:
            state: What `save` wrote.
            allow_recipe_change: Go on with other settings than those the run was started with.

        Raises:
            InputError: It was written by another recipe or on other images.
        """
        self._check_same(state, allow_recipe_change)
        try:
            self.aligner.load_state_dict(state["modules"])
            if state["recipe"].get("optimizer") == self.recipe.optimizer:  # another one starts anew
                self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state["optimizer"]})
            if state["scaler"]:  # of a run in float16
                self.scaler.load_state_dict(state["scaler"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = textwrap.shorten(str(error), 240)
            if state["recipe"] != self.recipe.identity():
                raise InputError(f"--resume: the checkpoint does not fit the changed recipe: {why}") from error
            raise InputError(
                f"--resume: the checkpoint of step {state['step']} in {self.folder / CHECKPOINTS} is damaged: {why}. "
                f"Remove it with its .json to go on from the one before it, or type --overwrite to start anew."
            ) from error
        self.step = state["step"]
        self.scheduler = self._schedule()
        self._clock = (time.perf_counter(), self.step)
        self.drop_later_rows()

    def drop_later_rows(self) -> None:
        """Drops rows of metrics after the present step: those of a run that was killed after its last checkpoint."""
        for name in (METRICS, VALIDATION) if self.ranks.is_first else ():
            cut_back(self.folder / name, self.step)

    def _check_same(self, state: dict[str, Any], allow_recipe_change: bool) -> None:
        if state["samples"] != self.samples_digest():
            raise InputError(
                f"--resume: the run in {self.folder} was started with other images than those found now. Give it the same "
                f"(its run.json says which folder), or type --overwrite to start anew."
            )
        contents = contents_digest(self.hashes, self.pairs.textures)
        if state.get("contents", contents) != contents:  # older checkpoints do not say
            raise InputError(
                f"--resume: the run in {self.folder} was started with images of the same names but other contents than those "
                f"found now{' (or with other textures)' if self.pairs.textures is not None else ''}. Put those back, or type "
                f"--overwrite to start anew."
            )
        before, now = state["recipe"], self.recipe.identity()
        changes = [
            f"{key} {before.get(key)} -> {now.get(key)}" for key in {**before, **now} if before.get(key) != now.get(key)
        ]
        if changes and not allow_recipe_change:
            raise InputError(
                f"--resume: the run in {self.folder} was started with another recipe: {'; '.join(changes)}. Leave these "
                f"flags as they were, type --allow-recipe-change to go on with the new values, or --overwrite to start anew."
            )

    def samples_digest(self) -> str:
        """See `names_digest`."""
        return names_digest(self.samples)

    @torch.no_grad()
    def similarities(self, pairs: Pairs) -> dict[str, Tensor]:
        """Cosine similarity of embeddings and text features, [B, C], for each branch."""
        self.aligner.eval()
        result = {}
        for images, branch in zip((pairs.normal, pairs.abnormal), BRANCHES, strict=True):
            embeddings = nn.functional.normalize(self.aligner.embed(images, branch).float(), dim=-1)
            texts = self.text.normal if branch == "normal" else self.text.abnormal
            result[f"{branch} images, {branch} texts"] = embeddings.cpu() @ texts.T
        return result

    def _unsynchronised(self) -> AbstractContextManager[None]:
        return self._align.no_sync() if isinstance(self._align, DistributedDataParallel) else nullcontext()

    def _named(self, values: Iterable[float]) -> dict[str, float]:
        loss_normal, loss_abnormal, *accuracies = (float(value) for value in values)
        loss = self.aligner.objective.branch_weight * (loss_normal + loss_abnormal)
        return dict(zip(_COLUMNS, (loss, loss_normal, loss_abnormal, *accuracies), strict=True))

    def _read(self) -> None:
        """Copies the metrics of past steps from the devices, and stops the run if a loss is not a number."""
        values = self.ranks.total(torch.stack(self._unread)).tolist() if self._unread else []
        first = self.step - len(values)
        self._unread = []
        for step, row in enumerate(values, start=first):
            if not all(np.isfinite(row)):
                raise TrainingError(self._not_finite(step))
        self._since_row += values

    def _not_finite(self, step: int) -> str:
        epoch, index = divmod(step, self.steps_per_epoch)
        samples = self.order(epoch)[index * self.batch_size : (index + 1) * self.batch_size] % len(self.pairs)
        files = [str(self.samples.path(int(i))) for i in self.pairs.members[samples]]
        kept = sorted(entry.name for entry in (self.folder / CHECKPOINTS).glob("step_*.pt"))
        return (
            f"the loss is not a finite number at step {step + 1} (epoch {epoch}). Images of that batch: "
            f"{', '.join(files[:4])}{f' and {len(files) - 4} more' if len(files) > 4 else ''}. "
            f"Last good checkpoint: {self.folder / CHECKPOINTS / kept[-1] if kept else 'none was written yet'}. "
            f"A lower --lr, a longer --warmup-epochs or --amp off usually helps."
        )


def names_digest(samples: Samples) -> str:
    """SHA-256 of the list of images, in hex."""
    # The paths are joined, for the width of their array depends on the longest of them.
    content = [json.dumps(samples.classes).encode(), samples.class_ids.tobytes(), b"\0".join(samples.paths.tolist())]
    return hashlib.sha256(b"\0\0".join(content)).hexdigest()


def contents_digest(hashes: Hashes, textures: Tensor | None) -> str:
    """SHA-256 of the hashes of all images and of the pixels of the textures, in hex."""
    digest = hashlib.sha256(hashes.tobytes())
    if textures is not None:
        digest.update(textures.numpy().tobytes())
    return digest.hexdigest()


def check_optimizer(recipe: Recipe, device: torch.device) -> None:
    """Tries a recipe's optimizer on a layer of four weights.

    Raises:
        InputError: There is none of that name, or it does not work here.
    """
    name, known = recipe.optimizer, [str(known) for known in timm.optim.list_optimizers()]
    if name not in known:
        raise InputError(
            f"--optimizer {name}: expected sgd or the name of an optimizer of timm.{did_you_mean(name, known)} "
            f"timm.optim.list_optimizers() lists all."
        )
    layer = nn.Linear(2, 2, device=device)
    try:
        optimizer = _optimizer(recipe, layer, fused=False)
        layer(torch.ones(2, 2, device=device)).sum().backward()
        optimizer.step()
    except Exception as error:  # whatever an optimizer does that needs a GPU, a package or second derivatives
        raise InputError(
            f"--optimizer {name}: can't be used here: {brief(error)}. sgd and adamw always can."
        ) from error


def _optimizer(recipe: Recipe, modules: nn.Module, *, fused: bool) -> torch.optim.Optimizer:
    # timm's own "sgd" has Nesterov momentum, which neither the paper nor its code names; "momentum" is plain SGD.
    name = "momentum" if recipe.optimizer == "sgd" else recipe.optimizer
    more: dict[str, Any] = {"fused": True} if fused and name in _FUSED else {}
    trained = [parameter for parameter in modules.parameters() if parameter.requires_grad]
    return timm.optim.create_optimizer_v2(
        trained,
        name,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        **more,
    )


def _parts(pairs: Pairs, count: int) -> Iterable[Pairs]:
    # Of equal size, give or take one.
    pieces = [tensor.tensor_split(count) for tensor in pairs]
    return (Pairs(*piece) for piece in zip(*pieces, strict=True))
