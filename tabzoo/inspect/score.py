"""`tabzoo score`: photos in, verdicts out."""

import itertools
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro
from tyro.conf import Positional

from tabzoo.data.images import IMAGE_SUFFIXES
from tabzoo.errors import InputError
from tabzoo.inspect.detector import InspectionDetector, load_detector
from tabzoo.inspect.drift import Drift
from tabzoo.inspect.looks import Comparison
from tabzoo.inspect.overlay import LEGEND, Scale, draw_legend
from tabzoo.inspect.photos import find_photos
from tabzoo.inspect.record import DetectorRecord
from tabzoo.inspect.report import Report
from tabzoo.inspect.rows import ScoresFolder, open_scores
from tabzoo.inspect.stream import Stream
from tabzoo.inspect.watch import Watch
from tabzoo.progress import Progress
from tabzoo.signals import StopRequest, stop_requests
from tabzoo.system import num_cores

__all__ = ["Score"]

_PAUSE = 1.0
"""Seconds between two looks at a watched folder; longer where a look itself takes longer."""
_PAGE_EVERY = 60.0
"""Seconds between two pages of a watched folder: a page of thousands of photos takes a while."""
_MOST_WORKERS = 4
_LARGEST = 1024

_OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="OUT", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class Score:
    r"""Score photos with a detector: good or defective.

    Exit code: 0 all photos are good, 1 at least one is defective, 2 at least one could not be read, or any other error.

    Without --output, CSV goes to stdout. With it, OUT gets a row for each photo as soon as it is known, in scores.csv and
    scores.jsonl, and an overlay: the photo in its own size with the anomaly map over it, PNG up to 1 megapixel, JPEG above
    (a PNG of a large photo takes seconds). Colours mean the same on all of them (OUT/legend.png); a line goes around what
    is above the threshold. OUT/index.html shows all of it. The same command again scores only photos that are new or have
    changed.

    A line warns when the scores of the good photos are higher than those of the photos that the detector was fitted to, or
    have left those of the first 200 (Kolmogorov-Smirnov tests after every 50 good photos, at most one false warning in 1,000
    streams). With --output, the photos of earlier calls count, too.

    milliseconds: of one photo from its file to the verdict, decoding included, the overlay not; where photos are computed
    together, as on a GPU, their time divided by their number.

    In CSV, control characters of names are written as \x1b, and a name that a spreadsheet would take for a formula begins
    with an apostrophe; scores.jsonl has names as they are.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "tabzoo score detectors/screw photo.png",
        "tabzoo score detectors/screw new_photos --output runs/scores",
        "tabzoo score detectors/screw incoming --watch --output runs/scores",
    )

    detector: Annotated[Positional[Path], tyro.conf.arg(metavar="DETECTOR", help_behavior_hint="")]
    """Folder that `tabzoo fit` wrote."""
    photos: Annotated[
        Positional[Sequence[str]], tyro.conf.arg(metavar="PHOTO|DIR [PHOTO|DIR ...]", help_behavior_hint="")
    ]
    """Photos, and folders with photos, also in folders below them."""
    output: _OptionalPath = None
    """Folder for rows and overlays: a new one, or that of an earlier call with the same detector."""
    watch: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")] = False
    """Go on with photos that arrive in the folders, each once it is complete, until Ctrl-C or SIGTERM. The exit code is then
    that of what was found."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes the GPU if there is one."""
    batch_size: Annotated[int, tyro.conf.arg(metavar="N")] = 8
    """Photos that are decoded ahead. Scores don't depend on it."""
    workers: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """Threads that decode photos and draw overlays. If not given: one for each CPU core, at most 4."""

    def run(self) -> int:
        """Scores the photos; returns the exit code."""
        self._check()
        detector = load_detector(self.detector, device=self.device)  # first: who swaps the two arguments is told that
        files = [] if self.watch else self._find()
        with ExitStack() as stack:
            folder = stack.enter_context(_opened(self.output, detector, self.detector))
            request = stack.enter_context(stop_requests())
            report = Report(folder, Drift(detector.record.good_scores, detector.threshold))
            stream = Stream(
                detector,
                output=self.output,
                ahead=self.batch_size,
                workers=min(_MOST_WORKERS, num_cores()) if self.workers is None else self.workers,
                see=Comparison(detector.record.looks).see,
            )
            try:
                if self.watch:
                    self._score_arriving(stream, report, request, detector.record)
                else:
                    _score_all(files, stream, report, request)
            finally:
                report.say_summary(of=None if self.watch else len(files))
            report.write_page(detector.record)
        if not self.watch and report.count < len(files):
            return 128 + request.signal
        return report.exit_code

    def _check(self) -> None:
        for name, value, least in (("batch-size", self.batch_size, 1), ("workers", self.workers, 1)):
            if value is not None and not least <= value <= _LARGEST:
                raise InputError(f"--{name} {value}: expected {least} to {_LARGEST}")
        if not self.photos:
            raise InputError("PHOTO|DIR: none given, expected photos or folders of photos after DETECTOR")
        if "" in self.photos:  # such as an unset variable of a shell; as a path it would be the current folder
            raise InputError("PHOTO|DIR: '' given, expected a photo or a folder of photos")
        if self.output is not None and any(
            os.path.realpath(name) == os.path.realpath(self.output) for name in self.photos
        ):
            raise InputError(
                f"--output {self.output}: is the folder of the photos. Name another one; it may be inside."
            )
        if self.watch and (others := [name for name in self.photos if not os.path.isdir(name)]):
            raise InputError(f"--watch {others[0]}: is not a folder. Type the folder that photos arrive in.")

    def _find(self) -> list[str]:
        # A mistyped folder is not a photo that can't be read. With a row of its own it would stay in the scores.
        if not any(
            os.path.lexists(name) or os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES for name in self.photos
        ):
            raise InputError(f"{', '.join(self.photos)}: no such file or folder; expected photos or folders of photos")
        files = find_photos(self.photos, without=self.output)
        if not files:
            endings = ", ".join(sorted(IMAGE_SUFFIXES))
            raise InputError(f"{', '.join(self.photos)}: no photos; expected files that end with {endings}")
        return files

    def _score_arriving(self, stream: Stream, report: Report, request: StopRequest, record: DetectorRecord) -> None:
        """Scores what is there and what comes, until a stop is asked for."""
        watch = Watch(self.photos, without=self.output)
        shown, page_time = 0, time.monotonic()
        while not request.signal:
            start = time.monotonic()
            files = watch.look()
            look = time.monotonic() - start
            for scored in stream.score(_until_stopped(files, request), report.known):
                if watch.settle(scored.row.file, readable=scored.row.verdict != "error"):
                    report.add(scored)
            if report.count > shown and time.monotonic() - page_time > _PAGE_EVERY:
                report.write_page(record)
                shown, page_time = report.count, time.monotonic()
            _wait(max(_PAUSE, look), request)


def _score_all(files: Sequence[str], stream: Stream, report: Report, request: StopRequest) -> None:
    with Progress(len(files), "scoring", unit="photo", kept=True, show=report.folder is not None) as progress:
        for scored in stream.score(_until_stopped(files, request), report.known):
            report.add(scored)
            progress.update()


def _until_stopped(files: Iterable[str], request: StopRequest) -> Iterator[str]:
    return itertools.takewhile(lambda _: not request.signal, files)


def _wait(seconds: float, request: StopRequest) -> None:
    end = time.monotonic() + seconds
    while not request.signal and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))  # a signal does not end a sleep


@contextmanager
def _opened(output: Path | None, detector: InspectionDetector, given: Path) -> Iterator[ScoresFolder | None]:
    """The output folder, if there is to be one, with its legend."""
    if output is None:
        yield None
        return
    about = detector.record.to_json()
    about = {name: value for name, value in about.items() if name not in ("provenance", "tested")}
    with open_scores(output, about=about, given=given) as folder:
        scale = detector.record.scale
        draw_legend(output / LEGEND, Scale(scale.low, scale.high, detector.threshold))
        yield folder
