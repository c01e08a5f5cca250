"""Figures of a run: its synthetic anomalies, its loss, and how its images and texts align."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from tabzoo.synthesis.pairs import RawPairs

__all__ = ["draw_curves", "draw_samples", "draw_similarity"]


def _pyplot() -> Any:
    # Imported when used, and without a screen: training may run on a server.
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def draw_samples(path: Path, pairs: RawPairs, class_names: Sequence[str]) -> None:
    """A grid with a column for each pair: normal image, synthetic anomaly, mask of the change.

    Args:
        path: PNG to write.
        pairs: On any device.
        class_names: Words of each class.
    """
    plt = _pyplot()
    columns = len(pairs.classes)
    figure, axes = plt.subplots(3, columns, figsize=(1.3 * columns, 4.2), squeeze=False)
    for column in range(columns):
        images = (pairs.normal[column], pairs.abnormal[column], 255 * pairs.mask[column].byte().expand(3, -1, -1))
        for row, image in enumerate(images):
            axes[row, column].imshow(image.permute(1, 2, 0).cpu().numpy())
        axes[0, column].set_title(class_names[int(pairs.classes[column])], fontsize=7)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    for row, label in enumerate(("normal", "synthetic anomaly", "mask")):
        axes[row, 0].set_ylabel(label, fontsize=8)
    _write(figure, path)


def draw_curves(path: Path, rows: Sequence[dict[str, float]], validation: Sequence[dict[str, float]]) -> None:
    """Loss, and accuracies or AUROC, over the steps, of training and of the held-out images, if there are any."""
    plt = _pyplot()
    figure, (loss, reached) = plt.subplots(1, 2, figsize=(9, 3.2))
    ranked = any("auroc" in row for row in rows)
    shown = (
        {"auroc": "synthetic anomalies"} if ranked else {f"accuracy_{name}": name for name in ("normal", "abnormal")}
    )
    for series, style, suffix in ((rows, "-", ""), (validation, "o--", ", held out")):
        if not series:
            continue
        steps = [row["step"] for row in series]
        loss.plot(steps, [row["loss"] for row in series], style, markersize=3, label=f"loss{suffix}")
        for key, name in shown.items():
            reached.plot(steps, [row[key] for row in series], style, markersize=3, label=f"{name}{suffix}")
    for axis, name in ((loss, "loss"), (reached, "AUROC" if ranked else "class accuracy")):
        axis.set_xlabel("step")
        axis.set_ylabel(name)
        axis.legend(fontsize=7)
    reached.set_ylim(0, 1.02)
    _write(figure, path)


def draw_similarity(path: Path, similarities: dict[str, Tensor], classes: Tensor, class_names: Sequence[str]) -> None:
    """Image-text similarity matrices, after the paper's Figure 4: red is high, blue is low.

    The paper's columns are class names, sentences and averaged text features; here they are the averaged features, which
    the loss sees. Each row is shown relative to its mean, since the softmax does not see what a row has in common.

    Args:
        path: PNG to write.
        similarities: Title of each panel to cosine similarities [B, C].
        classes: Class of each image, ascending, [B].
        class_names: Words of each class.
    """
    plt = _pyplot()
    height = min(12.0, max(3.5, 0.06 * len(classes)))
    figure, axes = plt.subplots(
        1,
        len(similarities),
        figsize=(max(3.6, 0.35 * len(class_names) + 1.6) * len(similarities), height),
        squeeze=False,
    )
    starts = [int((classes == index).nonzero()[0]) for index in classes.unique()]
    for axis, (title, values) in zip(axes[0], similarities.items(), strict=True):
        relative = values - values.mean(dim=1, keepdim=True)
        limit = max(float(relative.abs().max()), 1e-6)
        image = axis.imshow(
            relative.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest"
        )
        axis.set_title(title, fontsize=9)
        axis.set_xticks(range(len(class_names)), class_names, rotation=90, fontsize=7)
        axis.set_yticks(starts, [class_names[int(classes[start])] for start in starts], fontsize=7)
        figure.colorbar(image, ax=axis)
    _write(figure, path)


def _write(figure: Any, path: Path) -> None:
    from tabzoo.figures import save_figure

    try:
        save_figure(figure, path, dpi=130, tight=True)
    finally:
        _pyplot().close(figure)
