"""PaDiM and PatchCore against anomalib's, as ratios of one run, and PaDiM's memory.

    pip install -e ".[benchmark]" anomalib && python perf/benchmark.py [--train 150] [--test 60] [--side 1024]

Random ResNet-18 weights and generated images, fitted and tested at 224 px. "After features" starts from feature maps that
both sides are given. "Whole" is fit, test and metrics; ours on images that are in the cache already, anomalib's through its
Engine, which decodes them, and after the fit goes over the test images to validate.
"""

import argparse
import logging
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tabzoo.benchmark.metrics import evaluate
from tabzoo.data.cache import Images, open_images
from tabzoo.data.layouts import find_samples
from tabzoo.data.samples import TRAIN
from tabzoo.data.toy import make_toy_factory
from tabzoo.detectors import DETECTORS
from tabzoo.detectors.extractor import build_extractor
from tabzoo.detectors.padim import Padim, choose_channels

SIZE, BATCH, CHANNELS = 224, 32, 100
CLASS = "hex_nut"


class Batches:
    """Batches that are made as they are asked for; the length is the number of images."""

    def __init__(self, count: int, make: Callable[[Tensor], Tensor]) -> None:
        self.count, self.make = count, make

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Tensor]:
        yield from map(self.make, torch.arange(self.count).split(BATCH))


