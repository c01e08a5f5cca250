"""Backbones x shares of labels x seeds: each is measured once, and its row is appended at once."""

import copy
import datetime
import hashlib
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from tabzoo.benchmark.classify.images import open_labelled
from tabzoo.benchmark.classify.learners import features_of, fine_tune, learn_on_features, settings_of
from tabzoo.benchmark.classify.metrics import evaluate, f1_of_patterns
from tabzoo.benchmark.classify.options import Options
from tabzoo.benchmark.classify.report import write_report
from tabzoo.benchmark.classify.rows import RESULTS, ClassifyRow, append_row, read_rows
from tabzoo.benchmark.classify.split import Split, split_images, write_split
from tabzoo.benchmark.fid import Preparation, embedding_network
from tabzoo.benchmark.provenance import Backbone, find_backbones
from tabzoo.command import say
from tabzoo.compute import CoreWatch, choose_amp, choose_device, deterministic
from tabzoo.detectors.extractor import is_random, weights_sha256
from tabzoo.errors import InputError
from tabzoo.machine import hardware, peak_memory, versions
from tabzoo.plain import for_terminal
from tabzoo.scores.rows import row_key

__all__ = ["classify"]


class _Job(NamedTuple):
    key: str
    backbone: Backbone
    seed: int
    percent: int
    weights_sha256: str


class _Plan:
    """Images, splits and backbones of a run, and its jobs."""

    def __init__(self, options: Options) -> None:
        self.options, self.device = options, choose_device(options.device)
        self.amp = choose_amp(options.amp, self.device)
        self.backbones = find_backbones(options.backbone)
        self.network = lru_cache(2)(self._network)
        self.weights = {
            (one.source, seed): self._weights(one, seed) for one in self.backbones for seed in self._seeds(one)
        }
        size = options.effort.size
        self.images = open_labelled(
            options.data, size=size, device=self.device, cache_dir=options.cache_dir, workers=options.workers
        )
        self.settings = settings_of(options, drawn=self.images.drawn, amp=self.amp.amp)
        self.splits = {seed: self._split(seed) for seed in options.seeds}
        self.features = lru_cache(1)(self._features)

    def jobs(self) -> Iterator[_Job]:
        """Those with the same backbone and seed follow each other."""
        for backbone in self.backbones:
            for seed in dict.fromkeys(self.options.seeds):
                weights, structure = self.weights[backbone.source, self._seed(backbone, seed)]
                for percent in sorted(set(self.options.labels)):
                    split = self.splits[seed].sha256
                    decides = (
                        self.options.mode,
                        self.settings,
                        weights,
                        structure,
                        self.images.sha256,
                        split,
                        seed,
                        percent,
                    )
                    yield _Job(row_key({"classify": decides}), backbone, seed, percent, weights)

    def measure(self, job: _Job, *, progress: bool) -> ClassifyRow:
        """Trains, tests, and returns the row."""
        start, images, split = time.perf_counter(), self.images, self.splits[job.seed]
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        rows, amp = split.labelled(job.percent), self.amp.amp == "bf16"
        network = self.network(job.backbone.source, self._seed(job.backbone, job.seed))
        if self.options.mode == "finetune":
            label = for_terminal(f"{job.backbone.name} {job.percent} % seed {job.seed}") if progress else ""
            predicted = fine_tune(
                copy.deepcopy(network), images, rows, split.test, self.options, seed=job.seed, amp=amp, label=label
            )
        else:
            features = self.features(job.backbone.source, self._seed(job.backbone, job.seed))
            labels = images.class_ids[rows]
            predicted = learn_on_features(
                self.options.mode,
                features[rows],
                labels,
                features[split.test],
                unlabelled=features[split.labelled(100)],
            )
        truth = images.class_ids[split.test]
        agreement = evaluate(truth, predicted, len(images.classes))
        return ClassifyRow(
            key=job.key,
            backbone=job.backbone.name,
            origin=_origin(job.backbone),
            mode=self.options.mode,
            dataset=images.name,
            seed=job.seed,
            labels=job.percent,
            budget=self.options.budget,
            transductive=images.hashes is not None and job.backbone.saw(images.name, images.hashes),
            accuracy=agreement.accuracy,
            macro_f1=agreement.macro_f1,
            f1=dict(zip(images.classes, agreement.f1.tolist(), strict=True)),
            pattern_f1=f1_of_patterns(truth, predicted, images.patterns),
            classes=list(images.classes),
            truth=truth.tolist(),
            predicted=predicted.tolist(),
            images={"trained": len(rows), "tested": len(truth)},
            settings=self.settings,
            weights_sha256=job.weights_sha256,
            data_sha256=images.sha256,
            split_sha256=split.sha256,
            versions=versions(),
            hardware=hardware(self.device),
            seconds=round(time.perf_counter() - start, 3),
            peak_memory=peak_memory(self.device),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )

    def write_splits(self) -> None:
        """Writes the split of each seed beside the results."""
        class_names = [self.images.classes[class_id] for class_id in self.images.class_ids.tolist()]
        for seed, split in self.splits.items():
            path = self.options.output / "splits" / f"{self.images.name}-seed{seed}-{split.sha256[:8]}.csv"
            write_split(path, split, self.images.names, class_names, self.options.labels)

    def _split(self, seed: int) -> Split:
        return split_images(
            self.images.class_ids, self.images.classes, seed=seed, per_class=self.options.effort.per_class
        )

    def _seeds(self, backbone: Backbone) -> set[int]:
        return {self._seed(backbone, seed) for seed in self.options.seeds}

    def _seed(self, backbone: Backbone, seed: int) -> int:
        """Of the weights: others than random ones are the same with every seed."""
        return seed if is_random(backbone.source) else 0

    def _network(self, source: str, seed: int) -> nn.Module:
        how = Preparation(crop=self.options.effort.size, seed=seed)
        return embedding_network(source, how, self.device, flag="--backbone")

    def _weights(self, backbone: Backbone, seed: int) -> tuple[str, str]:
        """Hash of the weights, and of what is computed with them."""
        network = self.network(backbone.source, seed)
        return weights_sha256(network), hashlib.sha256(str(network).encode()).hexdigest()

    def _features(self, source: str, seed: int) -> Any:
        """Of all images that any split uses, at their rows, [N, D]."""
        used = sorted(
            {row for split in self.splits.values() for row in [*split.test.tolist(), *split.labelled(100).tolist()]}
        )
        rows = torch.tensor(used)
        found = features_of(
            self.network(source, seed), self.images, rows.numpy(), self.options, amp=self.amp.amp == "bf16"
        )
        if not found.isfinite().all():
            raise InputError(f"--backbone {source}: its features are not finite numbers; are the weights intact?")
        features = torch.zeros(len(self.images.class_ids), found.shape[1])
        features[rows] = found
        return features


