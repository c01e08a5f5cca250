"""A run's folder, read again: its images, texts and network, as they were at its last step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabzoo.backbones import build_backbone, embedding_width
from tabzoo.data.cache import Images, open_images
from tabzoo.data.layouts import find_samples
from tabzoo.errors import InputError, TabzooError, WeightsError
from tabzoo.hub.files import Digest, read_json
from tabzoo.hub.record import RECORD, WEIGHTS
from tabzoo.hub.tensors import read_tensors
from tabzoo.synthesis.draws import hold_out
from tabzoo.synthesis.pairs import PairMaker
from tabzoo.training.anomalies import pair_maker
from tabzoo.training.checkpoint import load_latest_checkpoint
from tabzoo.training.clip import load_encoder
from tabzoo.training.heads import ProjectionHeads
from tabzoo.training.output import CHECKPOINTS, RECIPE, RUN, TEXT
from tabzoo.training.prompts import BUILT_IN, load_prompts
from tabzoo.training.recipe import Recipe, load_recipe
from tabzoo.training.run import names_digest
from tabzoo.training.text import TextFeatures, load_text_features

__all__ = ["FinishedRun", "Network", "TextColumns", "read_network", "read_run", "text_columns"]

_SAME = 0.999  # cosine of text features that the same tower makes, on any machine


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A run's folder.

    Attributes:
        folder: Where it is.
        recipe: Its settings.
        text: The text features that it was trained against.
        images: Its images, or those of another folder with the same classes.
        pairs: Makes the pairs that it was trained on.
        notes: What differs from the run, in sentences.
    """

    folder: Path
    recipe: Recipe
    text: TextFeatures
    images: Images
    pairs: PairMaker
    notes: tuple[str, ...]


class Network(NamedTuple):
    """Backbone and heads, and where they come from: a sentence and the SHA-256 of a file."""

    backbone: nn.Module
    heads: ProjectionHeads
    origin: str
    sha256: str

    @torch.no_grad()
    def abnormal(self, images: Tensor) -> Tensor:
        """Unit embeddings of abnormal images in the text space, [B, D]."""
        return F.normalize(self.heads.eval()(self.backbone.eval()(images), "abnormal").float(), dim=-1).cpu()


class TextColumns(NamedTuple):
    """Texts whose similarities are shown: unit vectors [C, D] and [C, S, D]."""

    names: Tensor
    sentences: Tensor
    first: str
    """The first class's first sentence, as an example."""


def read_run(folder: Path, data: str | None, device: torch.device) -> FinishedRun:
    """Reads a run's folder and opens its images.

    Args:
        folder: Output folder of a run.
        data: Its images, if they are not where they were.
        device: Where pairs are made.

    Raises:
        InputError: The folder does not hold a run, or the images are missing or belong to other classes.
    """
    for name in (RUN, RECIPE, TEXT):
        if not (folder / name).is_file():
            raise InputError(f"{folder}: is not a run of tabzoo: it has no {name}. Give the output folder of a run.")
    about = _read_about(folder / RUN)
    recipe = load_recipe(str(folder / RECIPE))
    text = load_text_features(folder / TEXT)
    if text is None:
        raise InputError(f"{folder / TEXT}: holds no text features; was it written by tabzoo?")
    source = data or about.get("data")
    if not isinstance(source, str) or not Path(source).exists():
        raise InputError(f"{folder}: its images are not in {source} any more. Type --data DIR, where they are now.")
    samples = find_samples(source, layout=recipe.layout).train_normals()
    if strange := [name for name in samples.classes if name not in text.words]:
        raise InputError(
            f"{source}: has classes that the run does not know: {', '.join(strange)}; it has {', '.join(text.words)}"
        )
    images = open_images(
        samples,
        size=recipe.resize,
        mode=recipe.cache,
        workers=recipe.workers,
        device=device,
        white_level=recipe.white_level,
    )
    rows = [list(text.words).index(name) for name in images.samples.classes]
    words = {name: text.words[name] for name in images.samples.classes}
    class_ids = torch.from_numpy(images.samples.class_ids).long()
    members, _ = hold_out(class_ids, recipe.val_share, seed=recipe.seed)
    return FinishedRun(
        folder=folder,
        recipe=recipe,
        text=replace(text, normal=text.normal[rows], abnormal=text.abnormal[rows], words=words),
        images=images,
        pairs=pair_maker(images, members, class_ids[members], recipe, device),
        notes=_notes(folder, about, images, source),
    )


def _read_about(path: Path) -> dict[str, object]:
    try:
        return read_json(path)
    except WeightsError as error:
        raise InputError(str(error)) from error


