"""RD4AD: a student decodes a frozen teacher's feature maps from a bottleneck, and fails where the image is anomalous.

Deng and Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", arXiv 2201.10703. Facts from
hq-deng/RD4AD @ 6554076 (MIT).
The loss is the public code's: the cosine of whole flattened maps, where Equation 2 of the paper averages over positions.
Differs from it in:

- The teacher's maps of the training images are computed once, since they never change, and the teacher ends at its third
  stage, which changes no result.
- The last step is reported, and nothing is tested during training. Seeds are per class.
- Masks are resized to the nearest pixel, where it resizes bilinearly and cuts at a half. Whether an image is good is told by
  its folder, where it asks whether the resized mask is empty; so a tiny defect may become a good image there.
- AUPRO, which it computes in another way: see tabzoo/benchmark/metrics.py.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1, conv3x3

from tabzoo.compute import seeded
from tabzoo.detectors.batches import FrozenFeatures, check_finite, shuffled_batches
from tabzoo.detectors.extractor import FeatureExtractor
from tabzoo.detectors.interface import ImageBatches, Scores, setting
from tabzoo.detectors.maps import smooth_upsample
from tabzoo.errors import InputError

__all__ = ["Rd4ad", "Rd4adSettings", "Student", "distillation_loss"]

_BETAS = (0.5, 0.999)
_SIGMA = 4.0
Block: TypeAlias = BasicBlock | Bottleneck


@dataclass(frozen=True, kw_only=True)
class Rd4adSettings:
    """The reference's."""

    epochs: int = setting(200, "Passes over the images.", least=1)
    steps: int | None = setting(None, "Stop after N batches, even if passes are left.", least=1)
    batch_size: int = setting(16, "Images in a batch of the training.", least=1)
    lr: float = setting(0.005, "Learning rate (Adam).")


class Rd4ad:
    """Reverse distillation from any ResNet of timm.

    Args:
        extractor: The teacher; its layers are the ResNet's first three stages.
        seed: Of the student's weights and of the order of the images.
        settings: Of the training.

    Raises:
        InputError: The backbone is not a ResNet.
    """

    def __init__(self, extractor: FeatureExtractor, seed: int, settings: Rd4adSettings | None = None) -> None:
        self.extractor, self.seed, self.options = extractor, seed, settings or Rd4adSettings()
        self.settings: dict[str, object] = {"layers": list(extractor.layers), **asdict(self.options), "sigma": _SIGMA}
        self.student = self._new_student()

    def fit(self, images: ImageBatches) -> None:
        """Trains a new student.

        Raises:
            InputError: The list of images is empty.
        """
        if not len(images):
            raise InputError("RD4AD: no images to fit to")
        self.student, options = self._new_student(), self.options
        kept = FrozenFeatures(images, self._teach)
        # Fused: one kernel for all tensors, which matters with the twenty million parameters of even a small student.
        optimizer = torch.optim.Adam(self.student.parameters(), lr=options.lr, betas=_BETAS, fused=True)
        batches = shuffled_batches(
            len(images), options.batch_size, epochs=options.epochs, steps=options.steps, seed=self.seed, about="RD4AD"
        )
        for step, positions in enumerate(batches, start=1):
            taught = kept.take(positions)
            loss = distillation_loss(taught, self._decode(taught))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            check_finite(step, loss)
        self.student.eval()

    @torch.no_grad()
    def score(self, images: Tensor) -> Scores:
        """Maps M^k of the scales k (Equation 1), upsampled, summed (Equation 3) and smoothed; the score is the largest value.

        M^k(h, w) = 1 - cosine of the channels of teacher and student at (h, w),  S = sum_k upsampled M^k
        """
        taught, size = self._teach(images), (images.shape[2], images.shape[3])
        maps = images.new_zeros(len(images), *size)
        for theirs, ours in zip(taught, self._decode(taught), strict=True):
            scale = 1 - F.cosine_similarity(theirs, ours)  # M^k, [B, h, w]
            maps += smooth_upsample(scale, size, sigma=_SIGMA, align_corners=True)
        return Scores(maps.amax(dim=(1, 2)), maps)

    def _teach(self, images: Tensor) -> list[Tensor]:
        return list(self.extractor(images).values())

    def _decode(self, taught: Sequence[Tensor]) -> list[Tensor]:
        """The student's maps, float32, whatever it computes in."""
        amp, memory_format = self.extractor.amp, self.extractor.memory_format
        with torch.autocast(taught[0].device.type, dtype=torch.bfloat16, enabled=amp):
            decoded = self.student([layer.contiguous(memory_format=memory_format) for layer in taught])
        return [layer.float() for layer in decoded]

    def _new_student(self) -> "Student":
        stages: list[Any] = [getattr(self.extractor.body, name, None) for name in self.extractor.layers]
        first: Any = stages[0][0] if isinstance(stages[0], nn.Sequential) else None
        block = Bottleneck if hasattr(first, "conv3") else BasicBlock
        widths = [planes * block.expansion for planes in (64, 128, 256)]
        plain = all(isinstance(getattr(first, name, None), nn.Conv2d) for name in ("conv1", "conv2"))
        if not plain or list(self.extractor.channels.values()) != widths:
            raise InputError(
                "--method rd4ad: its student mirrors a ResNet, and this backbone is not one. Choose resnet18, "
                "resnet34, resnet50, wide_resnet50_2 or another ResNet."
            )
        with seeded(self.seed):
            student = Student(
                block,
                [len(stage) for stage in stages],
                width=first.conv1.out_channels,
                groups=first.conv2.groups,
            )
        return student.to(memory_format=self.extractor.memory_format).to(self.extractor.device)


