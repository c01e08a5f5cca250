"""Text features: what the frozen CLIP text tower says of each class, normal and abnormal (TAB, Algorithm 1).

All sentences of a class and state are encoded, normalised, averaged and normalised again, which gives f_n and f_a. They
are computed once, stored with their provenance, and can be handed to a machine that has no CLIP.

Source: supplement of arXiv 2312.09480, sections 1.3 and 2; the normalisation before the average is the authors' code's.
"""

import hashlib
import json
import logging
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from tabzoo._version import __version__
from tabzoo.compute import seeded
from tabzoo.data.cache import default_cache_dir
from tabzoo.errors import InputError, WeightsError, brief, did_you_mean
from tabzoo.hub.reach import local_copy
from tabzoo.system import whole_file
from tabzoo.training.prompts import PromptSet

__all__ = ["UNTRAINED", "TextFeatures", "load_text_features", "obtain_text_features", "text_width"]

UNTRAINED = "untrained"
"""The one value of `text_pretrained` that asks for random text weights."""

_BATCH = 256
# Part of the key of kept features: another number where the same texts give other features than before.
_KEPT_FORMAT = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TextFeatures:
    """Unit vectors of every class.

    Attributes:
        normal: f_n, [C, D].
        abnormal: f_a, [C, D].
        words: Folder name of each class to its words in the sentences, in the order of the rows.
        text_model: open_clip model.
        text_pretrained: Its weights: a tag, the name of a checkpoint file, or "untrained".
        prompts_sha256: Digest of the prompt set.
    """

    normal: Tensor
    abnormal: Tensor
    words: dict[str, str]
    text_model: str
    text_pretrained: str
    prompts_sha256: str

    def save(self, path: Path) -> None:
        """Writes tensors `normal` and `abnormal` with the provenance in the metadata, as safetensors.

        Raises:
            WriteError: It can't be written; what was there before still is.
        """
        provenance = {
            "words": self.words,
            "text_model": self.text_model,
            "text_pretrained": self.text_pretrained,
            "prompts_sha256": self.prompts_sha256,
            "tabzoo_version": __version__,
        }
        # One entry: safetensors writes several in any order, and equal features should make equal files.
        metadata = {"tabzoo": json.dumps(provenance, ensure_ascii=False)}
        tensors = {"normal": self.normal.cpu().contiguous(), "abnormal": self.abnormal.cpu().contiguous()}
        with whole_file(path) as file:
            save_file(tensors, str(file), metadata=metadata)


def obtain_text_features(
    words: Mapping[str, str],
    *,
    text_model: str,
    text_pretrained: str,
    prompts: PromptSet,
    device: torch.device,
    seed: int = 0,
) -> TextFeatures:
    """Text features of some classes: read from a file, or encoded by open_clip.

    Args:
        words: Folder name of each class to its words.
        text_model: open_clip model.
        text_pretrained: Weights tag, checkpoint file, text features file, or "untrained".
        prompts: The sentences.
        device: Where the text tower runs.
        seed: Of the untrained tower's random weights; unused otherwise.

    Raises:
        InputError: Unknown model or tag, or a file that does not fit.
        WeightsError: The weights can't be fetched.
    """
    path = Path(text_pretrained)
    if path.suffix == ".safetensors" and (features := load_text_features(path)) is not None:
        return _fitting(features, path, words, text_model, prompts)
    if text_pretrained == UNTRAINED:
        _log.warning(
            "The text tower %s is untrained: its class features are arbitrary, good for a trial only.", text_model
        )
    cached = (
        None
        if text_pretrained == UNTRAINED or path.is_file()
        else _cache_file(text_model, text_pretrained, words, prompts)
    )
    if cached and cached.is_file():
        with suppress(InputError):  # a damaged file is made anew
            features = load_text_features(cached)
            if features is not None:
                return features
    features = _encode_classes(words, text_model, text_pretrained, prompts, device, seed)
    if cached:
        _keep(features, cached)
    return features


def text_width(text_model: str, text_pretrained: str) -> int:
    """Length D of the text features that a model and its weights, or a file of features, would give; no tower is loaded.

    Raises:
        InputError: Unknown model or tag, or a file that is missing or damaged.
    """
    path = Path(text_pretrained)
    if path.suffix == ".safetensors" and (features := load_text_features(path)) is not None:
        return features.normal.shape[1]
    _check_names(text_model, text_pretrained)
    return int(_open_clip().get_model_config(text_model)["embed_dim"])


def _encode_classes(
    words: Mapping[str, str], text_model: str, text_pretrained: str, prompts: PromptSet, device: torch.device, seed: int
) -> TextFeatures:
    tower = _load_tower(text_model, text_pretrained, seed).to(device).eval()
    tokenize = _open_clip().get_tokenizer(text_model)
    bar = tqdm(words.values(), desc="encoding texts", unit="class", disable=None)
    rows = [_encode_class(tower, tokenize, prompts.sentences(phrase), device) for phrase in bar]
    return TextFeatures(
        normal=torch.stack([normal for normal, _ in rows]),
        abnormal=torch.stack([abnormal for _, abnormal in rows]),
        words=dict(words),
        text_model=text_model,
        text_pretrained=Path(text_pretrained).name if Path(text_pretrained).is_file() else text_pretrained,
        prompts_sha256=prompts.digest(),
    )


