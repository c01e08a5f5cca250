"""Photos in, rows out: decoded in threads ahead of the detector, scored, and drawn in threads behind it.

What a row says depends on the photo alone: on a CPU photos are computed one by one, and on a GPU always `_ON_GPU` at a time,
the last ones filled up. Batches of other sizes round differently. On one core, one by one is not slower: 54 photos a second
against 34 in batches of 8 (efficientnet_lite0), 7.1 against 7.5 (wide_resnet50_2), with PaDiM.
"""

import hashlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from tabzoo.data.images import Facts, read_image
from tabzoo.errors import ImageError, InputError
from tabzoo.inspect.detector import InspectionDetector
from tabzoo.inspect.overlay import Scale, draw_overlay, name_of_overlay, save_overlay
from tabzoo.inspect.prepare import prepare
from tabzoo.inspect.rows import ScoreRow

__all__ = ["Scored", "Stream"]

T = TypeVar("T")
R = TypeVar("R")

_ON_GPU = 16
_KEPT_PIXELS = 4_000_000
"""Larger photos are not kept until they are drawn but decoded once more, so that few of them are in memory."""


class Scored(NamedTuple):
    """A photo's row.

    Attributes:
        row: What is known of it.
        known: Whether it was known before: neither the photo nor its row has changed.
    """

    row: ScoreRow
    known: bool = False


@dataclass(frozen=True)
class _Photo:
    """A photo on its way.

    Attributes:
        row: What is known of it so far.
        known: Whether that was known before.
        pixels: Those that are to be scored, [S, S, 3]; of a detector with tiles the photo's own, [H, W, 3].
        full: The photo, if it is kept.
        size: Its height and width.
        anomaly_map: [h, w], once it is scored.
    """

    row: ScoreRow
    known: bool = False
    pixels: NDArray[np.uint8] | None = None
    full: NDArray[np.uint8] | None = None
    size: tuple[int, int] = (0, 0)
    anomaly_map: NDArray[np.float32] | None = None


