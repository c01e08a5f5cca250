"""FID between synthetic anomalies and real defects: which synthesis is most like real defects (the paper's Table 1).

For each class, real images are its test images with a defect; synthetic ones are one anomaly of each good training image.
"pooled" is the distance between all real and all synthetic images of the classes that have defects.

The distance and the Inception network are torchmetrics'. With fewer images than features, as in most classes, FID is biased
upwards and covariances are singular: compare syntheses on the same images, not numbers of different folders.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from tabzoo.backbones import cached_weights, embedding_width
from tabzoo.compute import deterministic, seeded
from tabzoo.data.cache import CacheMode, Images, open_images
from tabzoo.data.images import centre_crop
from tabzoo.data.samples import TEST, Samples
from tabzoo.detectors.extractor import is_random, timm_name, unavailable
from tabzoo.errors import InputError, WeightsError
from tabzoo.extras import how_to_install
from tabzoo.progress import Progress
from tabzoo.synthesis import make_synthesis
from tabzoo.synthesis.pairs import PairMaker

__all__ = [
    "INCEPTION",
    "PAPER",
    "POOLED",
    "Distance",
    "Extractor",
    "Preparation",
    "embedding_network",
    "embeddings",
    "frechet_distance",
    "measure",
    "open_prepared",
]

INCEPTION = "inception"
"""The default extractor: Inception v3 as FID defines it, 2048 features."""
POOLED = "pooled"
PAPER = {"mask": 120.10, "perlin": 98.36, "cutpaste": 76.49, "nsa": 64.00}
"""The paper's Table 1; it does not state which images were used nor how it averages."""

Extractor = Callable[[Tensor], Tensor]
"""uint8 [B, 3, H, W] -> features [B, D]."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How images are prepared, and from which seed anomalies and random weights are drawn.

    Attributes:
        resize: Side that images are squashed to, in pixels.
        crop: Side of the centre crop, in pixels.
        seed: Of the anomalies, and of the weights of "random".
        white_level: As for `open_images`, and so are the others.
    """

    resize: int = 256
    crop: int = 224
    seed: int = 0
    white_level: float | None = None
    cache: CacheMode = "disk"
    cache_dir: str | None = None
    workers: int = 2


class Distance(NamedTuple):
    """FID of one synthesis on one class; `fid` is None where it is undefined, and `undefined_because` says why."""

    synthesis: str
    class_name: str
    fid: float | None
    real: int
    synthetic: int
    undefined_because: str | None = None