class Given(torch.nn.Module):
    """An extractor whose maps have been computed before."""

    def __init__(self, layers: tuple[str, ...], batches: Iterable[Tensor]) -> None:
        super().__init__()
        extractor = build_extractor("random", layers=layers)
        self.channels, self.layers = extractor.channels, extractor.layers
        self.maps = {batch.data_ptr(): extractor(batch) for batch in batches}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The maps of a batch that was there at the start."""
        return self.maps[images.data_ptr()]


def seconds(call: Callable[[], object]) -> float:
    """Of the CPU, all on one thread: other work on the machine matters less than to the clock on the wall."""
    start = time.process_time()
    call()
    return time.process_time() - start


def report(what: str, theirs: float, ours: float, goal: float) -> None:
    print(f"{what:36} anomalib {theirs:7.2f} s, ours {ours:6.2f} s: {theirs / ours:5.1f}x (goal {goal:g}x)", flush=True)


def opened(root: Path, cache: Path) -> tuple[Images, Batches, Batches, Tensor]:
    """All images, batches of the train and of the test split, and the rows of the latter."""
    images = open_images(find_samples(root), size=SIZE, cache_dir=cache, workers=0, masks=True, progress=False)
    split = torch.from_numpy(images.samples.split)

    def batches(rows: Tensor) -> Batches:
        def make(index: Tensor) -> Tensor:
            return (images.batch(rows[index]).permute(0, 3, 1, 2).float() / 255 - 0.45) / 0.225

        return Batches(len(rows), make)

    train, test = ((split == value).nonzero()[:, 0] for value in (TRAIN, 1 - TRAIN))
    return images, batches(train), batches(test), test


def our_run(root: Path, cache: Path, **faster: bool) -> None:
    images, train, test, rows = opened(root, cache)
    padim = Padim(build_extractor("random", layers=DETECTORS["padim"].layers, **faster), 0)
    padim.fit(train)
    scores, maps = (torch.cat(parts) for parts in zip(*map(padim.score, test), strict=True))
    evaluate(scores, torch.from_numpy(images.samples.labels)[rows], maps, images.masks(rows))


def their_run(root: Path, folder: Path) -> None:
    from anomalib.data import MVTecAD
    from anomalib.engine import Engine
    from anomalib.models import Padim as TheirPadim

    data = MVTecAD(root=root, category=CLASS, train_batch_size=BATCH, eval_batch_size=BATCH, num_workers=0)
    processor = TheirPadim.configure_pre_processor(image_size=(SIZE, SIZE))
    model = TheirPadim(pre_trained=False, n_features=CHANNELS, pre_processor=processor, visualizer=False)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    engine = Engine(accelerator="cpu", devices=1, default_root_dir=folder, **quiet)
    engine.fit(model, datamodule=data)
    engine.test(model, datamodule=data, verbose=False)


def after_features(name: str, fitted: list[Tensor], scored: list[Tensor], goal: float) -> None:
    from anomalib.models.image.padim.torch_model import PadimModel
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    spec = DETECTORS[name]
    given = Given(spec.layers, [*fitted, *scored])
    ours = spec.build(given, 0, spec.settings())  # type: ignore[arg-type]
    if name == "padim":
        theirs: Any = PadimModel(pre_trained=False, n_features=CHANNELS)
        chosen = choose_channels({"all": sum(given.channels.values())}, CHANNELS, 0)
        theirs.idx, finish = torch.tensor(chosen["all"]), theirs.fit
    else:
        theirs = PatchcoreModel(given.layers, "resnet18", pre_trained=False)
        finish = lambda: theirs.subsample_embedding(ours.share)  # type: ignore[attr-defined]  # noqa: E731
    theirs.feature_extractor = given

    def fit_theirs() -> None:
        theirs.train()
        for batch in fitted:
            theirs(batch)
        finish()
        theirs.eval()

    sizes = [sum(map(len, batches)) for batches in (fitted, scored)]
    in_memory = Batches(sizes[0], lambda rows: fitted[int(rows[0]) // BATCH])
    fits = seconds(fit_theirs), seconds(lambda: ours.fit(in_memory))
    scores = seconds(lambda: list(map(theirs, scored))), seconds(lambda: list(map(ours.score, scored)))
    report(f"{name}, fit to maps of {sizes[0]} images", *fits, goal)
    report(f"{name}, score maps of {sizes[1]} images", *scores, 1)
    report(f"{name} after features", *map(sum, zip(fits, scores, strict=True)), goal)


def peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def memory(count: int) -> None:
    """Growth of the process's peak while PaDiM is fitted, after the first batch has gone through the network."""
    padim = Padim(build_extractor("random", layers=DETECTORS["padim"].layers), 0)
    padim.extractor(torch.randn(BATCH, 3, SIZE, SIZE))
    before = peak_bytes()
    padim.fit(Batches(count, lambda rows: torch.randn(len(rows), 3, SIZE, SIZE)))
    positions = (SIZE // 4) ** 2
    plain = 4 * positions * CHANNELS * (count + CHANNELS)
    print(
        f"PaDiM on {count:,} images: {padim.gaussians.num_bytes:,} bytes of means and factors; the process's peak grew by "
        f"{peak_bytes() - before:,}; embeddings and covariances are {plain:,}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=150)
    parser.add_argument("--test", type=int, default=60)
    # More, up to some 60, and anomalib's many middling allocations fragment glibc's heap by gigabytes.
    parser.add_argument(
        "--patchcore", type=int, default=8, help="training images that PatchCore is fitted to, at most 32"
    )
    parser.add_argument("--memory", type=int, default=1000, help="images that PaDiM's memory is measured on")
    parser.add_argument("--side", type=int, default=1024, help="of the images")
    options = parser.parse_args()
    torch.set_num_threads(1)
    memory(options.memory)  # First: a process's peak never falls.
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        root, cache, half = Path(folder) / "toy", Path(folder) / "cache", options.test // 2
        make_toy_factory(
            root,
            size=options.side,
            train=options.train,
            test_good=half,
            test_defect=options.test - half,
            classes=(CLASS,),
        )
        _, train, test, _ = opened(root, cache)
        fitted, scored = list(train), list(test)
        after_features("padim", fitted, scored, 3)
        theirs = seconds(lambda: their_run(root, Path(folder) / "anomalib"))
        report("padim, whole evaluation", theirs, seconds(lambda: our_run(root, cache)), 3)
        report("  ours in bf16", theirs, seconds(lambda: our_run(root, cache, amp=True, channels_last=True)), 3)
        after_features("patchcore", [fitted[0][: options.patchcore]], scored, 1)


if __name__ == "__main__":
    main()
