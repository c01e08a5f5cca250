"""The images of one class: those that a detector is fitted to, and those that it is tested on."""

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tabzoo.compute import to_device
from tabzoo.data.cache import Images
from tabzoo.data.decoding import Hashes
from tabzoo.data.images import centre_crop, crop_edges, files_of_mask, read_image, read_mask
from tabzoo.data.labels import GOOD
from tabzoo.data.samples import TEST, TRAIN
from tabzoo.errors import InputError
from tabzoo.scores.rows import REAL
from tabzoo.synthesis import make_synthesis
from tabzoo.synthesis.draws import draw_shots, hold_out
from tabzoo.synthesis.pairs import PairMaker

__all__ = ["ClassImages", "FittingSet", "EvaluationSet"]

_HELD_OUT = 0.25
"""Fraction of the good training images that a synthetic test holds out to make anomalies from."""
_AT_A_TIME = 256


class FittingSet(NamedTuple):
    """Images to fit to: rows of the data set's samples, and their paths."""

    rows: NDArray[np.int64]
    paths: list[str]


@dataclass(frozen=True)
class EvaluationSet:
    """Images to test on."""

    pixels: Callable[[Tensor], Tensor]
    """Returns images by row, uint8 [B, H, W, 3], at the detector's input size."""
    rows: Tensor
    """Row of each image for `pixels`, int64 [N]: of the data set's samples, or of the images that were made."""
    labels: NDArray[np.bool_]
    kinds: Sequence[str]
    """Kind of defect of each, or "good"."""
    masks: Tensor
    """bool [N, H, W]; all False for an image without a mask, and for a mask that is empty at this size."""
    has_mask: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.labels)


