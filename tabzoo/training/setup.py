"""Before the first step: find images, texts and initial weights, and build the run and its state."""

import logging
import os
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import torch
from torch import nn

from tabzoo.backbones import build_backbone, check_init, check_name, embedding_width
from tabzoo.compute import Amp, choose_amp, seeded
from tabzoo.data.cache import Images, default_cache_dir, open_images
from tabzoo.data.class_words import class_words
from tabzoo.data.layouts import find_samples
from tabzoo.data.samples import Samples
from tabzoo.errors import InputError
from tabzoo.hub.license_terms import MVTEC_LICENSE, is_noncommercial, mvtec_classes
from tabzoo.synthesis import SYNTHESES
from tabzoo.synthesis.draws import hold_out
from tabzoo.training.anomalies import pair_maker, synthesis_settings
from tabzoo.training.checkpoint import load_latest_checkpoint
from tabzoo.training.command import Command
from tabzoo.training.heads import ProjectionHeads
from tabzoo.training.optimizer import check_optimizer
from tabzoo.training.output import CHECKPOINTS, TEXT
from tabzoo.training.prompts import load_prompts
from tabzoo.training.ranking import LEAST
from tabzoo.training.ranks import Ranks
from tabzoo.training.recipe import Recipe
from tabzoo.training.run import Run, contents_digest, names_digest
from tabzoo.training.state import State, check_same_recipe, drop_later_rows, load_state, new_state
from tabzoo.training.text import TextFeatures, obtain_text_features, text_width

__all__ = ["build_run", "check_settings"]

_LONGEST_EPOCH = 1 << 30  # samples: their order takes 8 bytes each

_log = logging.getLogger(__name__)


def check_settings(recipe: Recipe, device: torch.device, *, begun: bool) -> None:
    """Checks settings that can't work with any images; nothing is computed or fetched for it.

    Args:
        recipe: The settings.
        device: Where to train.
        begun: Whether a run is resumed. It has its texts and weights in its folder, and does not need their sources.

    Raises:
        InputError: A setting can't work; the message names the flag.
    """
    settings = synthesis_settings(recipe)
    try:
        SYNTHESES[recipe.synthesis](torch.zeros(1, dtype=torch.long), recipe.crop, recipe.crop, settings)
    except InputError as error:
        raise InputError(f"--synthesis {recipe.synthesis} with --crop {recipe.crop}: {error}") from error
    if recipe.perlin_textures is not None:
        try:
            find_samples(recipe.perlin_textures)
        except InputError as error:
            raise InputError(f"--perlin-textures {recipe.perlin_textures}: {error}") from error
    check_optimizer(recipe, device)
    check_name(recipe.backbone)
    if not begun:
        check_init(recipe.init)
        if recipe.needs_texts:
            load_prompts(recipe.prompts)
            text_width(recipe.text_model, recipe.text_pretrained)
    if recipe.cache != "off":
        _check_cache(Path(recipe.cache_dir) if recipe.cache_dir is not None else default_cache_dir())


