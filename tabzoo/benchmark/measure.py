"""One row: a method fitted to a class's good images and tested, on the features of one backbone."""

import dataclasses
import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tabzoo.benchmark.images import Drawn, Trial
from tabzoo.benchmark.machine import hardware, peak_memory, versions
from tabzoo.benchmark.metrics import Planes, evaluate, image_auroc, not_empty
from tabzoo.benchmark.plan import Job, Plan
from tabzoo.benchmark.report import keep_maps
from tabzoo.detectors import DETECTORS, CallbackDetector, Detector, FewShotDetector, Scores
from tabzoo.detectors.batches import FrozenFeatures, NormalisedBatches
from tabzoo.detectors.extractor import FeatureExtractor
from tabzoo.errors import InputError
from tabzoo.scores.rows import EMPTY_MASKS, METRICS, Metrics, Row

__all__ = ["measure_row"]


class _Measured(NamedTuple):
    image_scores: list[Tensor]
    metrics: Metrics
    seconds: dict[str, float]
    oracle: float | None = None
    empty_masks: int = 0


def measure_row(plan: Plan, job: Job, extractor: FeatureExtractor, method: Detector) -> Row:
    """Fits and tests; what a class lacks leaves metrics undefined, with the reason."""
    few_shot = isinstance(method, FewShotDetector)
    draws = [
        job.images.draw(shots=job.shots, seed=job.seed, test=plan.test, number=number)
        for number in range(method.draws if isinstance(method, FewShotDetector) else 1)
    ]
    trial = job.images.trial(test=plan.test, seed=job.seed)
    if plan.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(plan.device)
    if missing := [what for what, count in (("good training", len(draws[0].rows)), ("test", len(trial))) if not count]:
        reasons = dict.fromkeys(METRICS, f"no {' and no '.join(missing)} images")
        measured = _Measured([], Metrics(undefined_because=reasons), {})
    else:
        try:
            measured = _measure(plan, job, draws, trial, extractor, method)
        except (FloatingPointError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
            raise InputError(
                f"--method {job.method}: training diverged (values that are not finite) on class {job.images.name} with "
                f"backbone {job.backbone.name}. "
                f"If settings of the method were given, lower its learning rate; else leave --amp away. Rows so far are kept."
            ) from error
    counts = {"fitted": len(draws[0].rows), "good": int((~trial.labels).sum()), "anomalous": int(trial.labels.sum())}
    if few_shot:
        counts["learned on"] = sum(len(other.normals) for other in job.others)
    if measured.empty_masks:
        counts[EMPTY_MASKS] = measured.empty_masks
    paths = [drawn.paths for drawn in draws]
    scores = _scores(measured.image_scores, trial)
    return Row(
        key=job.key,
        backbone=job.backbone.name,
        method=job.method,
        dataset=plan.dataset,
        class_name=job.images.name,
        seed=job.seed,
        shots=job.shots,
        test=plan.test,
        transductive=job.transductive,
        draw=None if job.shots is None else paths if few_shot else paths[0],
        images=counts,
        scores={kind: of_draws if few_shot else next(iter(of_draws), []) for kind, of_draws in scores.items()},
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
    plan: Plan, job: Job, draws: Sequence[Drawn], trial: Trial, extractor: FeatureExtractor, method: Detector
) -> _Measured:
    normalised, size = DETECTORS[job.method].normalised, plan.options.batch_size
    mean, std = (extractor.mean, extractor.std) if normalised else ((0.0,) * 3, (1.0,) * 3)

    def batches(pixels: Callable[[Tensor], Tensor], rows: Tensor) -> NormalisedBatches:
        return NormalisedBatches(pixels, rows, batch_size=size, mean=mean, std=std)

    seconds: dict[str, float] = {}
    score = _learn(job, trial, method, batches, seconds)
    labels, has_mask = torch.from_numpy(trial.labels), torch.from_numpy(trial.has_mask)
    image_scores, metrics, oracle = [], [], []

    def test() -> Iterator[Tensor]:
        """Scores and maps of all test images."""
        scored = [score(rows) for rows in torch.arange(len(trial)).split(size)]
        for parts in zip(*scored, strict=True):
            values = torch.cat([part.cpu() for part in parts])
            if not values.isfinite().all():
                raise FloatingPointError
            yield values

    fit = method.fit
    if job.method in plan.options.with_oracle and 0 < labels.sum() < len(labels):
        tested = cast(CallbackDetector, method)
        fit = partial(tested.fit, after_meta_epoch=lambda: oracle.append(image_auroc(next(test()), labels)))
    for number, drawn in enumerate(draws):
        with _timed(seconds, "fit"):
            fit(batches(job.images.pixels, torch.from_numpy(drawn.rows)))
        with _timed(seconds, "score"):
            of_images, maps = test()
        image_scores.append(of_images)
        planes, masks = _planes(plan, job, trial, maps)
        metrics.append(evaluate(of_images, labels, planes, masks, has_mask=has_mask))
        if number == 0:
            keep_maps(plan.options.output, job.key, trial, maps)
    empty = int((labels & has_mask & ~not_empty(masks)).sum())
    return _Measured(image_scores, _average(metrics), seconds, max(oracle, default=None), empty)


def _learn(
    job: Job,
    trial: Trial,
    method: Detector,
    batches: Callable[[Callable[[Tensor], Tensor], Tensor], NormalisedBatches],
    seconds: dict[str, float],
) -> Callable[[Tensor], Scores]:
    """What scores test images, by index; of a few-shot method after it has learned, its network being fixed from then on."""
    tested = batches(trial.pixels, torch.arange(len(trial)))
    if not isinstance(method, FewShotDetector):
        return lambda rows: method.score(tested.take(rows))
    with _timed(seconds, "learn"):
        others = [batches(other.pixels, torch.from_numpy(other.normals)) for other in job.others]
        method.meta_train(others, job.shots or 0)
    with _timed(seconds, "score"):
        kept = FrozenFeatures(tested, method.embed)
    height, width = trial.masks.shape[1:]
    return lambda rows: method.score_maps(kept.take(rows), (height, width))


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    """Adds the time that a block takes."""
    start = time.perf_counter()
    yield
    seconds[part] = round(seconds.get(part, 0) + time.perf_counter() - start, 3)


def _average(metrics: Sequence[Metrics]) -> Metrics:
    """Over draws of support images; all have the same test images, so what is undefined is so in each."""
    defined = [name for name in METRICS if getattr(metrics[0], name) is not None]
    values: dict[str, Any] = {name: float(np.mean([getattr(one, name) for one in metrics])) for name in defined}
    return dataclasses.replace(metrics[0], **values)


def _planes(plan: Plan, job: Job, trial: Trial, maps: Tensor) -> tuple[Planes, Planes]:
    """Maps and masks of the same sizes: the method's, or the files'."""
    if not plan.options.full_resolution:
        return maps, trial.masks.cpu()
    masks = job.images.full_masks()
    pairs = zip(maps[:, None, None], masks, strict=True)
    return [F.interpolate(one, tuple(mask.shape), mode="bilinear")[0, 0] for one, mask in pairs], masks


def _scores(image_scores: Sequence[Tensor], trial: Trial) -> dict[str, list[list[float]]]:
    """For each draw a list; no draws where nothing was measured."""
    # 9 digits tell float32 apart.
    values = np.array([[float(f"{value:.9g}") for value in one.tolist()] for one in image_scores])
    values = values.reshape(len(image_scores), len(trial))
    return {"good": values[:, ~trial.labels].tolist(), "anomalous": values[:, trial.labels].tolist()}