def _cache_file(text_model: str, tag: str, words: Mapping[str, str], prompts: PromptSet) -> Path:
    """Where the features of these sentences are kept across runs: a second run needs neither CLIP nor the Hub."""
    key = json.dumps([_KEPT_FORMAT, text_model, tag, dict(words), prompts.digest()])
    return default_cache_dir().with_name("text") / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"


def _keep(features: TextFeatures, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        features.save(path)
    except OSError as error:  # no room, no permission: the run itself needs no cache
        _log.warning("the text features can't be kept in %s: %s", path.parent, brief(error))


def load_text_features(path: Path) -> TextFeatures | None:
    """Reads a file written by `TextFeatures.save`; None when it holds something else, such as a CLIP checkpoint.

    Raises:
        InputError: The file is missing or not a whole safetensors file.
    """
    if not path.is_file():
        raise InputError(f"--text-pretrained {path}: no such file")
    try:
        with safe_open(str(path), framework="pt") as file:
            if set(file.keys()) != {"normal", "abnormal"}:
                return None
            normal, abnormal = file.get_tensor("normal"), file.get_tensor("abnormal")
            provenance = json.loads((file.metadata() or {})["tabzoo"])
        kept = {key: provenance[key] for key in ("words", "text_model", "text_pretrained", "prompts_sha256")}
        words, *names = kept.values()
        if not isinstance(words, dict) or not all(isinstance(text, str) for text in (*words.values(), *names)):
            raise InputError(f"--text-pretrained {path}: its metadata is not what tabzoo writes: {reprlib.repr(kept)}")
        features = TextFeatures(normal=normal, abnormal=abnormal, **kept)
    except (SafetensorError, OSError) as error:
        raise InputError(f"--text-pretrained {path}: not a whole safetensors file ({brief(error)})") from error
    except (KeyError, TypeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"--text-pretrained {path}: its metadata lacks {error}; was it written by tabzoo?") from error
    shape = (len(features.words), *normal.shape[-1:])
    tensors = (normal, abnormal)
    if not all(each.shape == shape and each.is_floating_point() and each.isfinite().all() for each in tensors):
        raise InputError(
            f"--text-pretrained {path}: expected finite tensors [C, D] for {len(features.words)} classes; "
            f"got normal {list(normal.shape)}, abnormal {list(abnormal.shape)}"
        )
    return features


def _fitting(
    features: TextFeatures, path: Path, words: Mapping[str, str], text_model: str, prompts: PromptSet
) -> TextFeatures:
    """The rows for our classes, in our order, once the file is seen to be made for them."""
    refused = f"--text-pretrained {path} does not fit this run:"
    if missing := [name for name in words if name not in features.words]:
        raise InputError(f"{refused} no features for {', '.join(missing)}; it holds {', '.join(features.words)}")
    for name, phrase in words.items():
        if features.words[name] != phrase:
            raise InputError(
                f"{refused} it calls class {name} '{features.words[name]}', this run '{phrase}'. "
                f'Type --class-names {name} "{features.words[name]}", or make the features anew.'
            )
    if features.prompts_sha256 != prompts.digest():
        raise InputError(
            f"{refused} it was made from other prompts (sha256 {features.prompts_sha256[:12]}, here "
            f"{prompts.digest()[:12]}). Name the prompt set it was made from by --prompts, or make the features anew."
        )
    if features.text_model != text_model:
        raise InputError(f"{refused} it comes from {features.text_model}. Type --text-model {features.text_model}.")
    if features.text_pretrained == UNTRAINED:
        _log.warning("The text features in %s come from an untrained tower: good for a trial only.", path)
    rows = [list(features.words).index(name) for name in words]
    return replace(features, normal=features.normal[rows], abnormal=features.abnormal[rows], words=dict(words))


@torch.no_grad()
def _encode_class(
    tower: nn.Module, tokenize: Any, sentences: tuple[list[str], list[str]], device: torch.device
) -> tuple[Tensor, Tensor]:
    """f_n and f_a of one class, each [D]."""
    normal, abnormal = (_average(_encode(tower, tokenize(group), device)) for group in sentences)
    return normal, abnormal


def _average(embeddings: Tensor) -> Tensor:
    # [S, D] -> [D]
    return F.normalize(F.normalize(embeddings, dim=-1).mean(dim=0), dim=-1)


def _encode(tower: nn.Module, tokens: Tensor, device: torch.device) -> Tensor:
    """Embeddings [S, D] of tokens [S, L]."""
    with _shortened(tower, tokens) as length:
        batches = tokens[:, :length].to(device).split(_BATCH)
        return torch.cat([tower.encode_text(batch).float().cpu() for batch in batches])  # type: ignore[operator]


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
            f"--text-model {text_model!r}: open_clip has no such model.{did_you_mean(text_model, open_clip.list_models())}"
        )
    tags = [tag for model, tag in open_clip.list_pretrained() if model == text_model]
    if text_pretrained not in (UNTRAINED, *tags) and not Path(text_pretrained).is_file():
        raise InputError(
            f"--text-pretrained {text_pretrained}: neither a file nor weights of {text_model}, which are "
            f"{', '.join(tags) or 'none'}.{did_you_mean(text_pretrained, (*tags, UNTRAINED))}"
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
            f"the text weights {tag} of {text_model} can't be fetched: {brief(error)}. Ways out:\n"
            f"  with a network elsewhere: make text_features.safetensors there (any run writes it to its output folder) "
            f"and type --text-pretrained FILE here\n"
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
