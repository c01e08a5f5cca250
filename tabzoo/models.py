"""The table of weights, and their registration with timm as tags of stock architectures.

timm has no public call that adds a tag to an architecture it already knows. `register` therefore changes the four tables
of its registry that such a tag lives in, after checking that they look as expected. The weights' source is a lazy path:
timm turns it into a file name only when weights are asked for, so what happens then, errors included, is ours.
"""

import logging
import re
from collections.abc import MutableSequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import timm
from timm.models import PretrainedCfg, _registry

from tabzoo.errors import WeightsError
from tabzoo.hub import store
from tabzoo.hub.config import architecture_facts
from tabzoo.hub.files import Digest
from tabzoo.hub.lazy import LazyPath

__all__ = ["WEIGHTS", "Metric", "Release", "Weights", "find_weights", "list_models", "pretrained_cfg", "register"]

_log = logging.getLogger(__name__)


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


def list_models() -> list[str]:
    """Names of tabzoo's weights and of those in the local store, in the form `timm.create_model` takes."""
    return sorted({weights.name for weights in WEIGHTS} | {entry.name for entry in store.installed()})


def register() -> None:
    """Adds tabzoo's weights and those of the local store to timm's registry; doing so again changes nothing.

    Raises:
        WeightsError: This timm keeps its registry in another form.
    """
    for weights in WEIGHTS:
        _register(weights.name, pretrained_cfg(weights), here=weights.published)
    for entry in store.installed():
        if store.is_timms(entry.name):
            _log.warning("%s in the local store is left out: timm has weights of this name by now", entry.name)
        else:
            _register(entry.name, entry.folder.config, here=True)


def _register(name: str, config: PretrainedCfg, *, here: bool) -> None:
    architecture, tag = name.split(".", 1)
    tags, default = _tables(architecture)
    config = replace(config, tag=tag, file=LazyPath(name))  # type: ignore[arg-type]  # any path will do
    _registry._model_pretrained_cfgs[name] = config
    default.cfgs[tag] = config
    # Appended, never put first: timm takes the first tag as the architecture's default.
    if name not in tags:
        tags.append(name)
    if tag not in default.tags:
        default.tags.append(tag)
    # `_model_has_pretrained`, what list_models(pretrained=True) shows, names weights that can be had.
    (_registry._model_has_pretrained.add if here else _registry._model_has_pretrained.discard)(name)


def _tables(architecture: str) -> tuple[MutableSequence[str], Any]:
    """The names and the default configuration of an architecture, once their types are seen to be what we know."""
    try:
        names = _registry._model_with_tags[architecture]
        default: Any = _registry._model_default_cfgs[architecture]  # timm annotates it as what it is not
        known = (
            isinstance(_registry._model_pretrained_cfgs, dict)
            and isinstance(_registry._model_has_pretrained, set)
            and isinstance(names, MutableSequence)
            and isinstance(default.tags, MutableSequence)
            and isinstance(default.cfgs, dict)
        )
    except (AttributeError, KeyError):
        known = False
    if not known:
        raise WeightsError(
            f"timm {timm.__version__} keeps its model registry in a form that tabzoo does not know, so its weights can't "
            f"be registered. Install a timm release that tabzoo names as tested, or load a folder with "
            f'timm.create_model("local-dir:DIR", pretrained=True), which needs no registration.'
        )
    return names, default


def pretrained_cfg(weights: Weights) -> PretrainedCfg:
    """How timm is to use weights of the table."""
    release = weights.release
    return PretrainedCfg(
        hf_hub_id=f"{release.repository}@{release.commit}" if release else None,
        hf_hub_filename="model.safetensors" if release else None,
        **architecture_facts(weights.architecture),
        num_classes=0,
        input_size=(3, 224, 224),
        pool_size=(7, 7),
        crop_pct=0.875,
        # The paper's preprocessing: squash to 256 x 256 by Lanczos, centre crop 224, ImageNet statistics (timm's default).
        crop_mode="squash",
        interpolation="lanczos",
        license=weights.license,
        description=f"TAB (Text-Align Anomaly Backbone) pre-trained on {weights.training_data}",
        paper_name="TAB: Text-Align Anomaly Backbone Model for Industrial Inspection Tasks",
        paper_ids="arXiv:2312.09480",
    )
