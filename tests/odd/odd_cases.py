"""What a case of the table of odd inputs is, and the small makers that the cases share."""

import json
import os
import re
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

GREY = (90, 90, 90)
SMALL = "test_resnet.tab_here"


@dataclass
class Box:
    """A case's folder, and makers of inputs in it."""

    tmp: Path
    toy: Path
    small: Callable[..., list[str]]
    make_folder: Callable[..., Path]
    finished_run: Path
    state: Callable[[], dict[str, torch.Tensor]]
    monkeypatch: Any = None

    @property
    def out(self) -> Path:
        return self.tmp / "out"

    def text(self, name: str, content: str | bytes) -> Path:
        path = self.tmp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def image(self, name: str, image: Any = None, **options: Any) -> Path:
        """A noise image of its own, or the given one (Pillow's or an array)."""
        path = self.tmp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if image is None:
            image = noise(name)
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
        return path

    def images(self, folder: str, count: int = 5, ending: str = "png") -> Path:
        for number in range(count):
            self.image(f"{folder}/{number:03}.{ending}")
        return self.tmp / folder

    def mvtec(self, name: str = "data/nut") -> Path:
        """A whole class: five good images, one good and one scratched one to test on. Returns the data set's folder."""
        self.images(f"{name}/train/good")
        self.images(f"{name}/test/good", 1)
        self.images(f"{name}/test/scratch", 1)
        self.image(f"{name}/ground_truth/scratch/000_mask.png", spot())
        return self.tmp / name.split("/")[0]

    def weights(self) -> Path:
        """A weights folder that may be changed."""
        return shutil.copytree(self.make_folder(SMALL), self.tmp / "weights")

    def changed(self, name: str, **changes: Any) -> Path:
        """A weights folder with other values in one of its JSON files."""
        folder = self.weights()
        content = json.loads((folder / name).read_text()) | changes
        (folder / name).write_text(json.dumps(content))
        return folder

    def run(self) -> Path:
        """A finished run in the output folder."""
        return shutil.copytree(self.finished_run, self.out)

    def checkpoint(self, content: Any) -> Path:
        torch.save(content, self.tmp / "checkpoint.pt")
        return self.tmp / "checkpoint.pt"

    def rows(self, *lines: str | dict[str, Any], end: str = "\n", folder: str = "results") -> Path:
        """A folder with results.jsonl."""
        text = end.join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        return self.text(f"{folder}/results.jsonl", text + end).parent

    def bench(self, *more: str, data: Path | None = None) -> list[str]:
        flags = ["--backbone", "random:test_resnet", "--data", str(data or self.toy), "--output", str(self.out)]
        flags += ["--resize", "40", "--crop", "32", "--workers", "0", "--cache", "ram", "--device", "cpu"]
        return ["benchmark", "run", *flags, "--classes", "capsule", *more]

    def train(self, *more: str) -> list[str]:
        return ["pretrain", *self.small(*more)]


@dataclass
class Result:
    """What came out: the exit code (0 for a Python call that returned), all that was printed and logged, the value."""

    code: int
    out: str
    said: str
    value: Any
    error: BaseException | None = None

    @cached_property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def plain(self) -> str:
        """All that was said, without the frames that the flags' parser draws, in one line."""
        return " ".join(re.sub(r"[│╭╮╰╯─]", " ", f"{self.out}\n{self.said}").split())


Act = Callable[[Box], Any]
Check = Callable[[Result, Box], Any]


@dataclass(frozen=True)
class Right:
    """The right answer.

    Attributes:
        codes: Exit codes that are right; 2 also stands for an error of tabzoo's from a Python call.
        says: Regular expressions that must be found in what was said, without regard to case.
        check: What must hold besides; None is as good as true.
    """

    codes: tuple[int, ...]
    says: tuple[str, ...] = ()
    check: Check | None = None

    def either(self, *codes: int) -> "Right":
        """Several ways are right: it is refused, or it works as the check says."""
        return replace(self, codes=codes)


@dataclass(frozen=True)
class Case:
    group: str
    name: str
    act: Act
    right: Right


@dataclass
class Table:
    cases: list[Case] = field(default_factory=list)
    group: str = ""

    def add(self, name: str, act: Act, right: Right) -> None:
        self.cases.append(Case(self.group, name, act, right))


def refused(*says: str, check: Check | None = None) -> Right:
    """One line that says what is wrong, and exit code 2."""
    return Right((2,), says, check)


def works(check: Check | None = None, *says: str) -> Right:
    return Right((0,), says, check)


def problem(*says: str, check: Check | None = None) -> Right:
    """`data check` finds something: exit code 1."""
    return Right((1,), says, check)


def total(count: int, **classes: int) -> Check:
    """`data check --json` counts so many images, and in these classes so many."""

    def check(result: Result, box: Box) -> bool:
        found = {
            name: sum(sum(table[split].values()) for split in ("train", "test"))
            for name, table in result.json["classes"].items()
        }
        return result.json["total"] == count and (not classes or found == classes)

    return check


def look(path: object, *more: str) -> list[str]:
    return ["data", "check", str(path), "--json", *more]


def noise(name: str, size: int = 24) -> np.ndarray[Any, Any]:
    seed = zlib.crc32(name.encode("utf-8", "surrogateescape"))
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def spot(level: int = 255, size: int = 24) -> np.ndarray[Any, Any]:
    mask = np.zeros((size, size), np.uint8)
    mask[4:12, 4:12] = level
    return mask


def left(name: str) -> Check:
    """Nothing of this name was made."""
    return lambda result, box: not os.path.lexists(box.tmp / name)


def row(**changes: Any) -> dict[str, Any]:
    """A row of results.jsonl as a run writes it."""
    values: dict[str, Any] = {
        **{"key": "0123456789abcdef", "backbone": "random", "method": "padim", "dataset": "factory", "class": "nut"},
        **{"seed": 0, "shots": None, "test": "real", "image_auroc": 1.0, "oracle_image_auroc": None},
        **{"pixel_auroc": 0.9, "aupro": 0.5, "image_average_precision": 1.0, "image_f1_max": 1.0},
        **{"pixel_average_precision": 0.3, "pixel_f1_max": 0.4, "undefined_because": {}, "transductive": False},
        **{"draw": None, "images": {"fitted": 4, "good": 2, "anomalous": 2}},
        **{"scores": {"good": [0.1, 0.2], "anomalous": [0.8, 0.9]}},
        **{"settings": {"resize": 256, "crop": 224}, "weights_sha256": "0" * 64, "data_sha256": "1" * 64},
        **{"versions": {"tabzoo": "0"}, "hardware": "cpu", "seconds": {"fit": 1.0, "score": 1.0}, "peak_memory": 1},
        "created": "2026-01-01T00:00:00+00:00",
    }
    return values | changes