def _check_cache(folder: Path) -> None:
    made = [folder for folder in (folder, *folder.parents) if not folder.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        for new in made:
            with suppress(OSError):
                new.rmdir()
        raise InputError(
            f"--cache-dir {folder}: can't be written into: {error.strerror}. Name another folder, or type --cache off."
        ) from error


def build_run(
    recipe: Recipe, folder: Path, device: torch.device, command: Command, ranks: Ranks, *, one_class: str
) -> tuple[Run, State]:
    """Builds a run and its state, or the ones in the folder again.

    What can't be fetched is found out before any image is decoded.

    Args:
        recipe: The settings; `data` names the images. The run's own recipe has `amp: auto` resolved.
        folder: Output folder.
        device: Where to train.
        command: Whether to resume, and whether unreadable files are an error.
        ranks: The processes that train together. The first one fetches texts and weights, for all.
        one_class: What to type when the data holds a single class, with which `tab` has nothing to learn.
    """
    samples = find_samples(str(recipe.data), layout=recipe.layout).train_normals()
    ranks.agree(str(recipe.data), {"number": len(samples), "names": names_digest(samples)})
    _check_samples(samples, recipe, one_class)
    _warn_of_license(samples, recipe)
    words = class_words(samples.classes, recipe.class_names, samples.layout, spelling=recipe.class_words)
    saved = ranks.from_first(lambda: load_latest_checkpoint(folder / CHECKPOINTS)) if command.resume else None
    recipe = recipe.replace(amp=ranks.from_first(lambda: _resolved_amp(recipe.amp, device, saved)))
    if saved is not None and not command.allow_recipe_change:
        check_same_recipe(recipe, folder, saved)
    # A checkpoint has the weights; the other processes are given the first one's.
    init = recipe.init if saved is None and ranks.is_first else "random"
    backbone = build_backbone(recipe.backbone, init=init, seed=recipe.seed)
    _check_batch_norm(recipe, backbone)
    width = embedding_width(backbone, recipe.crop)
    heads, text = None, TextFeatures.none(words)
    if recipe.needs_texts:
        # A resumed run has its texts in its folder: it needs neither CLIP nor the network again.
        kept = saved is not None and (folder / TEXT).is_file() and not command.allow_recipe_change
        named = recipe.replace(text_pretrained=str(folder / TEXT)) if kept else recipe
        heads = _heads(recipe, width, ranks.from_first(lambda: text_width(named.text_model, named.text_pretrained)))
        text = ranks.from_first(lambda: _texts(named, words, device))
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
    _check_still_there(images.samples, words)
    run = _run(recipe, folder, device, images, text, ranks)
    state = new_state(run, backbone, heads)
    if saved:
        load_state(run, state, saved)
    drop_later_rows(run, state)
    return run, state


def _run(recipe: Recipe, folder: Path, device: torch.device, images: Images, text: TextFeatures, ranks: Ranks) -> Run:
    """The run on these images, some of them held out."""
    samples = images.samples
    _warn_small_classes(samples)
    class_ids = torch.from_numpy(samples.class_ids).long()
    members, held_out = hold_out(class_ids, recipe.val_share, seed=recipe.seed)
    if recipe.val_share and not len(held_out):
        _log.warning("--val-share %s holds out no image: every class is too small for it.", recipe.val_share)
    pairs = pair_maker(images, members, class_ids[members], recipe, device)
    # One process may have decoded for hours; what follows expects the others within minutes.
    contents = contents_digest(images.hashes, pairs.textures)
    ranks.agree(str(recipe.data), {"number": len(samples), "names": names_digest(samples), "contents": contents})
    run = Run(
        recipe=recipe,
        folder=folder,
        device=device,
        samples=samples,
        hashes=images.hashes,
        text=text,
        pairs=pairs,
        held_out=pair_maker(images, held_out, class_ids[held_out], recipe, device) if len(held_out) else None,
        ranks=ranks,
    )
    if run.batch_size < recipe.batch_size:
        has = "an epoch has" if recipe.objective != "ranking" else "the smallest class has"
        _log.warning("--batch-size %d is more than %s; steps take %d images.", recipe.batch_size, has, run.batch_size)
    if run.held_out and not run.batches_of(run.held_out):
        _log.warning(
            "--val-share %s: fewer than %d images of each class are held out, too few for --objective ranking to score: there "
            "will be no held-out metrics.",
            *(recipe.val_share, LEAST),
        )
    if recipe.sampling == "sequential" and (never := len(pairs) - run.steps_per_epoch * run.batch_size) > 0:
        _log.warning(
            "--sampling sequential: the last %d of %d images are never trained on, because each epoch ends with its last whole "
            "batch of %d. Type a smaller --batch-size, or --repeats 2.",
            *(never, len(pairs), run.batch_size),
        )
    return run


def _check_samples(samples: Samples, recipe: Recipe, one_class: str) -> None:
    for name in samples.classes:
        if os.fsencode(name) != name.encode(errors="replace"):  # files and model cards are UTF-8
            raise InputError(f"the name of the class {name!r} is not UTF-8. Rename its folder.")
    if len(samples) * recipe.repeats > _LONGEST_EPOCH:
        raise InputError(
            f"--repeats {recipe.repeats}: with {len(samples):,} images, an epoch would be longer than {_LONGEST_EPOCH:,}. "
            f"Type a smaller number, and more --epochs."
        )
    if len(samples.classes) == 1 and recipe.objective == "tab":
        raise InputError(
            f"{recipe.data} holds one class, {samples.classes[0]}, and the objective 'tab' separates classes from each "
            f"other: with one its loss is constant. The objective 'joint' separates normal from abnormal too:\n  {one_class}"
        )


def _resolved_amp(amp: Amp, device: torch.device, saved: dict[str, Any] | None) -> Amp:
    """The mixed precision to train with; that of the checkpoint if `auto` chose another one on another kind of machine."""
    choice = choose_amp(amp, device)
    begun = saved["recipe"].get("amp", choice.amp) if saved else choice.amp
    if amp == "auto" and begun != choice.amp:
        _log.warning(
            "%s This run began with amp %s, on another kind of device, and keeps it. For %s here, type --overwrite.",
            *(choice.reason, begun, choice.amp),
        )
        kept: Amp = begun
        return kept
    if choice.reason:
        print(choice.reason)
    return choice.amp


def _check_batch_norm(recipe: Recipe, backbone: nn.Module) -> None:
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in backbone.modules()):
        return
    if recipe.batch_norm == "frozen" and recipe.init == "random":
        _log.warning(
            "--batch-norm frozen with --init random: the statistics of random weights are a mean of 0 and a variance of 1, so "
            "batch-norm does nothing. %s",
            "Start from pretrained weights: --objective ranking only adapts them."
            if recipe.objective == "ranking"
            else "Type --batch-norm local, or start from pretrained weights.",
        )
    if recipe.micro_batch == 1 and recipe.batch_norm != "frozen":
        raise InputError(
            f"--micro-batch 1: batch-norm, which {recipe.backbone} has, needs at least two images at a time. Type "
            f"--micro-batch 2 or more, or --batch-norm frozen."
        )


