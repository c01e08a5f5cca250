"""`python -m tabzoo.training.figures RUN`: the figures of a run for a paper, drawn anew without training."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from torch import Tensor
from tyro.conf import Positional

from tabzoo.captions import write_caption
from tabzoo.command import run_command, say, show, typed
from tabzoo.compute import deterministic
from tabzoo.errors import InputError, TabzooError
from tabzoo.hub.files import Digest
from tabzoo.output_folder import check_output_folder
from tabzoo.training.anomalies import syntheses
from tabzoo.training.clip import UNTRAINED
from tabzoo.training.figures.finished_run import FinishedRun, TextColumns, read_network, read_run, text_columns
from tabzoo.training.figures.for_paper import draw_gallery, draw_losses, draw_matrix
from tabzoo.training.metrics import read_rows
from tabzoo.training.output import METRICS, TEXT, VALIDATION
from tabzoo.training.report import of_each_class

__all__ = ["Figures", "main"]

_PROG = "python -m tabzoo.training.figures"
MATRIX, GALLERY, LOSSES = "similarity_matrix", "gallery", "losses"


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Draw the figures of a run for a paper, without training: similarity matrix, synthetic anomalies, losses."""

    folder: Annotated[Positional[Path], tyro.conf.arg(metavar="RUN", help_behavior_hint="")]
    """Output folder of a run."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Folder for figures and captions. If not given: RUN/figures."""
    data: Annotated[str | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """The run's images. If not given: where they were, as run.json says."""
    text_pretrained: Annotated[str | None, tyro.conf.arg(metavar="TAG|FILE", help_behavior_hint="")] = None
    """Weights of the run's text tower. If not given: those that the run names."""
    prompts: Annotated[str | None, tyro.conf.arg(metavar="NAME|FILE", help_behavior_hint="")] = None
    """The run's prompts, if they were in a file that is not where the command is typed."""
    images: Annotated[int, tyro.conf.arg(metavar="N")] = 64
    """Lines of the similarity matrix, about: abnormal images, evenly of all classes."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes the GPU if there is one."""

    def run(self) -> int:
        """Writes the figures and their captions."""
        if self.images < 1:
            raise InputError(f"--images {self.images}: expected at least 1")
        if self.output:
            check_output_folder(self.output, data=self.data, mark=f"{GALLERY}.txt")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError("--device cuda: torch finds no CUDA device here. Type --device cpu.")
        deterministic()
        device = torch.device("cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu")
        run = read_run(self.folder, self.data, device)
        made = [self._gallery(run), self._losses(run), self._matrix(run, device)]
        files = [f"{name}.{kind}" for name in made if name for kind in ("png", "svg", "txt")]
        show(f"Made in {self._output}: {', '.join(files)}")
        return 0

    @property
    def _output(self) -> Path:
        return self.output or self.folder / "figures"

    def _gallery(self, run: FinishedRun) -> str:
        number = len(run.text.words)
        ids = of_each_class(run.pairs.class_ids, max(number, 6 // number * number))
        about = [
            f"Normal images, synthetic anomalies made from them ({', '.join(syntheses(run.recipe))}), and masks of what was "
            f"changed: the first images of each class, as in the first epoch of the run.",
            *run.notes,
        ]
        self._caption(run, GALLERY, about, {})
        draw_gallery(self._output / GALLERY, run.pairs.raw(run.recipe.seed, 0, ids), list(run.text.words.values()))
        return GALLERY

    def _losses(self, run: FinishedRun) -> str | None:
        rows, validation = (read_rows(run.folder / name) for name in (METRICS, VALIDATION))
        if not rows:
            say(f"{LOSSES}: not drawn, {run.folder / METRICS} has no rows.")
            return None
        draw_losses(self._output / LOSSES, rows, validation)
        held_out = " Dots: the same on held-out images." if validation else ""
        shown = (
            "Losses of normal images and of their synthetic anomalies, and the fraction of images whose most similar text is "
            "that of their own class"
            if run.recipe.needs_texts
            else "Losses of the two scores, and the AUROC of synthetic anomalies against the normal images of their batch"
        )
        about = f"{shown}, over the steps. Each point is a mean over the steps since the one before.{held_out}"
        hashes = {METRICS: Digest.of(run.folder / METRICS).sha256}
        self._caption(run, LOSSES, [about], hashes)
        return LOSSES

    def _matrix(self, run: FinishedRun, device: torch.device) -> str | None:
        try:
            network = read_network(run, device)
        except TabzooError as error:
            say(f"{MATRIX}: not drawn. {error}")
            return None
        ids = of_each_class(run.pairs.class_ids, self.images)
        parts = [run.pairs(run.recipe.seed, 0, part) for part in ids.split(64)]
        embeddings = [network.abnormal(pairs.abnormal) for pairs in parts]
        images, classes = torch.cat(embeddings), run.pairs.class_ids[ids]
        if not images.isfinite().all():
            say(f"{MATRIX}: not drawn. The embeddings of {run.folder} are not finite numbers.")
            return None
        texts, missing = self._texts(run, device)
        panels: dict[str, Tensor] = {}
        if texts:
            panels = {"class names": images @ texts.names.T, "sentences": images @ texts.sentences.flatten(0, 1).T}
        panels["averaged texts"] = images @ run.text.abnormal.cpu().T
        panels = {title: values for title, values in panels.items() if values.shape[1] > 1}
        if not panels:
            say(f"{MATRIX}: not drawn. A single class has no others to compare it with.")
            return None
        draw_matrix(self._output / MATRIX, panels, classes, list(run.text.words.values()))
        untrained = (
            ["The text tower was untrained: its texts mean nothing."] if run.text.text_pretrained == UNTRAINED else []
        )
        about = [*_about_matrix(texts, len(ids)), *missing, *untrained, network.origin, *run.notes]
        self._caption(run, MATRIX, about, {"the weights": network.sha256})
        return MATRIX

    def _texts(self, run: FinishedRun, device: torch.device) -> tuple[TextColumns | None, list[str]]:
        """Columns of class names and sentences; None and the reason where the text tower is not at hand."""
        try:
            return text_columns(run, self.text_pretrained, self.prompts, device), []
        except TabzooError as error:
            reason = str(error).splitlines()[0]
            needed = "class names and sentences need the text tower and the prompts"
            say(f"{MATRIX}: only averaged texts are drawn; {needed}. {reason}")
            return None, [
                f"Class names and sentences are not shown, since the text tower or the prompts were not at hand ({reason})."
            ]

    def _caption(self, run: FinishedRun, name: str, about: Sequence[str], hashes: dict[str, str]) -> None:
        files = hashlib.sha256(np.sort(run.images.hashes).tobytes()).hexdigest()
        texts = {TEXT: Digest.of(run.folder / TEXT).sha256} if run.recipe.needs_texts else {}
        write_caption(
            self._output / f"{name}.txt",
            about,
            command=typed(_PROG, self, positional=("folder",)),
            hashes={"the image files": files, **texts, **hashes},
            packages=("open_clip_torch",),
        )


def _about_matrix(texts: TextColumns | None, number: int) -> list[str]:
    columns = "the averaged abnormal sentences of each class, which the loss sees"
    if texts:
        columns = (
            f"the names of the classes; {texts.sentences.shape[1]} abnormal sentences of each class, every abnormal state in "
            f"the first template, such as '{texts.first}'; and {columns}"
        )
    return [
        f"Cosine similarities of {number} images with synthetic anomalies (lines, by class) and texts (columns, by class): "
        f"{columns}.",
        "Each value is relative to the mean of its line in the panel: the softmax does not see what a line has in common. "
        "Red is high, blue is low; all panels have the same symmetric range.",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0, or 2 for a user's mistake."""
    return run_command(Figures, argv, prog=_PROG)


if __name__ == "__main__":
    sys.exit(main())
