"""A detector's folder read back: equal scores, whatever the photos come as."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tabzoo
from tabzoo.data.cache import open_images
from tabzoo.data.layouts import read_samples
from tabzoo.detectors import DETECTORS
from tabzoo.inspect.detector import load_detector
from tabzoo.inspect.prepare import prepare

METHODS = ("padim", "patchcore")


@pytest.mark.parametrize("method", METHODS)
def test_what_is_read_scores_as_what_was_fitted(method: str, fit: Callable[..., Path], photos: Path) -> None:
    folder = fit(method=method)
    detector = tabzoo.load_detector(folder, device="cpu")
    good, bad = (sorted((photos / "nut" / "test" / kind).iterdir()) for kind in ("good", "hole"))
    scores, maps = detector([*good, *bad])
    assert scores.dtype == np.float32
    assert [one.shape for one in maps] == [(64, 64)] * 8
    assert all(one.dtype == np.float32 for one in maps)
    assert detector.is_defective(scores).tolist() == [False] * 4 + [True] * 4
    # The threshold is the score of a good photo.
    assert detector.is_defective([detector.threshold, detector.threshold + 1e-6]).tolist() == [False, True]
    assert detector.record.tested == (4, 4, 4, 0)
    again = load_detector(folder, device="cpu")([*good, *bad])
    assert np.array_equal(scores, again.scores)
    assert all(np.array_equal(one, other) for one, other in zip(maps, again.maps, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_photos_are_prepared_as_the_cache_does(method: str, photos: Path, tmp_path: Path) -> None:
    resampling = DETECTORS[method].resampling
    images = open_images(read_samples(photos), size=40, cache_dir=tmp_path, resampling=resampling, progress=False)
    for row in (0, 9):
        path = images.samples.path(row)
        expected = images.batch([row])[0].numpy()
        with Image.open(path) as image:
            pixels = np.asarray(image)
            for source in (path, str(path), image, pixels):
                assert np.array_equal(prepare(source, 40, resampling), expected)


def test_one_photo_and_pixels(fit: Callable[..., Path], photos: Path) -> None:
    detector = load_detector(fit(method="padim"), device="cpu")
    path = photos / "nut" / "test" / "hole" / "000.png"
    with Image.open(path) as image:
        found = [detector(source).scores.tolist() for source in (path, image, np.asarray(image), [str(path)])]
    assert found == found[:1] * 4
    assert detector([]).scores.shape == (0,)
    prepared = torch.from_numpy(detector.prepare(path))[None]
    scores = detector.score_prepared(prepared)
    assert scores.image_scores.tolist() == found[0]
    assert scores.anomaly_maps.shape == (1, 64, 64)
