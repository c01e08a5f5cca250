"""The command line of pre-training: run options and every recipe field as flags."""

import argparse
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, make_dataclass
from typing import Annotated, Any, ClassVar, Literal

import tyro

from tabzoo.errors import InputError
from tabzoo.flags import parse as parse_arguments
from tabzoo.training.ranks import launcher
from tabzoo.training.recipe import GROUPS, NORMALISATION, Recipe, list_recipes, load_recipe

__all__ = ["Command", "again", "as_arguments", "check_start", "make_command", "parse"]

MODULE = "tabzoo.training.pretrain"
DEFAULT_RECIPE = "resnet18.tab_mvtec"
_TABLES = ("class_names", "mix_weights")
"""Fields whose entries are added to the recipe's."""


def _title(group: type) -> str:
    """MostUsed -> most_used."""
    return re.sub("(?<!^)(?=[A-Z])", "_", group.__name__).lower()


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Pre-train a backbone by TAB: a folder of good images in, a folder that timm loads out.

    Flags override the recipe's values.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "tabzoo pretrain --recipe quickstart --output runs/quickstart",
        "tabzoo pretrain --recipe resnet18.tab_mvtec --data photos --license apache-2.0 --output runs/mine",
        "tabzoo pretrain --recipe resnet18.tab_mvtec --data photos --output runs/mine --resume",
    )

    recipe: Annotated[str, tyro.conf.arg(help_behavior_hint="(required)")]
    """A recipe of tabzoo, or FILE.yaml."""
    output: str | None = None
    """Folder to write; runs/RECIPE if not given."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """How this run is started."""

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


@dataclass(frozen=True, kw_only=True)
class Command(Running, RunOptions):
    """A command line as it is meant: the options, and the recipe with all flags in it.

    Attributes:
        settings: The recipe with all flags. Its mean and std are None where neither flags nor the recipe state them for
            this backbone: those of a recipe belong to the recipe's backbone.
        named: The recipe without the flags.
    """

    settings: Recipe
    named: Recipe


_GROUPS = (GROUPS[0], Running, *GROUPS[1:])
# What tyro reads: the options, then the recipe's fields group by group. Field names are the groups' titles.
_Flags: Any = make_dataclass(
    "_Flags",
    [(_title(group), group) for group in _GROUPS],
    bases=(RunOptions,),
    frozen=True,
    kw_only=True,
)
_Flags.__doc__ = RunOptions.__doc__


def parse(arguments: Sequence[str], *, prog: str = f"python -m {MODULE}") -> Command:
    """The command line, with the recipe it names as defaults of the recipe's flags.

    Raises:
        InputError: No such recipe, or an invalid value.
        SystemExit: A flag does not exist or can't be parsed (code 2), or is --help (code 0).
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--recipe", nargs="?")
    for key in NORMALISATION:
        finder.add_argument(f"--{key}", nargs="*")
    found = finder.parse_known_args(arguments)[0]
    name = found.recipe
    asks = {"-h", "--help"} & set(arguments)
    if name is None or (asks and name not in list_recipes()):
        name = DEFAULT_RECIPE
    recipe = load_recipe(name)
    # tyro would make a flag of each entry of a non-empty table: the recipe's entries are added afterwards.
    defaults = {**vars(recipe), **{key: {} for key in _TABLES}}
    groups = {_title(group): group(**{of.name: defaults[of.name] for of in fields(group)}) for group in GROUPS}
    groups[_title(Running)] = Running()
    flags = parse_arguments(
        _Flags,
        arguments,
        default=_Flags(recipe=name, **groups),
        prog=prog,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    given = vars(flags)
    values: dict[str, Any] = {}
    given |= vars(given.pop(_title(Running)))
    for title in map(_title, GROUPS):
        values |= vars(given.pop(title))
    not_typed = [key for key in NORMALISATION if getattr(found, key) is None]
    changes = {key: value for key, value in values.items() if key not in not_typed}
    check_start(given)
    try:
        return make_command(recipe, changes, **given)
    except InputError as error:  # begins with the field's name
        field, _, problem = str(error).partition(":")
        raise InputError(f"--{field.replace('_', '-')}:{problem}") from error


def make_command(named: Recipe, changes: Mapping[str, Any], **options: Any) -> Command:
    """The command that takes a recipe and changes some of its fields.

    Args:
        named: The recipe without the changes.
        changes: Field to value. Entries of a table are added to the recipe's.
        options: Fields of `RunOptions` and `Running`.

    Raises:
        InputError: An invalid value of a field, whose name the message begins with.
    """
    values = {**vars(named), **changes}
    for key in _TABLES:
        if isinstance(values[key], Mapping):
            values[key] = {**getattr(named, key), **values[key]}
    if values["backbone"] != named.backbone:
        values |= {key: None for key in NORMALISATION if key not in changes}
    return Command(**options, settings=Recipe(**values), named=named)


def check_start(options: Mapping[str, Any]) -> None:
    """Checks that a run is to be continued or replaced, not both.

    Args:
        options: Fields of `Running`.

    Raises:
        InputError: It is to be both.
    """
    if options.get("resume") and options.get("overwrite"):
        raise InputError("--resume and --overwrite exclude each other: continue the run, or replace it")


def as_arguments(given: Mapping[str, Any]) -> list[str]:
    """The flags that say what these fields say; a value of None is left out, since no flag says it."""
    words: list[str] = []
    for name, value in given.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, Mapping):
            words += [flag, *(str(word) for entry in value.items() for word in entry)] if value else []
        elif isinstance(value, tuple):
            words += [flag, *map(str, value)]
        elif value is not None:
            words += [f"{flag}={value}"] if str(value).startswith("-") else [flag, str(value)]
    return words


def again(arguments: Sequence[str], *added: str, without: Sequence[str] = ()) -> str:
    """The command line again, with some flags added and others left out, for a message that says what to type."""
    kept = [argument for argument in arguments if argument not in without]
    return shlex.join([*launcher(), "-m", MODULE, *kept, *added])
