"""From training images and labels to predictions: a head on frozen features, or a backbone that is fine-tuned."""

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from timm.data import create_transform, resolve_model_data_config
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn

from tabzoo.benchmark.classify.images import LabelledImages
from tabzoo.benchmark.classify.options import Mode, Options
from tabzoo.compute import seeded
from tabzoo.errors import InputError, brief
from tabzoo.extras import how_to_install
from tabzoo.progress import track
from tabzoo.synthesis.draws import permutation

__all__ = ["Rows", "features_of", "fine_tune", "learn_on_features", "settings_of"]

Rows = NDArray[np.int64]
Statistics = tuple[tuple[float, ...], tuple[float, ...]]
_STREAM = 203  # key of the order of images
_WARM_UP = 0.1  # of the steps
_SMALLEST_CROP = 0.7  # of a photo's area
_JITTER = 0.2  # of a photo's brightness, contrast and saturation
_NEIGHBOURS = 5
_LOGISTIC = {"C": 1.0, "max_iter": 2000}


def settings_of(options: Options, *, drawn: bool, amp: str) -> dict[str, Any]:
    """What a row's numbers depend on besides images, weights, seed and labels."""
    mode, effort = options.mode, options.effort
    common = {"size": effort.size, "per_class": effort.per_class, "amp": amp}
    if mode == "knn":
        return {**common, "neighbours": f"at most {_NEIGHBOURS}", "distance": "cosine"}
    if mode == "linear":
        return {**common, "standardised": "by all training images", **_LOGISTIC}
    crop = 1.0 if drawn else _SMALLEST_CROP
    training = {"epochs": effort.epochs, "least_steps": effort.least_steps, "train_batch": effort.train_batch}
    optimizer = {"optimizer": options.optimizer, "lr": options.lr, "weight_decay": options.weight_decay}
    augmentation = {"smallest_crop": crop, "jitter": 0.0 if drawn else _JITTER, "flips": 0.5}
    return {**common, **training, **optimizer, "schedule": "cosine", "warm_up": _WARM_UP, **augmentation}


@torch.no_grad()
def features_of(
    model: nn.Module,
    images: LabelledImages,
    rows: Rows,
    options: Options,
    *,
    amp: bool,
    statistics: Statistics | None = None,
) -> Tensor:
    """Outputs of a network in evaluation mode, float32 [B, D] on the CPU.

    Args:
        model: Takes normalised images.
        images: All images.
        rows: Which of them.
        options: Of the run.
        amp: Compute in bfloat16.
        statistics: What images are normalised by; the model's own if not given.
    """
    device, parts = next(model.parameters()).device, []
    mean, std = (torch.tensor(one, device=device).view(1, 3, 1, 1) for one in statistics or _statistics(model))
    parts_of_rows = torch.from_numpy(rows).split(options.batch_size)
    for part in track(parts_of_rows, len(rows), "features", unit="img", size=len):
        batch = images.batch(part, options.effort.size).float().div(255)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
            parts.append(model.eval()((batch - mean) / std).float().cpu())
    return torch.cat(parts)


