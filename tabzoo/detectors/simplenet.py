"""SimpleNet: a discriminator learns to tell features of normal images from the same features with Gaussian noise.

Liu et al., "SimpleNet: A Simple Network for Image Anomaly Detection and Localization", arXiv 2303.15140. Facts from
DonaldRR/SimpleNet @ 351a2b8 (MIT), with the settings for MVTec AD of its `run.sh`; the paper has others.
The embedding is as wide as the layers together: 1,536 for Wide ResNet-50, as in that code, and 384 for ResNet-18, which it
does not mention; the discriminator's hidden layer is 1,024 wide with both.
Differs from it in:

- The last step is reported, where it keeps the meta-epoch that is best on the test images (`--oracle` reports that, too).
- Images are squashed to 329 px, where it scales the shorter side. Both crop to 288 px from row and column 20.
- Embeddings of the training images are computed once, since they never change, and channels are pooled before the coarser
  layer is upsampled, which commutes.
- Maps are not min-max scaled, which changes no ranking.
- Masks are resized to the nearest pixel, where it resizes bilinearly and counts only pixels that are fully white; its thin
  defects have a fifth fewer pixels.
- AUPRO, which it computes in another way, and prints as `anomaly_pixel_auroc`: see tabzoo/benchmark/metrics.py.
- Adaptor and discriminator compute in float32 even where the backbone computes in bfloat16, which would round the noise away.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabzoo.compute import seeded
from tabzoo.detectors.batches import FrozenFeatures, check_finite, shuffled_batches
from tabzoo.detectors.extractor import FeatureExtractor
from tabzoo.detectors.interface import ImageBatches, Scores, setting
from tabzoo.detectors.maps import smooth_upsample
from tabzoo.detectors.patches import WIDEST, embed
from tabzoo.errors import InputError

__all__ = ["Simplenet", "SimplenetSettings", "margin_loss", "with_noise"]

_ADAPTOR_DECAY, _DISCRIMINATOR_DECAY = 0.01, 1e-5
_SLOPE = 0.2
_SIGMA = 4.0


@dataclass(frozen=True, kw_only=True)
class SimplenetSettings:
    """The reference's."""

    meta_epochs: int = setting(40, "Meta-epochs; each has --simplenet-gan-epochs passes over the images.", least=1)
    gan_epochs: int = setting(4, "Passes over the images in a meta-epoch, after which the public code tests.", least=1)
    steps: int | None = setting(None, "Stop after N batches, even if passes are left.", least=1)
    batch_size: int = setting(8, "Images in a batch of the training.", least=1)
    noise: float = setting(0.015, "Standard deviation of the noise that makes features abnormal.")
    margin: float = setting(0.5, "Margin of the loss: scores beyond it add nothing.")
    adaptor_lr: float = setting(1e-4, "Learning rate of the adaptor (AdamW).")
    discriminator_lr: float = setting(2e-4, "Learning rate of the discriminator (Adam).")
    width: int | None = setting(
        None, "Length of a patch's embedding. If not given: the layers' channels together.", least=1, most=WIDEST
    )
    hidden: int = setting(1024, "Width of the discriminator's hidden layer.", least=1)


