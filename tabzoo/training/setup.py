"""What happens before the first step: find images, texts and initial weights, and put a run together."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tabzoo.compute import Amp, choose_amp
from tabzoo.data.cache import open_images
from tabzoo.data.layouts import Samples, class_words, find_samples
from tabzoo.errors import InputError
from tabzoo.training.backbone import build_backbone, embedding_width
from tabzoo.training.checkpoint import load_latest_checkpoint
from tabzoo.training.command import Command
from tabzoo.training.objective import ProjectionHeads
from tabzoo.training.output import CHECKPOINTS
from tabzoo.training.pairs import PairMaker, synthesis_settings
from tabzoo.training.prompts import load_prompts
from tabzoo.training.ranks import Ranks
from tabzoo.training.recipe import Recipe
from tabzoo.training.run import Run, contents_digest, names_digest, optimizer_name
from tabzoo.training.sampling import hold_out
from tabzoo.training.text import TextFeatures, obtain_text_features

__all__ = ["build_run"]

_log = logging.getLogger(__name__)


def build_run(
    recipe: Recipe, folder: Path, device: torch.device, command: Command, ranks: Ranks, *, one_class: str
) -> Run:
    """Builds a run, or the one in the folder again; what can't be fetched is found out before any image is decoded.

    Args:
        recipe: The settings; `data` names the images. The run's own recipe has `amp: auto` resolved.
        folder: Output folder.
        device: Where to train.
        command: Whether to resume, and whether to refuse unreadable files.
        ranks: The processes that train together. The first one fetches texts and weights, for all.
        one_class: What to type when the data holds a single class, with which `tab` has nothing to learn.
    """
    synthesis_settings(recipe)
    optimizer_name(recipe)
    samples = find_samples(str(recipe.data), layout=recipe.layout).train_normals()
    ranks.agree(str(recipe.data), {"number": len(samples), "names": names_digest(samples)})
    if len(samples.classes) == 1 and recipe.objective == "tab":
        raise InputError(
            f"{recipe.data} holds one class, {samples.classes[0]}, and the objective 'tab' sets classes apart from each "
            f"other: with one its loss is constant. The objective 'joint' sets normal apart from abnormal too:\n  {one_class}"
        )
    words = class_words(samples.classes, recipe.class_names, samples.layout)
    state = ranks.from_first(lambda: load_latest_checkpoint(folder / CHECKPOINTS)) if command.resume else None
    recipe = recipe.replace(amp=ranks.from_first(lambda: _resolved_amp(recipe.amp, device, state)))
    # A resumed run has its texts in its folder: it needs neither CLIP nor the network again.
    stored = folder / "text_features.safetensors"
    kept = state is not None and stored.is_file() and not command.allow_recipe_change
    text = ranks.from_first(
        lambda: obtain_text_features(
            words,
            text_model=recipe.text_model,
            text_pretrained=str(stored) if kept else recipe.text_pretrained,
            prompts=load_prompts(recipe.prompts),
            device=device,
            seed=recipe.seed,
        )
    )
    # The other processes are given the first one's weights.
    init = recipe.init if state is None and ranks.is_first else "random"
    backbone = build_backbone(recipe.backbone, init=init, seed=recipe.seed)
    heads = _heads(recipe, embedding_width(backbone, recipe.crop), text)
    images = open_images(
        samples,
        size=recipe.resize,
        mode=recipe.cache,
        cache_dir=recipe.cache_dir,
        workers=recipe.workers,
        device=device,
        strict=command.strict,
        progress=ranks.is_first,
        white_level=recipe.white_level,
    )
    samples = _still_whole(images.samples, words)
    _warn_small_classes(samples)
    class_ids = torch.from_numpy(samples.class_ids).long()
    members, held_out = hold_out(class_ids, recipe.val_share, seed=recipe.seed)
    if recipe.val_share and not len(held_out):
        _log.warning("--val-share %s holds out no image: every class is too small for it.", recipe.val_share)
    makers = [
        PairMaker(images, rows, class_ids[rows], recipe, device) if len(rows) else None for rows in (members, held_out)
    ]
    assert makers[0] is not None  # hold_out leaves at least one image of every class
    # One may have decoded for hours; what follows expects the others within minutes.
    contents = contents_digest(images.hashes, makers[0].textures)
    ranks.agree(str(recipe.data), {"number": len(samples), "names": names_digest(samples), "contents": contents})
    run = Run(recipe, folder, device, samples, images.hashes, text, backbone, heads, makers[0], makers[1], ranks)
    if run.batch_size < recipe.batch_size:
        _log.warning(
            "--batch-size %d is more than an epoch holds; steps take %d images.", recipe.batch_size, run.batch_size
        )
    if state:
        run.load(state, allow_recipe_change=command.allow_recipe_change)
    else:
        run.drop_later_rows()
    return run


def _resolved_amp(amp: Amp, device: torch.device, state: dict[str, Any] | None) -> Amp:
    """The mixed precision to train with; where `auto` was started on another kind of machine, that of the checkpoint."""
    choice = choose_amp(amp, device)
    if amp == "auto" and state is not None and (begun := state["recipe"]["amp"]) != choice.amp:
        _log.warning(
            "%s This run began with amp %s, on another kind of device, and keeps it. For %s here, type --overwrite.",
            *(choice.reason, begun, choice.amp),
        )
        kept: Amp = begun
        return kept
    if choice.reason:
        print(choice.reason)
    return choice.amp


def _heads(recipe: Recipe, width: int, text: TextFeatures) -> ProjectionHeads:
    text_width = text.normal.shape[1]
    if recipe.projection == "none" and width != text_width:
        raise InputError(
            f"the embedding of {recipe.backbone} is {width} wide and the text features are {text_width} wide, so they can't "
            f"be compared without a projection. Type --projection linear (it is thrown away at the end)."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return ProjectionHeads(recipe.projection, width, text_width)


def _still_whole(samples: Samples, words: dict[str, str]) -> Samples:
    if gone := sorted(set(words) - {samples.classes[i] for i in np.unique(samples.class_ids)}):
        raise InputError(f"no image of {', '.join(gone)} could be read; mend the files or take the folder away")
    return samples


def _warn_small_classes(samples: Samples) -> None:
    counts = np.bincount(samples.class_ids, minlength=len(samples.classes))
    if lonely := [name for name, count in zip(samples.classes, counts, strict=True) if count == 1]:
        _log.warning("One image only of %s: its anomalies are made from the image itself.", ", ".join(lonely))
