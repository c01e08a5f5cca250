"""The weights that tabzoo knows, as data."""

import re
from dataclasses import dataclass
from typing import NamedTuple

from tabzoo.hub.files import Digest

__all__ = ["WEIGHTS", "Metric", "Release", "Weights", "find_weights"]


class Metric(NamedTuple):
    """A number that was measured with the weights.

    Attributes:
        what: Method, measure and dataset.
        value: In percent.
        source: Who measured it, and with which weights.
    """

    what: str
    value: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Release:
    """Where published weights lie, and what they are.

    Attributes:
        repository: On the Hub, "organisation/name".
        commit: 40 hexadecimal digits.
        sha256: Of model.safetensors, 64 hexadecimal digits.
        size: Of model.safetensors, in bytes.
    """

    repository: str
    commit: str
    sha256: str
    size: int

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{40}", self.commit) or not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"{self}: expected 40 hexadecimal digits of a commit and 64 of a SHA-256")

    @property
    def digest(self) -> Digest:
        """What model.safetensors is known by."""
        return Digest(self.sha256, self.size)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One set of weights: where it comes from and what may be done with it.

    Attributes:
        name: timm name with tag.
        training_data: The images it is trained on.
        data_licenses: Of these images.
        license: SPDX identifier of the weights' licence, or "other".
        recipe: Name of the recipe of `tabzoo.training.pretrain` that makes it.
        metrics: What was measured with it.
        release: None as long as the Hub holds none. No organisation is trusted by its name: no commit and hash, no network.
    """

    name: str
    training_data: str
    data_licenses: tuple[str, ...]
    license: str
    recipe: str
    metrics: tuple[Metric, ...] = ()
    release: Release | None = None

    @property
    def published(self) -> bool:
        """Whether the Hub holds the weights."""
        return self.release is not None

    @property
    def architecture(self) -> str:
        """The timm architecture: the name without its tag."""
        return self.name.split(".", 1)[0]


_PAPER = "arXiv 2312.09480, Table 2, with the authors' weights"

WEIGHTS = (
    Weights(
        name="resnet18.tab_mvtec",
        training_data="MVTec AD, 3,629 normal images of 15 classes",
        data_licenses=("CC BY-NC-SA 4.0: no commercial use",),
        license="cc-by-nc-sa-4.0",
        recipe="resnet18.tab_mvtec",
        metrics=(
            Metric("PaDiM, image AUROC, MVTec AD", 92.64, _PAPER),
            Metric("RD4AD, image AUROC, MVTec AD", 98.48, _PAPER),
            Metric("SimpleNet, image AUROC, MVTec AD", 97.81, _PAPER),
        ),
    ),
    Weights(
        name="resnet18.tab_industrial",
        training_data="the paper's Industrial dataset, 17,393 normal images of 30 classes from some 12 public sources",
        data_licenses=("several sources: no commercial use", "several sources: no stated licence"),
        license="other",
        recipe="resnet18.tab_industrial",
        metrics=(
            Metric("RegAD 4-shot, image AUROC, MVTec AD", 89.20, _PAPER),
            Metric("RegAD 8-shot, image AUROC, MVTec AD", 91.94, _PAPER),
        ),
    ),
)
"""Every weight tabzoo knows, and the only place where one is described."""


def find_weights(name: str) -> Weights | None:
    """The table's entry of this name."""
    return next((weights for weights in WEIGHTS if weights.name == name), None)
