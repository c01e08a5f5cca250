"""What the page shows: for each backbone a detector is fitted to the good photos, and judges the photo to inspect.

Fit, scores, threshold and overlay are those of `tabzoo fit` and `tabzoo score`. All files lie in a temporary folder, which is
removed at the end.
"""

import logging
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tabzoo.data.images import read_image
from tabzoo.detectors.extractor import is_random
from tabzoo.errors import ImageError, InputError, TabzooError
from tabzoo.hub.files import Digest
from tabzoo.inspect.detector import InspectionDetector
from tabzoo.inspect.fit import fit_detector
from tabzoo.inspect.looks import Comparison
from tabzoo.inspect.options import FitOptions
from tabzoo.inspect.record import Looks
from tabzoo.inspect.rows import ScoreRow
from tabzoo.inspect.stream import Stream
from tabzoo.inspect.threshold import Threshold, assign_folds

__all__ = ["Finding", "Settings", "inspect_photo"]

_MOST_PHOTOS = 500
_TIMES = 3
"""How often the photo is scored; its time is the median."""
_ALIKE = 1.1
"""Between two ratios of width to height, from which good photos are called different in shape."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How photos are inspected.

    Attributes:
        device: Where to compute.
        false_alarms: As for `tabzoo fit`.
        size: Side of the square that photos are squashed to, in pixels; None: that of `tabzoo fit`.
        work: Folder in which the temporary one is made; None: the system's.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    false_alarms: float = 0.01
    size: int | None = None
    work: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one backbone says of the photo.

    Attributes:
        backbone: Its name.
        error: Why it can't say anything; else empty, and all below is set.
        overlay: The map over the photo, RGB [H, W, 3].
        score: Of the photo.
        highest: The highest score of a good photo, by a detector that was not fitted to it.
        verdict: "good" or "defective"; empty if the good photos are too few for the share of false alarms asked for.
        threshold: What the good photos' scores allow.
        milliseconds: From the photo's file to its score.
        seconds: For the fit.
        notes: What is odd about the photos.
    """

    backbone: str
    error: str = ""
    overlay: NDArray[np.uint8] | None = None
    score: float = 0.0
    highest: float = 0.0
    verdict: str = ""
    threshold: Threshold | None = None
    milliseconds: float = 0.0
    seconds: float = 0.0
    notes: Sequence[str] = ()

    @property
    def is_baseline(self) -> bool:
        """Whether nothing was learned with the backbone's weights."""
        return is_random(self.backbone)


def inspect_photo(
    good: Sequence[Path], photo: Path | None, *, backbones: Sequence[str], method: str, settings: Settings
) -> Iterator[Finding]:
    """Fits each backbone to the good photos and scores the photo; each finding comes as soon as it is known.

    Args:
        good: Files of good photos, at least two different ones.
        photo: File of the photo to inspect.
        backbones: As for `tabzoo fit`, at least one.
        method: "padim" or "patchcore".
        settings: How.

    Raises:
        InputError: Photos or backbones are missing, or a file can't be read as an image.
        OSError: The temporary folder can't be written.
    """
    if photo is None:
        raise InputError("There is no photo to inspect. Add one.")
    if not backbones:
        raise InputError("No backbone is chosen. Choose one or several.")
    _check_photos(good, photo)
    with tempfile.TemporaryDirectory(prefix="tabzoo-demo-", dir=settings.work) as name:
        folder = Path(name)
        inspected = _copied(good, photo, folder)
        for number, backbone in enumerate(backbones):
            output = folder / f"detector{number}"
            given: dict[str, Any] = {"backbone": backbone, "method": method, "output": output, "size": settings.size}
            given |= {"device": settings.device, "false_alarms": settings.false_alarms}
            try:
                options = FitOptions(data=str(folder / "good"), cache_dir=str(folder / "cache"), workers=0, **given)
                yield _find(options, inspected, shown=photo.name)
            except (TabzooError, torch.OutOfMemoryError) as error:  # a smaller backbone may fit
                yield Finding(backbone=backbone, error=str(error))


def _check_photos(good: Sequence[Path], photo: Path) -> None:
    """Says, in a line, what `tabzoo fit` could not use."""
    if len(good) < 2:
        raise InputError(
            f"{len(good) or 'no'} good photo{'' if good else 's'}: at least 2 are needed. Add good photos."
        )
    if len(good) > _MOST_PHOTOS:
        raise InputError(
            f"{len(good):,} good photos: this page takes at most {_MOST_PHOTOS}. For more use `tabzoo fit`."
        )
    for path in (*good, photo):
        try:
            read_image(path)
        except ImageError as error:
            raise InputError(f"{path.name}: {error.reason}. Remove this file and add another one.") from error
    assign_folds([Digest.of(path).sha256 for path in good], range(len(good)), usual=2)  # refuses copies of one photo


def _copied(good: Sequence[Path], photo: Path, folder: Path) -> Path:
    """Copies the photos into the temporary folder, in the layout of `tabzoo fit`; returns the photo's path.

    Files are recognised by their content, so that the ending does not matter. Names of good photos may occur twice.
    """
    (folder / "good").mkdir()
    for number, path in enumerate(good):
        (folder / "good" / f"{number:03}.png").write_bytes(path.read_bytes())
    inspected = folder / "photo"
    inspected.write_bytes(photo.read_bytes())
    return inspected


def _find(options: FitOptions, photo: Path, *, shown: str) -> Finding:
    start = time.perf_counter()
    detector = fit_detector(options)
    seconds = time.perf_counter() - start
    with _warnings_of_looks() as notes:
        rows = _rows(detector, photo, options.output)
    row, record, threshold = rows[-1], detector.record, detector.record.threshold
    if row.score is None:
        return Finding(backbone=options.backbone, error=f"{shown}: {row.error}")
    enough = threshold.false_alarms_expected <= 1000 * options.false_alarms + 1e-3  # it is rounded to 3 digits
    return Finding(
        backbone=options.backbone,
        overlay=read_image(options.output / row.overlay),
        score=row.score,
        highest=record.good_scores[-1],
        verdict=row.verdict if enough else "",
        threshold=threshold,
        milliseconds=statistics.median(row.milliseconds or 0.0 for row in rows),
        seconds=seconds,
        notes=[*_notes_of_good(record.looks), *(note.replace(str(photo), shown) for note in notes)],
    )


def _rows(detector: InspectionDetector, photo: Path, output: Path) -> list[ScoreRow]:
    """Scores the photo some times; its overlay is written into the output folder."""
    comparison = Comparison(detector.record.looks)
    stream = Stream(detector, output=output, ahead=1, workers=1, see=comparison.see)
    return [scored.row for _ in range(_TIMES) for scored in stream.score([str(photo)], {})]


def _notes_of_good(looks: Looks | None) -> Iterator[str]:
    if looks and looks.widest > _ALIKE * looks.narrowest:
        yield (
            f"The good photos have different shapes: {looks.narrowest:.2f} to {looks.widest:.2f} times as wide as high. All "
            f"are squashed to squares, so scores may mean little."
        )
    if looks and looks.grey is None:
        yield "Some of the good photos are grey and some are in colour. Scores may mean little."


@contextmanager
def _warnings_of_looks() -> Iterator[list[str]]:
    """What `Comparison` warns of in this thread, which is where photos are seen."""
    heard: list[str] = []
    thread = threading.get_ident()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                heard.append(record.getMessage().removesuffix(" This is said once."))

    logger, listener = logging.getLogger(Comparison.__module__), Listener(logging.WARNING)
    logger.addHandler(listener)
    try:
        yield heard
    finally:
        logger.removeHandler(listener)
