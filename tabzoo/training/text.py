"""Text features f_n^T and f_a^T: each class in the space of CLIP's frozen text tower, normal and abnormal (Algorithm 1).

All sentences of a class and state are encoded, normalised, averaged and normalised again. That is done once; the features
are stored with their provenance and can be copied to a machine without CLIP.

Source: supplement of arXiv 2312.09480, sections 1.3 and 2; the normalisation before the average is the authors' code's.
"""

import hashlib
import json
import logging
import reprlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tabzoo._version import __version__
from tabzoo.errors import InputError, brief, count
from tabzoo.progress import track
from tabzoo.system import user_folder, whole_file
from tabzoo.training import clip
from tabzoo.training.clip import UNTRAINED
from tabzoo.training.prompts import PromptSet
from tabzoo.training.recipe import TextLayout

__all__ = ["TextFeatures", "laid_out", "load_text_features", "mixes_classes", "obtain_text_features", "text_width"]

# Part of the key of cached features: increased when the same texts give other features than before.
_KEPT_FORMAT = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TextFeatures:
    """Unit vectors of every class.

    Attributes:
        normal: f_n^T, [C, D].
        abnormal: f_a^T, [C, D].
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

    @classmethod
    def none(cls, words: Mapping[str, str]) -> "TextFeatures":
        """The classes' words without features, [C, 0], for an objective that needs none."""
        empty = torch.empty(len(words), 0)
        return cls(
            normal=empty,
            abnormal=empty,
            words=dict(words),
            text_model="none",
            text_pretrained="none",
            prompts_sha256="",
        )

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


def laid_out(features: Tensor, layout: TextLayout) -> Tensor:
    """Text features as the objective takes them, [C, D] -> [C, D].

    "rows" leaves them as they are. "authors" is what the authors' code (Howeng98/TAB @ aa8c4dc, prompt_ensemble.py) makes of
    them: stacked to [D, C] and then reshaped to [C, D], where a transpose was meant. Row i then holds the dimensions from
    i D / C to (i + 1) D / C of all classes. Its cosine with the features of class i is near 0, and its norm is only near 1.
    """
    return features if layout == "rows" else features.T.reshape(features.shape)


def mixes_classes(layout: TextLayout, classes: int) -> bool:
    """Whether a layout mixes the features of several classes; a single class keeps its own."""
    return layout == "authors" and classes > 1


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
            "The text tower %s is untrained: its class features are arbitrary, use it only to try things out.",
            text_model,
        )
    cached = (
        None
        if text_pretrained == UNTRAINED or path.is_file()
        else _cache_file(text_model, text_pretrained, words, prompts)
    )
    if cached and cached.is_file():
        with suppress(InputError):  # a damaged file is replaced
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
    return clip.text_width(text_model, text_pretrained)


def _encode_classes(
    words: Mapping[str, str], text_model: str, text_pretrained: str, prompts: PromptSet, device: torch.device, seed: int
) -> TextFeatures:
    encode = clip.load_encoder(text_model, text_pretrained, device=device, seed=seed)  # E_T
    normal: list[Tensor] = []
    abnormal: list[Tensor] = []
    for phrase in track(words.values(), len(words), "encoding texts", unit="class"):
        for sentences, features in zip(prompts.sentences(phrase), (normal, abnormal), strict=True):
            embeddings = F.normalize(encode(sentences), dim=-1)  # of all sentences of a class and state, [S, D]
            features.append(F.normalize(embeddings.mean(dim=0), dim=-1))  # f_n^T or f_a^T of the class, [D]
    return TextFeatures(
        normal=torch.stack(normal),
        abnormal=torch.stack(abnormal),
        words=dict(words),
        text_model=text_model,
        text_pretrained=Path(text_pretrained).name if Path(text_pretrained).is_file() else text_pretrained,
        prompts_sha256=prompts.digest(),
    )


def _cache_file(text_model: str, tag: str, words: Mapping[str, str], prompts: PromptSet) -> Path:
    """Where the features of these sentences are kept across runs: a second run needs neither CLIP nor the Hub."""
    key = json.dumps([_KEPT_FORMAT, text_model, tag, dict(words), prompts.digest()])
    return user_folder("cache") / "text" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"


def _keep(features: TextFeatures, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        features.save(path)
    except OSError as error:  # no space, no permission: the run does not need the cache
        _log.warning("the text features can't be cached in %s: %s", path.parent, brief(error))


def load_text_features(path: Path) -> TextFeatures | None:
    """Reads a file written by `TextFeatures.save`; None when it holds something else, such as a CLIP checkpoint.

    Raises:
        InputError: The file is missing or not a complete safetensors file.
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
        raise InputError(f"--text-pretrained {path}: not a complete safetensors file ({brief(error)})") from error
    except (KeyError, TypeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"--text-pretrained {path}: its metadata lacks {error}; was it written by tabzoo?") from error
    shape = (len(features.words), *normal.shape[-1:])
    tensors = (normal, abnormal)
    if not all(each.shape == shape and each.is_floating_point() and each.isfinite().all() for each in tensors):
        raise InputError(
            f"--text-pretrained {path}: expected finite tensors [C, D] for {count(len(features.words), 'class', 'classes')}; "
            f"got normal {list(normal.shape)}, abnormal {list(abnormal.shape)}"
        )
    return features


def _fitting(
    features: TextFeatures, path: Path, words: Mapping[str, str], text_model: str, prompts: PromptSet
) -> TextFeatures:
    """The rows for our classes, in our order, after checks that the file was made for them."""
    refused = f"--text-pretrained {path} does not fit this run:"
    # Features depend on the words alone, so a class may have another name in the file.
    row_of = {phrase: row for row, phrase in enumerate(features.words.values())}
    if missing := [name for name, phrase in words.items() if name not in features.words and phrase not in row_of]:
        lacking = ", ".join(name if name == words[name] else f"{name} ('{words[name]}')" for name in missing)
        raise InputError(
            f"{refused} no features for {lacking}; it holds {', '.join(dict.fromkeys(features.words.values()))}. Make them "
            f'again with `tabzoo text --class-names`, or say what the folder shows with --class-names FOLDER "WORDS".'
        )
    for name, phrase in words.items():
        if phrase not in row_of:
            raise InputError(
                f"{refused} it calls class {name} '{features.words[name]}', this run '{phrase}'. "
                f'Type --class-names {name} "{features.words[name]}", or make the features again.'
            )
    if features.prompts_sha256 != prompts.digest():
        raise InputError(
            f"{refused} it was made from other prompts (sha256 {features.prompts_sha256[:12]}, here "
            f"{prompts.digest()[:12]}). Name the prompt set it was made from by --prompts, or make the features again."
        )
    if features.text_model != text_model:
        raise InputError(f"{refused} it comes from {features.text_model}. Type --text-model {features.text_model}.")
    if features.text_pretrained == UNTRAINED:
        _log.warning("The text features in %s come from an untrained tower: use them only to try things out.", path)
    rows = [row_of[phrase] for phrase in words.values()]
    return replace(features, normal=features.normal[rows], abnormal=features.abnormal[rows], words=dict(words))
