"""The page of scored photos: what is defective, by which threshold, and where."""

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import quote

from tabzoo.data.images import read_image
from tabzoo.errors import ImageError, count
from tabzoo.inspect.record import DetectorRecord
from tabzoo.pages import embed_file, embed_picture, histogram, write_html

__all__ = ["PAGE", "write_page"]

PAGE = "index.html"
_LEGEND = "legend.png"
_PICTURES, _ROWS, _ERRORS = 40, 5000, 500
"""How many photos of a folder are shown with pictures, are listed at all, and are listed as not scored."""
_THUMBNAIL, _LARGE = 72, 360  # longer sides, in pixels


class _Row(Protocol):
    """What a page needs of a row of scores; see `rows.ScoreRow`."""

    @property
    def file(self) -> str: ...
    @property
    def score(self) -> float | None: ...
    @property
    def verdict(self) -> str: ...
    @property
    def percentile(self) -> float | None: ...
    @property
    def milliseconds(self) -> float | None: ...
    @property
    def error(self) -> str: ...
    @property
    def overlay(self) -> str: ...


class _Photo(NamedTuple):
    """A line of the table."""

    file: str
    score: float
    verdict: str
    percentile: float | None
    milliseconds: float | None
    overlay: str
    """Address of the overlay's file, relative to the page; empty if there is none."""
    thumbnail: str
    """Data address, as those of `pictures`; empty if the photo has no pictures on the page."""
    pictures: Sequence[tuple[str, str]]


def write_page(folder: Path, record: DetectorRecord, rows: Sequence[_Row], *, notes: Iterable[str] = ()) -> None:
    """Writes index.html.

    Args:
        folder: Of the scores; overlays are taken from it.
        record: The detector's.
        rows: All photos that were scored or could not be.
        notes: Warnings to show on top.

    Raises:
        WriteError: It can't be written.
    """
    scored = sorted((row for row in rows if row.score is not None), key=lambda row: -(row.score or 0))
    errors = [row for row in rows if row.score is None]
    common = _common_folder([row.file for row in rows])
    photos = [_photo(folder, common, row, pictures=index < _PICTURES) for index, row in enumerate(scored[:_ROWS])]
    legend = folder / _LEGEND
    write_html(
        folder / PAGE,
        "tabzoo.inspect/page.html",
        sortable=True,
        name=record.class_name,
        state=_state(scored, errors),
        sentence=_sentence(scored, errors),
        threshold_words=record.threshold.words,
        tested=record.tested.words if record.tested else "",
        notes=notes,
        plot=histogram(record.good_scores, [row.score or 0 for row in scored], record.threshold.value),
        common=common,
        errors=[(_below(common, row.file), row.error) for row in errors[:_ERRORS]],
        more_errors=len(errors[_ERRORS:]),
        photos=photos,
        overlays=any(photo.overlay for photo in photos),
        more=len(scored) - len(photos),
        num_pictures=sum(bool(photo.thumbnail) for photo in photos),
        legend=embed_file(legend) if legend.is_file() else "",
        facts=_facts(record),
        files=sorted(record.files.items()),
    )


def _state(scored: Sequence[_Row], errors: Sequence[_Row]) -> str:
    """What colours the verdict; empty where nothing can be said, as of photos that could not be scored."""
    if any(row.verdict == "defective" for row in scored):
        return "defective"
    return "good" if scored and not errors else ""


def _sentence(scored: Sequence[_Row], errors: Sequence[_Row]) -> str:
    defective = sum(row.verdict == "defective" for row in scored)
    if not scored:
        said = "No photo was scored"
    elif not defective:
        said = f"No defect found in {count(len(scored), 'photo')}"
    else:
        said = f"{defective:,} of {count(len(scored), 'photo')} {'is' if defective == 1 else 'are'} defective"
    return f"{said}; {len(errors):,} could not be scored." if errors else f"{said}."


def _common_folder(files: Sequence[str]) -> str:
    """The folder that holds all photos, so that lines need not repeat it; "" if there is none."""
    try:
        return os.path.commonpath([os.path.dirname(file) for file in files])
    except ValueError:  # no files, or absolute paths beside relative ones
        return ""


def _below(common: str, file: str) -> str:
    return os.path.relpath(file, common) if common else file


def _photo(folder: Path, common: str, row: _Row, *, pictures: bool) -> _Photo:
    thumbnail, large = _embedded(Path(row.file)) if pictures else ("", "")
    _, overlay = _embedded(folder / row.overlay) if pictures and row.overlay else ("", "")
    shown = (("overlay", overlay), ("photo", large))
    return _Photo(
        file=_below(common, row.file),
        score=float(row.score or 0),
        verdict=row.verdict,
        percentile=row.percentile,
        milliseconds=row.milliseconds,
        overlay=quote(row.overlay),
        thumbnail=thumbnail,
        pictures=[(about, address) for about, address in shown if address],
    )


def _embedded(path: Path) -> tuple[str, str]:
    """Thumbnail and picture of a photo, or "" for both if the file is gone or can't be read."""
    try:
        status = path.stat()
        return _embedded_once(path, status.st_mtime_ns, status.st_size)
    except (OSError, ValueError, ImageError):
        return "", ""


@lru_cache(4 * _PICTURES)  # a watched folder's page is written again and again
def _embedded_once(path: Path, modified: int, size: int) -> tuple[str, str]:
    pixels = read_image(path)
    return embed_picture(pixels, _THUMBNAIL), embed_picture(pixels, _LARGE)


def _facts(record: DetectorRecord) -> list[tuple[str, str]]:
    """What the detector is and where it comes from; what is not set is left out."""
    threshold, asked = record.threshold, f"{record.threshold.false_alarms_asked:g}"
    facts = {
        "method": record.method,
        "settings": record.settings,
        "backbone": record.backbone.get("name"),
        "architecture": record.backbone.get("architecture"),
        "licence": record.backbone.get("license"),
        "photos become": f"{record.size} x {record.size} pixels, {record.resampling}",
        "white level": record.white_level,
        "tiles": record.tile and f"{record.tile} pixels, overlap {record.overlap or 0}",
        "mixed precision": record.amp,
        "threshold": f"{threshold.value:.6g}, from {count(threshold.photos, 'good photo')} in {threshold.folds} folds, "
        f"for --false-alarms {asked}",
        "colours of the overlays": f"from {record.scale.low:.4g} to {record.scale.high:.4g}",
        **{name.replace("_", " "): value for name, value in record.provenance.items()},
    }
    return [(name, _text(value)) for name, value in facts.items() if value is not None]


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{str(key).replace('_', ' ')} {_text(one)}" for key, one in value.items() if one is not None)
    if isinstance(value, list | tuple):
        return " ".join(map(_text, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
