"""Stand-ins for CLIP's text features, for machines that have no CLIP: made-up directions with its geometry.

A class's vector is a weighted sum of four random directions: one that all texts share, one of the class, one of the state
(normal or abnormal), and one of both. The cosine between two classes is 0.7, and between normal and abnormal of a class
0.95, as with CLIP. What they lack is meaning: that "cookie" is nearer to "biscuit" than to "circuit board".
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tabzoo.training.clip import UNTRAINED
from tabzoo.training.prompts import load_prompts
from tabzoo.training.text import TextFeatures

__all__ = ["WIDTH", "write_stand_ins"]

WIDTH = 512
# Squared weights; they sum to 1. What two texts share is their cosine.
_ALL, _CLASS, _STATE, _BOTH = 0.69, 0.26, 0.01, 0.04


def write_stand_ins(path: Path, words: Mapping[str, str], *, prompts: str) -> None:
    """Writes the features of some classes, in the form that `--text-pretrained FILE` takes.

    Args:
        path: File to write (.safetensors).
        words: Class name to its words in the sentences.
        prompts: Name of the prompt set; the features do not depend on it, but a run checks it.

    Raises:
        WriteError: It can't be written.
    """
    features = TextFeatures(
        normal=torch.stack([_vector(name, "normal") for name in words]),
        abnormal=torch.stack([_vector(name, "abnormal") for name in words]),
        words=dict(words),
        text_model="ViT-B-16",
        text_pretrained=UNTRAINED,
        prompts_sha256=load_prompts(prompts).digest(),
    )
    features.save(path)


def _vector(class_name: str, state: str) -> Tensor:
    parts = (
        (_ALL, "all"),
        (_CLASS, f"class {class_name}"),
        (_STATE, f"state {state}"),
        (_BOTH, f"class {class_name} state {state}"),
    )
    total = torch.stack([weight**0.5 * _direction(key) for weight, key in parts]).sum(dim=0)
    return F.normalize(total, dim=0)


def _direction(key: str) -> Tensor:
    """A random unit vector that depends on the key alone, not on what other classes there are."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1
    return F.normalize(torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed)), dim=0)
