"""What a run measures: its images, backbones and methods, and the rows that they make."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from tabzoo.benchmark.class_images import ClassImages
from tabzoo.benchmark.options import Options, choose_classes
from tabzoo.benchmark.provenance import Backbone, find_backbones, unseen_synthesis
from tabzoo.compute import choose_amp, choose_device
from tabzoo.data.cache import Images, open_images
from tabzoo.data.images import Resampling
from tabzoo.data.layouts import find_samples
from tabzoo.data.samples import TEST, TRAIN
from tabzoo.detectors import DETECTORS, Detector
from tabzoo.detectors.extractor import FeatureExtractor, build_extractor, check_input_size, is_random
from tabzoo.errors import InputError, counted
from tabzoo.scores.rows import REAL, row_key

__all__ = ["Job", "Plan"]

_EXTRACTORS = 32
"""Feature extractors that are kept; methods with the same layers share one."""


class Job(NamedTuple):
    """One row to measure."""

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
    """Classes that a few-shot method is trained on."""

    @property
    def transductive(self) -> bool:
        """Whether the backbone was pre-trained on images of the class."""
        return self.backbone.saw(self.images.name, self.images.hashes)


class Plan:
    """Images, backbones and methods of a run, and its rows.

    Attributes:
        options: Of the run.
        device: Where to compute.
        amp: Mixed precision there.
        backbones: In the order given.
        test: What the methods are tested on, as in `Row.test`.
        dataset: Name of the data set.
    """

    def __init__(self, options: Options) -> None:
        self.options, self.device = options, choose_device(options.device)
        self.amp = choose_amp(options.amp, self.device)
        self.backbones = find_backbones(options.backbone)
        found = find_samples(options.data, layout=options.layout)
        # Defective images of a train split are not used.
        self._all = found.select((found.split == TEST) | (found.defect_ids == 0))
        self._samples = samples = choose_classes(self._all, options.classes)
        self._check_samples()
        self.test = REAL if options.test == REAL else f"synthetic:{unseen_synthesis(self.backbones)}"
        self.dataset = samples.root.name
        self._opened: dict[tuple[int, Resampling, bool], Images] = {}
        self._reported: set[Path] = set()  # unreadable files: once for all sizes
        self._extractor = lru_cache(_EXTRACTORS)(self._build_extractor)

    def _check_samples(self) -> None:
        """Refuses images on which nothing can be measured, before anything is fitted."""
        samples, data = self._samples, self.options.data
        normals = (samples.split == TRAIN) & (samples.defect_ids == 0)
        if not normals.any():
            raise InputError(
                f"--data {data}: no good training images in {', '.join(samples.classes)}; expected CLASS/train/good/*.png"
            )
        counts = np.bincount(samples.class_ids[normals], minlength=len(samples.classes))
        for shots in self.options.shots or ():
            # A synthetic test will hold some out: `ClassImages.fitting_set` checks again.
            if few := [name for name, count in zip(samples.classes, counts, strict=True) if 0 < count < shots]:
                raise InputError(
                    f"--shots {shots}: class {few[0]} has only {counts[samples.classes.index(few[0])]} good images. "
                    f"Lower --shots, or give other --classes."
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
        """The rows; those with the same extractor follow each other.

        Raises:
            InputError: An unknown backbone, or sizes or numbers of shots that do not fit.
            WeightsError: A backbone's weights can't be fetched.
        """
        for name in self.options.method:
            # Before any image is decoded, so that a backbone that can't be fetched is reported at once.
            built = [self._identify(*pair, name) for pair in itertools.product(self.backbones, self.options.seeds)]
            full = self.options.full_resolution
            images = {of_class: of_class.digest(mask_files=full) for of_class in self.images(name)}
            targets = [of_class for of_class in images if of_class.name in self._samples.classes]
            several = self.options.shots or DETECTORS[name].shots or (None,)
            for one, shots in itertools.product(built, several):
                for of_class in targets:
                    # Refuses too many shots now, not after hours.
                    of_class.fitting_set(shots=shots, seed=one.seed, test=self.test)
                    others = self._others(name, of_class, list(images), shots or 0) if DETECTORS[name].few_shot else ()
                    data = _digest_of([images[used] for used in (of_class, *others)])
                    decides = (one.weights_sha256, data, of_class.name, name, one.settings, one.seed, shots, self.test)
                    yield Job(
                        key=row_key({"decides": (*decides, *one.more)}),
                        backbone=one.backbone,
                        method=name,
                        seed=one.seed,
                        shots=shots,
                        images=of_class,
                        settings=one.settings,
                        weights_sha256=one.weights_sha256,
                        data_sha256=data,
                        others=others,
                    )

    def build(self, backbone: Backbone, method: str, seed: int) -> tuple[FeatureExtractor, Detector]:
        """A backbone's extractor for a method, and the detector on it."""
        spec = DETECTORS[method]
        extractor = self._extractor(backbone.source, tuple(spec.layers), seed if is_random(backbone.source) else 0)
        given = self.options.settings.get(method, {})
        return extractor, spec.build(extractor, seed, spec.configure(method, budget=self.options.budget, given=given))

    def _build_extractor(self, source: str, layers: tuple[str, ...], seed: int) -> FeatureExtractor:
        bfloat16 = self.amp.amp == "bf16"  # then channels-last pays off
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
                reported=self._reported,
            )
        opened = self._opened[how]
        classes = np.unique(opened.samples.class_ids).tolist()
        return [ClassImages(opened, class_id, resize=resize, crop=crop) for class_id in classes]

    def _others(
        self, method: str, target: ClassImages, images: Sequence[ClassImages], shots: int
    ) -> tuple[ClassImages, ...]:
        others = tuple(one for one in images if one.name != target.name and len(one.normals) > shots)
        if len(images) < 3:
            raise InputError(
                f"--method {method}: is trained on at least two other classes than the tested one, and --data has only "
                f"{counted([one.name for one in images], 'class', 'classes')}. Give a folder with more classes, or another "
                f"--method."
            )
        if len(others) < 2:
            raise InputError(
                f"--method {method}: to test {target.name} with --shots {shots} at least two other classes in --data need "
                f"{shots + 1} good training images each; there are {len(others)}"
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

    def _identify(self, backbone: Backbone, seed: int, name: str) -> "_Identity":
        """What the maps of a method with a backbone and a seed depend on besides the images."""
        spec, (resize, crop) = DETECTORS[name], self._sizes(name)
        extractor, detector = self.build(backbone, name, seed)
        check_input_size(extractor, backbone.name, crop)
        # Parts that are neutral are left out, here and below, as in the keys of older rows.
        pixels = {"pixels": "full resolution"} if self.options.full_resolution else {}
        normalised = {} if spec.normalised else {"normalised": False}
        white = {} if self.options.white_level is None else {"white_level": float(self.options.white_level)}
        sizes = {"resize": resize, "crop": crop, "resampling": self._resampling(name), **white}
        settings = {**sizes, "amp": self.amp.amp, **pixels, **normalised, **detector.settings}
        imagenet = (extractor.mean, extractor.std) == (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        statistics = (extractor.mean, extractor.std) if spec.normalised and not imagenet else ()
        # Weights can fit several architectures: those of efficientnet_b0 also fit tf_efficientnet_b0.
        structure = () if extractor.is_plain_resnet() else (extractor.structure(),)
        return _Identity(backbone, seed, settings, extractor.sha256(), (*statistics, *structure))


class _Identity(NamedTuple):
    """What a method's maps depend on besides the images.

    Attributes:
        settings: Of the row.
        weights_sha256: Of the backbone's weights.
        more: Mean and standard deviation other than ImageNet's, and the structure of what is not a plain ResNet.
    """

    backbone: Backbone
    seed: int
    settings: dict[str, Any]
    weights_sha256: str
    more: tuple[object, ...]


def _digest_of(digests: Sequence[str]) -> str:
    """One digest for several classes; a single one stays as it is."""
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()
