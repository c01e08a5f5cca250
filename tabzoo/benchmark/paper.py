"""The numbers of the paper's Table 2, and the classes of MVTec AD.

Lee and Lai, "TAB: Text-Align Anomaly Backbone Model for Industrial Inspection Tasks", CVPR 2024 VAND workshop,
arXiv 2312.09480, Table 2: image AUROC on MVTec AD in per cent, ResNet-18, ImageNet weights against TAB's. TAB's weights
were pre-trained on the good images of these same classes, for RegAD on the Industrial dataset. Averages are as printed.
"""

from typing import NamedTuple

from tabzoo.mvtec_ad import IMAGES
from tabzoo.scores.rows import REAL, Row

__all__ = [
    "IMAGES",
    "OBJECTS",
    "OBJECT_AVERAGE",
    "OVERALL",
    "TEXTURES",
    "TEXTURE_AVERAGE",
    "PaperNumbers",
    "is_mvtec",
    "paper_numbers",
]

TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
OBJECTS = (
    *("bottle", "cable", "capsule", "hazelnut", "metal_nut", "pill", "screw", "toothbrush", "transistor", "zipper"),
)
TEXTURE_AVERAGE, OBJECT_AVERAGE, OVERALL = "texture average", "object average", "average"

# PaDiM, RD4AD, SimpleNet, RegAD with 4 shots, RegAD with 8: ImageNet and TAB of each.
_TABLE_2 = """
carpet           98.40 99.30   99.90 99.85   100.00 97.57   97.90 98.00   98.50 98.20
grid             89.80 93.19   99.80 100.00  99.50 99.77    91.20 85.90   91.50 91.70
leather          98.90 99.93   100.00 100.00 100.00 100.00  100.00 100.00 100.00 100.00
tile             95.90 94.43   98.20 99.37   95.40 96.93    95.50 98.70   97.40 98.80
wood             99.00 99.10   99.30 99.85   100.00 99.93   98.60 99.40   99.40 99.40
texture average  96.40 97.19   99.44 99.81   98.98 98.84    96.64 96.40   97.36 97.62
bottle           99.60 99.23   100.00 100.00 100.00 100.00  99.40 99.60   99.80 99.80
cable            85.50 88.23   99.20 99.52   99.00 96.77    76.10 76.70   80.60 83.30
capsule          87.00 87.80   95.30 95.50   94.90 95.77    72.40 75.20   76.30 78.00
hazelnut         84.10 85.17   99.90 98.75   99.29 98.67    95.80 97.40   96.50 97.70
metal_nut        97.40 98.83   100.00 100.00 99.95 100.00   94.60 97.60   98.30 98.20
pill             86.90 90.57   97.00 97.60   93.90 96.57    80.80 81.30   80.60 85.20
screw            74.50 77.37   93.90 95.01   70.10 90.57    56.60 61.80   63.40 70.30
toothbrush       94.70 96.83   96.70 98.25   100.00 97.47   90.90 87.90   98.50 98.10
transistor       92.50 93.80   97.10 97.20   97.70 97.53    85.20 87.50   93.40 87.30
zipper           74.10 85.83   96.20 96.31   99.20 99.63    88.50 91.00   94.00 93.10
object average   87.63 90.37   97.53 97.81   95.40 97.30    84.03 85.60   88.14 89.10
average          90.55 92.64   98.17 98.48   96.60 97.81    88.23 89.20   91.21 91.94
"""
_COLUMNS: tuple[tuple[str, int | None], ...] = (
    ("padim", None),
    ("rd4ad", None),
    ("simplenet", None),
    ("regad", 4),
    ("regad", 8),
)


class PaperNumbers(NamedTuple):
    """Image AUROC of a method on a class, in per cent."""

    imagenet: float
    tab: float


def paper_numbers(method: str, shots: int | None) -> dict[str, PaperNumbers]:
    """The paper's image AUROC of a method: class, or one of the averages' names, to numbers; empty if it has none."""
    if (method, shots) not in _COLUMNS:
        return {}
    column = 2 * _COLUMNS.index((method, shots))
    table = {}
    for line in _TABLE_2.strip().splitlines():
        cells = line.split()
        numbers = [float(cell) for cell in cells[-2 * len(_COLUMNS) :]]
        table[" ".join(cells[: -2 * len(_COLUMNS)])] = PaperNumbers(*numbers[column : column + 2])
    return table


def is_mvtec(row: Row) -> bool:
    """Whether a row is a test on real defects of a class of MVTec AD, judged by its name and its numbers of images."""
    train, good, anomalous = IMAGES.get(row.class_name, (None, None, None))
    same = (row.images.get("good"), row.images.get("anomalous")) == (good, anomalous) and row.test == REAL
    return same and (row.shots is not None or row.images.get("fitted") == train)
