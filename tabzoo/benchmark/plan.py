"""What is to be measured: the options of a run, checked, and the rows that they ask for."""

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from tabzoo.benchmark.backbones import Backbone, find_backbones, unseen_synthesis
from tabzoo.benchmark.images import ClassImages
from tabzoo.compute import Amp, choose_amp
from tabzoo.data.cache import CacheMode, Images, open_images
from tabzoo.data.images import Resampling
from tabzoo.data.layouts import find_samples
from tabzoo.data.samples import TEST, TRAIN, Samples
from tabzoo.detectors import DETECTORS, Budget, Detector
from tabzoo.detectors.extractor import FeatureExtractor, build_extractor, check_input_size, is_random
from tabzoo.errors import InputError, did_you_mean
from tabzoo.scores.rows import REAL, row_key

__all__ = ["Job", "Options", "Plan", "choose_classes", "choose_device"]

_LARGEST = 2**31 - 1
_EXTRACTORS = 32
"""Feature extractors that are kept; methods share those of equal layers."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a run; the command line's flags of the same names say more."""

    backbone: Sequence[str]
    method: Sequence[str]
    data: str
    output: Path
    layout: str = "auto"
    classes: Sequence[str] | None = None
    seeds: Sequence[int] = (0,)
    shots: Sequence[int] | None = None
    test: Literal["real", "synthetic"] = "real"
    resize: int | None = None
    crop: int | None = None
    resampling: Resampling | None = None
    white_level: float | None = None
    batch_size: int = 32
    device: str = "auto"
    amp: Amp = "off"
    full_resolution: bool = False
    oracle: bool = False
    budget: Budget = "paper"
    settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Method to those of its settings that are other than the budget's."""
    cache: CacheMode = "disk"
    cache_dir: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        for name in self.method:
            if name not in DETECTORS:
                raise InputError(
                    f"--method {name}: unknown; there are {', '.join(DETECTORS)}.{did_you_mean(name, DETECTORS)}"
                )
        if self.oracle and not self.with_oracle:
            having = ", ".join(name for name, spec in DETECTORS.items() if spec.oracle)
            raise InputError(
                f"--oracle: is for methods whose public code chooses the best epoch on test images: {having}; there is none "
                f"among --method {' '.join(self.method)}"
            )
        if self.amp == "fp16":
            raise InputError("--amp fp16: expected bf16, auto or off; float16 is for training")
        if self.full_resolution and self.test != REAL:
            raise InputError("--full-resolution: synthetic anomalies are made at the method's input; leave it away")
        if self.white_level is not None and not 0 < self.white_level < float("inf"):
            raise InputError(
                f"--white-level {self.white_level:g}: expected the pixel value that becomes white, above 0"
            )
        least = {"seeds": 0, "shots": 1, "resize": 1, "crop": 1, "batch_size": 1, "workers": 0}
        for name, minimum in least.items():
            given = getattr(self, name)
            for value in given if isinstance(given, Sequence) else [given]:
                if value is not None and not minimum <= value <= _LARGEST:
                    raise InputError(f"--{name.replace('_', '-')} {value}: expected {minimum} to {_LARGEST}")

    @property
    def with_oracle(self) -> set[str]:
        """Methods whose best epoch on the test images is asked for, beside the last."""
        return {name for name in self.method if self.oracle and DETECTORS[name].oracle}


class Job(NamedTuple):
    """One row to be."""

    key: str
    backbone: Backbone
    method: str
    seed: int
    shots: int | None
    images: ClassImages
    settings: dict[str, Any]
    weights_sha256: str
    data_sha256: str
    others: Sequence[ClassImages] = ()
    """Classes that a few-shot method learns on."""

    @property
    def transductive(self) -> bool:
        """Whether the backbone was pre-trained on images of the class."""
        return self.backbone.saw(self.images.name, self.images.hashes)


