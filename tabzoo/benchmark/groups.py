"""Groups of images whose features are compared: normal ones, good ones before and after a synthetic anomaly, real defects.

The groups of a class share no image. Normal images are the good ones of the test split; a class without any lends half of its
good training images. Anomalies are made from good training images, as many as there are real defects, if there are enough;
these images without the anomaly are a group of their own, which shows how far apart good images are already.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tabzoo.benchmark.fid import Preparation, embeddings, open_prepared
from tabzoo.data.cache import Images
from tabzoo.data.images import centre_crop
from tabzoo.data.samples import TEST, TRAIN, Samples
from tabzoo.errors import InputError, count
from tabzoo.progress import Progress
from tabzoo.synthesis import make_synthesis
from tabzoo.synthesis.draws import hold_out, permutation
from tabzoo.synthesis.pairs import PairMaker

__all__ = ["DEFECT", "GROUPS", "NORMAL", "SOURCE", "SYNTHETIC", "Groups", "group_images"]

NORMAL, SOURCE, SYNTHETIC, DEFECT = GROUPS = ("normal", "source", "synthetic", "defect")
"""Normal images; good training images; the same with a synthetic anomaly; real defects."""
_SOURCES = 202  # key of the draw, different from those of training and of the benchmark's shots
_LEAST = 4  # t-SNE needs so many
Rows = NDArray[np.int64]


class _Part(NamedTuple):
    """Images of one class and one group: rows of the samples; of synthetic ones, positions among the members."""

    class_id: int
    group: str
    rows: Rows


@dataclass(frozen=True)
class Groups:
    """Images of all groups, class by class and in the order of `GROUPS`.

    Attributes:
        images: The data set's.
        class_ids: Class of each, index into the samples' classes, [N].
        groups: Group of each, [N].
        rows: Row of each in the samples; of a synthetic one that of its source, [N].
        lent: Names of classes whose normal images are good training images.
    """

    images: Images
    class_ids: Rows
    groups: NDArray[np.str_]
    rows: Rows
    lent: Sequence[str]
    _parts: Sequence[_Part]
    _pairs: PairMaker
    _how: Preparation

    def __len__(self) -> int:
        return len(self.rows)

    def features(self, networks: Sequence[nn.Module], *, batch_size: int, progress: bool = False) -> list[Tensor]:
        """The features of all images by each network, float64 [N, D]; each image is read and each anomaly made once."""
        extract = [embeddings(network) for network in networks]
        found: list[list[Tensor]] = [[] for _ in networks]
        with Progress(len(self), "features", unit="img", kept=True, show=progress) as bar:
            for part in self._parts:
                for rows in torch.from_numpy(part.rows).split(batch_size):
                    pixels = self._pixels(part.group, rows)
                    for parts, one in zip(found, extract, strict=True):
                        parts.append(one(pixels).cpu().double())
                    bar.update(len(rows))
        return [torch.cat(parts) for parts in found]

    def _pixels(self, group: str, rows: Tensor) -> Tensor:
        """uint8 [B, 3, H, W]"""
        if group == SYNTHETIC:
            return self._pairs.raw(self._how.seed, 0, rows).abnormal.contiguous()
        return centre_crop(self.images.batch(rows), self._how.crop).permute(0, 3, 1, 2).contiguous()


def group_images(samples: Samples, synthesis: str, how: Preparation, device: torch.device) -> Groups:
    """The groups of all classes; a class that lacks a group's images has fewer groups.

    Args:
        samples: Train and test splits.
        synthesis: Kind of synthetic anomalies.
        how: Sizes, seed and cache.
        device: Where images go and anomalies are made.

    Raises:
        InputError: Fewer than four images.
    """
    used = samples.select((samples.split == TEST) | (samples.defect_ids == 0))
    images = open_prepared(used, how, device)
    samples = images.samples
    members: list[int] = []  # good training images that anomalies may be made from
    parts: list[_Part] = []
    lent: list[str] = []
    for class_id, name in enumerate(samples.classes):
        normal, pool, defects = _rows_of_class(samples, class_id, how.seed)
        if len(normal) and not (samples.split[normal] == TEST).any():
            lent.append(name)
        number = min(len(defects) or len(normal), len(pool))
        chosen = np.sort(permutation(how.seed, class_id, len(pool), _SOURCES)[:number].numpy())
        positions = len(members) + chosen
        of_groups = zip(GROUPS, (normal, pool[chosen], positions, defects), strict=True)
        parts += [_Part(class_id, group, rows) for group, rows in of_groups if len(rows)]
        members += pool.tolist()
    total = sum(len(part.rows) for part in parts if part.group != SOURCE)
    if total < _LEAST:
        raise InputError(
            f"{samples.root}: {count(total, 'image')} to compare; expected at least {_LEAST}. Look at the folder with "
            f"tabzoo data check."
        )
    classes = torch.from_numpy(samples.class_ids[members]).long()
    made = make_synthesis(synthesis, classes, how.crop)
    pairs = PairMaker(images, torch.tensor(members, dtype=torch.long), classes, made, crop=how.crop, device=device)
    sizes = [len(part.rows) for part in parts]
    rows = [np.array(members, dtype=np.int64)[part.rows] if part.group == SYNTHETIC else part.rows for part in parts]
    return Groups(
        images=images,
        class_ids=np.repeat([part.class_id for part in parts], sizes),
        groups=np.repeat([part.group for part in parts], sizes),
        rows=np.concatenate(rows),
        lent=lent,
        _parts=parts,
        _pairs=pairs,
        _how=how,
    )


def _rows_of_class(samples: Samples, class_id: int, seed: int) -> tuple[Rows, Rows, Rows]:
    """Rows of normal images, of good training images for anomalies, and of defects."""
    of_class, good = samples.class_ids == class_id, samples.defect_ids == 0
    normal = np.flatnonzero(of_class & good & (samples.split == TEST))
    pool = np.flatnonzero(of_class & good & (samples.split == TRAIN))
    if not len(normal):
        kept, held = hold_out(torch.zeros(len(pool), dtype=torch.long), 0.5, seed=seed)
        normal, pool = pool[held.numpy()], pool[kept.numpy()]
    return normal, pool, np.flatnonzero(of_class & ~good)
