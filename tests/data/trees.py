"""Generated folders of images, and samples as lists that can be compared."""

import os
from pathlib import Path

from tabzoo.data.samples import Samples


def touch(root: Path, *paths: str) -> None:
    """Empty files: except for KSDD2's masks, no layout depends on content."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def numbered(pattern: str, count: int) -> list[str]:
    return [pattern.format(i) for i in range(count)]


def table(samples: Samples) -> list[tuple[str, str, str, str]]:
    """Class, split, defect and path of each sample."""
    return [
        (
            samples.classes[samples.class_ids[i]],
            ("train", "test")[samples.split[i]],
            samples.defects[samples.defect_ids[i]],
            os.fsdecode(bytes(samples.paths[i])),
        )
        for i in range(len(samples))
    ]


def paths(samples: Samples) -> list[str]:
    return [os.fsdecode(path) for path in samples.paths.tolist()]


def mvtec_class(root: Path, name: str = "bottle", *, suffix: str = "_mask.png") -> None:
    touch(root, *numbered(name + "/train/good/{:03}.png", 3), *numbered(name + "/test/good/{:03}.png", 2))
    for defect in ("broken", "a crack"):
        touch(root, *numbered(f"{name}/test/{defect}/{{:03}}.png", 2))
        touch(root, *numbered(f"{name}/ground_truth/{defect}/{{:03}}{suffix}", 2))
    touch(root, f"{name}/license.txt", f"{name}/readme.txt")
