"""Decoding, the cache and reading from it, against the authors' way, as ratios of one run.

    python perf/data.py [--images 48] [--data DIR]

Without --data it generates 1024 x 1024 PNG images, the size of MVTec AD's. "Authors' way" is a plain reference of their
data path (Howeng98/TAB @ aa8c4dc, dataloader.py): for each pair two PIL loads, Lanczos to 256, centre crop 224 and
normalised tensors, without the synthesis.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from tabzoo.data.cache import open_images
from tabzoo.data.layouts import find_samples
from tabzoo.data.samples import Samples
from tabzoo.data.toy import make_toy_factory
from tabzoo.training.anomalies import pair_maker
from tabzoo.training.recipe import Recipe

RECIPE = Recipe(mean=IMAGENET_DEFAULT_MEAN, std=IMAGENET_DEFAULT_STD, channels_last=True)
MEAN, STD = torch.tensor(RECIPE.mean).view(3, 1, 1), torch.tensor(RECIPE.std).view(3, 1, 1)


def seconds(call: Callable[[], object], runs: int = 3) -> float:
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def plain_decode(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB").resize((256, 256), Image.Resampling.LANCZOS)


def plain_pair(first: Path, second: Path) -> list[torch.Tensor]:
    tensors = []
    for path in (first, second):
        cropped = plain_decode(path).crop((16, 16, 240, 240))
        pixels = torch.from_numpy(np.array(cropped)).permute(2, 0, 1).contiguous().float().div(255)
        tensors.append((pixels - MEAN) / STD)
    return tensors


def build(samples: Samples, workers: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        open_images(samples, size=256, mode="disk", cache_dir=folder, workers=workers, progress=False)


def read_batch(samples: Samples, batch: int) -> tuple[float, float]:
    """Seconds a pair: a shuffled batch of normal and source images, from a warm cache to floats; and with synthesis."""
    with tempfile.TemporaryDirectory() as folder:
        images = open_images(samples, size=256, mode="disk", cache_dir=folder, workers=0, progress=False)
        classes = torch.from_numpy(images.samples.class_ids).long()
        maker = pair_maker(images, torch.arange(len(classes)), classes, RECIPE, torch.device("cpu"))
        buffers = torch.empty(2, batch, 224, 3 * 224)

        def read() -> None:
            for buffer in buffers:
                for part in buffer.split(32):
                    maker.normalise(maker._pixels(torch.randint(len(classes), (len(part),))), part)

        read()
        maker(0, 0, torch.randint(len(classes), (batch,)))
        whole = seconds(lambda: maker(0, 1, torch.randint(len(classes), (batch,))), 7)
        return seconds(read, 7) / batch, whole / batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of images; generated if not given")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--batch", type=int, default=512)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = options.data or make_toy_factory(
            Path(folder) / "toy",
            size=1024,
            train=options.images // 2,
            test_good=1,
            test_defect=1,
            classes=("hex_nut", "wood_grain"),
        )
        samples = find_samples(root).train_normals()
        samples = samples.select(np.arange(min(len(samples), options.images)))
        paths = [samples.path(i) for i in range(len(samples))]
        megabytes = np.mean([path.stat().st_size for path in paths]) / 1e6
        plain = seconds(lambda: [plain_decode(path) for path in paths]) / len(paths)
        one = seconds(lambda: build(samples, 0)) / len(paths)
        two = seconds(lambda: build(samples, 2)) / len(paths)
        pair = seconds(lambda: [plain_pair(*two_paths) for two_paths in zip(paths[::2], paths[1::2], strict=True)]) / (
            len(paths) // 2
        )
        read, whole = read_batch(samples, options.batch)
    print(f"{len(paths)} images of {megabytes:.2f} MB, torch on one thread")
    print(f"plain PIL decode and Lanczos 256: {1e3 * plain:.2f} ms an image")
    print(
        f"cache build, one process:         {1e3 * one:.2f} ms an image; plain / ours = {plain / one:.2f} (goal: >= 1)"
    )
    print(f"cache build, two processes:       {1e3 * two:.2f} ms an image; one / two = {one / two:.2f} (aim: 1.7)")
    print(f"authors' data path:               {1e3 * pair:.2f} ms a pair")
    print(
        f"warm cache, batch {options.batch}: {1e6 * read:.0f} us a pair; authors / ours = {pair / read:.0f} (goal: 200)"
    )
    print(
        f"the same with NSA:                {1e6 * whole:.0f} us a pair; authors' loading alone / ours = {pair / whole:.0f} "
        f"(goal: 100, with the authors' synthesis, 17 ms more, on their side)"
    )


if __name__ == "__main__":
    main()
