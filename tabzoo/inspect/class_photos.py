"""The photos of one class: good ones to fit to, and those that only report what the threshold does."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tabzoo.data.cache import Images
from tabzoo.data.samples import TEST, TRAIN, Samples
from tabzoo.errors import InputError, count, did_you_mean
from tabzoo.inspect.options import FitOptions
from tabzoo.synthesis.draws import draw_shots

__all__ = ["good_photos", "photos_of_class"]

_SPLITS = ("train", "test", "test_public")


def photos_of_class(samples: Samples, options: FitOptions) -> Samples:
    """Good photos to fit to, and all photos to test with.

    Raises:
        InputError: No such class, several where none was named, or no good photos to fit to.
    """
    name, classes = options.class_name, samples.classes
    if name is None and len(classes) > 1:
        raise InputError(
            f"--data {options.data}: has {len(classes)} classes. Type --class with one of {', '.join(classes)}."
        )
    if name is not None and name not in classes:
        raise InputError(f"--class {name}: no such class; there are {', '.join(classes)}.{did_you_mean(name, classes)}")
    everything = samples.select(samples.class_ids == (classes.index(name) if name is not None else 0), drop=True)
    chosen = (everything.split == TEST) | (everything.defect_ids == 0)  # defective photos to train on are not used
    found = everything.select(chosen, drop=True)
    if not (found.split == TRAIN).any():
        raise InputError(f"--data {options.data}: {_what_is_missing(everything, options.data)}")
    return found


def good_photos(images: Images, options: FitOptions) -> NDArray[np.int64]:
    """Rows of the photos to fit to.

    Raises:
        InputError: There are fewer than `options.shots`.
    """
    samples = images.samples
    rows = np.flatnonzero(samples.split == TRAIN)  # all of them good, see `photos_of_class`
    if options.shots is None:
        return rows
    if options.shots > len(rows):
        raise InputError(f"--shots {options.shots}: class {samples.classes[0]} has only {len(rows)} good photos")
    drawn: NDArray[np.int64] = rows[draw_shots(options.seed, len(rows), options.shots).numpy()]
    return drawn


def _what_is_missing(samples: Samples, data: str) -> str:
    """What a class has that has no good photos to fit to, and where they go."""
    tested, defective = samples.split == TEST, samples.labels != 0
    numbers = (
        (tested & ~defective, "good photo", "to test with"),
        (tested & defective, "defective photo", "to test with"),
        (~tested & defective, "defective photo", "to train on"),
    )
    found = [f"{count(int(of.sum()), what)} {use}" for of, what, use in numbers if of.any()]
    if os.path.isfile(data):
        where = "Add lines with split train and label good"
    else:
        where = f"Put good photos into {_folder_of_good(samples)}"
    return f"no good photos to fit to in class {samples.classes[0]}; found {', '.join(found)}. {where}, and fit again."


def _folder_of_good(samples: Samples) -> Path:
    folders = Path(os.fsdecode(bytes(samples.paths[0]))).parts[:-1]
    above = next((i for i, folder in enumerate(folders) if folder.lower() in _SPLITS), None)
    inside = Path(samples.classes[0]) if above is None else Path(*folders[:above])
    return samples.root / inside / "train" / "good"
