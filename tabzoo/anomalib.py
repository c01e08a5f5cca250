"""Puts a backbone of tabzoo into a model of anomalib.

Most models of anomalib take any timm name, so `import tabzoo` and `Patchcore(backbone="resnet18.tab_mvtec")` is all it
needs. Others compare the name with a list of their own, or one has a folder of weights and no name: such a model is built
with the plain architecture and `load_backbone` then puts the weights where it keeps its backbone.

The places are those of anomalib 2.7.
"""

import os
from typing import TypeVar

from torch import nn

from tabzoo.errors import InputError
from tabzoo.hub.load import create_model

__all__ = ["EXTRACTORS", "load_backbone"]

EXTRACTORS = {
    "Cflow": "encoder.feature_extractor",
    "Dfkde": "feature_extractor.feature_extractor",
    "Dfm": "feature_extractor.feature_extractor",
    "Fastflow": "feature_extractor",
    "Fre": "feature_extractor.feature_extractor",
    "Glass": "forward_modules.feature_aggregator.feature_extractor",
    "Padim": "feature_extractor.feature_extractor",
    "Patchcore": "feature_extractor.feature_extractor",
    "ReverseDistillation": "encoder.feature_extractor",
}
"""Class of anomalib to the place of its frozen timm features, below the Lightning module's `model`."""

_Model = TypeVar("_Model", bound=nn.Module)


def load_backbone(model: _Model, source: str | os.PathLike[str]) -> _Model:
    """Puts pre-trained weights into the frozen backbone of an anomalib model, and sees that every tensor arrived.

    Args:
        model: An anomalib model (a class of `EXTRACTORS`), built with the architecture of the weights and
            `pre_trained=False`: `Fastflow(backbone="resnet18", pre_trained=False)`.
        source: A name such as "resnet18.tab_mvtec", or a folder of weights.

    Returns:
        The same model.

    Raises:
        InputError: A model whose backbone's place is not known, or weights of another architecture.
        WeightsError: Weights that can't be had.
    """
    extractor = _extractor(model)
    given = extractor.state_dict()
    stages = extractor.feature_info.out_indices  # type: ignore[union-attr]
    pretrained = create_model(source, pretrained=True, features_only=True, out_indices=stages).state_dict()
    wrong = sorted(given.keys() ^ pretrained.keys()) or [
        key for key in given if given[key].shape != pretrained[key].shape
    ]
    if wrong:
        raise InputError(
            f"{source} does not fit the backbone of {type(model).__name__}: {len(wrong)} tensors are off, "
            f"{', '.join(wrong[:3])} first. Build the model with the architecture of the weights, as in "
            f'{type(model).__name__}(backbone="resnet18", pre_trained=False).'
        )
    extractor.load_state_dict(pretrained)
    return model


def _extractor(model: nn.Module) -> nn.Module:
    for known in type(model).__mro__:
        if known.__name__ in EXTRACTORS:
            place = f"model.{EXTRACTORS[known.__name__]}"
            try:
                return model.get_submodule(place)
            except AttributeError as error:
                raise InputError(
                    f"{type(model).__name__} has no {place}, where that of anomalib 2.7 keeps its backbone; install it"
                ) from error
    raise InputError(
        f"load_backbone does not know where {type(model).__name__} keeps its backbone; it knows {', '.join(EXTRACTORS)}. "
        f'Other models of anomalib may take the name itself: backbone="resnet18.tab_mvtec" after `import tabzoo`.'
    )