def classify(options: Options, *, command: str, progress: bool = True) -> str:
    """Measures what is missing, and writes rows, splits, tables and figures into the output folder.

    Args:
        options: What to measure.
        command: What the user typed, for the caption.
        progress: Print what is measured.

    Returns:
        The tables of all rows in the folder.

    Raises:
        InputError: Options or images that do not fit, or an output folder that can't be used.
        WeightsError: A backbone's weights can't be fetched.
    """
    _check_output(options)
    deterministic()
    plan = _Plan(options)
    if plan.amp.reason:
        say(plan.amp.reason)
    watch = CoreWatch(plan.device)
    jobs = list(plan.jobs())
    done = {row.key for row in read_rows(options.output)}
    try:
        plan.write_splits()
    except OSError as error:
        raise InputError(f"--output {options.output}: can't be used as a folder: {error.strerror or error}") from error
    for number, job in enumerate(jobs, start=1):
        if job.key in done:
            continue
        append_row(options.output, row := plan.measure(job, progress=progress))
        watch.check()
        if progress:
            about = f"{options.mode} {job.backbone.name} {job.percent} % seed {job.seed}"
            say(f"{number}/{len(jobs)} {about}: macro-F1 {100 * row.macro_f1:.1f} %, {row.seconds:.0f} s")
    return write_report(options.output, {job.key for job in jobs}, [one.name for one in plan.backbones], command)


def _origin(backbone: Backbone) -> str:
    if is_random(backbone.source):
        return "random weights"
    if backbone.trained_on or backbone.hashes is not None:
        return "of a run of tabzoo, or published by tabzoo"
    return "other weights"


def _check_output(options: Options) -> None:
    """Checks that results neither become part of the images nor mix with other files."""
    output, data = options.output, Path(options.data)
    if data.is_dir() and output.resolve().is_relative_to(data.resolve()):
        raise InputError(f"--output {output}: is inside --data {options.data}. Name a folder outside the images.")
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output}: is a file; expected a folder")
    with suppress(FileNotFoundError):
        held = sorted(entry.name for entry in output.iterdir() if entry.name[0] != ".")
        if RESULTS not in held and set(held) - {"splits"}:  # of a run stopped in its first row
            raise InputError(
                f"--output {output}: holds no results of classify: it has no {RESULTS}, but {', '.join(held[:3])}. Name "
                f"another folder, or move these files away."
            )