class Simplenet:
    """SimpleNet on any CNN.

    Args:
        extractor: Its layers from fine to coarse.
        seed: Of new weights, of the order of the images and of the noise.
        settings: Of the networks and their training.
    """

    def __init__(self, extractor: FeatureExtractor, seed: int, settings: SimplenetSettings | None = None) -> None:
        self.extractor, self.seed, self.options = extractor, seed, settings or SimplenetSettings()
        self.width = self.options.width or sum(extractor.channels.values())
        self.settings: dict[str, object] = {
            "layers": list(extractor.layers),
            **asdict(self.options),
            "width": self.width,
            "sigma": _SIGMA,
        }
        self.adaptor, self.discriminator = self._new_networks()

    def fit(self, images: ImageBatches, after_meta_epoch: Callable[[], None] | None = None) -> None:
        """Trains a new adaptor and a new discriminator.

        Args:
            images: Normal images.
            after_meta_epoch: Called after each meta-epoch and at the end; `score` may be called in it.

        Raises:
            InputError: The list of images is empty.
        """
        if not len(images):
            raise InputError("SimpleNet: no images to fit to")
        (self.adaptor, self.discriminator), options = self._new_networks(), self.options
        kept = FrozenFeatures(images, lambda batch: [self._embed(batch)])
        optimizers = self._optimizers()
        generator = torch.Generator(self.extractor.device).manual_seed(self.seed)
        epochs = options.meta_epochs * options.gan_epochs
        batches = shuffled_batches(
            len(images), options.batch_size, epochs=epochs, steps=options.steps, seed=self.seed, about="SimpleNet"
        )
        of_meta_epoch = options.gan_epochs * -(-len(images) // options.batch_size)
        for step, positions in enumerate(batches, start=1):
            loss = self._loss(kept.take(positions)[0].flatten(0, 2), generator)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            check_finite(step, loss)
            if after_meta_epoch and step % of_meta_epoch == 0:
                self._evaluating(after_meta_epoch)
        if after_meta_epoch and step % of_meta_epoch:  # The last step was in the middle of a meta-epoch.
            self._evaluating(after_meta_epoch)
        self.discriminator.eval()

    @torch.no_grad()
    def score(self, images: Tensor) -> Scores:
        """s(h, w) = -D(G(o(h, w))) for the embedding o of each patch; an image's score is the largest, before smoothing."""
        patches = self._embed(images)
        grid = -self.discriminator(self.adaptor(patches.flatten(0, 2))).view(patches.shape[:3])
        return Scores(grid.amax(dim=(1, 2)), smooth_upsample(grid, (images.shape[2], images.shape[3]), sigma=_SIGMA))

    def _embed(self, images: Tensor) -> Tensor:
        return embed(list(self.extractor(images).values()), self.width)

    def _loss(self, patches: Tensor, generator: torch.Generator) -> Tensor:
        """Adaptor G, anomalous features by noise, discriminator D: q = G(o), q- = q + noise, loss of D(q) and D(q-)."""
        normal = self.adaptor(patches)
        anomalous = with_noise(normal, self.options.noise, generator)
        scores = self.discriminator(torch.cat([normal, anomalous]))  # At once: batch-norm sees both as one batch.
        return margin_loss(scores[: len(normal)], scores[len(normal) :], self.options.margin)

    def _optimizers(self) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        rates = self.options.adaptor_lr, self.options.discriminator_lr
        adaptor, discriminator = self.adaptor.parameters(), self.discriminator.parameters()
        return (
            torch.optim.AdamW(adaptor, lr=rates[0], weight_decay=_ADAPTOR_DECAY, fused=True),
            torch.optim.Adam(discriminator, lr=rates[1], weight_decay=_DISCRIMINATOR_DECAY, fused=True),
        )

    def _evaluating(self, call: Callable[[], None]) -> None:
        self.discriminator.eval()
        call()
        self.discriminator.train()

    def _new_networks(self) -> tuple[nn.Linear, nn.Sequential]:
        """Linear adaptor and discriminator."""
        width, hidden = self.width, self.options.hidden
        with seeded(self.seed):
            adaptor = nn.Linear(width, width)
            layers = nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.LeakyReLU(_SLOPE)
            discriminator = nn.Sequential(*layers, nn.Linear(hidden, 1, bias=False))
            for module in (adaptor, *discriminator):
                if isinstance(module, nn.Linear):
                    nn.init.xavier_normal_(module.weight)
        return adaptor.to(self.extractor.device), discriminator.to(self.extractor.device)


def with_noise(features: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Anomalous features: normal ones plus independent Gaussian noise on each number."""
    return features + std * torch.randn(features.shape, generator=generator, device=features.device)


def margin_loss(normal: Tensor, anomalous: Tensor, margin: float) -> Tensor:
    """The truncated L1 loss, mean of max(0, th - D(q)) + mean of max(0, th + D(q-)), with `margin` th.

    Args:
        normal: Scores D(q) of normal patches, to be above `margin`.
        anomalous: Scores D(q-) of patches with noise, to be below `-margin`.
        margin: Beyond it, a score adds nothing.
    """
    return F.relu(margin - normal).mean() + F.relu(margin + anomalous).mean()
