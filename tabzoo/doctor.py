"""`tabzoo doctor`: what a report of a fault needs: versions, hardware, caches, network."""

import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import ClassVar

import torch
from huggingface_hub import constants

from tabzoo._version import __version__
from tabzoo.command import run_command, say, show
from tabzoo.compute import choose_amp
from tabzoo.hub.overview import overview
from tabzoo.hub.remote import endpoint, why_unreachable
from tabzoo.system import cpu_extensions, folder_size, num_cores, user_folder

__all__ = ["Doctor", "main"]

_NEEDED = (
    "torch",
    "torchvision",
    "timm",
    "huggingface_hub",
    "safetensors",
    "open_clip_torch",
    "numpy",
    "pillow",
    "tyro",
)
_EXTRA = ("scikit-learn", "scipy", "torchmetrics", "onnx", "onnxruntime", "anomalib", "gradio")
_VARIABLES = (
    "TABZOO_",
    "HF_",
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "TORCH_HOME",
    "XDG_CACHE_HOME",
    "XDG_DATA_HOME",
)
_SECRET = ("TOKEN", "KEY", "PASSWORD")


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Show versions, hardware, caches and whether the Hub can be reached: for a report of a fault.

    Nothing is changed or sent. Values of tokens are not shown.
    """

    examples: ClassVar[tuple[str, ...]] = ("tabzoo doctor",)

    def run(self) -> int:
        """Prints it."""
        for title, lines in (
            ("Versions", _versions()),
            ("Hardware", _hardware()),
            ("Folders", _folders()),
            ("Environment", _environment()),
        ):
            show(title)
            for name, value in lines:
                show(f"  {name:24}{value}")
        say("Asking whether the Hub answers ...")
        show("Network")
        show(f"  {endpoint():24}{why_unreachable(endpoint()) or 'answers'}")
        return 0


def _versions() -> Iterator[tuple[str, str]]:
    yield "tabzoo", f"{__version__} in {Path(__file__).parent}"
    yield "Python", f"{platform.python_version()}, {platform.platform()}"
    for name in (*_NEEDED, *_EXTRA):
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, "not installed" + ("" if name in _EXTRA else ", but needed")


def _hardware() -> Iterator[tuple[str, str]]:
    yield "CPU", f"{num_cores()} cores for this process, {torch.get_num_threads()} threads of torch; {cpu_extensions()}"
    yield "mixed precision on CPU", choose_amp("auto", torch.device("cpu")).reason
    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        yield "GPU", f"none that torch can use ({built})"
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        yield (
            f"GPU {index}",
            f"{found.name}, {found.total_memory / 2**30:.0f} GiB, capability {found.major}.{found.minor}",
        )


def _folders() -> Iterator[tuple[str, str]]:
    for name, folder in (
        ("decoded images", user_folder("cache") / "images"),
        ("installed weights", user_folder("data") / "weights"),
        ("Hub", Path(constants.HF_HUB_CACHE)),
    ):
        size = f"{folder_size(folder) / 1e9:.2f} GB" if folder.is_dir() else "does not exist"
        yield name, f"{folder}: {size}"
    nearest = next(
        folder for folder in (user_folder("cache"), *user_folder("cache").absolute().parents) if folder.is_dir()
    )
    yield "free there", f"{shutil.disk_usage(nearest).free / 1e9:.1f} GB"
    for one in overview():
        yield one.name, f"{one.state}, licence {one.license}"


def _environment() -> Iterator[tuple[str, str]]:
    for name in sorted(os.environ):
        if name.startswith(_VARIABLES):
            yield name, "set, not shown" if any(word in name for word in _SECRET) else os.environ[name]


def main(argv: Sequence[str] | None = None, *, prog: str = "python -m tabzoo.doctor") -> int:
    """Runs the command line; returns 0."""
    return run_command(Doctor, argv, prog=prog)
