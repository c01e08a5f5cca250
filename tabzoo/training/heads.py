"""Projection heads between the space of the embeddings and that of the texts; discarded after training."""

from typing import Literal

from torch import Tensor, nn

__all__ = ["BRANCHES", "Branch", "ProjectionHeads"]

Branch = Literal["normal", "abnormal"]
BRANCHES: tuple[Branch, Branch] = ("normal", "abnormal")


class ProjectionHeads(nn.Module):
    """A head for each branch.

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


class _ResidualHead(nn.Module):
    """The authors' head (Howeng98/TAB @ aa8c4dc, model.py): linear, then ReLU, linear and dropout added, LayerNorm."""

    def __init__(self, width: int, text_width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, text_width)
        self.refine = nn.Sequential(nn.ReLU(), nn.Linear(text_width, text_width), nn.Dropout(0.5))
        self.norm = nn.LayerNorm(text_width)

    def forward(self, embeddings: Tensor) -> Tensor:
        projected = self.project(embeddings)
        normed: Tensor = self.norm(projected + self.refine(projected))
        return normed
