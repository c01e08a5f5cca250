"""Training steps of RD4AD and SimpleNet against anomalib's, and RegAD's scoring against a plain loop, as ratios of one run.

    pip install -e ".[benchmark]" anomalib
    python perf/detectors.py [--methods rd4ad] [--steps 3] [--rounds 3] [--every 4] [--shots 4 8]

Random ResNet-18 weights and generated images; the same images and batches on both sides. Ours is timed inside `fit`, where
features of the training images are kept: "step" is one more step of a fit, "with its share of features" adds computing them
once, spread over the epochs of the authors' budgets. Theirs is the torch module with loss and optimizer of its Lightning class.
Supersimplenet is another method: its grid has four times as many patches, and a second head.

RegAD's Gaussians are those of 4 and of 8 supports in 22 views, on made-up maps of ResNet-18 at 224 px. The plain loop goes over
positions, as the public code does: covariance, inverse, distances; each position's images at once, where that code loops
over them, too. It is run at every n-th position and its time is multiplied by n.
"""

import argparse
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from benchmark import seconds
from torch import Tensor

from tabzoo.detectors import DETECTORS
from tabzoo.detectors.extractor import build_extractor
from tabzoo.detectors.gaussians import FewImageGaussians, PyramidGaussians
from tabzoo.detectors.regad_views import VIEWS

BATCHES = 2  # in an epoch
QUERIES, AT_A_TIME = 60, 22
CHANNELS_AND_SIDES = ((256, 14), (128, 28), (64, 56))


class Pictures:
    """Images in memory."""

    def __init__(self, images: Tensor, batch_size: int) -> None:
        self.images, self.batch_size = images, batch_size

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.images.split(self.batch_size))

    def take(self, positions: Tensor) -> Tensor:
        """Some of them."""
        return self.images[positions]


def report(what: str, theirs: float, ours: float, goal: float) -> None:
    print(f"{what:58} theirs {theirs:7.2f} s, ours {ours:6.2f} s: {theirs / ours:5.1f}x (goal {goal:g}x)", flush=True)


def their_rd4ad(side: int) -> Callable[[Tensor], None]:
    """A training step on a batch."""
    from anomalib.models.image.reverse_distillation.loss import ReverseDistillationLoss
    from anomalib.models.image.reverse_distillation.torch_model import ReverseDistillationModel

    layers = ["layer1", "layer2", "layer3"]
    model: Any = ReverseDistillationModel("resnet18", (side, side), layers, "add", pre_trained=False)
    loss = ReverseDistillationLoss()
    trained = [*model.decoder.parameters(), *model.bottleneck.parameters()]
    optimizer = torch.optim.Adam(trained, lr=0.005, betas=(0.5, 0.99))
    model.train()
    return lambda images: update(optimizer, loss(*model(images)))


def their_simplenet(side: int) -> Callable[[Tensor], None]:
    """A training step on a batch."""
    from anomalib.models.image.supersimplenet import torch_model
    from anomalib.models.image.supersimplenet.loss import SSNLoss

    given: Any = torch_model.TimmFeatureExtractor
    torch_model.TimmFeatureExtractor = partial(given, pre_trained=False)
    model: Any = torch_model.SupersimplenetModel(backbone="resnet18")
    torch_model.TimmFeatureExtractor = given
    loss = SSNLoss()
    optimizer = torch.optim.AdamW(
        [
            {"params": model.adaptor.parameters(), "lr": 0.0001},
            {"params": model.segdec.parameters(), "lr": 0.0002, "weight_decay": 0.00001},
        ]
    )
    model.train()

    def step(images: Tensor) -> None:
        anomaly_map, score, masks, labels = model(
            images, masks=torch.zeros(len(images), side, side), labels=torch.zeros(len(images))
        )
        update(optimizer, loss(pred_map=anomaly_map, pred_score=score, target_mask=masks, target_label=labels))

    return step


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def training(
    name: str, epochs: int, theirs: Callable[[int], Callable[[Tensor], None]], steps: int, rounds: int
) -> None:
    spec = DETECTORS[name]
    batch_size = spec.settings().batch_size
    images = torch.randn(BATCHES * batch_size, 3, spec.crop, spec.crop, generator=torch.Generator().manual_seed(0))
    pictures, batches = Pictures(images, batch_size), images.split(batch_size)
    extractor, their_step = build_extractor("random", layers=spec.layers), theirs(spec.crop)
    their_step(batches[0])

    def fit(count: int) -> float:
        method = spec.build(extractor, 0, spec.settings(steps=count))
        return seconds(lambda: method.fit(pictures))

    times: list[tuple[float, float, float]] = []
    for _ in range(rounds):
        first, more = fit(1), fit(1 + steps)
        step = (more - first) / steps
        features = (first - step) / BATCHES  # also new weights
        given = seconds(lambda: [their_step(batches[i % BATCHES]) for i in range(steps)])
        times.append((given / steps, step, features))
    given, step, features = map(median, zip(*times, strict=True))
    what = f"{name}, step of {batch_size} images of {spec.crop} px"
    report(what, given, step, 1)
    report(f"  with its share of features, {epochs} epochs", given, step + features / epochs, 1)
    report("  as if features were computed each time", given, step + features, 1)


