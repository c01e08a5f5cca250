"""Generated stand-ins for the data sets of the paper's tables, in their layouts: MVTec_AD, BTAD, KSDD2, Industrial.

python training/launch/toy_datasets.py DIR [--size PX] [--train N] [--test N]

For trying the commands of the reproduction kit where the data are not at hand: what is measured on them means nothing.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from PIL import Image

from tabzoo.data.toy import make_toy_factory

MVTEC_AD = {"carpet": "woven_fabric", "capsule": "capsule", "metal_nut": "hex_nut"}
BTAD = {"01": "hex_nut", "02": "wood_grain", "03": "circuit_board"}
KSDD2 = "brushed_steel"
INDUSTRIAL = {"Bent Metal Stripe": "brushed_steel", "Stripe Wood": "wood_grain"}


def make_mvtec(factory: Path, root: Path) -> None:
    """CLASS/train/good, CLASS/test/DEFECT, CLASS/ground_truth/DEFECT: the toy factory under other names."""
    for name, product in MVTEC_AD.items():
        shutil.copytree(factory / product, root / name)


def make_btad(factory: Path, root: Path) -> None:
    """CLASS/train/ok, CLASS/test/ok, CLASS/test/ko, masks of the same name; bitmaps but for class 02."""
    for name, product in BTAD.items():
        ending = "png" if name == "02" else "bmp"
        for split in ("train", "test"):
            for i, path in enumerate(sorted((factory / product / split / "good").iterdir())):
                _save(path, root / name / split / "ok" / f"{i:04}.{ending}")
        for i, (path, mask) in enumerate(_defects(factory / product)):
            _save(path, root / name / "test" / "ko" / f"{i:04}.{ending}")
            _save(mask, root / name / "ground_truth" / "ko" / f"{i:04}.{'bmp' if name == '03' else 'png'}")


def make_ksdd2(factory: Path, root: Path) -> None:
    """train/1NNNN.png and test/2NNNN.png, each with its _GT.png; a defect in train too, and the published stray copies."""
    product = factory / KSDD2
    good = {
        split: [(path, None) for path in sorted((product / split / "good").iterdir())] for split in ("train", "test")
    }
    in_train, *in_test = _defects(product)
    for split, first, pairs in (
        ("train", 10000, [*good["train"], in_train]),
        ("test", 20000, [*good["test"], *in_test]),
    ):
        for number, (path, mask) in enumerate(pairs, start=first):
            _save(path, root / split / f"{number}.png")
            truth = root / split / f"{number}_GT.png"
            if mask is None:
                Image.new("L", Image.open(path).size).save(truth)
            else:
                _save(mask, truth)
    for ending in ("", "_GT"):
        shutil.copy(root / "train" / f"10000{ending}.png", root / "train" / f"10000{ending} (copy).png")


def make_industrial(factory: Path, root: Path) -> None:
    """CLASS NAME/*.png, good images alone."""
    for name, product in INDUSTRIAL.items():
        shutil.copytree(factory / product / "train" / "good", root / name)


def _defects(product: Path) -> list[tuple[Path, Path]]:
    """Defective test images and their masks."""
    masks = sorted((product / "ground_truth").rglob("*_mask.png"))
    return [(product / "test" / mask.parent.name / mask.name.replace("_mask", ""), mask) for mask in masks]


def _save(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.open(source).save(target)


def main() -> None:
    """Writes the four folders; those that are there stay."""
    parser = argparse.ArgumentParser(description="Generated folders in the layouts of the paper's data sets.")
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--size", type=int, default=96, metavar="PX", help="side of the images")
    parser.add_argument("--train", type=int, default=16, metavar="N", help="good training images of a class")
    parser.add_argument("--test", type=int, default=6, metavar="N", help="good, and defective, test images of a class")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        counts = {"train": options.train, "test_good": options.test, "test_defect": options.test}
        makers = {"MVTec_AD": make_mvtec, "BTAD": make_btad, "KSDD2": make_ksdd2, "Industrial": make_industrial}
        for seed, (name, make) in enumerate(makers.items()):  # a seed for each, so that no two share an image
            if not (options.folder / name).exists():
                factory = make_toy_factory(Path(scratch) / f"factory{seed}", seed=seed, size=options.size, **counts)
                made = Path(scratch) / name
                make(factory, made)
                options.folder.mkdir(parents=True, exist_ok=True)
                shutil.move(made, options.folder / name)


if __name__ == "__main__":
    main()
