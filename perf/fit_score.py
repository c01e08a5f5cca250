"""From photos to verdicts against anomalib, as ratios of one run, and how long one photo takes.

    pip install -e ".[benchmark]" "anomalib==2.7.*"
    python perf/fit_score.py [--method padim patchcore] [--train 150] [--test 60] [--size 224] [--side 512] [--rounds 3]

Both sides begin with photo files: generated PNG, a ResNet-18 with random weights, the method's settings of its authors, one
thread. Ours is `tabzoo fit`, with a new cache of photos and the out-of-fold scores for the threshold; then the folder is
loaded and scores the photos one by one, as `tabzoo score` does. anomalib's is `Engine.fit` without validation, so without a
threshold, and `Engine.predict` in batches of 32. Rounds of both take turns. Times are CPU seconds: other work on the machine
matters less than to the clock on the wall.

"Latency" is the time on the wall from a photo's file to its score and map in a detector that is loaded: median and 95th
percentile; with onnxruntime, where it and the export are there, that of the exported graph.
"""

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from benchmark import seconds

from tabzoo.data.toy import make_toy_factory
from tabzoo.inspect.detector import load_detector
from tabzoo.inspect.fit import fit_detector
from tabzoo.inspect.options import FitOptions

CLASS, BATCH, GOALS = "hex_nut", 32, {"padim": 2, "patchcore": 5}


def our_fit(method: str, root: Path, folder: Path, size: int, amp: str = "off") -> None:
    fit_detector(
        FitOptions(
            data=str(root),
            backbone="random",
            method=method,  # type: ignore[arg-type]
            size=size,
            amp=amp,  # type: ignore[arg-type]
            output=folder / "detector",
            cache_dir=str(folder / "cache"),
            workers=0,
            device="cpu",
        )
    )


def our_scores(folder: Path, photos: list[Path]) -> None:
    detector = load_detector(folder / "detector", device="cpu")
    for photo in photos:
        detector(photo)


class Theirs:
    """anomalib's model and engine."""

    def __init__(self, method: str, root: Path, folder: Path, size: int) -> None:
        from anomalib.data import Folder
        from anomalib.engine import Engine
        from anomalib.models import Padim, Patchcore

        kind = Padim if method == "padim" else Patchcore
        options = {"n_features": 100} if method == "padim" else {}
        processor = kind.configure_pre_processor(image_size=(size, size))
        self.model = kind(
            backbone="resnet18",
            pre_trained=False,
            pre_processor=processor,
            visualizer=False,
            evaluator=False,
            **options,
        )
        self.data = Folder(
            name=CLASS,
            root=root / CLASS,
            normal_dir="train/good",
            test_split_mode="none",
            val_split_mode="none",
            train_batch_size=BATCH,
            num_workers=0,
        )
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        self.engine = Engine(accelerator="cpu", devices=1, default_root_dir=folder, **quiet)

    def fit(self) -> None:
        """Fits to the good photos."""
        self.data.setup()
        self.engine.fit(self.model, train_dataloaders=self.data.train_dataloader())

    def score(self, folder: Path) -> None:
        """Scores all photos of a folder."""
        from anomalib.data import PredictDataset
        from torch.utils.data import DataLoader

        photos = PredictDataset(path=folder)
        loader = DataLoader(photos, batch_size=BATCH, collate_fn=photos.collate_fn)
        self.engine.predict(self.model, dataloaders=loader)


def compare(method: str, root: Path, photos: list[Path], options: argparse.Namespace) -> Path:
    """Prints the times of each round; returns the folder of our detector of the last one."""
    ratios: list[float] = []
    for number in range(options.rounds):
        folder = Path(tempfile.mkdtemp(dir=root.parent))
        ours = [
            seconds(lambda into=folder: our_fit(method, root, into, options.size, options.amp)),  # type: ignore[misc]
            seconds(lambda of=folder: our_scores(of, photos)),  # type: ignore[misc]
        ]
        if options.alone:
            print(f"{method:10} ours: fit {ours[0]:.2f} s, score {ours[1]:.2f} s", flush=True)
            continue
        other = Theirs(method, root, folder / "anomalib", options.size)
        theirs = [seconds(other.fit), seconds(lambda of=other: of.score(photos[0].parent))]  # type: ignore[misc]
        ratios.append(sum(theirs) / sum(ours))
        print(
            f"{method:10} round {number + 1}: anomalib fit {theirs[0]:7.2f} s, score {theirs[1]:6.2f} s; "
            f"ours {ours[0]:6.2f} s, {ours[1]:5.2f} s: {ratios[-1]:.1f}x (goal {GOALS[method]}x)",
            flush=True,
        )
    if ratios:
        print(f"{method:10} fit and score: {median(ratios):.1f}x ({min(ratios):.1f} to {max(ratios):.1f})", flush=True)
    return folder / "detector"


def in_onnxruntime(folder: Path) -> Callable[[np.ndarray], object] | None:
    """Runs the exported graph on a prepared photo, on one thread; None where onnxruntime or the export is missing."""
    try:
        import onnxruntime

        from tabzoo.inspect.export.command import Export
    except ImportError:
        return None
    Export(source=str(folder), output=folder.parent / "detector.onnx").run()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder.parent / "detector.onnx", options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})


def latency(method: str, folder: Path, photos: list[Path]) -> None:
    """Prints how long one photo takes."""
    detector = load_detector(folder, device="cpu")
    run = in_onnxruntime(folder)
    calls: dict[str, Callable[[Path], object]] = {
        "torch": detector,
        "torch, without reading the file": lambda photo: detector.score_prepared(
            torch.from_numpy(prepared[photo][None])
        ),
    }
    if run is not None:
        calls["onnxruntime"] = lambda photo: run(detector.prepare(photo)[None])
        calls["onnxruntime, without reading the file"] = lambda photo: run(prepared[photo][None])
    prepared = {photo: detector.prepare(photo) for photo in photos}
    took: dict[str, list[float]] = {what: [] for what in calls}
    for photo in [*photos[:3], *photos]:  # the first three warm up
        for what, call in calls.items():
            start = time.perf_counter()
            call(photo)
            took[what].append(1000 * (time.perf_counter() - start))
    for what, times in ((what, times[3:]) for what, times in took.items()):
        print(
            f"{method:10} one photo, {what}: {median(times):.1f} ms (95 %: {np.quantile(times, 0.95):.1f})", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", nargs="+", choices=list(GOALS), default=list(GOALS))
    parser.add_argument("--train", type=int, default=150)
    parser.add_argument("--test", type=int, default=60)
    parser.add_argument("--size", type=int, default=224, help="side of the photos as the detectors see them")
    parser.add_argument("--side", type=int, default=512, help="side of the photos")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--amp", choices=["off", "bf16", "auto"], default="off", help="how ours computes the backbone")
    parser.add_argument("--alone", action="store_true", help="only ours, without anomalib")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        drawn = {"size": options.side, "test_good": 1, "test_defect": 1, "classes": (CLASS,)}
        root = make_toy_factory(Path(folder) / "toy", train=options.train, **drawn)
        other = make_toy_factory(Path(folder) / "others", train=options.test, seed=1, **drawn)
        photos = sorted((other / CLASS / "train" / "good").iterdir())
        for method in options.method:
            latency(method, compare(method, root, photos, options), photos)


if __name__ == "__main__":
    main()