def _notes(folder: Path, about: dict[str, object], images: Images, source: str) -> tuple[str, ...]:
    notes = []
    record = _read_about(folder / RECORD) if (folder / RECORD).is_file() else {}
    training = record.get("training")
    said = training.get("samples_sha256") if isinstance(training, dict) else None
    if said and said != names_digest(images.samples):
        notes.append(f"The images in {source} are not exactly those of the run.")
    if "--perlin-textures" in str(about.get("command")):
        notes.append(
            "The run took textures from a folder, which is not known any more: these anomalies have drawn textures."
        )
    return tuple(notes)


def read_network(run: FinishedRun, device: torch.device) -> Network:
    """Backbone and heads of the newest checkpoint; without one, the weights of a run without heads.

    Raises:
        InputError: Neither is there, or they do not fit the recipe; or it was trained without texts.
    """
    recipe = run.recipe
    if not recipe.needs_texts:
        raise InputError(
            f"{run.folder}: was trained with objective {recipe.objective}, without texts to compare images with"
        )
    backbone = build_backbone(recipe.backbone, init="random", seed=recipe.seed)
    heads = ProjectionHeads(recipe.projection, embedding_width(backbone, recipe.crop), run.text.abnormal.shape[1])
    try:
        saved = load_latest_checkpoint(run.folder / CHECKPOINTS)
    except TabzooError as error:  # it says how to resume, which nobody does here
        raise InputError(f"{run.folder / CHECKPOINTS}: no checkpoint is intact") from error
    if saved is None and (recipe.projection != "none" or not (run.folder / WEIGHTS).is_file()):
        raise InputError(
            f"{run.folder}: has no {CHECKPOINTS}, which hold the projection from images to texts ({recipe.projection})"
            if recipe.projection != "none"
            else f"{run.folder}: has neither {CHECKPOINTS} nor {WEIGHTS}"
        )
    try:
        if saved is None:
            backbone.load_state_dict(read_tensors(run.folder / WEIGHTS)[0])
            origin, file = "Weights of the last step.", run.folder / WEIGHTS
        else:
            modules = {key.removeprefix("objective."): value for key, value in saved["modules"].items()}
            for name, module in (("backbone.", backbone), ("heads.", heads)):
                module.load_state_dict(
                    {key.removeprefix(name): value for key, value in modules.items() if key.startswith(name)}
                )
            origin, file = (
                f"Weights of step {saved['step']}.",
                run.folder / CHECKPOINTS / f"step_{saved['step']:08d}.pt",
            )
    except (RuntimeError, TabzooError) as error:
        raise InputError(f"{run.folder}: its weights do not fit its {RECIPE}: {str(error).splitlines()[0]}") from error
    return Network(backbone.to(device), heads.to(device), origin, Digest.of(file).sha256)


def text_columns(
    run: FinishedRun, text_pretrained: str | None, prompts_from: str | None, device: torch.device
) -> TextColumns:
    """Class names and abnormal sentences in the text space: each abnormal state in the first template.

    Args:
        run: The run.
        text_pretrained: The text tower's weights; those that the run names if not given.
        prompts_from: The run's prompts; those that the run names if not given. Of a file it knows the name alone.
        device: Where the tower runs.

    Raises:
        InputError: The tower's weights or the sentences are not at hand, or they are not those of the run.
        WeightsError: The tower's weights can't be fetched.
    """
    text, phrases = run.text, list(run.text.words.values())
    name = prompts_from or run.recipe.prompts
    if name not in BUILT_IN and not Path(name).is_file():
        raise InputError(f"the run's prompts are in a file, and there is no {name} here. Type --prompts FILE.")
    prompts = load_prompts(name)
    if prompts.digest() != text.prompts_sha256:
        raise InputError(f"the prompts {name} are not those of the run")
    encode = load_encoder(text.text_model, text_pretrained or text.text_pretrained, device=device, seed=run.recipe.seed)

    def unit(sentences: Sequence[str]) -> Tensor:
        return F.normalize(encode(sentences), dim=-1)

    averaged = F.normalize(unit(prompts.sentences(phrases[0])[1]).mean(dim=0), dim=-1)
    if averaged.shape != text.abnormal[0].shape or float(averaged @ text.abnormal[0]) < _SAME:
        raise InputError(
            f"the text tower {text.text_model} {text_pretrained or text.text_pretrained} is not that of the run"
        )
    short = replace(prompts, templates=prompts.templates[:1])
    sentences = [short.sentences(phrase)[1] for phrase in phrases]
    return TextColumns(unit(phrases), torch.stack([unit(of_class) for of_class in sentences]), sentences[0][0])
