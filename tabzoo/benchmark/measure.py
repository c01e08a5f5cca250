"""One row: a method fitted to a class's good images and tested, on the features of one backbone."""

import dataclasses
import datetime
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tabzoo.benchmark.features import FeatureExtractor
from tabzoo.benchmark.images import Batches, Drawn, Trial
from tabzoo.benchmark.machine import hardware, peak_memory, versions
from tabzoo.benchmark.methods import Method
from tabzoo.benchmark.methods.interface import TestedOnTheWay
from tabzoo.benchmark.metrics import ClassMetrics, Planes, evaluate, image_auroc
from tabzoo.benchmark.plan import Job, Plan
from tabzoo.benchmark.report import keep_maps
from tabzoo.benchmark.results import METRICS, Row

__all__ = ["measure_row"]


class _Measured(NamedTuple):
    image_scores: Tensor
    metrics: ClassMetrics
    seconds: dict[str, float]
    oracle: float | None = None


def measure_row(plan: Plan, job: Job, extractor: FeatureExtractor, method: Method) -> Row:
    """Fits and tests; what a class lacks leaves metrics undefined, with the reason."""
    drawn = job.images.draw(shots=job.shots, seed=job.seed, test=plan.test)
    trial = job.images.trial(test=plan.test, seed=job.seed)
    if plan.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(plan.device)
    if missing := [what for what, count in (("good training", len(drawn.rows)), ("test", len(trial))) if not count]:
        reasons = dict.fromkeys(METRICS, f"no {' and no '.join(missing)} images")
        measured = _Measured(torch.zeros(len(trial)), ClassMetrics(undefined_because=reasons), {})
    else:
        measured = _measure(plan, job, drawn, trial, extractor, method)
    return Row(
        key=job.key,
        backbone=job.backbone.name,
        method=job.method,
        dataset=plan.dataset,
        class_name=job.images.name,
        seed=job.seed,
        shots=job.shots,
        test=plan.test,
        transductive=job.backbone.trained_on.get(job.images.name) == len(job.images.normals),
        draw=drawn.paths if job.shots is not None else None,
        images={"fitted": len(drawn.rows), "good": int((~trial.labels).sum()), "anomalous": int(trial.labels.sum())},
        scores=_scores(measured.image_scores, trial),
        settings=job.settings,
        weights_sha256=job.weights_sha256,
        data_sha256=job.data_sha256,
        versions=versions(),
        hardware=hardware(plan.device),
        seconds=measured.seconds,
        peak_memory=peak_memory(plan.device),
        oracle_image_auroc=measured.oracle,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **dataclasses.asdict(measured.metrics),
    )


def _measure(
    plan: Plan, job: Job, drawn: Drawn, trial: Trial, extractor: FeatureExtractor, method: Method
) -> _Measured:
    def batches(pixels: Callable[[Tensor], Tensor], rows: Tensor) -> Batches:
        return Batches(pixels, rows, batch_size=plan.options.batch_size, mean=extractor.mean, std=extractor.std)

    def score() -> Iterator[Tensor]:
        scored = [method.score(images) for images in batches(trial.pixels, torch.arange(len(trial)))]
        return (torch.cat([part.cpu() for part in parts]) for parts in zip(*scored, strict=True))

    start = time.perf_counter()
    given, labels = batches(job.images.pixels, torch.from_numpy(drawn.rows)), torch.from_numpy(trial.labels)
    oracle: list[float] = []
    if job.method in plan.options.with_oracle and 0 < labels.sum() < len(labels):
        tested = cast(TestedOnTheWay, method)
        tested.fit(given, after_meta_epoch=lambda: oracle.append(image_auroc(next(score()), labels)))
    else:
        method.fit(given)
    fitted = time.perf_counter()
    image_scores, maps = score()
    end = time.perf_counter()
    has_mask = torch.from_numpy(trial.has_mask)
    metrics = evaluate(image_scores, labels, *_planes(plan, job, trial, maps), has_mask=has_mask)
    keep_maps(plan.options.output, job.key, trial, maps)
    seconds = {"fit": round(fitted - start, 3), "score": round(end - fitted, 3)}
    return _Measured(image_scores, metrics, seconds, max(oracle, default=None))


def _planes(plan: Plan, job: Job, trial: Trial, maps: Tensor) -> tuple[Planes, Planes]:
    """Maps and masks of the same sizes: the method's, or the files'."""
    if not plan.options.full_resolution:
        return maps, trial.masks.cpu()
    masks = job.images.full_masks()
    pairs = zip(maps[:, None, None], masks, strict=True)
    return [F.interpolate(one, tuple(mask.shape), mode="bilinear")[0, 0] for one, mask in pairs], masks


def _scores(image_scores: Tensor, trial: Trial) -> dict[str, list[float]]:
    values = np.array([float(f"{value:.9g}") for value in image_scores.tolist()])  # 9 digits tell float32 apart
    return {"good": values[~trial.labels].tolist(), "anomalous": values[trial.labels].tolist()}