class Plan:
    """Images, backbones and methods of a run, and the rows that they make.

    Attributes:
        options: What was asked for.
        device: Where to compute.
        amp: Mixed precision there.
        backbones: In the order given.
        test: What is tested on, as in `Row.test`.
        dataset: Name of the data set.
    """

    def __init__(self, options: Options) -> None:
        self.options, self.device = options, choose_device(options.device)
        self.amp = choose_amp(options.amp, self.device)
        self.backbones = find_backbones(options.backbone)
        found = find_samples(options.data, layout=options.layout)
        # Defective images of a train split are neither fitted to nor tested on.
        self._all = found.select((found.split == TEST) | (found.defect_ids == 0))
        self._samples = samples = choose_classes(self._all, options.classes)
        self._check_samples()
        self.test = REAL if options.test == REAL else f"synthetic:{unseen_synthesis(self.backbones)}"
        self.dataset = samples.root.name
        self._opened: dict[tuple[int, Resampling, bool], Images] = {}
        self._extractor = lru_cache(_EXTRACTORS)(self._build_extractor)

    def _check_samples(self) -> None:
        """Refuses images that nothing can be measured on, before anything is fitted."""
        samples, data = self._samples, self.options.data
        normals = (samples.split == TRAIN) & (samples.defect_ids == 0)
        if not normals.any():
            raise InputError(
                f"--data {data}: no good training images in {', '.join(samples.classes)}; expected CLASS/train/good/*.png"
            )
        counts = np.bincount(samples.class_ids[normals], minlength=len(samples.classes))
        for shots in self.options.shots or ():
            # What a synthetic test holds out is not known yet: `ClassImages.draw` looks again.
            if few := [name for name, count in zip(samples.classes, counts, strict=True) if 0 < count < shots]:
                raise InputError(
                    f"--shots {shots}: class {few[0]} has {counts[samples.classes.index(few[0])]} good images to draw from. "
                    f"Lower --shots, or name other --classes."
                )
        tested = samples.labels[samples.split == TEST]
        if self.options.test == REAL and not tested.any():
            what = "only good images" if len(tested) else "nothing"
            raise InputError(
                f"--data {data}: {what} to test on in {', '.join(samples.classes)}. Add images of defects, "
                f"CLASS/test/KIND/*.png, or type --test synthetic to test on synthetic anomalies"
            )
        if self.options.test == REAL and tested.all() and not (samples.masks[samples.split == TEST] != b"").any():
            raise InputError(
                f"--data {data}: only defects to test on in {', '.join(samples.classes)}, without masks. Add good images, "
                f"CLASS/test/good/*.png"
            )

    def jobs(self) -> Iterator[Job]:
        """The rows, those with the same extractor after each other.

        Raises:
            InputError: An unknown backbone, sizes or a number of shots that do not fit.
            WeightsError: A backbone's weights can't be fetched.
        """
        for name in self.options.method:
            # Before any image is decoded: what can't be fetched is found out at once.
            built = [self._identify(*pair, name) for pair in itertools.product(self.backbones, self.options.seeds)]
            full = self.options.full_resolution
            images = {of_class: of_class.digest(mask_files=full) for of_class in self.images(name)}
            targets = [of_class for of_class in images if of_class.name in self._samples.classes]
            several = self.options.shots or DETECTORS[name].shots or (None,)
            for (backbone, seed, settings, weights, more), shots in itertools.product(built, several):
                for of_class in targets:
                    of_class.draw(shots=shots, seed=seed, test=self.test)  # refuses too many shots early
                    others = self._others(name, of_class, list(images), shots or 0) if DETECTORS[name].few_shot else ()
                    data = _digest_of([images[one] for one in (of_class, *others)])
                    decides = (weights, data, of_class.name, name, settings, seed, shots, self.test, *more)
                    key = row_key({"decides": decides})
                    yield Job(key, backbone, name, seed, shots, of_class, settings, weights, data, others)

    def build(self, backbone: Backbone, method: str, seed: int) -> tuple[FeatureExtractor, Detector]:
        """A backbone's extractor for a method, and the method on it."""
        spec = DETECTORS[method]
        extractor = self._extractor(backbone.source, tuple(spec.layers), seed if is_random(backbone.source) else 0)
        given = self.options.settings.get(method, {})
        return extractor, spec.build(extractor, seed, spec.configure(method, budget=self.options.budget, given=given))

    def _build_extractor(self, source: str, layers: tuple[str, ...], seed: int) -> FeatureExtractor:
        bfloat16 = self.amp.amp == "bf16"  # with which interleaved pixels pay off
        return build_extractor(
            source, layers=layers, seed=seed, device=self.device, amp=bfloat16, channels_last=bfloat16
        )

    def images(self, method: str) -> list[ClassImages]:
        """The images of each class, at the sizes of a method; of a few-shot method also those that are not tested.

        Raises:
            InputError: A crop larger than the image, or files that can't be read.
        """
        (resize, crop), options = self._sizes(method), self.options
        everything = DETECTORS[method].few_shot or not options.classes
        how = resize, self._resampling(method), everything
        if how not in self._opened:
            self._opened[how] = open_images(
                self._all if everything else self._samples,
                size=resize,
                mode=options.cache,
                cache_dir=options.cache_dir,
                workers=options.workers,
                device=self.device,
                masks=True,
                resampling=self._resampling(method),
                white_level=options.white_level,
            )
        opened = self._opened[how]
        classes = np.unique(opened.samples.class_ids).tolist()
        return [ClassImages(opened, class_id, resize=resize, crop=crop) for class_id in classes]

    def _others(
        self, method: str, target: ClassImages, images: Sequence[ClassImages], shots: int
    ) -> tuple[ClassImages, ...]:
        others = tuple(one for one in images if one.name != target.name and len(one.normals) > shots)
        if len(others) < 2:
            raise InputError(
                f"--method {method}: to test {target.name} with --shots {shots} it learns on other classes of --data, two at "
                f"least, with {shots + 1} good training images each; there are {len(others)}"
                f"{''.join(f': {one.name}' for one in others)}. Lower --shots, or give a folder with more classes."
            )
        return others

    def _resampling(self, method: str) -> Resampling:
        return self.options.resampling or DETECTORS[method].resampling

    def _sizes(self, method: str) -> tuple[int, int]:
        spec = DETECTORS[method]
        resize, crop = self.options.resize or spec.resize, self.options.crop or spec.crop
        if crop > resize:
            raise InputError(f"--crop {crop}: images are resized to {resize} px; lower --crop or raise --resize")
        if crop % spec.multiple or crop < spec.smallest:
            side = max(spec.multiple, spec.smallest, crop - crop % spec.multiple)
            raise InputError(
                f"--crop {crop}: {method} takes {'multiples of ' if spec.multiple > 1 else 'at least '}"
                f"{max(spec.multiple, spec.smallest)} px. Type --resize {max(side, resize)} --crop {side}."
            )
        return resize, crop

    def _identify(
        self, backbone: Backbone, seed: int, name: str
    ) -> tuple[Backbone, int, dict[str, Any], str, tuple[object, ...]]:
        """A backbone and a seed; settings of a method on it, the hash of its weights, and what else its maps follow from:
        statistics that are not ImageNet's, and an architecture that is not a plain ResNet.
        """
        resize, crop = self._sizes(name)
        extractor, method = self.build(backbone, name, seed)
        check_input_size(extractor, backbone.name, crop)
        pixels = {"pixels": "full resolution"} if self.options.full_resolution else {}
        normalised = {} if DETECTORS[name].normalised else {"normalised": False}
        white = {} if self.options.white_level is None else {"white_level": float(self.options.white_level)}
        sizes = {"resize": resize, "crop": crop, "resampling": self._resampling(name), **white}
        settings = {**sizes, "amp": self.amp.amp, **pixels, **normalised, **method.settings}
        # ImageNet's mean and standard deviation are left out: rows were keyed without any before.
        imagenet = (extractor.mean, extractor.std) == (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        statistics = (extractor.mean, extractor.std) if DETECTORS[name].normalised and not imagenet else ()
        # Weights can fit several architectures (efficientnet_b0's are tf_efficientnet_b0's); timm's plain ResNets were keyed
        # without.
        structure = () if extractor.is_plain_resnet() else (extractor.structure(),)
        return backbone, seed, settings, extractor.sha256(), (*statistics, *structure)


def _digest_of(digests: Sequence[str]) -> str:
    """One for several classes; that of a single class as it is."""
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()


def choose_classes(samples: Samples, names: Sequence[str] | None) -> Samples:
    """The samples of these classes, all if no names are given.

    Raises:
        InputError: There is no such class.
    """
    if not names:
        return samples
    if unknown := sorted(set(names) - set(samples.classes)):
        raise InputError(
            f"--classes: no class {', '.join(unknown)}; there are {', '.join(samples.classes)}."
            f"{did_you_mean(unknown[0], samples.classes)}"
        )
    return samples.select([samples.classes[i] in names for i in samples.class_ids], drop=True)


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" takes the GPU if there is one.

    Raises:
        InputError: "cuda" where there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no CUDA device here. Type --device cpu.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
