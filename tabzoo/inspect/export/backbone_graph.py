"""A bare backbone as one graph: photos in, the map of each layer and the pooled embedding out."""

import torch
from torch import Tensor, nn

from tabzoo.backbones import build_backbone
from tabzoo.detectors.extractor import FeatureExtractor, build_extractor, is_random, timm_name
from tabzoo.errors import InputError, WeightsError, brief
from tabzoo.inspect.export.graph import Normalise

__all__ = ["BackboneGraph", "Reference"]

EMBEDDING = "embedding"


class Reference:
    """What a backbone computes elsewhere in tabzoo: maps as detectors get them, and embeddings as training does.

    Args:
        name: A source, as for `extractor.build_extractor`.
        size: Side of the photos in pixels.

    Attributes:
        model: Photos to embeddings; a model of timm without classifier.
        names: Of the graph's outputs.

    Raises:
        InputError: No such backbone, or it does not take photos of this size.
        WeightsError: Its weights can't be fetched.
    """

    def __init__(self, name: str, size: int) -> None:
        if is_random(name):
            raise InputError(
                f"export {name}: random weights are a baseline of the benchmark. Name a backbone, or a folder."
            )
        try:
            self.model = build_backbone(timm_name(name, flag="export"), init="pretrained", seed=0).eval()
        except WeightsError as error:  # names flags of pre-training
            raise WeightsError(
                f"export {name}: its weights can't be loaded: {brief(error.__cause__ or error)}. Instead, name a folder with "
                f"config.json and model.safetensors, as on the Hub or from a run: tabzoo export DIR --output FILE.onnx"
            ) from error
        info = getattr(self.model, "feature_info", None)
        if not info or not hasattr(self.model, "forward_intermediates"):
            raise InputError(f"export {name}: this model does not give the maps of its layers. Choose a CNN of timm.")
        indices = [str(index) for index in range(len(info))]
        self.extractor: FeatureExtractor = build_extractor(name, layers=indices)
        self.names = (*self.extractor.layers, EMBEDDING)
        try:
            self(torch.zeros(1, size, size, 3, dtype=torch.uint8))
        except (RuntimeError, AssertionError, ValueError) as error:  # of timm's models, and torch's own
            raise InputError(
                f"export {name}: does not take photos of {size} x {size}: {brief(error)}. Type another --size."
            ) from error

    @torch.no_grad()
    def __call__(self, photos: Tensor) -> list[Tensor]:
        """Maps [N, C, h, w] of each layer and embeddings [N, D] of photos uint8 [N, S, S, 3]."""
        images = Normalise(self.extractor.mean, self.extractor.std)(photos)
        return [*self.extractor(images).values(), self.model(images)]


class BackboneGraph(nn.Module):
    """Photos uint8 [N, S, S, 3] to the maps [N, C, h, w] of each layer and the embedding [N, D], float32.

    Maps and embedding come from one pass of the model, where `Reference` has a network for each.
    """

    def __init__(self, reference: Reference) -> None:
        super().__init__()
        self.normalise = Normalise(reference.extractor.mean, reference.extractor.std)
        self.model, self.count = reference.model, len(reference.names) - 1

    def forward(self, photos: Tensor) -> tuple[Tensor, ...]:
        """The outputs, in the order of `Reference.names`."""
        last, maps = self.model.forward_intermediates(  # type: ignore[operator]
            self.normalise(photos), indices=list(range(self.count)), norm=False, output_fmt="NCHW"
        )
        return (*maps, self.model.forward_head(last))  # type: ignore[operator]