def _texts(recipe: Recipe, words: dict[str, str], device: torch.device) -> TextFeatures:
    return obtain_text_features(
        words,
        text_model=recipe.text_model,
        text_pretrained=recipe.text_pretrained,
        prompts=load_prompts(recipe.prompts),
        device=device,
        seed=recipe.seed,
    )


def _heads(recipe: Recipe, width: int, width_of_texts: int) -> ProjectionHeads:
    if recipe.projection == "none" and width != width_of_texts:
        raise InputError(
            f"the embedding of {recipe.backbone} is {width} wide and the texts' are {width_of_texts} wide, so they can't "
            f"be compared without a projection. Type --projection linear (it is discarded at the end)."
        )
    with seeded(recipe.seed):
        return ProjectionHeads(recipe.projection, width, width_of_texts)


def _warn_of_license(samples: Samples, recipe: Recipe) -> None:
    counts = np.bincount(samples.class_ids, minlength=len(samples.classes)).tolist()
    found = mvtec_classes(dict(zip(samples.classes, counts, strict=True)))
    if found and recipe.license != Recipe.license and not is_noncommercial(recipe.license):
        _log.warning(
            "--license %s: %s of --data look like images of MVTec AD, which allow no commercial use, and neither do weights "
            "trained on them. Type --license %s.",
            *(recipe.license, ", ".join(found), MVTEC_LICENSE),
        )


def _check_still_there(samples: Samples, words: dict[str, str]) -> None:
    if gone := sorted(set(words) - {samples.classes[i] for i in np.unique(samples.class_ids)}):
        raise InputError(f"no image of {', '.join(gone)} could be read; fix the files or remove the folder")


def _warn_small_classes(samples: Samples) -> None:
    counts = np.bincount(samples.class_ids, minlength=len(samples.classes))
    if lonely := [name for name, count in zip(samples.classes, counts, strict=True) if count == 1]:
        _log.warning("Only one image of %s: its anomalies are made from the image itself.", ", ".join(lonely))
