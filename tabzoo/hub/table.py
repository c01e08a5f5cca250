"""The weights known to tabzoo, as data."""

import re
from dataclasses import dataclass
from typing import NamedTuple

from tabzoo.hub.files import Digest

__all__ = ["WEIGHTS", "Metric", "Release", "Weights", "find_weights"]


class Metric(NamedTuple):
    """A result measured with the weights.

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
    """Where published weights are, and how they are identified.

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
        """The digest of model.safetensors."""
        return Digest(self.sha256, self.size)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One set of weights: where it comes from and how it may be used.

    Attributes:
        name: timm name with tag.
        training_data: The images it is trained on.
        data_licenses: Of these images.
        license: SPDX identifier of the weights' licence, or "other".
        recipe: Name of the recipe of `tabzoo.training.pretrain` that trains it.
        metrics: Results measured with it.
        release: None until it is published. No organisation is trusted by its name: without commit and hash, no download.
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
        """Whether the Hub has the weights."""
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
        training_data="the paper's Industrial dataset, 17,393 normal images of 30 classes from some 13 public sources",
        data_licenses=("several sources: no commercial use", "several sources: no stated licence"),
        license="other",
        recipe="resnet18.tab_industrial",
        metrics=(
            Metric("RegAD 4-shot, image AUROC, MVTec AD", 89.20, _PAPER),
            Metric("RegAD 8-shot, image AUROC, MVTec AD", 91.94, _PAPER),
        ),
    ),
)
"""All weights known to tabzoo, described only here."""


def find_weights(name: str) -> Weights | None:
    """The table's entry with this name, or None."""
    return next((weights for weights in WEIGHTS if weights.name == name), None)
