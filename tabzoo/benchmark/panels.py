"""`python -m tabzoo.benchmark panels`: localisation figures from what a run kept; nothing is measured."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro
from tyro.conf import Positional

from tabzoo.benchmark.kept_maps import Kept, read_kept
from tabzoo.benchmark.localisation import BRIGHTEST, can_scale, draw_localisation
from tabzoo.benchmark.report import KEPT, MAPS, name_of_group
from tabzoo.benchmark.summary import Group, group_rows, latest_rows
from tabzoo.captions import write_caption
from tabzoo.command import say, show, typed
from tabzoo.errors import InputError, did_you_mean
from tabzoo.flags import optional
from tabzoo.output_folder import CAPTION, check_output_folder
from tabzoo.plain import for_path
from tabzoo.scores.rows import RESULTS, Row, read_rows

__all__ = ["Panels"]


@dataclass(frozen=True, kw_only=True)
class Panels:
    """Draw images, each backbone's anomaly maps and masks, from a finished run (the paper's Figures 5 and 6)."""

    examples: ClassVar[tuple[str, ...]] = (
        "tabzoo benchmark panels runs/compared --output runs/panels",
        "tabzoo benchmark panels runs/compared --method padim --classes screw --output runs/panels",
    )

    results: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT", help_behavior_hint="")]
    """Output folder of `benchmark run`."""
    output: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder for the figures, CLASS.png and CLASS.svg, and their caption."""
    backbone: Annotated[Sequence[str] | None, optional("NAME [NAME ...]")] = None
    """Only these backbones, in this order, by their names in the tables."""
    method: Annotated[str | None, optional("NAME")] = None
    """Method whose maps are shown. Needed if the run has several."""
    classes: Annotated[Sequence[str] | None, optional("NAME [NAME ...]")] = None
    """Only these classes."""
    seed: Annotated[int | None, optional("S")] = None
    """Seed of the rows that are shown. If not given: the smallest one that all backbones have."""

    def run(self) -> int:
        """Writes the figures."""
        check_output_folder(self.output)
        rows = self._rows()
        names = list(dict.fromkeys(_chosen("backbone", self.backbone, [row.backbone for row in rows])))
        rows = [row for row in rows if row.backbone in names]
        classes = _chosen("classes", self.classes, [row.class_name for row in rows])
        groups = group_rows(rows, order=names)
        figures: dict[str, tuple[dict[str, Row], dict[str, Kept]]] = {}
        left_out: list[str] = []
        for number, group in enumerate(groups, start=1):
            prefix = f"{number}-{name_of_group(group.first)}-" if len(groups) > 1 else ""
            for class_name in (name for name in group.classes if name in classes):
                try:
                    of_class = self._rows_of_class(group, class_name, names)
                    kept = {name: self._kept(row) for name, row in of_class.items()}
                    _check_same_images(kept)
                except _LeftOutError as reason:
                    left_out.append(f"{class_name}: {reason}")
                    continue
                figures[f"{prefix}{for_path(class_name)}"] = of_class, kept
        if not figures:
            apart = (
                f". The rows have {len(groups)} settings, such as layers, which differ between architectures; only rows of "
                f"equal settings can be drawn beside each other. Choose backbones: --backbone NAME ..."
            )
            why = "; ".join(dict.fromkeys(left_out))
            raise InputError(f"{self.results}: nothing to draw. {why}{apart if len(groups) > 1 else ''}")
        for line in left_out:
            say(f"Left out, {line}.")
        self._write_caption({name: of_class for name, (of_class, _) in figures.items()}, left_out)
        for name, (_, kept) in figures.items():
            draw_localisation(self.output / name, kept)
        show(f"Made in {self.output}: {', '.join(f'{name}.png, {name}.svg' for name in figures)}, {CAPTION}")
        return 0

    def _rows(self) -> list[Row]:
        """The rows of the method."""
        rows, _ = latest_rows(read_rows(self.results))
        if not rows:
            raise InputError(f"{self.results}: no {RESULTS} with rows; give the output folder of a run")
        methods = list(dict.fromkeys(row.method for row in rows))
        if self.method is None and len(methods) > 1:
            raise InputError(f"{self.results}: has rows of {', '.join(methods)}. Choose one: --method {methods[0]}")
        (method,) = _chosen("method", None if self.method is None else [self.method], methods)
        return [row for row in rows if row.method == method]

    def _rows_of_class(self, group: Group, class_name: str, names: Sequence[str]) -> dict[str, Row]:
        """Backbone to the row that is shown."""
        by_backbone = {name: group.of(name, class_name) for name in names}
        common = set.intersection(*(set(by_seed) for by_seed in by_backbone.values()))
        if self.seed is not None:
            common &= {self.seed}
        if not common:
            of_seed = "" if self.seed is None else f" with seed {self.seed}"
            raise _LeftOutError(f"not every backbone ({', '.join(names)}) has a row of it{of_seed}")
        rows = {name: by_seed[min(common)] for name, by_seed in by_backbone.items()}
        if not any(any(scores) for row in rows.values() for scores in row.scores.values()):
            raise _LeftOutError("nothing was measured")
        return rows

    def _kept(self, row: Row) -> Kept:
        kept = read_kept(self.results / MAPS / KEPT, row.key)
        if kept is None:
            again = ["python", "-m", "tabzoo.benchmark", "run", "--backbone", row.backbone, "--method", row.method]
            raise InputError(
                f"{self.results}: holds no raw anomaly maps of {row.backbone} on {row.class_name}: it was measured by an older "
                f"version of tabzoo, or {MAPS}/{KEPT} was removed. Measure again into a new folder:\n  {shlex.join(again)} "
                f"--data DIR --output NEW"
            )
        if not can_scale(kept):
            raise _LeftOutError(
                f"the maps of {row.backbone} can't be scaled: good test images are missing, or all their values are equal"
            )
        return kept

    def _write_caption(self, drawn: dict[str, dict[str, Row]], left_out: Sequence[str]) -> None:
        rows = [row for of_class in drawn.values() for row in of_class.values()]
        weights = {f"the weights of {row.backbone} that its maps need": row.weights_sha256 for row in rows}
        images = {f"the images of {row.class_name}": row.data_sha256 for row in rows}
        write_caption(
            self.output / CAPTION,
            [*_sentences(drawn), *(f"Left out, {line}." for line in left_out)],
            command=typed("python -m tabzoo.benchmark panels", self, positional=("results",)),
            hashes=images | weights,
        )


