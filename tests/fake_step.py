"""A run of pre-training on a fake GPU, to be used inside `fake_cuda`."""

from pathlib import Path

import numpy as np
import torch
from fake_cuda import CUDA
from torch import Tensor

from tabzoo.backbones import build_backbone, embedding_width
from tabzoo.compute import to_device
from tabzoo.data.samples import Samples
from tabzoo.synthesis.pairs import Pairs
from tabzoo.training.anomalies import pair_maker
from tabzoo.training.heads import ProjectionHeads
from tabzoo.training.loop import optimise
from tabzoo.training.recipe import Recipe
from tabzoo.training.run import Run
from tabzoo.training.state import State, new_state
from tabzoo.training.text import TextFeatures

TEXT_WIDTH = 512
CLASSES = 4


class FakeImages:
    """An `ImageSource` on the fake GPU, where an index reads no memory: one image stands for all."""

    def __init__(self, side: int) -> None:
        self._pixels = torch.empty(1, side, side, 3, dtype=torch.uint8, device=CUDA)

    def batch(self, indices: Tensor) -> Tensor:
        return self._pixels.index_select(0, to_device(indices, CUDA))


class FakeStep:
    """A run whose epochs are one batch, with random weights and texts.

    Args:
        recipe: Its settings.
        folder: Where the run writes.
    """

    def __init__(self, recipe: Recipe, folder: Path = Path("nowhere")) -> None:
        classes = torch.arange(recipe.batch_size) % (CLASSES if recipe.needs_texts else 1)
        backbone = build_backbone(recipe.backbone, init="random", seed=0)
        width = embedding_width(backbone, recipe.crop)
        heads = ProjectionHeads(recipe.projection, width, TEXT_WIDTH)
        texts = torch.randn(2, CLASSES, width if recipe.projection == "none" else TEXT_WIDTH)
        self.run = Run(
            recipe=recipe,
            folder=folder,
            device=CUDA,
            samples=Samples.__new__(Samples),  # a step asks nothing of it
            hashes=np.empty(0, dtype="S32"),
            text=TextFeatures(
                normal=texts[0], abnormal=texts[1], words={}, text_model="", text_pretrained="", prompts_sha256=""
            ),
            pairs=pair_maker(FakeImages(recipe.resize), torch.arange(len(classes)), classes, recipe, CUDA),
        )
        self.state: State = new_state(self.run, backbone, heads)

    def make_pairs(self) -> Pairs:
        """The next batch, in the buffers that prefetching would use."""
        epoch, ids = next(self.run.batches(self.state.step))
        return self.run.pairs(self.run.recipe.seed, epoch, ids, buffers=self.state.step % 2)

    def optimise(self, pairs: Pairs) -> None:
        """The rest of a step, as in `loop.train`."""
        optimise(self.run, self.state, pairs)
        self.state.scheduler.step()
        self.state.step += 1

    def __call__(self) -> None:
        """One step."""
        self.optimise(self.make_pairs())
