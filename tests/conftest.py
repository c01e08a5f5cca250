"""Shared fixtures, and the markers that need something the machine may lack."""

import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from tabzoo.data.class_words import class_words
from tabzoo.data.toy import make_toy_factory
from tabzoo.detectors import ImageBatches
from tabzoo.hub.config import timm_config
from tabzoo.hub.folder import write_folder
from tabzoo.hub.load import install
from tabzoo.scores.rows import Row, row_key
from tabzoo.training.prompts import load_prompts
from tabzoo.training.text import TextFeatures

MakeRow = Callable[..., Row]

REAL_DATA = os.environ.get("TABZOO_TEST_DATA")
# Asks the driver about devices without starting CUDA, which would make it unusable in processes that tests fork.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
CUDA = {"is_available": torch.cuda.is_available, "device_count": torch.cuda.device_count}


def pytest_configure() -> None:
    # On a busy machine, threads that wait for each other turn a second of small tensors into a minute.
    threads = os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start
    torch.set_num_threads(int(threads))
    # In the background, or under nohup, the tests would ignore these signals, and so would the runs that they start.
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    # Tests are about CPUs unless they are marked gpu: else `auto` would take a GPU, and two processes would want two.
    torch.cuda.is_available, torch.cuda.device_count = lambda: False, lambda: 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacking = {
        "gpu": (not CUDA["is_available"](), "no CUDA device"),
        "network": (os.environ.get("TABZOO_TEST_NETWORK") != "1", "TABZOO_TEST_NETWORK is not 1"),
        "real_data": (not REAL_DATA, "TABZOO_TEST_DATA is not set"),
    }
    for item in items:
        for marker, (absent, reason) in lacking.items():
            if absent and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keeps the tests out of the user's cache folder and local store."""
    os.environ["TABZOO_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["TABZOO_HOME"] = str(tmp_path_factory.mktemp("home"))


@pytest.fixture(autouse=True)
def _gpu_for_tests_marked_so(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("gpu"):
        for name, function in CUDA.items():
            monkeypatch.setattr(torch.cuda, name, function)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # for the processes that a test starts


@pytest.fixture(scope="session")
def real_data() -> Path:
    return Path(str(REAL_DATA))


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small toy factory: three classes of 16 normal images."""
    root = tmp_path_factory.mktemp("toy") / "factory"
    return make_toy_factory(
        root, seed=3, size=48, train=16, test_good=2, test_defect=3, classes=("brushed_steel", "capsule", "hex_nut")
    )


@pytest.fixture
def grey_and_deep(toy: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The toy factory in grey, with 8 bits and with 12 in files of 16, in which 4080 is white."""
    folders = tmp_path / "grey", tmp_path / "deep"
    for path in toy.rglob("*.png"):
        grey = np.asarray(Image.open(path).convert("L"))
        is_mask = "ground_truth" in path.parts
        for folder, pixels in zip(folders, (grey, grey if is_mask else grey.astype(np.uint16) * 16), strict=True):
            copy = folder / path.relative_to(toy)
            copy.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(copy)
    return folders


@pytest.fixture(scope="session")
def make_text_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes made-up text features of some classes, as wide as test_resnet's embedding; training needs no text tower."""

    def make(*classes: str, width: int = 96, **changes: object) -> Path:
        generator = torch.Generator().manual_seed(len(classes))
        values = {
            "normal": F.normalize(torch.randn(len(classes), width, generator=generator), dim=-1),
            "abnormal": F.normalize(torch.randn(len(classes), width, generator=generator), dim=-1),
            "words": class_words(classes, {}, "mvtec"),
            "text_model": "ViT-B-16",
            "text_pretrained": "made_up",
            "prompts_sha256": load_prompts("tab").digest(),
        }
        path = tmp_path_factory.mktemp("text") / "features.safetensors"
        TextFeatures(**(values | changes)).save(path)  # type: ignore[arg-type]
        return path

    return make


@pytest.fixture(scope="session")
def draw_nothing() -> Callable[[pytest.MonkeyPatch], None]:
    """Makes runs leave empty pictures: drawing takes longer than all else, and has tests of its own."""

    def sketch(path: Path, *_: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        for module, names in (
            ("training.figures", ("samples", "curves", "similarity")),
            ("benchmark.report", ("roc", "grid")),
        ):
            for name in names:
                monkeypatch.setattr(f"tabzoo.{module}.draw_{name}", sketch)

    return patch


@pytest.fixture
def sketches(draw_nothing: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of the test leave empty pictures."""
    draw_nothing(monkeypatch)


@pytest.fixture
def small(toy: Path, make_text_file: Callable[..., Path], tmp_path: Path, sketches: None) -> Callable[..., list[str]]:
    """The command line of a run of a second on the toy factory: timm's test_resnet, 48 images, 6 steps.

    More flags are appended, and win.
    """
    classes = ("brushed_steel", "capsule", "hex_nut")

    def arguments(*more: str) -> list[str]:
        flags = {
            **{"recipe": "quickstart", "data": toy, "output": tmp_path / "out", "device": "cpu"},
            **{"backbone": "test_resnet", "projection": "none", "resize": 40, "crop": 32},
            **{"text-model": "ViT-B-16", "text-pretrained": make_text_file(*classes)},
            **{"batch-size": 16, "epochs": 2, "lr": 0.05, "warmup-epochs": 0, "val-share": 0},
            **{"cache": "ram", "workers": 0, "log-every": 1},
        }
        return [word for name, value in flags.items() for word in (f"--{name}", str(value))] + list(more)

    return arguments


@pytest.fixture(scope="session")
def make_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a weights folder, as a run writes it, with random weights of a timm architecture."""

    def make(name: str = "resnet18.tab_mvtec", *, seed: int = 0, license: str = "cc-by-nc-sa-4.0") -> Path:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = timm.create_model(name.split(".")[0], num_classes=0)
            model.train()(torch.rand(4, 3, 64, 64))  # batch-norm statistics that differ from those of a fresh model
        folder = tmp_path_factory.mktemp("weights") / name
        folder.mkdir()
        statistics = {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD}
        config = timm_config(model, license=license, description="random weights of a test", **statistics)
        write_folder(
            *(folder, model.state_dict(), config),
            name=name,
            provenance={"recipe": {"name": "a test's"}},
            made_by="made by a test.",
            facts="- Random weights.\n",
        )
        return folder

    return make


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty local store."""
    monkeypatch.setenv("TABZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def installed(home: Path, make_folder: Callable[..., Path]) -> Path:
    """A weights folder that the local store holds as resnet18.tab_mvtec, seen by `timm.create_model`."""
    folder = make_folder("resnet18.tab_mvtec", seed=1)
    install("resnet18.tab_mvtec", folder)
    return folder


class Batches(list[Tensor]):
    """Batches as methods take them: the length is the number of images."""

    def __len__(self) -> int:
        return sum(len(batch) for batch in self)

    def take(self, positions: Tensor) -> Tensor:
        return torch.cat(self)[positions]


@pytest.fixture(scope="session")
def batches() -> Callable[[Iterable[Tensor]], ImageBatches]:
    return Batches


@pytest.fixture
def make_row() -> MakeRow:
    """A row with random image scores and the AUROC that belongs to them; `shift` is how far defects stand out."""

    from sklearn.metrics import roc_auc_score

    def make(
        backbone: str = "random", class_name: str = "nut", seed: int = 0, *, shift: float = 1.0, **changes: object
    ) -> Row:
        rng = np.random.default_rng(int(row_key({"of": [backbone, class_name, seed]}), 16))
        good, anomalous = rng.normal(size=20).tolist(), rng.normal(shift, size=30).tolist()
        values: dict[str, object] = {
            "key": row_key({"of": [backbone, class_name, seed, str(changes)]}),
            "backbone": backbone,
            "method": "padim",
            "dataset": "factory",
            "class_name": class_name,
            "seed": seed,
            "shots": None,
            "image_auroc": float(roc_auc_score([0] * 20 + [1] * 30, good + anomalous)),
            "pixel_auroc": 0.9,
            "aupro": 0.5,
            "image_average_precision": 0.7,
            "image_f1_max": 0.8,
            "pixel_average_precision": 0.3,
            "pixel_f1_max": 0.4,
            "transductive": False,
            "images": {"fitted": 16, "good": 20, "anomalous": 30},
            "scores": {"good": good, "anomalous": anomalous},
            "settings": {"resize": 256, "crop": 224, "layers": ["layer1", "layer2"]},
            "weights_sha256": "0" * 64,
            "data_sha256": class_name,
            "versions": {"tabzoo": "0"},
            "hardware": "cpu",
            "seconds": {"fit": 1.0, "score": 1.0},
            "peak_memory": 1,
            "created": "2026-01-01T00:00:00+00:00",
        }
        return Row(**(values | changes))  # type: ignore[arg-type]

    return make