class _LeftOutError(Exception):
    """Why a class has no figure."""


def _chosen(flag: str, given: Sequence[str] | None, having: Sequence[str]) -> list[str]:
    """The names that were given, all if none were; a folder is known by its last part."""
    known = list(dict.fromkeys(having))
    if given is None:
        return known
    if not len(given):
        raise InputError(f"--{flag}: expected at least one value")
    found = [name if name in known else Path(name).name for name in given]
    for name, short in zip(given, found, strict=True):
        if short not in known:
            raise InputError(f"--{flag} {name}: the run has {', '.join(known)}.{did_you_mean(name, known)}")
    return found


def _check_same_images(kept: dict[str, Kept]) -> None:
    if len({one.images_sha256 for one in kept.values()}) > 1:
        raise _LeftOutError(f"{' and '.join(kept)} were tested on different images")


def _sentences(drawn: dict[str, dict[str, Row]]) -> list[str]:
    first = next(iter(next(iter(drawn.values())).values()))
    settings = ", ".join(
        f"{name} {value}" for name, value in first.settings.items() if isinstance(value, str | int | float)
    )
    columns = ", ".join(f"anomaly map of {name}" for name in next(iter(drawn.values())))
    texts = f"""
Columns: image, {columns}, and the mask of the defect where there are masks. Lines: up to four defects, evenly spaced in the
list of files, then up to two good images; they are not chosen by their maps. The maps are those of {first.method}
({settings}), tested on {first.test} defects of {first.dataset}.

Each backbone's maps have a scale of their own, which its maps of all good test images of the class give: 0 is the median of
their pixels, 1 is the value that 99.9 % of their pixels lie below, and {BRIGHTEST:g} or more is the brightest colour. So equal
colours are equally rare on good images, whatever the backbone. Maps are kept in float16.
"""
    lines = [" ".join(text.split()) for text in texts.split("\n\n")]
    for name, rows in drawn.items():
        numbers = [
            f"{backbone} {_percent(row.image_auroc)} / {_percent(row.pixel_auroc)}" for backbone, row in rows.items()
        ]
        one = next(iter(rows.values()))
        of_class = "" if name == for_path(one.class_name) else f"{one.class_name}, "
        tested = f"{one.images['good']} good and {one.images['anomalous']} defective test images"
        aurocs = ", ".join(numbers)
        lines.append(f"{name}: {of_class}seed {one.seed}, {tested}; image / pixel AUROC in %: {aurocs}.")
    return lines


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
