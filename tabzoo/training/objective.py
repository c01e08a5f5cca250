"""The objective: TAB's text-aligned contrastive loss (Algorithm 1), and a joint form of it that is ours.

Symbols as in the paper: X are images and y their classes, E_V is the image encoder and f^V = norm(E_V(X)) its unit
embeddings; f_n^T and f_a^T are the unit text features of each class's normal and abnormal sentences.
"""

from typing import Any, Literal, NamedTuple

import timm.layers
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabzoo.synthesis.pairs import Pairs
from tabzoo.training.heads import Branch, ProjectionHeads
from tabzoo.training.recipe import BatchNorm

__all__ = ["Alignment", "TextAlignment", "total_loss"]


class Alignment(NamedTuple):
    """How well the images of one branch are aligned with their texts.

    Attributes:
        loss: Mean cross entropy, [].
        accuracy: Fraction of images whose most similar text is their own, [] in [0, 1].
    """

    loss: Tensor
    accuracy: Tensor


class TextAlignment(nn.Module):
    """Image encoder, heads and loss as one module, which DistributedDataParallel wraps and a checkpoint holds.

    `tab` is Algorithm 1: normal images against f_n^T and abnormal ones against f_a^T, with the class as target; with one
    class both losses are constant. `joint` (ours) compares all images with [f_n^T; f_a^T], 2C targets. It also separates
    normal from abnormal, and so works for a single product.

    Args:
        backbone: E_V, [B, 3, H, W] -> [B, D].
        heads: From its embeddings to the text space.
        normal: f_n^T, [C, D], or what a recipe's `text_layout` makes of it.
        abnormal: f_a^T, [C, D], likewise.
        objective: "tab" or "joint".
        temperature: Factor on the cosine similarities.
        learn_temperature: Whether it is trained, from that value, as in the authors' code.
        batch_norm: Whose statistics batch-norm layers use in training: "local", those of the images that go through the
            layer at once; "sync", those of all processes' images; "frozen", the running ones that the backbone came with.
        amp: Type of mixed precision, None for none. Similarities and losses are always computed in float32.
    """

    normal: Tensor
    abnormal: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        heads: ProjectionHeads,
        normal: Tensor,
        abnormal: Tensor,
        *,
        objective: Literal["tab", "joint"] = "tab",
        temperature: float,
        learn_temperature: bool = False,
        batch_norm: BatchNorm = "local",
        amp: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.backbone = timm.layers.convert_sync_batchnorm(backbone) if batch_norm == "sync" else backbone
        self.heads = heads
        self.register_buffer("normal", normal, persistent=False)
        self.register_buffer("abnormal", abnormal, persistent=False)
        self.temperature = nn.Parameter(torch.tensor(temperature), requires_grad=learn_temperature)
        self.objective, self.amp = objective, amp
        self.frozen = batch_norm == "frozen"

    def forward(self, images: Tensor, mask: Tensor, classes: Tensor, branch: Branch) -> Alignment:
        """Loss and accuracy of one branch.

        Args:
            images: X, normalised, [B, 3, H, W].
            mask: Where an abnormal image was changed, [B, 1, H, W]. For objectives about places; these two use none.
            classes: y, [B].
            branch: Whether the images are normal or abnormal.
        """
        f = F.normalize(self.embed(images, branch).float(), dim=-1)  # f^V = norm(E_V(X)), [B, D]
        if self.objective == "tab":
            texts, targets = (self.normal if branch == "normal" else self.abnormal), classes
        else:
            texts = torch.cat((self.normal, self.abnormal))
            targets = classes if branch == "normal" else classes + len(self.normal)
        logits = self.temperature * f @ texts.T  # cosine similarities, [B, C] or [B, 2C]
        return Alignment(F.cross_entropy(logits, targets), (logits.argmax(dim=-1) == targets).float().mean())

    def calls(self, pairs: Pairs) -> list[tuple[Any, ...]]:
        """Arguments of each forward pass that a batch takes: one for each branch."""
        return [
            (pairs.normal, pairs.mask, pairs.classes, "normal"),
            (pairs.abnormal, pairs.mask, pairs.classes, "abnormal"),
        ]

    def embed(self, images: Tensor, branch: Branch) -> Tensor:
        """E_V(X) in the text space, not normalised, [B, D]."""
        with torch.autocast(images.device.type, dtype=self.amp, enabled=self.amp is not None):
            embeddings: Tensor = self.heads(self.backbone(images), branch)
        return embeddings

    def train(self, mode: bool = True) -> "TextAlignment":
        """Switches between training and evaluation; frozen batch-norm layers stay in evaluation."""
        super().train(mode)
        if self.frozen:
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


def total_loss(loss_normal: Any, loss_abnormal: Any, reduction: Literal["mean", "sum"]) -> Any:
    """The loss of a batch: the mean of its two branches (Algorithm 1), or their sum (the authors' code).

    Args:
        loss_normal: A tensor or a number.
        loss_abnormal: The same.
        reduction: Which of the two.
    """
    if reduction == "sum":
        return loss_normal + loss_abnormal
    return (loss_normal + loss_abnormal) / 2
