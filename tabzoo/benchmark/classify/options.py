"""The options of `classify`, checked, and what its budgets mean. Their docstrings are the help of the flags."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import tyro

from tabzoo.errors import InputError
from tabzoo.flags import check_number, optional

__all__ = ["BUDGETS", "Budget", "Mode", "Options"]

Mode = Literal["finetune", "linear", "knn"]


class Budget(NamedTuple):
    """How much is computed.

    Attributes:
        per_class: At most so many images of a class, for training and test together; None: all.
        size: Side of the images.
        epochs: Over the labelled images, in fine-tuning.
        least_steps: With few labels there are more epochs, until there are so many steps.
        train_batch: Images of a step of fine-tuning.
    """

    per_class: int | None
    size: int
    epochs: int
    least_steps: int
    train_batch: int


BUDGETS = {
    "full": Budget(per_class=None, size=224, epochs=30, least_steps=500, train_batch=128),
    "quick": Budget(per_class=40, size=64, epochs=6, least_steps=40, train_batch=32),
}
_QUICK = BUDGETS["quick"]
_BUDGET = (
    f"full: all images, {BUDGETS['full'].size} px, {BUDGETS['full'].epochs} epochs. "
    f"quick: at most {_QUICK.per_class} images of a class, {_QUICK.size} px, {_QUICK.epochs} epochs, for small machines; its "
    f"numbers can't be compared with those of papers."
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure, and how."""

    data: Annotated[str, tyro.conf.arg(metavar="FILE.npz|DIR")]
    """MixedWM38's file, or a folder with a folder of images for each kind of defect (DIR/KIND/*), or one class of the form of
    MVTec AD, whose DIR/test/KIND/* are taken."""
    backbone: Annotated[Sequence[str], tyro.conf.arg(metavar="NAME [NAME ...]")]
    """A run's folder, a timm name, local-dir:DIR, hf-hub:ID, or random[:ARCHITECTURE]. The first one is the baseline.
    random: weights drawn from the seed; a resnet18 if no architecture is given."""
    mode: Mode
    """finetune: train the backbone and a linear head.
    linear: logistic regression on the frozen features.
    knn: nearest neighbours among the frozen features."""
    output: Annotated[Path, tyro.conf.arg(metavar="OUT")]
    """Folder for the results: a new or empty one, or that of earlier runs, whose results are not measured again."""
    seeds: Annotated[Sequence[int], tyro.conf.arg(metavar="S [S ...]")] = (0, 1, 2)
    """Seeds of the split, of random weights and of training. All is measured once for each seed."""
    labels: Annotated[Sequence[int], tyro.conf.arg(metavar="P [P ...]")] = (1, 5, 10, 100)
    """Percentages of the training labels; at least one image of each class is taken. Smaller sets are parts of larger ones."""
    budget: Annotated[Literal["full", "quick"], tyro.conf.arg(help=_BUDGET)] = "full"
    size: Annotated[int | None, optional("PX")] = None
    """Side of the square that images are resized to; wafer maps to the nearest die. If not given: the budget's."""
    epochs: Annotated[int | None, optional("N")] = None
    """Fine-tuning: passes over the labelled images. If not given: the budget's."""
    optimizer: Annotated[str, tyro.conf.arg(metavar="NAME")] = "adamw"
    """Fine-tuning: a name of timm's optimizers."""
    lr: Annotated[float, tyro.conf.arg(metavar="X")] = 1e-3
    """Fine-tuning: largest learning rate; it warms up over a tenth of the steps and falls as a cosine."""
    weight_decay: Annotated[float, tyro.conf.arg(metavar="X")] = 0.05
    """Fine-tuning: weight decay."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes the GPU if there is one, and keeps the images there."""
    amp: Literal["bf16", "auto", "off"] = "off"
    """bf16: compute backbones in bfloat16; auto: only where the device has instructions for it."""
    batch_size: Annotated[int, tyro.conf.arg(metavar="N")] = 64
    """Images that pass a backbone at a time where it is not trained."""
    cache_dir: Annotated[str | None, optional("DIR")] = None
    """Folder of the cache of decoded images. If not given: tabzoo/images in the user's cache folder."""
    workers: Annotated[int | None, optional("N")] = None
    """Processes that decode images. If not given: one for each CPU core."""

    def __post_init__(self) -> None:
        for name in ("backbone", "seeds", "labels"):
            if not len(getattr(self, name)):
                raise InputError(f"--{name}: expected at least one value")
        for percent in self.labels:
            if not 1 <= percent <= 100:
                raise InputError(f"--labels {percent}: expected percentages from 1 to 100")
        for name, least in {"seeds": 0, "size": 16, "epochs": 1, "batch_size": 1, "workers": 0}.items():
            given = getattr(self, name)
            for value in given if isinstance(given, Sequence) else [given]:
                check_number(name.replace("_", "-"), value, least=least)
        if not 0 < self.lr < float("inf"):
            raise InputError(f"--lr {self.lr:g}: expected a learning rate above 0")
        if not 0 <= self.weight_decay < float("inf"):
            raise InputError(f"--weight-decay {self.weight_decay:g}: expected 0 or more")

    @property
    def effort(self) -> Budget:
        """The budget, with the size and the epochs that were given."""
        budget = BUDGETS[self.budget]
        return budget._replace(size=self.size or budget.size, epochs=self.epochs or budget.epochs)
