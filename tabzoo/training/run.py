"""What a pre-training run is about: its settings, images, texts and processes, and which images each step takes."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from tabzoo.data.decoding import Hashes
from tabzoo.data.samples import Samples
from tabzoo.errors import InputError, count
from tabzoo.synthesis.pairs import PairMaker
from tabzoo.training.ranking import LEAST
from tabzoo.training.ranks import Ranks
from tabzoo.training.recipe import Recipe
from tabzoo.training.sampling import epoch_samples, one_class_batches
from tabzoo.training.text import TextFeatures

__all__ = ["Run", "contents_digest", "names_digest"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A run, as it stays from the first step to the last.

    Attributes:
        recipe: The settings.
        folder: Output folder.
        device: Where to train.
        samples: All images of the run.
        hashes: Of their files, [N].
        text: Text features of their classes.
        pairs: Makes the pairs to train on.
        held_out: Makes the pairs of the held-out images, None if there are none.
        ranks: The processes that train together.

    Raises:
        InputError: Fewer than two images, or fewer than two for each process in a batch; with the objective `ranking`, fewer
            than four images of a class, or fewer than four for each process.
    """

    recipe: Recipe
    folder: Path
    device: torch.device
    samples: Samples
    hashes: Hashes
    text: TextFeatures
    pairs: PairMaker
    held_out: PairMaker | None = None
    ranks: Ranks = field(default_factory=Ranks)

    def __post_init__(self) -> None:
        if self._ranks_scores:
            self._check_one_class_batches()
        if self._epoch_length < 2:
            raise InputError(f"{self.recipe.data}: one image to train on; expected at least two")
        if self.batch_size < 2 * self.ranks.size:
            raise InputError(
                f"--batch-size {self.recipe.batch_size}: {self.batch_size} images a step are too few for {self.ranks.size} "
                f"processes, each of which needs at least two, for batch-norm. Type --batch-size {2 * self.ranks.size} or "
                f"more, or start fewer processes."
            )

    def _check_one_class_batches(self) -> None:
        recipe, counts, needed = self.recipe, self.pairs.class_ids.bincount(), LEAST * self.ranks.size
        if self.batch_size >= needed:
            return
        fewest = int(counts[counts > 0].min())
        name = self.samples.classes[int((counts == fewest).nonzero()[0])]
        left = f"{recipe.data}: class {name} has {count(fewest, 'image')} to train on"
        if fewest < LEAST:
            raise InputError(
                f"{left}; --objective ranking scores each image by the others of its class and needs at least {LEAST}. Add "
                f"images, {'type a smaller --val-share, ' if self.held_out else ''}or remove that folder."
            )
        if fewest < needed:
            raise InputError(
                f"{left}, too few for {self.ranks.size} processes: each needs at least {LEAST} images of one class a step. "
                f"Start fewer processes."
            )
        raise InputError(
            f"--batch-size {recipe.batch_size}: --objective ranking needs at least {needed} images a step. Type "
            f"--batch-size {needed} or more."
        )

    @property
    def _ranks_scores(self) -> bool:
        return self.recipe.objective == "ranking"

    @cached_property
    def _epoch_length(self) -> int:
        return len(self.order(0))

    @cached_property
    def batch_size(self) -> int:
        """Normal images a step, over all processes. A batch larger than an epoch becomes the epoch.

        With the objective `ranking`, where a batch holds one class, one larger than the smallest class becomes that class.
        """
        counts = self.pairs.class_ids.bincount()
        most = int(counts[counts > 0].min()) if self._ranks_scores else self._epoch_length
        return min(self.recipe.batch_size, most)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of an epoch. The remainder is dropped; a different one each epoch if the images are shuffled."""
        return self._epoch_length // self.batch_size

    @property
    def total_steps(self) -> int:
        """Steps of the run."""
        return self.steps_per_epoch * self.recipe.epochs

    @property
    def passes(self) -> int:
        """Forward passes that a step takes for each branch, in every process: batch-norm may synchronise them.

        Parts are as small as `micro_batch` asks for the largest share of a batch. The smallest share still has at least two
        images in each part: batch-norm can't work on one.
        """
        smallest, largest = self.batch_size // self.ranks.size, -(-self.batch_size // self.ranks.size)
        most = self.recipe.micro_batch or largest
        return min(-(-largest // most), max(1, smallest // min(most, 2)))

    def order(self, epoch: int) -> Tensor:
        """Sample ids of an epoch, in the order they are trained on."""
        recipe, class_ids = self.recipe, self.pairs.class_ids
        order = epoch_samples(
            class_ids, seed=recipe.seed, epoch=epoch, sampling=recipe.sampling, repeats=recipe.repeats
        )
        if not self._ranks_scores:
            return order
        shuffled = recipe.sampling != "sequential"
        return one_class_batches(order, class_ids, self.batch_size, seed=recipe.seed, epoch=epoch, shuffled=shuffled)

    def batches_of(self, held_out: PairMaker) -> Sequence[Tensor]:
        """Sample ids of each batch of held-out images; with the objective `ranking`, of one class, four images or more."""
        ids = torch.arange(len(held_out))
        parts: list[Tensor] = list(ids.split(self.batch_size))
        if not self._ranks_scores:
            return parts
        of_class = [ids[held_out.class_ids == index] for index in held_out.class_ids.unique()]
        # A part may be larger than a batch, so that none is too small: 5 images, with 4 a batch, are one part.
        numbers = [min(-(-len(group) // self.batch_size), len(group) // LEAST) for group in of_class]
        return [
            part
            for group, number in zip(of_class, numbers, strict=True)
            if number
            for part in group.tensor_split(number)
        ]

    def batches(self, first: int) -> Iterator[tuple[int, Tensor]]:
        """Epoch and sample ids of each batch, from step `first`, counted from 0, to the last one."""
        order = torch.empty(0)
        for step in range(first, self.total_steps):
            epoch, index = divmod(step, self.steps_per_epoch)
            if index == 0 or step == first:
                order = self.order(epoch)
            yield epoch, order[index * self.batch_size : (index + 1) * self.batch_size]


def names_digest(samples: Samples) -> str:
    """SHA-256 of the list of images, in hex."""
    # The paths are joined, since the width of their array depends on the longest of them.
    content = [json.dumps(samples.classes).encode(), samples.class_ids.tobytes(), b"\0".join(samples.paths.tolist())]
    return hashlib.sha256(b"\0\0".join(content)).hexdigest()


def contents_digest(hashes: Hashes, textures: Tensor | None) -> str:
    """SHA-256 of the hashes of all images and of the pixels of the textures, in hex."""
    digest = hashlib.sha256(hashes.tobytes())
    if textures is not None:
        digest.update(textures.numpy().tobytes())
    return digest.hexdigest()
