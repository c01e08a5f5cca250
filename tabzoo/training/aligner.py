"""What is trained, as one module: images and their classes in, loss and accuracy of one branch out."""

import timm.layers
import torch
from torch import Tensor, nn

from tabzoo.training.objective import Alignment, Branch, ProjectionHeads, TextAlignment
from tabzoo.training.recipe import BatchNorm

__all__ = ["Aligner"]


class Aligner(nn.Module):
    """Backbone, heads and objective, so that DistributedDataParallel and a checkpoint see one module.

    Args:
        backbone: The image encoder, [B, 3, H, W] -> [B, D].
        heads: From its embeddings to the text space.
        objective: The loss.
        batch_norm: Whose statistics batch-norm layers use in training: "local", those of the images that go through the
            layer at once; "sync", those of all processes' images; "frozen", the running ones that the backbone came with.
        amp: Type of mixed precision, None for none. The objective is always computed in float32.
    """

    def __init__(
        self,
        backbone: nn.Module,
        heads: ProjectionHeads,
        objective: TextAlignment,
        *,
        batch_norm: BatchNorm = "local",
        amp: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.backbone = timm.layers.convert_sync_batchnorm(backbone) if batch_norm == "sync" else backbone
        self.heads, self.objective = heads, objective
        self._frozen, self._amp = batch_norm == "frozen", amp

    def train(self, mode: bool = True) -> "Aligner":
        """Switches between training and evaluation."""
        super().train(mode)
        if self._frozen:
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def embed(self, images: Tensor, branch: Branch) -> Tensor:
        """Embeddings in the text space, [B, D]."""
        with torch.autocast(images.device.type, dtype=self._amp, enabled=self._amp is not None):
            embeddings: Tensor = self.heads(self.backbone(images), branch)
        return embeddings

    def forward(self, images: Tensor, classes: Tensor, branch: Branch) -> Alignment:
        """Loss and accuracy of normal or abnormal images [B, 3, H, W] of the classes [B]."""
        alignment: Alignment = self.objective(self.embed(images, branch), classes, branch)
        return alignment
