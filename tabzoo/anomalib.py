"""Puts a backbone of tabzoo into a model of anomalib.

Most models of anomalib accept any timm name: `import tabzoo`, then `Patchcore(backbone="resnet18.tab_mvtec")`. Some accept
only names from a list of their own, and a weights folder has no name at all. Then build the model with the plain
architecture, and `load_backbone` replaces the weights of its backbone.

The places of the backbones are those of anomalib 2.7.
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
"""Classes of anomalib to the place of their frozen timm backbone, below the Lightning module's `model`."""

_Model = TypeVar("_Model", bound=nn.Module)


def load_backbone(model: _Model, source: str | os.PathLike[str]) -> _Model:
    """Loads pre-trained weights into the frozen backbone of an anomalib model, and checks that every tensor is loaded.

    Args:
        model: An anomalib model (a class of `EXTRACTORS`), built with the architecture of the weights and
            `pre_trained=False`: `Fastflow(backbone="resnet18", pre_trained=False)`.
        source: A name such as "resnet18.tab_mvtec", or a weights folder.

    Returns:
        The same model.

    Raises:
        InputError: The model's backbone can't be found, or the weights are of another architecture.
        WeightsError: The weights can't be loaded.
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
            f"{source} does not fit the backbone of {type(model).__name__}: {len(wrong)} tensors differ in name or "
            f"shape, such as {', '.join(wrong[:3])}. Build the model with the architecture of the weights, as in "
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
                    f"{type(model).__name__} has no {place}, where anomalib 2.7 keeps its backbone; install that version"
                ) from error
    raise InputError(
        f"load_backbone does not know where {type(model).__name__} keeps its backbone; it knows {', '.join(EXTRACTORS)}. "
        f'Other models of anomalib may accept the name itself: backbone="resnet18.tab_mvtec" after `import tabzoo`.'
    )