def plain_loop(supports: Tensor, queries: Tensor, positions: range) -> list[Tensor]:
    """Distances at some positions of maps [N, C, P]."""
    distances = []
    for position in positions:
        here = supports[:, :, position]
        inverse = torch.linalg.inv(torch.cov(here.T) + 0.01 * torch.eye(here.shape[1]))
        difference = queries[:, :, position] - here.mean(0)
        distances.append(((difference @ inverse) * difference).sum(1).sqrt())
    return distances


def scoring(every: int, shots: int) -> None:
    generator = torch.Generator().manual_seed(0)

    def maps(count: int) -> list[Tensor]:
        return [torch.rand(count, c, side, side, generator=generator) for c, side in CHANNELS_AND_SIDES]

    supports, queries = maps(VIEWS * shots), maps(QUERIES)
    side = CHANNELS_AND_SIDES[-1][1]
    positions, expected = range(0, side * side, every), []
    flat = [
        torch.cat([F.interpolate(level, size=side) for level in given], dim=1).flatten(2)
        for given in (supports, queries)
    ]
    theirs = every * seconds(lambda: expected.append(plain_loop(*flat, positions)))
    exact = torch.stack(expected[0], dim=1)
    covered = "all positions" if every == 1 else f"every {every}th position, scaled"
    print(f"RegAD, {shots} shots in {VIEWS} views, {QUERIES} images; plain loop over {covered}", flush=True)
    for gaussians in (FewImageGaussians(0.01), PyramidGaussians(0.01)):
        fit, score, found = seconds_of(gaussians, supports, queries)
        report(f"  {type(gaussians).__name__}", theirs, fit + score, 10)
        error = ((found.flatten(1)[:, list(positions)] - exact).abs() / exact).max()
        print(
            f"    fit {fit:.2f} s, distances {score:.2f} s; {gaussians.num_bytes:,} bytes; largest relative difference of a "
            f"distance {float(error):.1e}",
            flush=True,
        )


def seconds_of(
    gaussians: FewImageGaussians | PyramidGaussians, supports: list[Tensor], queries: list[Tensor]
) -> tuple[float, float, Tensor]:
    """Of the fit and of the distances, and the distances."""

    def fit() -> None:
        for parts in zip(*(level.split(AT_A_TIME) for level in supports), strict=True):
            gaussians.update(parts)
        gaussians.factorise()

    found: list[Tensor] = []
    return seconds(fit), seconds(lambda: found.append(gaussians.mahalanobis(queries))), found[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=("regad", "simplenet", "rd4ad"), help="only these")
    parser.add_argument("--steps", type=int, default=3, help="timed in each round")
    parser.add_argument("--rounds", type=int, default=3, help="of ours and theirs in turn; medians are printed")
    parser.add_argument("--every", type=int, default=4, help="positions that the plain loop goes on by")
    parser.add_argument("--shots", type=int, nargs="+", default=[4, 8], help="supports of RegAD")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    parts = {
        "regad": lambda: [scoring(options.every, shots) for shots in options.shots],
        "simplenet": lambda: training("simplenet", 40 * 4, their_simplenet, options.steps, options.rounds),
        "rd4ad": lambda: training("rd4ad", 200, their_rd4ad, options.steps, options.rounds),
    }
    for name in options.methods or parts:
        parts[name]()


if __name__ == "__main__":
    main()
