"""`tabzoo export`: a detector or a backbone as an ONNX file that agrees with tabzoo, and a script that prepares photos."""

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from PIL import Image

from tabzoo.command import say, show
from tabzoo.errors import ImageError, InputError
from tabzoo.inspect.export.job import Job, backbone_job, detector_job, photos_in, photos_of_fit
from tabzoo.inspect.export.onnx_file import import_runtime, open_session, write_onnx
from tabzoo.inspect.export.parity import Parity, compare
from tabzoo.inspect.export.script import load_prepare, write_script
from tabzoo.inspect.folder import RECORD
from tabzoo.system import whole_file

__all__ = ["Export"]

_MOST_PHOTOS = 200
_MADE_UP = 12


@dataclass(frozen=True, kw_only=True)
class Export:
    """Export a detector or a backbone as an ONNX file, proved to agree with tabzoo on photos."""

    examples: ClassVar[tuple[str, ...]] = (
        "tabzoo export detectors/screw --output screw.onnx",
        "tabzoo export runs/mine --output backbone.onnx --size 256",
    )

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DETECTOR|NAME|DIR")]
    """Folder of a detector; or a backbone: a timm name, a run's folder, local-dir:DIR or hf-hub:ID."""
    format: Literal["onnx"] = "onnx"
    """Of the file."""
    output: Annotated[Path, tyro.conf.arg(metavar="FILE.onnx")]
    """The file; an older one is replaced. Beside it comes FILE_prepare.py, which prepares photos and runs the file."""
    photos: Annotated[str | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Photos for the proof; include defects. If not given: those of the fit, or, for a backbone, made-up ones."""
    size: Annotated[int | None, tyro.conf.arg(metavar="PX", help_behavior_hint="")] = None
    """Side of the photos that a backbone takes. If not given: 224. Not for a detector, which has its own."""

    def run(self) -> int:
        """Writes both files and prints the proof."""
        logging.getLogger("timm").setLevel(logging.ERROR)  # it warns of unused layers; what matters is checked here
        import_runtime()
        self._check()
        folder = Path(self.source)
        is_detector = (folder / RECORD).is_file()
        if is_detector and self.size is not None:
            raise InputError(f"--size {self.size}: the detector has its own size. Leave --size out.")
        job = detector_job(folder) if is_detector else backbone_job(self.source, size=self.size)
        with tempfile.TemporaryDirectory() as made_up:
            if self.photos is not None:
                photos = photos_in(self.photos)
            elif is_detector:
                photos = photos_of_fit(folder, job.command)
            else:
                photos = _make_up(Path(made_up))
            parity = self._write(job, _pixels(job, photos))
        self._report(job, parity)
        return 0

    def _check(self) -> None:
        if self.output.suffix != ".onnx":
            raise InputError(f"--output {self.output}: expected the name of a file that ends with .onnx")
        if self.output.is_dir():
            raise InputError(f"--output {self.output}: is a folder; expected the name of a file")
        if self.size is not None and self.size < 1:
            raise InputError(f"--size {self.size}: expected pixels, at least 1")

    @property
    def _script(self) -> Path:
        return self.output.with_name(f"{self.output.stem}_prepare.py")

    def _write(self, job: Job, photos: dict[str, NDArray[np.uint8]]) -> Parity:
        with whole_file(self.output) as model, whole_file(self._script) as script:
            write_script(
                *(script,),
                model=self.output.name,
                size=job.size,
                resampling=job.resampling,
                white_level=job.white_level,
            )
            write_onnx(*(job.graph, model), size=job.size, outputs=job.outputs, metadata=job.metadata, about=job.about)
            parity = compare(
                *(open_session(model), job.expected, photos),
                prepare=load_prepare(script),
                span=job.span,
                threshold=job.threshold,
            )
            parity.check()
        return parity

    def _report(self, job: Job, parity: Parity) -> None:
        _, runtime = import_runtime()
        megabytes = self.output.stat().st_size / 1e6
        show(f"{self.output}: {megabytes:.1f} MB; {self._script.name} beside it prepares photos and runs it.")
        range_of = "each output's range" if job.span is None else "the range of the good photos' scores"
        show(f"onnxruntime {runtime.__version__} against torch {torch.__version__}: {parity.words(range_of)}.")
        show(f"Next: python {self._script} PHOTO ...")


def _pixels(job: Job, photos: list[str]) -> dict[str, NDArray[np.uint8]]:
    """Photos as tabzoo prepares them; unreadable ones are named and left out."""
    found: dict[str, NDArray[np.uint8]] = {}
    chosen = np.unique(np.linspace(0, len(photos) - 1, min(len(photos), _MOST_PHOTOS)).astype(int))
    for path in (photos[index] for index in chosen):
        try:
            found[path] = job.prepare(path)
        except ImageError as error:
            say(f"left out: {error}")
    if not found:
        raise InputError("none of the photos can be read, so nothing can be proved")
    return found


def _make_up(folder: Path) -> list[str]:
    """Pictures with coarse and fine structure, for a backbone."""
    generator, paths = np.random.default_rng(0), []
    for index in range(_MADE_UP):
        coarse = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((320, 240))
        noise = generator.integers(-20, 21, (240, 320, 3))
        path = folder / f"{index:02}.png"
        Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8)).save(path)
        paths.append(str(path))
    return paths