def distillation_loss(taught: Sequence[Tensor], decoded: Sequence[Tensor]) -> Tensor:
    """1 - cosine of flattened maps [B, C, h, w], mean over the images, summed over the scales k.

    L = sum_k mean over images of (1 - cos(flatten(E^k), flatten(D^k))), teacher E and student D
    """
    pairs = zip(taught, decoded, strict=True)
    return torch.stack([1 - F.cosine_similarity(a.flatten(1), b.flatten(1)).mean() for a, b in pairs]).sum()


class Student(nn.Module):
    """One-class bottleneck embedding and a decoder that mirrors the teacher (Sections 3.2 and 3.3 of the paper).

    Args:
        block: The teacher's residual block.
        depths: Blocks in each stage of the teacher.
        width: Channels inside the blocks of the first stage; 128 for Wide ResNet-50.
        groups: Of the 3 x 3 convolutions of bottleneck blocks.
    """

    def __init__(self, block: type[Block], depths: list[int], *, width: int = 64, groups: int = 1) -> None:
        super().__init__()
        fine, middle, coarse, embedded = (planes * block.expansion for planes in (64, 128, 256, 512))
        inner: dict[str, int] = {} if block is BasicBlock else {"groups": groups, "base_width": width // groups}
        self.fine = nn.Sequential(*_halve(fine, middle), *_halve(middle, coarse))
        self.middle = nn.Sequential(*_halve(middle, coarse))
        halving = nn.Sequential(conv1x1(3 * coarse, embedded, 2), nn.BatchNorm2d(embedded))
        # As many blocks as the teacher's first stage: two for ResNet-18, three for the larger ones.
        blocks = [block(3 * coarse, 512, 2, halving, **inner)]
        self.embed = nn.Sequential(*blocks, *(block(embedded, 512, **inner) for _ in range(depths[0] - 1)))
        self.decode = nn.ModuleList()
        for planes, above, depth in zip((256, 128, 64), (embedded, coarse, middle), depths, strict=True):
            own = planes * block.expansion
            doubling = nn.Sequential(_double(above, own), nn.BatchNorm2d(own))
            first = _upsampling(block(above, planes, downsample=doubling, **inner))
            self.decode.append(nn.Sequential(first, *(block(own, planes, **inner) for _ in range(depth - 1))))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, taught: list[Tensor]) -> list[Tensor]:
        """Maps [B, C, h, w] of the teacher's three stages to the student's of the same shapes."""
        fine, middle, coarse = taught
        decoded = self.embed(torch.cat([self.fine(fine), self.middle(middle), coarse], dim=1))
        outputs = []
        for stage in self.decode:
            decoded = stage(decoded)
            outputs.append(decoded)
        return outputs[::-1]


def _halve(channels: int, out: int) -> tuple[nn.Module, ...]:
    return conv3x3(channels, out, 2), nn.BatchNorm2d(out), nn.ReLU(inplace=True)


def _double(channels: int, out: int, groups: int = 1) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels, out, 2, stride=2, bias=False, groups=groups)


def _upsampling(block: Block) -> Block:
    """A block whose first 3 x 3 convolution is replaced by one that doubles the side of the map."""
    name = "conv2" if isinstance(block, Bottleneck) else "conv1"
    replaced = getattr(block, name)
    setattr(block, name, _double(replaced.in_channels, replaced.out_channels, replaced.groups))
    return block