def learn_on_features(mode: Mode, train: Tensor, labels: Rows, test: Tensor, *, unlabelled: Tensor) -> Rows:
    """The classes of test images, by logistic regression or nearest neighbours.

    Args:
        mode: linear or knn.
        train: Features of the labelled images, [N, D].
        labels: Their classes, [N].
        test: Features of the test images, [M, D].
        unlabelled: Features of all training images, whose mean and standard deviation logistic regression divides by: of
            two labelled images they would say nothing.

    Raises:
        InputError: scikit-learn is missing.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise InputError(f"--mode {mode}: needs scikit-learn: {how_to_install('benchmark')}") from error
    known, asked = train.double().numpy(), test.double().numpy()
    if mode == "knn":
        # A class with few labels could never win against more neighbours than it has.
        neighbours = min(_NEIGHBOURS, int(np.bincount(labels).min()))
        learner = KNeighborsClassifier(max(1, neighbours), metric="cosine", algorithm="brute")
    else:
        scaler = StandardScaler().fit(unlabelled.double().numpy())
        known, asked = scaler.transform(known), scaler.transform(asked)
        learner = LogisticRegression(**_LOGISTIC)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a regression that stops after max_iter
        learner.fit(known, labels)
        predicted: Rows = learner.predict(asked)
    return predicted


def fine_tune(
    backbone: nn.Module,
    images: LabelledImages,
    rows: Rows,
    tested: Rows,
    options: Options,
    *,
    seed: int,
    amp: bool,
    label: str,
) -> Rows:
    """Trains a backbone and a linear head, and predicts the classes of test images with the weights of the last step.

    Args:
        backbone: Gives embeddings; it is changed.
        images: All images.
        rows: The labelled ones.
        tested: The test images.
        options: Of the run.
        seed: Of the head, of the order of images and of their augmentation.
        amp: Compute in bfloat16.
        label: What the progress is about; none is shown if it is empty.

    Raises:
        InputError: The optimizer is unknown, or the loss became NaN or infinite.
    """
    device = next(backbone.parameters()).device
    with seeded(seed):
        width = features_of(backbone, images, tested[:1], options, amp=False).shape[1]
        model = nn.Sequential(backbone, nn.Linear(width, len(images.classes))).to(device)
    statistics = _statistics(backbone)
    with seeded(seed), _seeded_python(seed):
        _train(model, statistics, images, rows, options, seed=seed, amp=amp, label=label)
    return features_of(model, images, tested, options, amp=amp, statistics=statistics).argmax(1).numpy()


def _train(
    model: nn.Module,
    statistics: Statistics,
    images: LabelledImages,
    rows: Rows,
    options: Options,
    *,
    seed: int,
    amp: bool,
    label: str,
) -> None:
    effort, device = options.effort, next(model.parameters()).device
    size = min(effort.train_batch, len(rows))
    per_epoch = len(rows) // size
    steps = max(effort.epochs * per_epoch, effort.least_steps)
    try:
        optimizer = create_optimizer_v2(model, opt=options.optimizer, lr=options.lr, weight_decay=options.weight_decay)
    except Exception as error:  # of timm, for an unknown name
        raise InputError(f"--optimizer {options.optimizer}: timm can't build it: {brief(error)}") from error
    # The scheduler's epochs are our steps.
    scheduler, _ = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=steps, warmup_epochs=round(_WARM_UP * steps), warmup_lr=0.01 * options.lr
    )
    targets = torch.from_numpy(images.class_ids).to(device)
    augment = _augmentation(statistics, images, effort.size)
    model.train()
    for step in track(range(steps), steps, label, show=bool(label)):
        epoch, position = divmod(step, per_epoch)
        order = permutation(seed, epoch, len(rows), _STREAM)[position * size : (position + 1) * size]
        chosen = torch.from_numpy(rows)[order]
        batch = torch.stack([augment(image) for image in images.raw(chosen).float().div(255)])
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
            loss = F.cross_entropy(model(batch).float(), targets[chosen.to(device)])
        if not torch.isfinite(loss):
            raise InputError(
                f"--lr {options.lr:g}: the loss became NaN or infinite in step {step}. Type a smaller --lr"
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step(step + 1)


def _augmentation(statistics: Statistics, images: LabelledImages, size: int) -> Any:
    """timm's transforms of a float image [3, H, W] on its device, to [3, size, size], normalised.

    Photos are cropped, flipped and changed a little in colour. Wafer maps are only flipped: a crop would cut off the edge,
    which tells classes apart.
    """
    mean, std = statistics
    smallest = 1.0 if images.drawn else _SMALLEST_CROP
    ratio = (1.0, 1.0) if images.drawn else (0.8, 1.25)
    return create_transform(
        size,
        is_training=True,
        scale=(smallest, 1.0),
        ratio=ratio,
        hflip=0.5,
        vflip=0.5,
        color_jitter=0.0 if images.drawn else _JITTER,
        interpolation="nearest" if images.drawn else "bilinear",
        mean=mean,
        std=std,
    )


def _statistics(model: nn.Module) -> Statistics:
    """Mean and standard deviation of the backbone's own configuration."""
    config = resolve_model_data_config(model)
    return tuple(config["mean"]), tuple(config["std"])


@contextmanager
def _seeded_python(seed: int) -> Iterator[None]:
    """Within it, Python's own generator starts from this seed: timm's crops are drawn from it."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
