"""`python -m tabzoo.benchmark embed`: the feature space of several backbones, in figures and in numbers."""

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import tyro
from numpy.typing import NDArray

from tabzoo.benchmark.embed_tables import describe, print_numbers, write_numbers, write_points
from tabzoo.benchmark.fid import Preparation, embedding_network
from tabzoo.benchmark.groups import GROUPS, SOURCE, Groups, group_images
from tabzoo.benchmark.options import choose_classes
from tabzoo.benchmark.provenance import Backbone, find_backbones
from tabzoo.benchmark.scatter import LEAST, Plane, draw_planes, pca, t_sne
from tabzoo.benchmark.separation import Separation, average, separation
from tabzoo.captions import write_caption
from tabzoo.command import show, typed
from tabzoo.compute import choose_device, deterministic
from tabzoo.data.layouts import LAYOUTS, find_samples
from tabzoo.detectors.extractor import weights_sha256
from tabzoo.errors import InputError, did_you_mean
from tabzoo.extras import how_to_install
from tabzoo.flags import check_number, check_white_level, optional
from tabzoo.output_folder import CAPTION, check_output_folder
from tabzoo.synthesis import SYNTHESES

__all__ = ["MEAN", "Embed"]

MEAN = "mean of classes"
POINTS, NUMBERS = "points.csv", "numbers.csv"
_SYNTHESES = f"Kind of synthetic anomalies: {', '.join(SYNTHESES)}."
Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Embed:
    """Draw the feature space of backbones: normal images, synthetic anomalies and real defects (the paper's Figure 7)."""

    examples: ClassVar[tuple[str, ...]] = (
        "tabzoo benchmark embed --data photos --backbone resnet18.tv_in1k runs/mine --output runs/embedded",
    )

    data: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """Images: good ones (DIR/CLASS/train/good/*, DIR/CLASS/test/good/*) and real defects (DIR/CLASS/test/KIND/*)."""
    backbone: Annotated[Sequence[str], tyro.conf.arg(metavar="NAME [NAME ...]")]
    """A run's folder, a timm name, local-dir:DIR, hf-hub:ID, or random[:ARCHITECTURE]. The first one is the baseline."""
    classes: Annotated[Sequence[str] | None, optional("NAME [NAME ...]")] = None
    """Only these classes."""
    output: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder for figures, points, numbers and caption; files of an earlier `embed` in it are replaced."""
    synthesis: Annotated[str, tyro.conf.arg(metavar="NAME", help=_SYNTHESES)] = "nsa"
    seed: Annotated[int, tyro.conf.arg(metavar="S")] = 0
    """Seed of t-SNE, of the folds, of the anomalies, and of the weights of random."""
    layout: Annotated[str, tyro.conf.arg(metavar="NAME", help=f"auto, {', '.join(LAYOUTS)}.")] = "auto"
    resize: Annotated[int, tyro.conf.arg(metavar="PX")] = Preparation.resize
    """Side of the square that images are squashed to."""
    crop: Annotated[int, tyro.conf.arg(metavar="PX")] = Preparation.crop
    """Side of the centre crop."""
    white_level: Annotated[float | None, optional("X")] = None
    """Pixel value that becomes white in grey images of more than 8 bits, such as 4095 for a 12-bit camera.
    If not given: the largest value of the file's bits, or 1 for floats."""
    batch_size: Annotated[int, tyro.conf.arg(metavar="N")] = 32
    """Images at a time."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute features; auto takes the GPU if there is one."""

    def run(self) -> int:
        """Writes the files and prints the numbers."""
        self._check()
        deterministic()
        device = choose_device(self.device)
        how = Preparation(resize=self.resize, crop=self.crop, seed=self.seed, white_level=self.white_level)
        backbones = find_backbones(self.backbone)
        networks = [embedding_network(one.source, how, device, flag="--backbone") for one in backbones]
        samples = choose_classes(find_samples(self.data, layout=self.layout), self.classes)
        groups = group_images(samples, self.synthesis, how, device)
        features = [one.numpy() for one in groups.features(networks, batch_size=self.batch_size, progress=True)]
        for backbone, values in zip(backbones, features, strict=True):
            if not np.isfinite(values).all():
                raise InputError(
                    f"--backbone {backbone.name}: its features are not finite numbers; are the weights intact?"
                )
        names = [backbone.name for backbone in backbones]
        hashes = {f"the weights of {name}": weights_sha256(one) for name, one in zip(names, networks, strict=True)}
        self._write_caption(groups, backbones, hashes)
        figures = self._draw(groups, names, features)
        table = self._numbers(groups, dict(zip(names, features, strict=True)))
        write_numbers(self.output / NUMBERS, table, _transductive(backbones, groups))
        print_numbers(table)
        made = [f"{name}.{kind}" for name in figures for kind in ("png", "svg")]
        show(f"Made in {self.output}: {', '.join([*made, POINTS, NUMBERS, CAPTION])}")
        return 0

    def _check(self) -> None:
        if importlib.util.find_spec("sklearn") is None or importlib.util.find_spec("torchmetrics") is None:
            raise InputError(f"embed needs scikit-learn and torchmetrics: {how_to_install('benchmark')}")
        if self.synthesis not in SYNTHESES:
            known = f"{', '.join(SYNTHESES)}.{did_you_mean(self.synthesis, SYNTHESES)}"
            raise InputError(f"--synthesis {self.synthesis}: unknown; there are {known}")
        for flag, values in (("backbone", self.backbone), ("classes", self.classes)):
            if values is not None and not len(values):
                raise InputError(f"--{flag}: expected at least one value")
        numbers = {"resize": (self.resize, 1), "crop": (self.crop, 1), "batch-size": (self.batch_size, 1)}
        for flag, (value, least) in {**numbers, "seed": (self.seed, 0)}.items():
            check_number(flag, value, least=least)
        check_white_level(self.white_level)
        if self.crop > self.resize:
            raise InputError(f"--crop {self.crop}: more than --resize ({self.resize}); lower --crop or raise --resize")
        check_output_folder(self.output, data=self.data)

    def _draw(self, groups: Groups, names: Sequence[str], features: Sequence[Array]) -> list[str]:
        """Draws the figures, and writes their points as CSV. Returns the names of the figures."""
        shown = groups.groups != SOURCE
        of_groups, class_ids, values = groups.groups[shown], groups.class_ids[shown], [one[shown] for one in features]
        planes: dict[str, list[Plane]] = {"tsne": [], "pca": []}
        for name, one in zip(names, values, strict=True):
            planes["tsne"].append(Plane(name, t_sne(one, seed=self.seed), of_groups, class_ids))
            points, shares = pca(one)
            labels = [f"component {i} ({100 * share:.0f} %)" for i, share in enumerate(shares, start=1)]
            planes["pca"].append(Plane(name, points, of_groups, class_ids, (labels[0], labels[1])))
        classes = groups.images.samples.classes
        each = [class_ids == class_id for class_id in range(len(classes)) if (class_ids == class_id).sum() >= LEAST]
        if len(classes) > 1 and each:
            planes["tsne_classes"] = [
                Plane(
                    f"{classes[class_ids[own][0]]}\n{name}",
                    t_sne(one[own], seed=self.seed),
                    of_groups[own],
                    class_ids[own],
                )
                for own in each
                for name, one in zip(names, values, strict=True)
            ]
        for kind in () if "tsne_classes" in planes else ("png", "svg"):  # of an earlier call with more classes
            (self.output / f"tsne_classes.{kind}").unlink(missing_ok=True)
        for method, of_method in planes.items():
            draw_planes(self.output / method, of_method, classes, together=len(names))
        write_points(self.output / POINTS, groups, planes["tsne"], planes["pca"])
        return list(planes)

    def _numbers(self, groups: Groups, features: Mapping[str, Array]) -> dict[str, dict[str, Separation]]:
        """Backbone to class to its numbers; of several classes also their mean, over the same classes for all backbones."""
        classes = groups.images.samples.classes
        table = {
            name: {of: _of_class(groups, values, i, self.seed) for i, of in enumerate(classes)}
            for name, values in features.items()
        }
        if len(classes) > 1:
            whole = [of for of in classes if not any(ones[of].undefined_because for ones in table.values())]
            for ones in table.values():
                ones[MEAN] = average([ones[of] for of in whole or classes])
        return table

    def _write_caption(self, groups: Groups, backbones: Sequence[Backbone], hashes: Mapping[str, str]) -> None:
        files = hashlib.sha256(np.sort(groups.images.hashes).tobytes()).hexdigest()
        write_caption(
            self.output / CAPTION,
            describe(groups, self.synthesis, _transductive(backbones, groups)),
            command=typed("python -m tabzoo.benchmark embed", self),
            hashes={f"the image files of {self.data}": files, **hashes},
            packages=("scikit-learn", "scipy", "torchmetrics"),
        )


def _of_class(groups: Groups, values: Array, class_id: int, seed: int) -> Separation:
    of_class = groups.class_ids == class_id
    return separation({group: values[of_class & (groups.groups == group)] for group in GROUPS}, seed=seed)


def _transductive(backbones: Sequence[Backbone], groups: Groups) -> dict[str, set[str]]:
    """Backbone to the classes of which it has seen images in its pre-training."""
    samples, hashes = groups.images.samples, groups.images.hashes
    return {
        one.name: {name for i, name in enumerate(samples.classes) if one.saw(name, hashes[samples.class_ids == i])}
        for one in backbones
    }
