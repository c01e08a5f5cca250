"""Backbones x methods x classes x seeds: each is measured once, and its row appended as soon as it is known.

A run that was killed goes on where it stopped, and an output folder gains rows: what a row's numbers follow from is
digested into its key (`results.row_key`), and rows that are there already are not computed again.
"""

import dataclasses
import datetime
import itertools
import platform
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import PIL
import timm
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

import tabzoo
from tabzoo.benchmark.features import FeatureExtractor
from tabzoo.benchmark.images import Batches, Drawn, Trial
from tabzoo.benchmark.methods import Method
from tabzoo.benchmark.metrics import ClassMetrics, Planes, evaluate
from tabzoo.benchmark.plan import Job, Options, Plan
from tabzoo.benchmark.report import keep_maps, write_report
from tabzoo.benchmark.results import METRICS, Row, append_row, read_rows
from tabzoo.errors import InputError

__all__ = ["run"]


def run(options: Options, *, progress: bool = True) -> str:
    """Measures what is not yet there, and writes results, tables and pictures into the output folder.

    Args:
        options: What to measure.
        progress: Show a progress bar.

    Returns:
        The tables of all rows that the folder then holds.

    Raises:
        InputError: Options that do not fit, or an output folder that can't be used.
        WeightsError: A backbone's weights can't be fetched.
    """
    folder = options.output
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder}: can't be used as a folder: {error.strerror}") from error
    done = {row.key for row in read_rows(folder)}
    plan = Plan(options)
    jobs = list(plan.jobs())
    missing = [job for job in jobs if job.key not in done]
    with tqdm(total=len(jobs), initial=len(jobs) - len(missing), unit="row", disable=None if progress else True) as bar:
        for (backbone, name, seed), of_one in itertools.groupby(
            missing, lambda job: (job.backbone, job.method, job.seed)
        ):
            extractor, method = plan.build(backbone, name, seed)
            for job in of_one:
                bar.set_postfix_str(f"{name} {backbone.name} {job.images.name} seed {seed}", refresh=False)
                append_row(folder, _row(plan, job, extractor, method))
                bar.update()
    return write_report(plan, jobs)


class _Measured(NamedTuple):
    image_scores: Tensor
    metrics: ClassMetrics
    seconds: dict[str, float]


def _row(plan: Plan, job: Job, extractor: FeatureExtractor, method: Method) -> Row:
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
        versions=_versions(),
        hardware=_hardware(plan.device),
        seconds=measured.seconds,
        peak_memory=_peak_memory(plan.device),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **dataclasses.asdict(measured.metrics),
    )


def _measure(
    plan: Plan, job: Job, drawn: Drawn, trial: Trial, extractor: FeatureExtractor, method: Method
) -> _Measured:
    def batches(pixels: Callable[[Tensor], Tensor], rows: Tensor) -> Batches:
        return Batches(pixels, rows, batch_size=plan.options.batch_size, mean=extractor.mean, std=extractor.std)

    start = time.perf_counter()
    method.fit(batches(job.images.pixels, torch.from_numpy(drawn.rows)))
    fitted = time.perf_counter()
    scored = [method.score(images) for images in batches(trial.pixels, torch.arange(len(trial)))]
    image_scores, maps = (torch.cat([part.cpu() for part in parts]) for parts in zip(*scored, strict=True))
    end = time.perf_counter()
    labels, has_mask = torch.from_numpy(trial.labels), torch.from_numpy(trial.has_mask)
    planes: tuple[Planes, Planes] = maps, trial.masks.cpu()
    if plan.options.full_resolution:
        masks = job.images.full_masks()
        sizes = [(mask.shape[0], mask.shape[1]) for mask in masks]
        planes = (
            [F.interpolate(m[None, None], s, mode="bilinear")[0, 0] for m, s in zip(maps, sizes, strict=True)],
            masks,
        )
    metrics = evaluate(image_scores, labels, *planes, has_mask=has_mask)
    keep_maps(plan.options.output, job.key, trial, maps)
    return _Measured(image_scores, metrics, {"fit": round(fitted - start, 3), "score": round(end - fitted, 3)})


def _scores(image_scores: Tensor, trial: Trial) -> dict[str, list[float]]:
    values = np.array([float(f"{value:.9g}") for value in image_scores.tolist()])  # 9 digits tell float32 apart
    return {"good": values[~trial.labels].tolist(), "anomalous": values[trial.labels].tolist()}


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "tabzoo": tabzoo.__version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def _peak_memory(device: torch.device) -> int | None:
    """Bytes: of the CUDA device during this row, or of the process up to now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