class Stream:
    """Scores photos with a detector.

    Args:
        detector: The detector.
        output: Folder for overlays, if there are to be any.
        ahead: Number of photos that are decoded before their turn, and that wait to be drawn.
        workers: Threads that decode and draw.
        see: Called with the path, height and width, and prepared pixels of each photo that could be read.
    """

    def __init__(
        self,
        detector: InspectionDetector,
        *,
        output: Path | None,
        ahead: int,
        workers: int,
        see: Callable[[str, tuple[int, int], NDArray[np.uint8]], None],
    ) -> None:
        self._detector, self._output, self._workers, self._see = detector, output, workers, see
        record = detector.record
        self._tiled = record.tile is not None
        self._ahead = 1 if self._tiled else ahead
        self._scale = Scale(record.scale.low, record.scale.high, detector.threshold)

    def score(self, files: Iterable[str], known: Mapping[str, ScoreRow]) -> Iterator[Scored]:
        """Scores photos, in their order; each comes as soon as it and those before it are done.

        Args:
            files: Paths of the photos.
            known: Their rows from before: an unchanged photo that could be scored then is not scored again.

        Raises:
            WriteError: An overlay can't be written.
        """
        with ThreadPoolExecutor(self._workers) as pool:
            try:
                read = _in_order(pool, lambda file: self._read(file, known.get(file)), files, self._ahead)
                for photo in _in_order(pool, self._draw, self._computed(read), self._ahead):
                    yield Scored(photo.row, photo.known)
            finally:
                pool.shutdown(cancel_futures=True)

    def _read(self, file: str, before: ScoreRow | None) -> _Photo:
        if before is not None and before.verdict != "error" and _hash_of(file) == before.sha256:
            return _Photo(before, known=True)
        start, facts = time.perf_counter(), Facts()
        try:
            full = read_image(file, white_level=self._detector.record.white_level, facts=facts)
            sha256, error = facts.sha256.hexdigest(), ""
        except ImageError as reason:
            sha256, error = "", reason.reason
        row = ScoreRow(
            file=file,
            score=None,
            threshold=self._detector.threshold,
            verdict="error",
            percentile=None,
            milliseconds=None,
            error=error,
            overlay="",
            sha256=sha256,
        )
        if error:
            return _Photo(row, known=row == before)
        record = self._detector.record
        pixels = full if self._tiled else prepare(full, record.size, record.resampling)
        kept = full if self._output is not None and full[..., 0].size <= _KEPT_PIXELS else None
        return _Photo(replace(row, milliseconds=_since(start)), False, pixels, kept, (full.shape[0], full.shape[1]))

    def _computed(self, photos: Iterable[_Photo]) -> Iterator[_Photo]:
        """Photos with scores and maps."""
        most = 1 if self._tiled or self._detector.network.device.type == "cpu" else _ON_GPU
        waiting: list[_Photo] = []
        for photo in photos:
            waiting.append(photo)
            if len(waiting) == most:
                yield from self._compute(waiting, most)
                waiting = []
        yield from self._compute(waiting, most)

    def _compute(self, photos: list[_Photo], most: int) -> Iterator[_Photo]:
        new = [photo for photo in photos if photo.pixels is not None]
        for photo in new:
            if photo.pixels is not None:
                self._see(photo.row.file, photo.size, photo.pixels)
        results: Iterator[_Photo] = iter(())
        if new:
            start = time.perf_counter()
            try:
                scores, maps = self._run([photo.pixels for photo in new if photo.pixels is not None], most)
            except InputError as error:  # such as a photo of another size than the tiles were fitted to
                results = iter([_failed(photo, str(error)) for photo in new])
            else:
                each = _since(start) / len(new)
                results = (self._judged(*one, each) for one in zip(new, scores, maps, strict=True))
        for photo in photos:
            yield photo if photo.pixels is None else next(results)

    def _run(self, pixels: list[NDArray[np.uint8]], most: int) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        if self._tiled:
            verdicts = self._detector(pixels)
            return verdicts.scores, verdicts.maps
        filled = [*pixels, *[pixels[-1]] * (most - len(pixels))]
        found = self._detector.score_prepared(torch.from_numpy(np.stack(filled)))
        scores, maps = found.image_scores.cpu().numpy(), found.anomaly_maps.cpu().numpy()
        return scores[: len(pixels)], list(maps[: len(pixels)])

    def _judged(self, photo: _Photo, score: float, anomaly_map: NDArray[np.float32], milliseconds: float) -> _Photo:
        score = float(score)
        if not math.isfinite(score):
            return _failed(photo, f"its score is {score}, not a number that can be judged")
        scores = np.array([score], np.float32)
        row = replace(
            photo.row,
            score=score,
            verdict="defective" if self._detector.is_defective(scores)[0] else "good",
            percentile=round(float(self._detector.percentile(scores)[0]), 2),
            milliseconds=round((photo.row.milliseconds or 0) + milliseconds, 1),
        )
        return replace(photo, row=row, pixels=None, anomaly_map=anomaly_map)

    def _draw(self, photo: _Photo) -> _Photo:
        """The photo with its overlay written; nothing of its pixels is kept."""
        if self._output is None or photo.anomaly_map is None:
            return _Photo(photo.row, photo.known)
        full = photo.full
        if full is None:
            facts = Facts()
            try:
                full = read_image(photo.row.file, white_level=self._detector.record.white_level, facts=facts)
            except ImageError:
                return _Photo(photo.row)
            if facts.sha256.hexdigest() != photo.row.sha256:  # another photo has taken its place
                return _Photo(photo.row)
        name = name_of_overlay(photo.row.file, photo.row.sha256, photo.size)
        draw_overlay(full, photo.anomaly_map, self._scale)
        save_overlay(self._output / name, full)
        return _Photo(replace(photo.row, overlay=name))


def _in_order(pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """The results of all items in their order, with at most `ahead` more in progress than were asked for."""
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        while waiting and (len(waiting) > ahead or waiting[0].done()):
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _failed(photo: _Photo, error: str) -> _Photo:
    return _Photo(replace(photo.row, milliseconds=None, error=error))


def _hash_of(file: str) -> str:
    """SHA-256 of the file, empty if it can't be read."""
    try:
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except (OSError, ValueError):
        return ""


def _since(start: float) -> float:
    """Milliseconds."""
    return 1000 * (time.perf_counter() - start)
