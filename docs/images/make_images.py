"""Draws the pictures of README and docs/ from the toy factory: `python docs/images/make_images.py`, a minute on a CPU.

It needs neither network nor data. The detector has a backbone with random weights, which is enough for generated photos.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from tabzoo.data.toy import make_toy_factory
from tabzoo.figures import save_figure

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
SHOWN = {"brushed_steel": "rust", "woven_fabric": "hole"}
"""Class to the kind of its defect."""


def tabzoo(*arguments: str | Path, folder: Path) -> None:
    """Runs a command; a verdict of `defective` is no error."""
    done = subprocess.run([sys.executable, "-m", "tabzoo", *map(str, arguments)], cwd=folder, check=False)
    assert done.returncode in (0, 1), done


def keep(drawn: Path, name: str, *, width: int) -> None:
    """Keeps a picture beside this file, small: in 128 colours and at most this wide."""
    picture = Image.open(drawn).convert("RGB")
    height = round(picture.height * min(1, width / picture.width))
    small = picture.resize((min(width, picture.width), height), Image.Resampling.LANCZOS)
    small.quantize(128).save(HERE / name, optimize=True)


def draw_good_defective_map(folder: Path) -> None:
    """README's picture: a good photo, a defective one, and what `tabzoo score` draws over it."""
    make_toy_factory(folder / "photos", seed=0, size=224, train=40, test_good=2, test_defect=6, classes=tuple(SHOWN))
    figure, axes = plt.subplots(len(SHOWN), 3, figsize=(6.3, 2.15 * len(SHOWN)), layout="constrained")
    for row, (name, kind) in zip(axes, SHOWN.items(), strict=True):
        flags = ("--backbone", "random", "--method", "patchcore", "--patchcore-share", "0.02", "--output", name)
        tabzoo("fit", "--data", "photos", "--class", name, *flags, folder=folder)
        defective = sorted((folder / "photos" / name / "test" / kind).iterdir())[0]
        tabzoo("score", name, defective, "--output", f"{name}_scores", folder=folder)
        (overlay,) = (folder / f"{name}_scores" / "overlays").iterdir()
        good = sorted((folder / "photos" / name / "test" / "good").iterdir())[0]
        for axis, path in zip(row, (good, defective, overlay), strict=True):
            axis.imshow(np.asarray(Image.open(path).convert("RGB")))
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, title in zip(axes[0], ("good", "defective", "anomaly map"), strict=True):
        axis.set_title(title, fontsize=9)
    save_figure(figure, folder / "shown.png", dpi=100)
    keep(folder / "shown.png", "good_defective_map.png", width=630)


def draw_training(folder: Path) -> None:
    """The pictures of the method's page: the quickstart's synthetic anomalies and similarity matrix."""
    flags = ("--recipe", "quickstart", "--no-benchmark", "--output", "run", "--epochs", "6")
    tabzoo("pretrain", *flags, folder=folder)
    subprocess.run(
        [sys.executable, "-m", "tabzoo.training.figures", "run", "--output", "drawn"], cwd=folder, check=True
    )
    for name in ("gallery", "similarity_matrix"):
        keep(folder / "drawn" / f"{name}.png", f"{name}.png", width=760)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        draw_good_defective_map(Path(work))
        draw_training(Path(work))
