"""The losses against plain NumPy, values and gradients."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tabzoo.training.heads import BRANCHES, Branch, ProjectionHeads
from tabzoo.training.objective import Alignment, TextAlignment, total_loss

Array = NDArray[np.float64]


def alignment_of(normal: Tensor, abnormal: Tensor, **settings: Any) -> TextAlignment:
    """An objective whose images are their own embeddings."""
    width = normal.shape[1]
    return TextAlignment(nn.Identity(), ProjectionHeads("none", width, width), normal, abnormal, **settings)


def align(objective: TextAlignment, embeddings: Tensor, classes: Tensor, branch: Branch) -> Alignment:
    result: Alignment = objective(embeddings, torch.empty(len(classes), 1, 0, 0), classes, branch)
    return result


def unit(x: Array) -> Array:
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))


def cross_entropy_and_gradient(
    x: Array, texts: Array, targets: NDArray[np.int64], temperature: float
) -> tuple[float, Array]:
    """Mean cross entropy of temperature * unit(x) @ texts.T, and its gradient by x, written out."""
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    directions = x / norms
    logits = temperature * directions @ texts.T
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    rows = np.arange(len(x))
    loss = -np.log(shares[rows, targets]).mean()
    by_logits = shares.copy()
    by_logits[rows, targets] -= 1
    by_direction = temperature * by_logits @ texts / len(x)
    along = (by_direction * directions).sum(axis=1, keepdims=True)
    return float(loss), (by_direction - along * directions) / norms


@pytest.fixture
def case() -> dict[str, Array]:
    generator = np.random.default_rng(5)
    return {
        "normal": generator.normal(size=(9, 6)),
        "abnormal": generator.normal(size=(9, 6)),
        "text_normal": unit(generator.normal(size=(4, 6))),
        "text_abnormal": unit(generator.normal(size=(4, 6))),
        "classes": generator.integers(4, size=9),
    }


@pytest.mark.parametrize("objective", ["tab", "joint"])
def test_against_numpy(case: dict[str, Array], objective: str) -> None:
    temperature = 7.5
    both = np.concatenate((case["text_normal"], case["text_abnormal"]))
    alignment = alignment_of(
        torch.tensor(case["text_normal"], dtype=torch.float32),
        torch.tensor(case["text_abnormal"], dtype=torch.float32),
        objective=objective,
        temperature=temperature,
    )
    classes = case["classes"].astype(np.int64)
    for branch in BRANCHES:
        texts, targets = case[f"text_{branch}"], classes
        if objective == "joint":
            texts, targets = both, classes + (4 if branch == "abnormal" else 0)
        loss, gradient = cross_entropy_and_gradient(case[branch], texts, targets, temperature)
        embeddings = torch.tensor(case[branch], dtype=torch.float32, requires_grad=True)
        result = align(alignment, embeddings, torch.tensor(classes), branch)
        result.loss.backward()
        assert embeddings.grad is not None
        np.testing.assert_allclose(result.loss.item(), loss, rtol=1e-5)
        np.testing.assert_allclose(embeddings.grad.numpy(), gradient, atol=2e-6)
        expected = (unit(case[branch]) @ texts.T).argmax(axis=1) == targets
        assert result.accuracy.item() == pytest.approx(expected.mean())


def test_the_loss_of_a_batch_is_the_mean_or_the_sum_of_its_branches() -> None:
    assert total_loss(3.0, 5.0, "mean") == 4.0
    assert total_loss(3.0, 5.0, "sum") == 8.0


def test_one_class_teaches_tab_nothing_and_joint_something() -> None:
    texts = torch.eye(2)
    for objective, constant in (("tab", True), ("joint", False)):
        alignment = alignment_of(texts[:1], texts[1:], objective=objective, temperature=5.0)
        embeddings = torch.tensor([[1.0, 2.0], [3.0, -1.0]], requires_grad=True)
        loss = align(alignment, embeddings, torch.zeros(2, dtype=torch.long), "normal").loss
        (gradient,) = torch.autograd.grad(loss, embeddings)
        assert bool((gradient == 0).all()) is constant


def test_temperature_is_learned_only_when_asked() -> None:
    texts = torch.eye(3)
    for learn in (False, True):
        alignment = alignment_of(texts, texts, temperature=2.0, learn_temperature=learn)
        assert alignment.temperature.requires_grad is learn
    align(alignment, torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1]), "normal").loss.backward()
    assert alignment.temperature.grad is not None
    assert float(alignment.temperature.grad.abs()) > 0


def test_heads() -> None:
    embeddings = torch.randn(4, 10)
    none, linear = ProjectionHeads("none", 10, 10), ProjectionHeads("linear", 10, 6)
    assert all(torch.equal(none(embeddings, branch), embeddings) for branch in BRANCHES)
    assert sum(parameter.numel() for parameter in linear.parameters()) == 60  # one map for both branches
    assert torch.equal(linear(embeddings, "normal"), linear(embeddings, "abnormal"))
    residual = ProjectionHeads("residual", 10, 6).eval()
    assert sum(parameter.numel() for parameter in residual.parameters()) == 2 * (10 * 6 + 6 + 6 * 6 + 6 + 12)
    head = residual.heads["normal"]
    projected = embeddings @ head.project.weight.T + head.project.bias  # type: ignore[operator, union-attr]
    refined = torch.relu(projected) @ head.refine[1].weight.T + head.refine[1].bias  # type: ignore[index, union-attr]
    expected = torch.nn.functional.layer_norm(projected + refined, (6,))
    torch.testing.assert_close(residual(embeddings, "normal"), expected)
    assert not torch.equal(residual(embeddings, "normal"), residual(embeddings, "abnormal"))
