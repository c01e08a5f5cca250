"""The text-aligned contrastive loss (TAB, Algorithm 1), and a joint form of it that is ours.

Symbols as in the paper: f^V are unit image embeddings, f_n^T and f_a^T the unit text features of a class's normal and
abnormal sentences. Each branch, normal or abnormal images, is a sum of its own, so that the two can run forward and
backward one after the other.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["BRANCHES", "Alignment", "Branch", "ProjectionHeads", "TextAlignment", "similarity_loss"]

Branch = Literal["normal", "abnormal"]
BRANCHES: tuple[Branch, Branch] = ("normal", "abnormal")


class Alignment(NamedTuple):
    """What one branch of a batch gives.

    Attributes:
        loss: Mean cross entropy, [].
        accuracy: Share of images whose most similar text is their own, [] in [0, 1].
    """

    loss: Tensor
    accuracy: Tensor


def similarity_loss(embeddings: Tensor, texts: Tensor, targets: Tensor, temperature: Tensor | float) -> Alignment:
    """Cross entropy over `temperature * norm(embeddings) @ texts.T`, as in Algorithm 1.

    Args:
        embeddings: Image embeddings, any length, [B, D].
        texts: Unit text features, [K, D].
        targets: Row of `texts` that belongs to each image, [B].
        temperature: Factor on the cosine similarities.
    """
    logits = temperature * F.normalize(embeddings.float(), dim=-1) @ texts.T  # [B, K]
    return Alignment(F.cross_entropy(logits, targets), (logits.argmax(dim=-1) == targets).float().mean())


class TextAlignment(nn.Module):
    """The objective over fixed text features.

    `tab` is Algorithm 1: normal images against f_n^T, abnormal ones against f_a^T, the class as target; with one class
    both are constant. `joint` (ours) sets all images against [f_n^T; f_a^T] with 2C targets, which also holds normal
    apart from abnormal and so works for a single product.

    Args:
        normal: f_n^T, [C, D].
        abnormal: f_a^T, [C, D].
        objective: "tab" or "joint".
        temperature: Factor on the cosine similarities.
        learn_temperature: Whether it is trained, from that value, as the authors' code does.
        reduction: "mean" weighs each branch by 1/2 (Algorithm 1), "sum" by 1 (the authors' code).
    """

    normal: Tensor
    abnormal: Tensor

    def __init__(
        self,
        normal: Tensor,
        abnormal: Tensor,
        *,
        objective: Literal["tab", "joint"] = "tab",
        temperature: float,
        learn_temperature: bool = False,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__()
        self.objective = objective
        self.branch_weight = 0.5 if reduction == "mean" else 1.0
        self.register_buffer("normal", normal, persistent=False)
        self.register_buffer("abnormal", abnormal, persistent=False)
        self.temperature = nn.Parameter(torch.tensor(temperature), requires_grad=learn_temperature)

    def forward(self, embeddings: Tensor, classes: Tensor, branch: Branch) -> Alignment:
        """Loss and accuracy of one branch, the loss not yet weighed.

        Args:
            embeddings: Image embeddings, [B, D].
            classes: Class of each image, [B].
            branch: Whether the images are normal or abnormal.
        """
        if self.objective == "tab":
            texts, targets = (self.normal if branch == "normal" else self.abnormal), classes
        else:
            texts = torch.cat((self.normal, self.abnormal))
            targets = classes if branch == "normal" else classes + len(self.normal)
        return similarity_loss(embeddings, texts, targets, self.temperature)


class _ResidualHead(nn.Module):
    """The authors' head (Howeng98/TAB @ aa8c4dc, model.py): linear, then ReLU, linear and dropout beside it, LayerNorm."""

    def __init__(self, width: int, text_width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, text_width)
        self.refine = nn.Sequential(nn.ReLU(), nn.Linear(text_width, text_width), nn.Dropout(0.5))
        self.norm = nn.LayerNorm(text_width)

    def forward(self, embeddings: Tensor) -> Tensor:
        projected = self.project(embeddings)
        normed: Tensor = self.norm(projected + self.refine(projected))
        return normed


class ProjectionHeads(nn.Module):
    """Heads between embedding and text space, thrown away after training.

    Args:
        kind: "none" (Algorithm 1), "linear" (ours: one map for both branches, for a backbone of another width), or
            "residual" (the authors' code: an MLP for each branch).
        width: Length of the backbone's embedding.
        text_width: Length of the text features.
    """

    def __init__(self, kind: Literal["none", "linear", "residual"], width: int, text_width: int) -> None:
        super().__init__()
        if kind == "residual":
            heads: list[nn.Module] = [_ResidualHead(width, text_width) for _ in BRANCHES]
        else:
            # One module under both names: normal and abnormal embeddings stay in one space.
            heads = [nn.Linear(width, text_width, bias=False) if kind == "linear" else nn.Identity()] * 2
        self.heads = nn.ModuleDict(dict(zip(BRANCHES, heads, strict=True)))

    def forward(self, embeddings: Tensor, branch: Branch) -> Tensor:
        """[B, width] -> [B, text_width]."""
        projected: Tensor = self.heads[branch](embeddings)
        return projected
