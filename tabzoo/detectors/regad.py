"""RegAD: a network learns on other classes to register images of one class; PaDiM's Gaussians of a few images score.

Huang et al., "Registration based Few-Shot Anomaly Detection", arXiv 2207.07361. Facts from MediaBrain-SJTU/RegAD @ 5e2c1f8
(MIT).
Differs from it in: the last epoch is reported, not the best one on the test images; everything is drawn from the seed,
support images too, and saved with the row; images are squashed to a square as for all detectors here; other classes with too
few good images for a query and `shots` support images are left out; rotations by 90 degrees are exact, not interpolated. With
`steps`, the cosine schedule decreases at every step and ends at the last one. What no score needs is not computed (the
loss of the Siamese heads at test time), maps are not scaled over the test set, and covariances of few views are never
formed: no ranking changes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tabzoo.compute import seeded
from tabzoo.detectors.batches import check_finite, each_batch, with_progress
from tabzoo.detectors.extractor import FeatureExtractor
from tabzoo.detectors.gaussians import FewImageGaussians, PyramidGaussians
from tabzoo.detectors.interface import ImageBatches, Scores, setting
from tabzoo.detectors.maps import smooth_upsample
from tabzoo.detectors.regad_network import Registration, SiameseHeads, registration_loss
from tabzoo.detectors.regad_views import VIEWS, support_views
from tabzoo.errors import InputError

__all__ = ["Episode", "Regad", "RegadSettings", "episodes", "learning_rate"]

_MOMENTUM = 0.9
_SIGMA = 4.0
_AT_A_TIME = 32


@dataclass(frozen=True, kw_only=True)
class RegadSettings:
    """The reference's."""

    epochs: int = setting(50, "Passes over the images of the other classes.", least=1)
    steps: int | None = setting(None, "Stop after N batches, even if passes are left.", least=1)
    batch_size: int = setting(32, "Query images in a batch of the training; each has its own support images.", least=1)
    lr: float = setting(0.0001, "Initial learning rate (SGD); it falls to 0 along a cosine.")
    draws: int = setting(10, "Number of draws of support images; metrics are averages over them.", least=1)
    regularisation: float = setting(0.01, "Number added to the diagonal of the covariances.", least=1e-6)


class Episode(NamedTuple):
    """Images of one class, by position: queries [B], and the support images of each, [B, K]."""

    class_id: int
    queries: Tensor
    supports: Tensor


