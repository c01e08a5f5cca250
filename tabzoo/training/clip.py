"""CLIP's text tower by open_clip: its names, its weights, and sentences as embeddings."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tabzoo.compute import seeded
from tabzoo.errors import InputError, WeightsError, brief, did_you_mean
from tabzoo.hub.remote import local_copy

__all__ = ["UNTRAINED", "load_encoder", "text_width"]

UNTRAINED = "untrained"
"""The one value of `text_pretrained` that asks for random text weights."""

_BATCH = 256


def text_width(text_model: str, text_pretrained: str) -> int:
    """Length D of a model's text embeddings; no weights are loaded.

    Raises:
        InputError: Unknown model, or neither a tag of it nor a file.
    """
    _check_names(text_model, text_pretrained)
    return int(_open_clip().get_model_config(text_model)["embed_dim"])


def load_encoder(
    text_model: str, text_pretrained: str, *, device: torch.device, seed: int
) -> Callable[[Sequence[str]], Tensor]:
    """E_T, frozen: a function from S sentences to their embeddings, float32 [S, D] in main memory.

    Args:
        text_model: open_clip model.
        text_pretrained: Weights tag, checkpoint file, or "untrained".
        device: Where the tower runs.
        seed: Of the untrained tower's random weights; unused otherwise.

    Raises:
        InputError: Unknown model or tag, or a file that does not fit.
        WeightsError: The weights can't be fetched.
    """
    tower = _load_tower(text_model, text_pretrained, seed).to(device).eval()
    tokenize = _open_clip().get_tokenizer(text_model)

    @torch.no_grad()
    def encode(sentences: Sequence[str]) -> Tensor:
        tokens = tokenize(sentences)  # [S, L]
        with _shortened(tower, tokens) as length:
            batches = tokens[:, :length].to(device).split(_BATCH)
            return torch.cat([tower.encode_text(batch).float().cpu() for batch in batches])  # type: ignore[operator]

    return encode


@contextmanager
def _shortened(tower: nn.Module, tokens: Tensor) -> Iterator[int]:
    """Runs a causal text tower on the tokens in use, about 20 of 77: ten times faster with the same result.

    With a causal mask no token sees the padding behind the end-of-text token, whose output is the embedding.
    """
    positions, mask = getattr(tower, "positional_embedding", None), getattr(tower, "attn_mask", None)
    causal = mask is not None and positions is not None and getattr(tower, "text_pool_type", None) == "argmax"
    if not causal or positions is None or mask is None:
        yield tokens.shape[1]
        return
    length = int((tokens != 0).sum(dim=1).max())
    tower.positional_embedding = nn.Parameter(positions[:length], requires_grad=False)
    tower.attn_mask = mask[:length, :length]
    try:
        yield length
    finally:
        tower.positional_embedding, tower.attn_mask = positions, mask


def _open_clip() -> Any:
    # Imported when used: it takes seconds, and text features from a file need none of it.
    import open_clip

    return open_clip


def _check_names(text_model: str, text_pretrained: str) -> None:
    open_clip = _open_clip()
    if text_model not in open_clip.list_models():
        raise InputError(
            f"--text-model {text_model!r}: open_clip has no such model.{did_you_mean(text_model, open_clip.list_models())} "
            f"open_clip.list_models() lists all."
        )
    tags = [tag for model, tag in open_clip.list_pretrained() if model == text_model]
    if text_pretrained not in (UNTRAINED, *tags) and not Path(text_pretrained).is_file():
        known = (
            f"weights of {text_model}, which are {', '.join(tags)}"
            if tags
            else f"{UNTRAINED} ({text_model} has no weights)"
        )
        raise InputError(
            f"--text-pretrained {text_pretrained}: neither a file nor {known}."
            f"{did_you_mean(text_pretrained, (*tags, UNTRAINED))}"
        )


def _load_tower(text_model: str, text_pretrained: str, seed: int) -> nn.Module:
    _check_names(text_model, text_pretrained)
    open_clip = _open_clip()
    if text_pretrained == UNTRAINED:
        return _create(open_clip, text_model, None, seed)
    if Path(text_pretrained).is_file():
        return _load_checkpoint(open_clip, text_model, text_pretrained)
    return _fetch(open_clip, text_model, text_pretrained)


def _fetch(open_clip: Any, text_model: str, tag: str) -> nn.Module:
    repository = open_clip.get_pretrained_cfg(text_model, tag).get("hf_hub", "").rstrip("/")
    try:
        cached = (
            local_copy(repository, ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"))
            if repository
            else None
        )
        return _create(open_clip, text_model, str(cached) if cached else tag, seed=0)
    except Exception as error:  # open_clip wraps network, Hub and file errors in various types
        raise WeightsError(
            f"the text weights {tag} of {text_model} can't be fetched: {brief(error)}. Alternatives:\n"
            f"  with a network elsewhere: `tabzoo text --class-names WORDS ... --output FILE` there, --text-pretrained FILE "
            f"here\n"
            f"  with the checkpoint at hand: --text-pretrained CHECKPOINT, open_clip's file for {text_model}/{tag}"
        ) from error


def _load_checkpoint(open_clip: Any, text_model: str, path: str) -> nn.Module:
    try:
        return _create(open_clip, text_model, path, seed=0)
    except Exception as error:
        raise InputError(
            f"--text-pretrained {path}: can't be loaded into open_clip's {text_model}: {brief(error)}"
        ) from error


def _create(open_clip: Any, text_model: str, pretrained: str | None, seed: int) -> nn.Module:
    with seeded(seed), _quiet(pretrained is None):
        model: nn.Module = open_clip.create_model(
            text_model, pretrained=pretrained, require_pretrained=pretrained is not None
        )
    return model.requires_grad_(False)


@contextmanager
def _quiet(active: bool) -> Iterator[None]:
    """Holds back open_clip's warning that the weights are random where that was asked for: ours says so already."""
    if active:
        logging.disable(logging.WARNING)
    try:
        yield
    finally:
        if active:
            logging.disable(logging.NOTSET)
