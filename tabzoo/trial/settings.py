"""What a trial trains with: recipe, texts and start, resolved and checked before any photo is decoded."""

import dataclasses
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tabzoo.backbones import build_backbone, embedding_width
from tabzoo.compute import choose_device, deterministic
from tabzoo.data.class_words import class_words
from tabzoo.data.samples import Samples
from tabzoo.errors import InputError, TabzooError
from tabzoo.hub.config import timm_config
from tabzoo.hub.files import write_json
from tabzoo.hub.record import CONFIG, WEIGHTS
from tabzoo.system import whole_file
from tabzoo.training.clip import UNTRAINED
from tabzoo.training.normalisation import resolve_normalisation
from tabzoo.training.output import TEXT
from tabzoo.training.prompts import load_prompts
from tabzoo.training.recipe import NORMALISATION, Recipe, list_recipes, load_recipe
from tabzoo.training.setup import check_settings
from tabzoo.training.text import TextFeatures, load_text_features, obtain_text_features
from tabzoo.trial.options import DEFAULT_RECIPE, Options

__all__ = ["START", "Settings", "flags_of_recipes", "recipe_fields_named", "recipe_of", "settle"]

START = "start"
_ON_CPU = 32
"""Images at a time on a CPU. With frozen batch-norm, the gradients of a batch are the same in parts."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a trial trains with.

    Attributes:
        recipe: Its epochs are not fitted yet, and its seed is that of the split.
        device: Where to compute.
        text: Text features of the classes.
        start: What the benchmark calls the start: a timm name or a folder.
        weights: Of the start, without statistics of batch-norm.
        notes: What was decided for the user, in a sentence each.
    """

    recipe: Recipe
    device: torch.device
    text: TextFeatures
    start: str
    weights: dict[str, Tensor]
    notes: tuple[str, ...]

    @property
    def untrained_texts(self) -> bool:
        """Whether the text tower had random weights."""
        return self.text.text_pretrained == UNTRAINED


def recipe_of(options: Options, samples: Samples) -> tuple[Recipe, list[str]]:
    """The recipe with the options and the classes in it, and what was decided for the user.

    Args:
        options: Of the trial.
        samples: All photos.

    Raises:
        InputError: A value can't work.
    """
    named = load_recipe(options.recipe or DEFAULT_RECIPE)
    notes: list[str] = []
    names = ("backbone", "init", "text_pretrained", "white_level", "workers", "cache_dir")
    given: dict[str, Any] = {name: value for name in names if (value := getattr(options, name)) is not None}
    if Path(given.get("backbone", "")).is_dir() and "backbone" in given:
        given["backbone"] = f"local-dir:{options.backbone}"
    if given.get("backbone", named.backbone) != named.backbone:
        given |= dict.fromkeys(NORMALISATION)  # the recipe's are those of its backbone
    if (options.recipe or DEFAULT_RECIPE) in list_recipes():
        given["license"] = Recipe.license  # the recipe's is that of its images
    if options.text_pretrained is not None and not named.needs_texts:
        raise InputError(
            f"--text-pretrained {options.text_pretrained}: the recipe's objective {named.objective} needs no texts. Leave it "
            f"out, or name a recipe with texts, such as --recipe resnet18.tab_mvtec."
        )
    classes = samples.train_normals().classes
    if len(classes) == 1 and named.objective == "tab":
        given["objective"] = "joint"
        notes.append("One class: the objective is joint, which separates normal from abnormal.")
    words = class_words(classes, {**named.class_names, **options.class_names}, samples.layout)
    # The trial holds out photos itself. The list of photos has no layout, on which words can depend.
    recipe = named.replace(**given, class_names=words, cache=options.cache, val_share=0.0, layout="auto", data=None)
    recipe = resolve_normalisation(recipe, named=named)
    path = Path(recipe.text_pretrained)
    if path.suffix == ".safetensors" and (features := load_text_features(path)) is not None:
        recipe = recipe.replace(text_model=features.text_model)
    return recipe, notes


