"""One row: a detector fitted to a class's good images and tested, on the features of one backbone."""

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

from tabzoo.benchmark.class_images import EvaluationSet, FittingSet
from tabzoo.benchmark.metrics import Planes, evaluate, image_auroc, not_empty
from tabzoo.benchmark.plan import Job, Plan
from tabzoo.benchmark.report import keep_maps
from tabzoo.detectors import DETECTORS, CallbackDetector, Detector, FewShotDetector, Scores
from tabzoo.detectors.batches import FrozenFeatures, NormalisedBatches
from tabzoo.detectors.extractor import FeatureExtractor
from tabzoo.errors import InputError
from tabzoo.machine import hardware, peak_memory, versions
from tabzoo.scores.rows import EMPTY_MASKS, METRICS, Metrics, Row

__all__ = ["measure_row"]

MakeBatches = Callable[[Callable[[Tensor], Tensor], Tensor], NormalisedBatches]


class _Measured(NamedTuple):
    image_scores: list[Tensor]
    metrics: Metrics
    seconds: dict[str, float]
    oracle: float | None = None
    empty_masks: int = 0


def measure_row(plan: Plan, job: Job, extractor: FeatureExtractor, detector: Detector) -> Row:
    """Fits and tests; metrics that need images which a class lacks are undefined, with the reason."""
    draws = [
        job.images.fitting_set(shots=job.shots, seed=job.seed, test=plan.test, number=number)
        for number in range(detector.draws if isinstance(detector, FewShotDetector) else 1)
    ]
    evaluation = job.images.evaluation_set(test=plan.test, seed=job.seed)
    if plan.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(plan.device)
    numbers = {"good training": len(draws[0].rows), "test": len(evaluation)}
    if missing := [what for what, number in numbers.items() if not number]:
        reasons = dict.fromkeys(METRICS, f"no {' and no '.join(missing)} images")
        measured = _Measured([], Metrics(undefined_because=reasons), {})
    else:
        try:
            measured = _measure(plan, job, draws, evaluation, extractor, detector)
        except (FloatingPointError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
            raise InputError(
                f"--method {job.method}: training diverged (values that are not finite) on class {job.images.name} with "
                f"backbone {job.backbone.name}. If you changed settings of the method, lower its learning rate; else try "
                f"without --amp. Finished rows are kept."
            ) from error
    return _row(plan, job, draws, evaluation, measured)


def _row(plan: Plan, job: Job, draws: Sequence[FittingSet], evaluation: EvaluationSet, measured: _Measured) -> Row:
    images = {
        "fitted": len(draws[0].rows),
        "good": int((~evaluation.labels).sum()),
        "anomalous": int(evaluation.labels.sum()),
    }
    few_shot = DETECTORS[job.method].few_shot
    if few_shot:
        images["learned on"] = sum(len(other.normals) for other in job.others)
    if measured.empty_masks:
        images[EMPTY_MASKS] = measured.empty_masks
    paths = [drawn.paths for drawn in draws]
    scores = _scores(measured.image_scores, evaluation)
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
        images=images,
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
    plan: Plan,
    job: Job,
    draws: Sequence[FittingSet],
    evaluation: EvaluationSet,
    extractor: FeatureExtractor,
    detector: Detector,
) -> _Measured:
    normalised, size = DETECTORS[job.method].normalised, plan.options.batch_size
    mean, std = (extractor.mean, extractor.std) if normalised else ((0.0,) * 3, (1.0,) * 3)
    batches = partial(NormalisedBatches, batch_size=size, mean=mean, std=std)
    seconds: dict[str, float] = {}
    score = _make_scorer(job, evaluation, detector, batches, seconds)
    labels, has_mask = torch.from_numpy(evaluation.labels), torch.from_numpy(evaluation.has_mask)
    image_scores, metrics, oracle = [], [], []

    def test() -> Iterator[Tensor]:
        """Scores and maps of all test images."""
        scored = [score(positions) for positions in torch.arange(len(evaluation)).split(size)]
        for parts in zip(*scored, strict=True):
            values = torch.cat([part.cpu() for part in parts])
            if not values.isfinite().all():
                raise FloatingPointError
            yield values

    fit = detector.fit
    if job.method in plan.options.with_oracle and 0 < labels.sum() < len(labels):
        tested = cast(CallbackDetector, detector)
        fit = partial(tested.fit, after_meta_epoch=lambda: oracle.append(image_auroc(next(test()), labels)))
    for number, drawn in enumerate(draws):
        with _timed(seconds, "fit"):
            fit(batches(job.images.pixels, torch.from_numpy(drawn.rows)))
        with _timed(seconds, "score"):
            of_images, maps = test()
        image_scores.append(of_images)
        planes, masks = _planes(plan, job, evaluation, maps)
        metrics.append(evaluate(of_images, labels, planes, masks, has_mask=has_mask))
        if number == 0:
            keep_maps(plan.options.output, job.key, evaluation, maps)
    empty = int((labels & has_mask & ~not_empty(masks)).sum())
    return _Measured(image_scores, _average(metrics), seconds, max(oracle, default=None), empty)


def _make_scorer(
    job: Job, evaluation: EvaluationSet, detector: Detector, batches: MakeBatches, seconds: dict[str, float]
) -> Callable[[Tensor], Scores]:
    """A function that scores test images, by position in the evaluation set.

    A few-shot detector is trained on the other classes first. Its network does not change after that, so the features of the
    test images are computed once for all draws of support images.
    """
    tested = batches(evaluation.pixels, evaluation.rows)
    if not isinstance(detector, FewShotDetector):
        return lambda positions: detector.score(tested.take(positions))
    with _timed(seconds, "learn"):
        others = [batches(other.pixels, torch.from_numpy(other.normals)) for other in job.others]
        detector.meta_train(others, job.shots or 0)
    with _timed(seconds, "score"):
        kept = FrozenFeatures(tested, detector.embed)
    height, width = evaluation.masks.shape[1:]
    return lambda positions: detector.score_maps(kept.take(positions), (height, width))


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    """Adds the time that a block takes."""
    start = time.perf_counter()
    yield
    seconds[part] = round(seconds.get(part, 0) + time.perf_counter() - start, 3)


def _average(metrics: Sequence[Metrics]) -> Metrics:
    """Over draws of support images. They have the same test images, so the same metrics are undefined in each."""
    defined = [name for name in METRICS if getattr(metrics[0], name) is not None]
    values: dict[str, Any] = {name: float(np.mean([getattr(one, name) for one in metrics])) for name in defined}
    return dataclasses.replace(metrics[0], **values)


def _planes(plan: Plan, job: Job, evaluation: EvaluationSet, maps: Tensor) -> tuple[Planes, Planes]:
    """Maps and masks of the same sizes: the method's, or the files'."""
    if not plan.options.full_resolution:
        return maps, evaluation.masks.cpu()
    masks = job.images.full_masks()
    pairs = zip(maps[:, None, None], masks, strict=True)
    return [F.interpolate(one, tuple(mask.shape), mode="bilinear")[0, 0] for one, mask in pairs], masks


def _scores(image_scores: Sequence[Tensor], evaluation: EvaluationSet) -> dict[str, list[list[float]]]:
    """For each draw a list; no draws where nothing was measured."""
    # 9 digits are enough to tell any two float32 values apart.
    values = np.array([[float(f"{value:.9g}") for value in one.tolist()] for one in image_scores])
    values = values.reshape(len(image_scores), len(evaluation))
    return {"good": values[:, ~evaluation.labels].tolist(), "anomalous": values[:, evaluation.labels].tolist()}