def frechet_distance(real: Tensor, synthetic: Tensor) -> float:
    """Fréchet distance between Gaussians fitted to two sets of features, [N, D] and [M, D], N and M at least 2."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    features = nn.Identity()
    features.num_features = real.shape[1]  # type: ignore[assignment]
    metric = FrechetInceptionDistance(feature=features).set_dtype(torch.float64)
    metric.update(real.double(), real=True)
    metric.update(synthetic.double(), real=False)
    return max(0.0, float(metric.compute()))


def measure(
    samples: Samples,
    syntheses: Sequence[str],
    *,
    features: str = INCEPTION,
    preparation: Preparation | None = None,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> list[Distance]:
    """FID of each synthesis on each class, and pooled.

    Args:
        samples: Classes with good training images and defects in the test split.
        syntheses: Names of synthetic anomalies, keys of `tabzoo.synthesis.SYNTHESES`, with their own settings.
        features: "inception", or a source of `build_extractor` whose embeddings are compared instead.
        preparation: Sizes, seed and cache; the defaults if not given.
        batch_size: Images at a time.
        device: Where to compute.
        progress: Show progress, if a command runs.

    Raises:
        InputError: No class with defects, or an unknown model.
        WeightsError: The extractor's weights can't be fetched.
    """
    deterministic()
    how, device = preparation or Preparation(), torch.device(device)
    defective = (samples.split == TEST) & (samples.defect_ids != 0)
    if not defective.any():
        raise InputError(f"{samples.root}: no defects in a test split (CLASS/test/DEFECT/*) to compare with")
    extract = _inception(device) if features == INCEPTION else embeddings(embedding_network(features, how, device))
    normals = samples.train_normals()
    images = open_prepared(normals, how, device)
    defects = open_prepared(samples.select(defective, drop=True), how, device)
    total = len(defects) + len(syntheses) * len(images)
    with Progress(total, "features", unit="img", kept=True, show=progress) as bar:
        real = _by_class(defects, _features_of_defects(defects, how, extract, batch_size, bar))
        rows: list[Distance] = []
        for name in syntheses:
            made = _features_of_anomalies(images, name, how, extract, batch_size, device, bar)
            rows += _distances(name, samples.classes, real, _by_class(images, made))
    return rows


def open_prepared(samples: Samples, how: Preparation, device: torch.device) -> Images:
    """The images, squashed as the preparation says."""
    return open_images(
        samples,
        size=how.resize,
        mode=how.cache,
        cache_dir=how.cache_dir,
        workers=how.workers,
        device=device,
        white_level=how.white_level,
    )


def _distances(
    name: str, classes: Sequence[str], real: dict[str, Tensor], synthetic: dict[str, Tensor]
) -> list[Distance]:
    rows = [_distance(name, class_name, real.get(class_name), synthetic.get(class_name)) for class_name in classes]
    both = [row.class_name for row in rows if row.fid is not None]
    if both:
        groups = (torch.cat([features[key] for key in both]) for features in (real, synthetic))
        rows.append(_distance(name, POOLED, *groups))
    return rows


def _distance(name: str, class_name: str, real: Tensor | None, synthetic: Tensor | None) -> Distance:
    num_real, num_synthetic = (0 if features is None else len(features) for features in (real, synthetic))
    for count, what in ((num_real, "defects in the test split"), (num_synthetic, "good training images")):
        if count < 2:
            return Distance(name, class_name, None, num_real, num_synthetic, f"{count} {what}; at least 2 needed")
    assert real is not None
    assert synthetic is not None
    return Distance(name, class_name, frechet_distance(real, synthetic), num_real, num_synthetic)


def _by_class(images: Images, features: Tensor) -> dict[str, Tensor]:
    ids = images.samples.class_ids
    return {
        name: features[torch.from_numpy(ids == i)] for i, name in enumerate(images.samples.classes) if (ids == i).any()
    }


def _features_of_defects(images: Images, how: Preparation, extract: Extractor, batch_size: int, bar: Any) -> Tensor:
    parts = []
    for rows in torch.arange(len(images)).split(batch_size):
        cropped = centre_crop(images.batch(rows), how.crop)
        parts.append(extract(cropped.permute(0, 3, 1, 2).contiguous()))
        bar.update(len(rows))
    return torch.cat(parts).cpu()


def _features_of_anomalies(
    images: Images,
    synthesis: str,
    how: Preparation,
    extract: Extractor,
    batch_size: int,
    device: torch.device,
    bar: Any,
) -> Tensor:
    classes = torch.from_numpy(images.samples.class_ids).long()
    made = make_synthesis(synthesis, classes, how.crop)
    pairs = PairMaker(images, torch.arange(len(images)), classes, made, crop=how.crop, device=device)
    parts = []
    for rows in torch.arange(len(images)).split(batch_size):
        parts.append(extract(pairs.raw(how.seed, 0, rows).abnormal.contiguous()))
        bar.update(len(rows))
    return torch.cat(parts).cpu()


def embedding_network(name: str, how: Preparation, device: torch.device, *, flag: str = "--features") -> nn.Module:
    """A backbone that gives one embedding per image, frozen, on the device.

    Args:
        name: A source, as for `build_extractor`.
        how: Crop, and the seed of random weights.
        device: Where it computes.
        flag: What the user gave its name to.

    Raises:
        InputError: No such model, or one that does not take such images.
        WeightsError: The weights can't be fetched.
    """
    source, pretrained = timm_name(name, flag=flag), not is_random(name)
    try:
        cached = cached_weights(source) if pretrained else {}
        with seeded(how.seed):
            model: nn.Module = timm.create_model(source, pretrained=pretrained, num_classes=0, **cached)
    except Exception as error:  # timm passes on the Hub's, safetensors' and torch's own errors
        raise unavailable(name, error, flag=flag) from error
    embedding_width(model, how.crop, flag=flag)
    return model.to(device).eval()


def embeddings(model: nn.Module) -> Extractor:
    """Features by a network that `embedding_network` returned, normalised by its own statistics."""
    config, device = timm.data.resolve_model_data_config(model), next(model.parameters()).device
    mean, std = (255 * torch.tensor(config[key], device=device).view(1, 3, 1, 1) for key in ("mean", "std"))

    @torch.no_grad()
    def extract(images: Tensor) -> Tensor:
        features: Tensor = model((images - mean) / std)
        return features

    return extract


def _inception(device: torch.device) -> Extractor:
    """uint8 [B, 3, H, W] -> features [B, 2048]."""
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance

        network = FrechetInceptionDistance(feature=2048).inception.to(device).eval()
    except (ModuleNotFoundError, ImportError) as error:
        raise InputError(
            f"FID needs torchmetrics with its image part: {how_to_install('benchmark')} ({error})"
        ) from error
    except OSError as error:  # URLError among them
        raise WeightsError(
            f"the weights of FID's Inception network can't be fetched: {error}. Instead:\n"
            f"  run once on a machine with network access and copy torch's folder hub/checkpoints, or\n"
            f"  use another extractor: --features NAME, a timm model whose weights are on this machine, or a run's folder; its "
            f"numbers are not the FID of the literature and can be compared only with each other"
        ) from error

    @torch.no_grad()
    def extract(images: Tensor) -> Tensor:
        features: Tensor = network(images)
        return features

    return extract
