"""The options of a trial, checked. Their docstrings are the help of the command line's flags."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tabzoo.data.cache import CacheMode
from tabzoo.data.layouts import LAYOUTS
from tabzoo.errors import InputError
from tabzoo.flags import check_number, check_white_level, optional

__all__ = ["DEFAULT_RECIPE", "Options"]

DEFAULT_RECIPE = "tf_efficientnet_lite0.ranking"
_LONGEST = 60 * 24 * 365  # minutes

_Name = Annotated[str | None, optional("NAME")]


@dataclass(frozen=True, kw_only=True)
class Options:
    """All options of a trial."""

    data: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """Good photos, CLASS/train/good/* or CLASS/*; real defects, if there are any, in CLASS/test/KIND/*."""
    output: Annotated[Path, tyro.conf.arg(metavar="OUT")] = Path("runs/trial")
    """Folder for everything that the trial makes. The same command goes on with a trial that was stopped."""
    backbone: Annotated[str | None, optional("NAME|DIR")] = None
    """The start: a CNN of timm with its tag, hf-hub:ID, or a folder such as a run's. If not given: the recipe's."""
    init: Annotated[str | None, optional("pretrained|random|FILE")] = None
    """Weights of the start: the backbone's own (pretrained), random ones, or a file's. If not given: the recipe's."""
    recipe: _Name = None
    """A recipe of tabzoo, or FILE.yaml. If not given: tf_efficientnet_lite0.ranking, which needs no texts."""
    minutes: Annotated[float, tyro.conf.arg(metavar="M")] = 20.0
    """Time for all of the trial. The epochs are fitted to it; there are never more than the recipe has."""
    seeds: Annotated[Sequence[int], tyro.conf.arg(metavar="S [S ...]")] = (0, 1)
    """A training run for each seed. With a single one, chance of the training does not enter the interval."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")] = False
    """Replace the trial in the output folder."""
    layout: Annotated[str, tyro.conf.arg(metavar="NAME", help=f"auto, {', '.join(LAYOUTS)}.")] = "auto"
    class_names: Annotated[dict[str, str], optional("CLASS WORDS [...]")] = field(default_factory=dict)
    """Folder name and the words for it in prompts, e.g. --class-names 01 "casting plate"."""
    text_pretrained: Annotated[str | None, optional("TAG|FILE")] = None
    """open_clip weights tag, a checkpoint FILE, a text_features.safetensors FILE, or untrained (for trying things out).
    If not given: the recipe's."""
    white_level: Annotated[float | None, optional("X")] = None
    """Pixel value that becomes white in grey images of more than 8 bits. If not given: the recipe's."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes the GPU if there is one."""
    workers: Annotated[int | None, optional("N")] = None
    """Processes that decode images. If not given: one for each CPU core."""
    cache: CacheMode = "disk"
    """Where decoded images are kept."""
    cache_dir: Annotated[str | None, optional("DIR")] = None
    """Folder of the cache. If not given: tabzoo/images in the user's cache folder."""

    def check(self) -> None:
        """Checks each value by itself.

        Raises:
            InputError: A value can't work; the message names the flag.
        """
        for name in ("data", "backbone", "init", "recipe", "text_pretrained", "cache_dir"):
            if (
                getattr(self, name) == ""
            ):  # such as an unset variable of a shell; as a path it would be the current folder
                raise InputError(f"--{name.replace('_', '-')}: '' given, expected a value")
        if not 0 < self.minutes <= _LONGEST:
            raise InputError(f"--minutes {self.minutes:g}: expected a number above 0, at most {_LONGEST}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"--seeds {' '.join(map(str, self.seeds))}: expected one or more different seeds")
        for seed in self.seeds:
            check_number("seeds", seed, least=0)
        check_number("workers", self.workers, least=0)
        check_white_level(self.white_level)
        self._check_output()

    def _check_output(self) -> None:
        """A trial among its own photos would be found as a class the next time."""
        data = Path(self.data)
        if data.is_dir() and self.output.resolve().is_relative_to(data.resolve()):
            raise InputError(f"--output {self.output}: is inside --data {self.data}. Name a folder outside the photos.")

    def inputs(self) -> dict[str, Any]:
        """The flags that may name files or folders, and their values."""
        return {name: getattr(self, name) for name in ("data", "backbone", "init", "recipe", "text_pretrained")}
