"""The command line of pre-training: run options and every recipe field as flags."""

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import tyro

from tabzoo.command import parse as parse_arguments
from tabzoo.errors import InputError
from tabzoo.training.ranks import launcher
from tabzoo.training.recipe import Recipe, list_recipes, load_recipe

__all__ = ["Command", "again", "parse"]

_MODULE = "tabzoo.training.pretrain"


@dataclass(frozen=True, kw_only=True)
class Command:
    """Pre-train a backbone by TAB: a folder of good images in, a folder that timm loads out.

    Flags of the recipe override what the recipe says. Examples:
      python -m tabzoo.training.pretrain --recipe quickstart --output runs/quickstart
      python -m tabzoo.training.pretrain --recipe resnet18.tab_mvtec --data DIR --output runs/mine
    """

    recipe: str
    """A recipe of tabzoo, or FILE.yaml."""
    output: str | None = None
    """Folder to write; runs/RECIPE if not given."""
    resume: bool = False
    """Continue the run in the output folder, or start it if there is none."""
    allow_recipe_change: bool = False
    """When resuming, continue although settings differ from those the run was started with."""
    overwrite: bool = False
    """Replace the run in the output folder."""
    strict: bool = False
    """Stop when a file can't be read, instead of skipping it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes the GPU if there is one."""
    benchmark: bool = True
    """Quickstart: at the end, test random and trained weights on the toy factory's defects."""
    settings: Annotated[tyro.conf.OmitArgPrefixes[Recipe], tyro.conf.arg(name="recipe fields")]
    """The resolved recipe."""


class _Unchecked(Recipe):
    """A recipe as tyro builds it. Its values are checked later, so that our one-line errors are shown."""

    def __post_init__(self) -> None:
        pass


def parse(arguments: Sequence[str]) -> Command:
    """The command line, with the recipe it names as defaults of the recipe's flags.

    Raises:
        InputError: No such recipe, or an invalid value.
        SystemExit: A flag does not exist or can't be parsed (code 2), or is --help (code 0).
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--recipe")
    name = finder.parse_known_args(arguments)[0].recipe
    if name is None:
        if not {"-h", "--help"} & set(arguments):
            raise InputError(
                f"--recipe is missing; type --recipe NAME or FILE.yaml, NAME one of {', '.join(list_recipes())}"
            )
        name = "resnet18.tab_mvtec"
    recipe = load_recipe(name)
    # tyro would make a flag of each entry of a non-empty table: the recipe's entries are added afterwards.
    tables: dict[str, dict[str, Any]] = {"class_names": recipe.class_names, "mix_weights": recipe.mix_weights}
    default = Command(recipe=name, settings=_Unchecked(**{**vars(recipe), **{key: {} for key in tables}}))
    command: Command = parse_arguments(Command, arguments, default=default, prog=f"python -m {_MODULE}")
    merged = {key: {**table, **getattr(command.settings, key)} for key, table in tables.items()}
    try:
        command = replace(command, settings=Recipe(**{**vars(command.settings), **merged}))
    except InputError as error:  # begins with the field's name
        field, _, problem = str(error).partition(":")
        raise InputError(f"--{field.replace('_', '-')}:{problem}") from error
    if command.resume and command.overwrite:
        raise InputError("--resume and --overwrite exclude each other: continue the run, or replace it")
    return command


def again(arguments: Sequence[str], *added: str, without: Sequence[str] = ()) -> str:
    """The command line again, with some flags added and others left out, for a message that says what to type."""
    kept = [argument for argument in arguments if argument not in without]
    return shlex.join([*launcher(), "-m", _MODULE, *kept, *added])
