"""Options of small runs, batches of images, and rows of results as a run would write them."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from tabzoo.benchmark.methods import ImageBatches
from tabzoo.benchmark.plan import Options
from tabzoo.benchmark.results import Row, row_key

MakeRow = Callable[..., Row]
MakeOptions = Callable[..., Options]

SMALL = "random:test_resnet"
"""timm's smallest ResNet."""


@pytest.fixture
def options(toy: Path, tmp_path: Path) -> MakeOptions:
    """Options of a run of a second on the toy factory, with changes."""

    def make(**changes: object) -> Options:
        values: dict[str, object] = {
            **{"backbone": [SMALL], "method": ["padim"], "data": str(toy), "output": tmp_path / "out"},
            **{"resize": 40, "crop": 32, "cache": "ram", "workers": 0, "device": "cpu"},
        }
        return Options(**(values | changes))  # type: ignore[arg-type]

    return make


class Batches(list[Tensor]):
    """Batches as methods take them: the length is the number of images."""

    def __len__(self) -> int:
        return sum(len(batch) for batch in self)

    def take(self, rows: Tensor) -> Tensor:
        return torch.cat(self)[rows]


@pytest.fixture(scope="session")
def batches() -> Callable[[Iterable[Tensor]], ImageBatches]:
    return Batches


@pytest.fixture
def make_row() -> MakeRow:
    """A row with random image scores and the AUROC that belongs to them; `shift` is how far defects stand out."""

    def make(
        backbone: str = "random", class_name: str = "nut", seed: int = 0, *, shift: float = 1.0, **changes: object
    ) -> Row:
        rng = np.random.default_rng(int(row_key({"of": [backbone, class_name, seed]}), 16))
        good, anomalous = rng.normal(size=20).tolist(), rng.normal(shift, size=30).tolist()
        values: dict[str, object] = {
            "key": row_key({"of": [backbone, class_name, seed, str(changes)]}),
            "backbone": backbone,
            "method": "padim",
            "dataset": "factory",
            "class_name": class_name,
            "seed": seed,
            "shots": None,
            "image_auroc": float(roc_auc_score([0] * 20 + [1] * 30, good + anomalous)),
            "pixel_auroc": 0.9,
            "aupro": 0.5,
            "image_average_precision": 0.7,
            "image_f1_max": 0.8,
            "pixel_average_precision": 0.3,
            "pixel_f1_max": 0.4,
            "transductive": False,
            "images": {"fitted": 16, "good": 20, "anomalous": 30},
            "scores": {"good": good, "anomalous": anomalous},
            "settings": {"resize": 256, "crop": 224, "layers": ["layer1", "layer2"]},
            "weights_sha256": "0" * 64,
            "data_sha256": class_name,
            "versions": {"tabzoo": "0"},
            "hardware": "cpu",
            "seconds": {"fit": 1.0, "score": 1.0},
            "peak_memory": 1,
            "created": "2026-01-01T00:00:00+00:00",
        }
        return Row(**(values | changes))  # type: ignore[arg-type]

    return make
