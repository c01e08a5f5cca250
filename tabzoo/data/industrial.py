"""The paper's Industrial dataset: its classes and their sources.

30 classes, normal images only, 17,393 images, `ROOT/CLASS NAME/*.png`. Classes, counts and sources are those of the
authors' README (Howeng98/TAB @ aa8c4dc). It can't be downloaded: users assemble it, see `training/industrial/README.md`.
"""

import csv
import io
from typing import NamedTuple

__all__ = ["INDUSTRIAL", "IndustrialClass", "industrial_csv"]


class IndustrialClass(NamedTuple):
    """One class: name of its folder, number of images, their source, and the licence stated there."""

    name: str
    images: int
    source: str
    license: str


_MPDD = ("MPDD", "CC BY-NC-SA 4.0 as anomalib states; the repository names none")
_DAGM = ("DAGM 2007", "not checked")
_KYLBERG = ("Kylberg texture dataset", "not checked")
_KTH = ("KTH-TIPS2", "not checked")
_UIUC = ("UIUC texture dataset", "not checked")
_UNKNOWN = ("not stated by the authors", "unknown")

INDUSTRIAL = (
    IndustrialClass("Bent Metal Stripe", 185, *_MPDD),
    IndustrialClass("Board", 40, *_DAGM),
    IndustrialClass("Bolt", 128, *_MPDD),
    IndustrialClass("Bottle", 746, "Tianchi data set 110147", "not checked"),
    IndustrialClass("Brick Tile", 80, *_UIUC),
    IndustrialClass("Capsule", 749, "GitHub TSjianjiao/Defect-Detection-with-tensorflow", "none stated"),
    IndustrialClass("Chip", 1211, "Kaggle kubeedgeianvs/pcb-aoi", "not checked"),
    IndustrialClass("Cork", 216, *_KTH),
    IndustrialClass("Encapsulates Carpet", 728, *_UNKNOWN),
    IndustrialClass("Hazelnut", 50, "ADFI", "not checked"),
    IndustrialClass("Hazelnut Toy", 34, "anomalib's hazelnut_toy", "not checked"),
    IndustrialClass("Jagged Carpet", 80, *_KYLBERG),
    IndustrialClass("Leather", 600, "Kaggle praveen2084/leather-defect-classification", "not checked"),
    IndustrialClass("Metal Flat", 54, *_MPDD),
    IndustrialClass("Metal Pole", 110, *_MPDD),
    IndustrialClass("Metal Tube", 122, *_MPDD),
    IndustrialClass("Metal ornament", 289, *_MPDD),
    IndustrialClass("Plaid", 20, *_UIUC),
    IndustrialClass("Rhombus Carpet", 80, *_KYLBERG),
    IndustrialClass("Screw", 59, *_UNKNOWN),
    IndustrialClass("Solar Board", 2624, "GitHub zae-bayern/elpv-dataset", "CC BY-NC-SA 4.0 (images)"),
    IndustrialClass("Sponge", 40, *_KTH),
    IndustrialClass("Streak Board", 1041, *_DAGM),
    IndustrialClass("Stripe Carpet", 336, *_KYLBERG),
    IndustrialClass("Stripe Wood", 1000, *_DAGM),
    IndustrialClass("Tile", 230, *_UNKNOWN),
    IndustrialClass("Toy Wheel", 3200, *_UNKNOWN),
    IndustrialClass("Upholstery", 20, *_UIUC),
    IndustrialClass("Washer", 3241, "Kaggle ravirajsinh45 casting products", "not checked"),
    IndustrialClass("Wave Carpet", 80, *_KYLBERG),
)
"""The dataset, sorted by name."""


def industrial_csv() -> str:
    """The dataset as CSV with the columns class, images, source, license."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("class", "images", "source", "license"))
    writer.writerows(INDUSTRIAL)
    return text.getvalue()