def settle(options: Options, recipe: Recipe, notes: list[str], folder: Path) -> Settings:
    """Checks what can't work with any photos, and fetches what the trial needs; then it needs no network any more.

    Args:
        options: Of the trial.
        recipe: As `recipe_of` returns it.
        notes: What was decided for the user so far.
        folder: The trial's; texts, and a start that is not the backbone's own weights, are kept in it.

    Raises:
        InputError: A value can't work.
        WeightsError: Weights of the start or of the text tower can't be fetched.
    """
    device = choose_device(options.device)
    deterministic()
    begun = (folder / TEXT).is_file()
    check_settings(recipe, device, begun=begun)
    # Texts first: they are what is most often not at hand.
    text = _texts(recipe, folder / TEXT, device) if recipe.needs_texts else TextFeatures.none(recipe.class_names)
    backbone = build_backbone(recipe.backbone, init=recipe.init, seed=recipe.seed)
    width, width_of_texts = embedding_width(backbone, recipe.crop), text.normal.shape[1]
    changes: dict[str, Any] = {}
    if recipe.needs_texts and recipe.projection == "none" and width != width_of_texts:
        changes["projection"] = "linear"
        said = (
            f"The embedding of the backbone is {width} wide and the texts' {width_of_texts}: a linear projection is trained "
            f"between them, and discarded at the end."
        )
        notes = [*notes, said]
    in_parts = recipe.needs_texts and recipe.batch_norm == "frozen"
    if device.type == "cpu" and in_parts and not recipe.micro_batch:
        changes["micro_batch"] = _ON_CPU
    if not begun:
        text.save(folder / TEXT)
    changes["text_pretrained"] = str(folder / TEXT)
    start = options.backbone or recipe.backbone
    if recipe.init != "pretrained":
        start = str(folder / START)
        _write_start(folder / START, backbone, recipe)
        changes["init"] = str(folder / START / WEIGHTS)
    return Settings(
        recipe=recipe.replace(**changes),
        device=device,
        text=text,
        start=start,
        weights={name: value.detach().clone() for name, value in backbone.named_parameters()},
        notes=tuple(notes),
    )


def _texts(recipe: Recipe, kept: Path, device: torch.device) -> TextFeatures:
    """The trial's text features: those that it kept, or else the recipe's."""
    return obtain_text_features(
        recipe.class_names,
        text_model=recipe.text_model,
        text_pretrained=str(kept) if kept.is_file() else recipe.text_pretrained,
        prompts=load_prompts(recipe.prompts),
        device=device,
        seed=recipe.seed,
    )


def _write_start(folder: Path, backbone: nn.Module, recipe: Recipe) -> None:
    """Writes a start from random weights or a file as a folder that timm loads. Equal settings give the same one."""
    sizes: dict[str, Any] = {name: getattr(recipe, name) for name in ("resize", "crop", "mean", "std")}
    config = timm_config(backbone, license=recipe.license, description="The start of a trial", **sizes)
    tensors = {name: value.contiguous() for name, value in backbone.state_dict().items()}
    with whole_file(folder / WEIGHTS) as file:
        save_file(tensors, str(file))
    write_json(folder / CONFIG, config)


@contextmanager
def recipe_fields_named() -> Iterator[None]:
    """Within it, errors that name a flag of pre-training say how to give its value to a trial, which has fewer flags."""
    try:
        yield
    except TabzooError as error:
        flags = dict.fromkeys(re.findall(r"--([a-z][a-z-]*[a-z])", str(error)))
        named = [flag for flag in flags if flag.replace("-", "_") in _fields_of_recipes()]
        if not named:
            raise
        listed = " and ".join(f"--{flag}" for flag in named)
        lines = " and ".join(f"`{flag.replace('-', '_')}: VALUE`" for flag in named)
        raise InputError(
            f"{error}\nHere, {listed} can be given only by a recipe: write {lines} into a copy of the recipe, FILE.yaml, and "
            f"type --recipe FILE.yaml."
        ) from error


def flags_of_recipes() -> dict[str, str]:
    """Flags of pre-training that a trial lacks, to the sentence that says how to give their values."""
    said = "Write `{}: VALUE` into a copy of the recipe, FILE.yaml, and type --recipe FILE.yaml."
    return {f"--{name.replace('_', '-')}": said.format(name) for name in _fields_of_recipes()}


def _fields_of_recipes() -> list[str]:
    """Fields that only a recipe gives to a trial."""
    of_trial = {entry.name for entry in dataclasses.fields(Options)}
    return [entry.name for entry in dataclasses.fields(Recipe) if entry.name not in of_trial]