class ClassImages:
    """The images of one class.

    Args:
        images: Of the whole data set, with masks.
        class_id: Which class.
        resize: Side of the images.
        crop: Side of the centre crop.
    """

    def __init__(self, images: Images, class_id: int, *, resize: int, crop: int) -> None:
        samples = images.samples
        self._images, self._resize, self._crop = images, resize, crop
        of_class = samples.class_ids == class_id
        self.name = samples.classes[class_id]
        self.normals = np.flatnonzero(of_class & (samples.split == TRAIN) & (samples.defect_ids == 0))
        self._tested = np.flatnonzero(of_class & (samples.split == TEST))

    @property
    def hashes(self) -> Hashes:
        """Of the files of all images that are fitted to and tested on."""
        hashes: Hashes = self._images.hashes[np.concatenate([self.normals, self._tested])]
        return hashes

    def pixels(self, rows: Tensor) -> Tensor:
        """Centre crops of images of the data set, by row, uint8 [B, H, W, 3]."""
        return centre_crop(self._images.batch(rows), self._crop)

    def digest(self, *, mask_files: bool = False) -> str:
        """SHA-256 of the decoded images, labels and masks that are fitted to and tested on, in hex.

        Args:
            mask_files: Include the files of the masks, which hold more detail than masks at the images' size.
        """
        digest, samples = hashlib.sha256(), self._images.samples
        for rows in (self.normals, self._tested):
            digest.update(samples.labels[rows].tobytes() + b"\0")
            for part in np.array_split(rows, math.ceil(len(rows) / _AT_A_TIME)) if len(rows) else []:
                masks = self._images.masks(part)
                for tensor in (self._images.batch(part), masks):
                    digest.update(tensor.cpu().numpy().tobytes())
                # Pixel metrics leave out a defect whose mask is empty at this size and in the crop.
                has_mask = (samples.labels[part] != 0) & (samples.masks[part] != b"")
                empty = has_mask & ~centre_crop(masks, self._crop).flatten(1).any(1).cpu().numpy()
                if empty.any():
                    digest.update(b"empty, left out" + empty.tobytes())
        if mask_files and (self._resize - self._crop) % 2:
            digest.update(b"odd margin")  # older versions cropped these masks in another way
        for path in map(samples.mask_path, self._tested.tolist()) if mask_files else ():
            files = [] if path is None else map(Path, files_of_mask(path))
            digest.update(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files) or b"\0")
        return digest.hexdigest()

    def fitting_set(self, *, shots: int | None, seed: int, test: str, number: int = 0) -> FittingSet:
        """The good images to fit to: all, or some drawn with the seed; with a synthetic test, without those held out.

        Args:
            shots: How many; all if None.
            seed: Of the draw.
            test: As for `evaluation_set`.
            number: Which of the draws with this seed.

        Raises:
            InputError: There are fewer than `shots`.
        """
        rows = self.normals if test == REAL else self._split(seed)[0]
        if shots is not None:
            if shots > len(rows):
                raise InputError(
                    f"--shots {shots}: class {self.name} has only {len(rows)} good images. Lower --shots, or give "
                    f"other --classes."
                )
            rows = rows[draw_shots(seed, len(rows), shots, number=number).numpy()]
        return FittingSet(rows, [os.fsdecode(path) for path in self._images.samples.paths[rows].tolist()])

    def evaluation_set(self, *, test: str, seed: int) -> EvaluationSet:
        """The images to test on: the test split, or held-out good images and a synthetic anomaly of each.

        Args:
            test: "real" or "synthetic:KIND".
            seed: Of the choice of held-out images and of the anomalies.
        """
        return self._real() if test == REAL else self._synthetic(test.partition(":")[2], seed)

    def full_masks(self) -> list[Tensor]:
        """Masks of the test split at the resolution of the files, cropped as the images are, [h, w] each."""
        samples, masks = self._images.samples, []
        edges = crop_edges(self._resize, self._crop)
        for i in self._tested.tolist():
            path = samples.mask_path(i)
            mask = np.zeros(read_image(samples.path(i)).shape[:2], np.uint8) if path is None else read_mask(path)
            rows, columns = (slice(*(round(side * end / self._resize) for end in edges)) for side in mask.shape)
            masks.append(torch.from_numpy(mask[rows, columns]))
        return masks

    def _real(self) -> EvaluationSet:
        samples, rows = self._images.samples, self._tested
        return EvaluationSet(
            pixels=self.pixels,
            rows=torch.from_numpy(rows),
            labels=samples.labels[rows] != 0,
            kinds=[samples.defects[i] for i in samples.defect_ids[rows]],
            masks=centre_crop(self._images.masks(rows), self._crop) != 0,
            has_mask=samples.masks[rows] != b"",
        )

    def _synthetic(self, kind: str, seed: int) -> EvaluationSet:
        held = torch.from_numpy(self._split(seed)[1])
        device = self._images.batch(held[:1]).device
        classes = torch.zeros(len(held), dtype=torch.long)
        synthesis = make_synthesis(kind, classes, self._crop)
        maker = PairMaker(self._images, held, classes, synthesis, crop=self._crop, device=device)
        raw = maker.raw(seed, 0, torch.arange(len(held)))
        pixels = torch.cat([raw.normal, raw.abnormal]).permute(0, 2, 3, 1)
        labels = np.arange(2 * len(held)) >= len(held)
        return EvaluationSet(
            pixels=lambda rows: pixels[to_device(rows, device)],
            rows=torch.arange(2 * len(held)),
            labels=labels,
            kinds=[GOOD] * len(held) + [kind] * len(held),
            masks=torch.cat([torch.zeros_like(raw.mask), raw.mask])[:, 0],
            has_mask=labels,
        )

    def _split(self, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The good training images to fit to, and those held out."""
        kept, held = hold_out(torch.zeros(len(self.normals), dtype=torch.long), _HELD_OUT, seed=seed)
        if not len(held):
            raise InputError(
                f"--test synthetic: class {self.name} has {len(self.normals)} good training images, too few to hold some out; "
                f"expected at least {math.ceil(1 / _HELD_OUT)}"
            )
        return self.normals[kept.numpy()], self.normals[held.numpy()]
