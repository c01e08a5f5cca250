"""What an output folder holds: data in families, folds, and the cells arm x fold x seed.

Layout of OUT: `start/` (the weights that all arms start from, as a timm folder), `text/` (text features), `data/FOLD.csv`
(the training images of each fold), `runs/ARM/FOLD/SEED/` (pre-trained backbones), `benchmark/` (rows), `logs/ARM.log`.
"""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from arms import Definitions

from tabzoo.data.layouts import find_samples
from tabzoo.data.samples import TEST, Samples
from tabzoo.errors import InputError
from tabzoo.hub.files import Digest, read_json, write_json
from tabzoo.hub.record import WEIGHTS
from tabzoo.plain import for_path
from tabzoo.strict_yaml import read_yaml
from tabzoo.system import whole_file

__all__ = [
    "ALL",
    "CLASSES",
    "Cell",
    "Experiment",
    "find_families",
    "open_experiment",
    "read_experiment",
    "write_manifests",
]

CLASSES = Path(__file__).parent / "classes.csv"
ALL = "all"
"""The fold that leaves nothing out: its tests are transductive in the good images."""
_RECORD = "evidence.json"
_GROUPS = 3


class Cell(NamedTuple):
    """One training run."""

    arm: str
    fold: str
    seed: int

    @property
    def folder(self) -> Path:
        """Its folder in OUT."""
        return Path("runs") / self.arm / self.fold / str(self.seed)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What stays the same as long as OUT is used.

    Attributes:
        budget: quick or full.
        data: Name of the folder of images.
        start: SHA-256 of the weights that all arms start from.
        families: Name to its classes that are tested.
        train_only: Classes without defects.
        folds: Name to the families left out.
    """

    budget: str
    data: str
    start: str
    families: Mapping[str, Sequence[str]]
    train_only: Sequence[str]
    folds: Mapping[str, Sequence[str]]

    @property
    def tested(self) -> list[str]:
        """All classes that are tested, sorted."""
        return sorted(name for classes in self.families.values() for name in classes)

    def tested_in(self, fold: str) -> list[str]:
        """The classes that a backbone of this fold is tested on: those left out, or all."""
        left_out = [name for family in self.folds[fold] for name in self.families[family]]
        return sorted(left_out) if left_out else self.tested

    def trained_in(self, fold: str) -> list[str]:
        """The classes that a backbone of this fold is trained on."""
        left_out = self.tested_in(fold) if self.folds[fold] else []
        return sorted({*self.tested, *self.train_only} - set(left_out))


def find_families(samples: Samples, file: Path | None = None) -> tuple[dict[str, list[str]], list[str]]:
    """Families of the classes that can be tested, and the classes that can only be trained on.

    Args:
        samples: The images.
        file: YAML with lines `family: [class, ...]`. If not given: the families of `classes.csv` for the classes there;
            every other class is a family of its own.

    Raises:
        InputError: A family names a class that does not exist, or a class twice; or nothing can be tested.
    """
    family_of = _families_in(file, samples) if file else _listed_families()
    families: dict[str, list[str]] = {}
    train_only = []
    for index, name in enumerate(samples.classes):
        labels = samples.labels[(samples.class_ids == index) & (samples.split == TEST)]
        if len(labels) and labels.any() and not labels.all():
            families.setdefault(family_of.get(name) or name, []).append(name)
        else:
            train_only.append(name)
    if len(families) < 2:
        raise InputError(
            f"{samples.root}: expected classes of at least two families with good and defective test images "
            f"(CLASS/test/good, CLASS/test/DEFECT); found {', '.join(families) or 'none'}"
        )
    return dict(sorted(families.items())), train_only


def _listed_families() -> dict[str, str]:
    with CLASSES.open(newline="", encoding="utf-8") as file:
        return {row["class"]: row["family"] for row in csv.DictReader(file)}


def _families_in(file: Path, samples: Samples) -> dict[str, str]:
    try:
        content = read_yaml(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--families {file}: can't be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"--families {file}: not valid YAML: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(classes, list) for classes in content.values()):
        raise InputError(f"--families {file}: expected lines 'family: [class, class]'")
    family_of: dict[str, str] = {}
    for family, classes in content.items():
        for name in map(str, classes):
            if name not in samples.classes:
                raise InputError(f"--families {file}: no class {name}; there are {', '.join(samples.classes)}")
            if name in family_of:
                raise InputError(f"--families {file}: class {name} is in two families")
            family_of[name] = str(family)
    return family_of


def _folds(families: Sequence[str], definitions: Definitions) -> dict[str, tuple[str, ...]]:
    grouped = definitions.grouped_folds
    groups: list[tuple[str, ...]]
    if not definitions.budget.grouped:
        groups = [(family,) for family in families]
    elif {family for group in grouped.values() for family in group} == set(families):
        return {ALL: (), **grouped}
    else:
        groups = [tuple(families[first::_GROUPS]) for first in range(min(_GROUPS, len(families)))]
    return {ALL: (), **{for_path(f"without_{'_'.join(group)}"): group for group in groups}}


def open_experiment(
    out: Path, data: Path, definitions: Definitions, families: Path | None, samples: Samples
) -> Experiment:
    """The experiment in OUT, begun if there is none.

    Raises:
        InputError: OUT holds another experiment.
        WriteError: OUT can't be written.
    """
    by_family, train_only = find_families(samples, families)
    wanted = Experiment(
        budget=definitions.budget.name,
        data=data.resolve().name,
        start=Digest.of(out / "start" / WEIGHTS).sha256,
        families=by_family,
        train_only=train_only,
        folds=_folds(list(by_family), definitions),
    )
    if (out / _RECORD).is_file():
        before, now = asdict(read_experiment(out)), _plain(wanted)
        if changed := [name for name in now if before[name] != now[name] and name != "data"]:
            raise InputError(
                f"{out}: holds an experiment with other {', '.join(changed)}: {before[changed[0]]}, now "
                f"{now[changed[0]]}. Name another OUT, or give what it was begun with."
            )
    else:
        write_json(out / _RECORD, _plain(wanted))
    return wanted


def read_experiment(out: Path) -> Experiment:
    """The experiment in OUT.

    Raises:
        InputError: There is none.
    """
    path = out / _RECORD
    if not path.is_file():
        raise InputError(f"{out}: no experiment in it (no {_RECORD}). Type: training/evidence/run.sh DATA {out}")
    try:
        return Experiment(**read_json(path))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: not written by this kit: {error}") from error


def _plain(experiment: Experiment) -> dict[str, Any]:
    """As JSON gives it back."""
    plain = asdict(experiment)
    plain["folds"] = {name: list(left_out) for name, left_out in experiment.folds.items()}
    return plain


def write_manifests(out: Path, experiment: Experiment, samples: Samples) -> None:
    """Lists the training images of each fold in `data/FOLD.csv`, with paths relative to that folder.

    Raises:
        WriteError: It can't be written.
    """
    folder = (out / "data").resolve()
    normals = samples.train_normals()
    for fold in experiment.folds:
        classes = set(experiment.trained_in(fold))
        with whole_file(folder / f"{fold}.csv") as path, path.open("w", newline="", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "class", "split", "label", "mask"])
            for index in range(len(normals)):
                if (name := normals.classes[normals.class_ids[index]]) in classes:
                    image = os.path.relpath(normals.path(index), folder)
                    writer.writerow([image, name, "train", "0", ""])


def read_images(data: Path) -> Samples:
    """The images of a folder, with an absolute root.

    Raises:
        InputError: There are none.
    """
    return find_samples(str(data.resolve()))
