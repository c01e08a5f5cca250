"""Draws samples of every class of a data set: of a folder of images, or of a file of wafer maps."""

import hashlib
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import tyro
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from tabzoo.captions import write_caption
from tabzoo.command import show, typed
from tabzoo.data.images import read_image
from tabzoo.data.layouts import LAYOUTS, find_samples
from tabzoo.data.samples import TRAIN
from tabzoo.data.wafers import PATTERNS, Wafers, is_wafer_file, name_and_short, read_wafers, short
from tabzoo.errors import InputError, count
from tabzoo.figures import PAGE, paper_style, save_for_paper

__all__ = ["Show", "draw_samples"]

Pixels = NDArray[np.uint8]
_PX = 160  # side of an image in the figure
_GAP = 4  # pixels between images of a class
_MOST = 400  # classes, and images of a class
_DIES = np.array([to_rgb(colour) for colour in ("white", "#c6dbef", "#08306b")])


@dataclass(frozen=True, kw_only=True)
class Show:
    """Draw samples of every class, as PNG and SVG, with a caption."""

    examples: ClassVar[tuple[str, ...]] = (
        "tabzoo data show photos --output samples.png",
        "tabzoo data show photos --output samples.png --each 4 --columns 5",
    )

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DIR|FILE.npz")]
    """Folder of images, or a manifest (.csv, .jsonl), or wafer maps (.npz)."""
    output: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """Figure to write, such as samples.png; samples.svg and samples.txt, the caption, are written beside it."""
    each: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Number of images of each class."""
    columns: Annotated[int, tyro.conf.arg(metavar="N")] = 8
    """Classes in a row of the figure."""
    seed: Annotated[int, tyro.conf.arg(metavar="S")] = 0
    """Seed of the choice of images."""
    layout: Annotated[str, tyro.conf.arg(metavar="NAME", help=f"One of auto, {', '.join(LAYOUTS)}.")] = "auto"

    def run(self) -> int:
        """Draws the figure."""
        for flag, value, least in (("each", self.each, 1), ("columns", self.columns, 1), ("seed", self.seed, 0)):
            if not least <= value <= _MOST:
                raise InputError(f"--{flag} {value}: expected {least} to {_MOST}")
        if self.output.suffix.lower() not in (".png", ".svg") or self.output.is_dir():
            raise InputError(f"--output {self.output}: expected a file that ends in .png or .svg")
        stem = self.output.with_suffix("")
        shown, words, hashes = self._wafers() if is_wafer_file(self.data) else self._photos()
        draw_samples(stem, shown, columns=self.columns)
        names = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg", "txt")]
        command = typed("python -m tabzoo.data show", self, positional=["data"])
        write_caption(names[2], words, command=command, hashes=hashes)
        show(f"{count(len(shown), 'class', 'classes')} drawn: {', '.join(map(str, names))}")
        return 0

    def _chosen(self, rows: NDArray[np.int64], class_id: int) -> list[int]:
        """Some rows of a class, drawn with the seed."""
        rng = np.random.default_rng([self.seed, class_id])
        return sorted(rng.choice(rows, min(self.each, len(rows)), replace=False).tolist())

    def _wafers(self) -> tuple[dict[str, list[Pixels]], list[str], dict[str, str]]:
        wafers = read_wafers(self.data)
        self._check_number(len(wafers.classes))
        shown = {
            name_and_short(name): [
                _coloured(wafers, row) for row in self._chosen(np.flatnonzero(wafers.class_ids == i), i)
            ]
            for i, name in enumerate(wafers.classes)
        }
        of_classes = count(len(shown), "class", "classes")
        words = [
            f"Wafer maps of {Path(self.data).name}: {count(self.each, 'map')} of each of its {of_classes}, "
            f"of {count(len(wafers.maps), 'map')}. White: no die; light: a die that passed its test; dark: one that failed.",
            f"{', '.join(f'{short(name)} {name}' for name in PATTERNS)}; a mixture has several.",
        ]
        return shown, words, {Path(self.data).name: _sha256(Path(self.data))}

    def _photos(self) -> tuple[dict[str, list[Pixels]], list[str], dict[str, str]]:
        samples = find_samples(self.data, layout=self.layout)
        self._check_number(len(samples.classes))
        shown, digest, bad = {}, hashlib.sha256(), False
        for i, name in enumerate(samples.classes):
            of_class = samples.class_ids == i
            good = of_class & (samples.defect_ids == 0)
            normal = good & (samples.split == TRAIN) if (good & (samples.split == TRAIN)).any() else good
            bad |= not normal.any()
            rows = self._chosen(np.flatnonzero(normal if normal.any() else of_class), i)
            shown[name] = [read_image(samples.path(row), size=_PX) for row in rows]
            digest.update(b"".join(hashlib.sha256(samples.path(row).read_bytes()).digest() for row in rows))
        kind, of_classes = "images" if bad else "normal images", count(len(shown), "class", "classes")
        words = [
            f"Samples of {samples.root.name}: {self.each} of the {kind} of each of its {of_classes}, "
            f"squashed to squares, of {count(len(samples), 'image')}."
        ]
        return shown, words, {"the hashes of the images that are shown": digest.hexdigest()}

    def _check_number(self, classes: int) -> None:
        if classes > _MOST:
            raise InputError(f"{self.data}: {classes} classes; more than {_MOST} do not fit a figure")


def draw_samples(stem: Path, shown: Mapping[str, Sequence[Pixels]], *, columns: int) -> None:
    """A figure with a tile for each class, at a page's width, as PNG and SVG.

    Args:
        stem: Files to write, without their ending.
        shown: Class to its images, [H, W, 3] each.
        columns: Tiles in a row.
    """
    columns = min(columns, len(shown))
    lines, widest = -(-len(shown) // columns), max(map(len, shown.values()))
    letters = max(6, round(PAGE / columns / 0.055))
    titles = ["\n".join(textwrap.wrap(name, letters)) or name for name in shown]
    height = PAGE / columns / widest + 0.12 * max(title.count("\n") + 1 for title in titles) + 0.04
    with paper_style():
        gaps = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.04, hspace=0)
        figure = Figure(figsize=(PAGE, lines * height), layout=gaps)
        axes = figure.subplots(lines, columns, squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        for axis, title, images in zip(axes.flat, titles, shown.values(), strict=False):
            axis.set_title(title, fontsize=6, pad=2)
            axis.imshow(_tile(images, widest))
        save_for_paper(figure, stem)


def _tile(images: Sequence[Pixels], widest: int) -> Pixels:
    """Images beside each other, with white for those that are missing."""
    height, width = images[0].shape[:2]
    tile = np.full((height, widest * (width + _GAP) - _GAP, 3), 255, dtype=np.uint8)
    for number, image in enumerate(images):
        tile[:, number * (width + _GAP) : number * (width + _GAP) + width] = image
    return tile


def _coloured(wafers: Wafers, row: int) -> Pixels:
    """A map in colours, a few pixels for each die so that no viewer blurs it."""
    colours: Pixels = (255 * _DIES).round().astype(np.uint8)[wafers.maps[row]]
    return colours.repeat(3, axis=0).repeat(3, axis=1)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