class Regad:
    """RegAD on a backbone of timm whose stages follow one another.

    Args:
        extractor: What training starts from; its layers from fine to coarse.
        seed: Of new weights and of the episodes.
        settings: Of training and Gaussians.

    Attributes:
        draws: How many sets of support images to fit to and test with.
    """

    def __init__(self, extractor: FeatureExtractor, seed: int, settings: RegadSettings | None = None) -> None:
        self.extractor, self.seed, self.options = extractor, seed, settings or RegadSettings()
        self.draws = self.options.draws
        self.settings: dict[str, object] = {
            "layers": list(extractor.layers),
            **asdict(self.options),
            "momentum": _MOMENTUM,
            "sigma": _SIGMA,
            "trained_on": "the other classes of --data",
        }
        self.network: Registration | None = None
        self.gaussians: FewImageGaussians | PyramidGaussians = FewImageGaussians(self.options.regularisation)

    def meta_train(self, others: Sequence[ImageBatches], shots: int) -> None:
        """Trains a new network on other classes, starting from the extractor's weights.

        Args:
            others: Good images of each other class, more than one.
            shots: Support images of a query.
        """
        options = self.options
        self.network, heads = self._new_network(others[0].take(torch.arange(1)))
        self.network.train()
        parameters = [*self.network.parameters(), *heads.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=options.lr, momentum=_MOMENTUM)
        generator = torch.Generator().manual_seed(self.seed)
        counts = [len(images) for images in others]
        per_epoch = sum(-(-count // options.batch_size) for count in counts)
        every = (
            episode for _ in range(options.epochs) for episode in episodes(counts, shots, options.batch_size, generator)
        )
        batches = with_progress(every, options.epochs * per_epoch, steps=options.steps, about="RegAD")
        for step, episode in enumerate(batches, start=1):
            optimizer.param_groups[0]["lr"] = learning_rate(options, step - 1, per_epoch)
            loss = self._loss(self.network, heads, episode, others[episode.class_id])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            check_finite(step, loss)
        self.network.eval()

    def fit(self, images: ImageBatches) -> None:
        """Fits a Gaussian at each position to the views of the support images, as PaDiM does to training images."""
        if not len(images):
            raise InputError("RegAD: no images to fit to")
        # Up to about here this form is the faster one; its time and memory grow with the square of the number of views.
        few = 2 * VIEWS * len(images) < sum(self.extractor.channels.values())
        self.gaussians = (FewImageGaussians if few else PyramidGaussians)(self.options.regularisation)
        for batch in each_batch(images, "features"):
            for part in support_views(batch).split(_AT_A_TIME):
                self.gaussians.update(self.embed(part))
        self.gaussians.factorise()

    def embed(self, images: Tensor) -> list[Tensor]:
        """Maps aligned with the images [B, 3, H, W], that is with all warps undone; coarse to fine, float32."""
        if self.network is None:
            raise RuntimeError("RegAD: call meta_train first")
        with self._autocast(images):
            return self.network.unwarped(images.contiguous(memory_format=self.extractor.memory_format))[::-1]

    def score_maps(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Scores:
        """Mahalanobis distances, upsampled and smoothed; an image's score is the largest value of its map."""
        smooth = smooth_upsample(self.gaussians.mahalanobis(maps), size, sigma=_SIGMA)
        return Scores(smooth.amax(dim=(1, 2)), smooth)

    def score(self, images: Tensor) -> Scores:
        """Scores of the maps of images."""
        return self.score_maps(self.embed(images), (images.shape[2], images.shape[3]))

    def _loss(self, network: Registration, heads: SiameseHeads, episode: Episode, images: ImageBatches) -> Tensor:
        """The registration loss between each query and the mean feature map of its support images."""
        queries, supports = images.take(episode.queries), images.take(episode.supports.flatten())
        with self._autocast(queries):
            query, support = (
                network(part.contiguous(memory_format=self.extractor.memory_format)) for part in (queries, supports)
            )
            mean = support.unflatten(0, episode.supports.shape).mean(dim=1)
            return registration_loss(heads(query), heads(mean))

    def _autocast(self, images: Tensor) -> torch.autocast:
        return torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.extractor.amp)

    def _new_network(self, images: Tensor) -> tuple[Registration, SiameseHeads]:
        maps = list(self.extractor(images).values())
        with seeded(self.seed):
            network = Registration(self.extractor, [(one.shape[2], one.shape[3]) for one in maps])
            heads = SiameseHeads(maps[-1].shape[1])
        device, memory_format = images.device, self.extractor.memory_format
        return network.to(memory_format=memory_format).to(device), heads.to(memory_format=memory_format).to(device)


def episodes(counts: Sequence[int], shots: int, batch_size: int, generator: torch.Generator) -> Iterator[Episode]:
    """One epoch: every image is a query once, batches are of one class, and all batches come in a random order.

    Args:
        counts: Number of images of each class, at least two.
        shots: Support images of a query: any images of its class except itself, drawn with replacement.
        batch_size: Queries at a time.
        generator: Of everything that is drawn.
    """
    batches = []
    for class_id, count in enumerate(counts):
        for queries in torch.randperm(count, generator=generator).split(batch_size):
            drawn = torch.randint(count - 1, (len(queries), shots), generator=generator)
            batches.append(Episode(class_id, queries, drawn + (drawn >= queries[:, None])))  # skips the query itself
    return (batches[i] for i in torch.randperm(len(batches), generator=generator).tolist())


def learning_rate(settings: RegadSettings, step: int, per_epoch: int) -> float:
    """Half a cosine over the epochs, or over the steps if these end first; the first epoch (step) is already decreased once.

    Args:
        settings: Of the training.
        step: Steps done.
        per_epoch: Steps in an epoch.
    """
    by_steps = settings.steps is not None and settings.steps < settings.epochs * per_epoch
    done = (step + 1) / settings.steps if by_steps and settings.steps else (1 + step // per_epoch) / settings.epochs
    return settings.lr * 0.5 * (1 + math.cos(math.pi * done))
