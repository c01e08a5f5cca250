"""The table of weights, and their registration with timm as tags of stock architectures.

timm has no public call that adds a tag to an architecture it already knows. `register` therefore changes the four tables
of its registry that such a tag lives in, after checking that they look as expected. The weights' source is a lazy path:
timm turns it into a file name only when weights are asked for, so what happens then, errors included, is ours.
"""

import os
from collections.abc import MutableSequence
from dataclasses import dataclass
from typing import Any

import timm
from timm.models import PretrainedCfg, _registry

from tabzoo.errors import WeightsError

__all__ = ["WEIGHTS", "Weights", "list_models", "register"]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One set of weights: where it comes from and what may be done with it.

    Attributes:
        name: timm name with tag.
        training_data: The images it is trained on, with their licence.
        license: SPDX identifier of the weights' licence, or "other".
        published: Whether the Hub holds the weights. None is published yet.
    """

    name: str
    training_data: str
    license: str
    published: bool = False

    @property
    def architecture(self) -> str:
        """The timm architecture: the name without its tag."""
        return self.name.split(".", 1)[0]

    @property
    def tag(self) -> str:
        """The timm tag: the name without its architecture."""
        return self.name.split(".", 1)[1]


WEIGHTS = (
    Weights(
        name="resnet18.tab_mvtec",
        training_data="MVTec AD, 3,629 normal images of 15 classes, CC BY-NC-SA 4.0: no commercial use",
        license="cc-by-nc-sa-4.0",
    ),
    Weights(
        name="resnet18.tab_industrial",
        training_data="the paper's Industrial dataset, 17,393 normal images of 30 classes from some 12 public sources, "
        "several of them non-commercial or without a stated licence",
        license="other",
    ),
)
"""Every weight tabzoo knows. `list_models` and the registration with timm read it."""


def list_models() -> list[str]:
    """Names of tabzoo's weights, in the form `timm.create_model` takes."""
    return [weights.name for weights in WEIGHTS]


class _LazyPath(os.PathLike[str]):
    """A weight file that is looked for only when timm opens it.

    A plain class: timm copies its configurations with `dataclasses.asdict`, which would turn a dataclass into a dict.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __fspath__(self) -> str:
        raise WeightsError(
            f"{self.name}: these weights are not published yet, so pretrained=True has nothing to load. Ways out:\n"
            f"  train them:       python -m tabzoo.training.pretrain --recipe {self.name} --data DIR --output OUT\n"
            f'  use a folder:     timm.create_model("local-dir:OUT", pretrained=True), OUT being such a run\'s output\n'
            f"  random weights:   pretrained=False\n"
            f"A command that converts the authors' checkpoint will follow."
        )

    def __repr__(self) -> str:
        return f"tabzoo weights {self.name}"


def register() -> None:
    """Adds tabzoo's weights to timm's registry; doing so again changes nothing.

    Raises:
        WeightsError: This timm keeps its registry in another form.
    """
    for weights in WEIGHTS:
        _register(weights)


def _register(weights: Weights) -> None:
    tags, default = _tables(weights.architecture)
    config = _pretrained_cfg(weights)
    _registry._model_pretrained_cfgs[weights.name] = config
    default.cfgs[weights.tag] = config
    # Appended, never put first: timm takes the first tag as the architecture's default.
    if weights.name not in tags:
        tags.append(weights.name)
    if weights.tag not in default.tags:
        default.tags.append(weights.tag)
    # `_model_has_pretrained`, what list_models(pretrained=True) shows, names published weights only.
    if weights.published:
        _registry._model_has_pretrained.add(weights.name)


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


def _pretrained_cfg(weights: Weights) -> PretrainedCfg:
    return PretrainedCfg(
        file=_LazyPath(weights.name),  # type: ignore[arg-type]  # any path will do
        architecture=weights.architecture,
        tag=weights.tag,
        num_classes=0,
        input_size=(3, 224, 224),
        pool_size=(7, 7),
        crop_pct=0.875,
        # The paper's preprocessing: squash to 256 x 256 by Lanczos, centre crop 224, ImageNet statistics (timm's default).
        crop_mode="squash",
        interpolation="lanczos",
        first_conv="conv1",
        classifier="fc",
        license=weights.license,
        description=f"TAB (Text-Align Anomaly Backbone) pre-trained on {weights.training_data}",
        paper_name="TAB: Text-Align Anomaly Backbone Model for Industrial Inspection Tasks",
        paper_ids="arXiv:2312.09480",
    )
