"""The definitions in `arms.yaml`: arms, budgets and folds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tabzoo.errors import InputError, did_you_mean
from tabzoo.strict_yaml import read_yaml
from tabzoo.training.recipe import Recipe, load_recipe

__all__ = ["ARMS", "START", "Arm", "Budget", "Definitions", "Stage", "read_definitions"]

ARMS = Path(__file__).parent / "arms.yaml"
START = "start"
"""The arm that all others are compared with; also its folder in OUT."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A way to train.

    Attributes:
        name: Folder under OUT/runs.
        about: What it is, in words.
        recipe: Recipe of tabzoo.
        settings: Fields of the recipe that are set, with all that the budget sets.
    """

    name: str
    about: str
    recipe: str
    settings: Mapping[str, Any]

    def resolved(self) -> Recipe:
        """The recipe with the settings, without the files of OUT.

        Raises:
            InputError: An unknown recipe or field, or an invalid value.
        """
        recipe = load_recipe(self.recipe)
        if unknown := sorted(set(self.settings) - set(vars(recipe))):
            raise InputError(
                f"{ARMS.name}: arm {self.name} sets {unknown[0]}, which is no field of a recipe."
                f"{did_you_mean(unknown[0], vars(recipe))}"
            )
        try:
            return recipe.replace(**self.settings)
        except InputError as error:
            raise InputError(f"{ARMS.name}: arm {self.name}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the work: some arms with these seeds.

    Attributes:
        training_seeds: Seeds of the training.
        detectors: Method to its seeds.
    """

    training_seeds: tuple[int, ...]
    detectors: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is computed.

    Attributes:
        name: quick or full.
        settings: Fields of the recipe that all arms share.
        grouped: Whether several families are left out at a time.
        screen: What every arm gets.
        finalists: What the finalists get in addition.
        trained: What the finalists get in addition with `--trained-methods`.
    """

    name: str
    settings: Mapping[str, Any]
    grouped: bool
    screen: Stage
    finalists: Stage
    trained: Stage

    @property
    def methods(self) -> dict[str, tuple[int, ...]]:
        """All methods of the stages, and their seeds."""
        stages = self.screen, self.finalists, self.trained
        return {method: seeds for stage in stages for method, seeds in stage.detectors.items()}


@dataclass(frozen=True, kw_only=True)
class Definitions:
    """All of `arms.yaml`, for one budget.

    Attributes:
        start: What the start is, in words.
        budget: The budget.
        arms: By name, in the order of the file.
        left_out: Arms that only the other budget has, and what they are.
        grouped_folds: Name of each fold to the families that it leaves out.
    """

    start: str
    budget: Budget
    arms: Mapping[str, Arm]
    left_out: Mapping[str, str] = field(default_factory=dict)
    grouped_folds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def choose(self, names: tuple[str, ...] | None) -> list[Arm]:
        """The arms of these names, all if none are given.

        Raises:
            InputError: There is no such arm with this budget.
        """
        for name in names or ():
            if name in self.left_out:
                raise InputError(f"arm {name}: only with another budget; {self.budget.name} has {', '.join(self.arms)}")
            if name not in self.arms:
                raise InputError(
                    f"arm {name}: unknown; there are {', '.join(self.arms)}.{did_you_mean(name, self.arms)}"
                )
        return [self.arms[name] for name in names or self.arms]


def read_definitions(budget: str, path: Path = ARMS) -> Definitions:
    """Reads the definitions for one budget.

    Raises:
        InputError: The file is not as its header says, or there is no such budget.
    """
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
        if budget not in content["budgets"]:
            raise InputError(f"--budget {budget}: there are {', '.join(content['budgets'])}")
        of_budget = _budget(budget, content["budgets"][budget])
        mine = {name: arm for name, arm in content["arms"].items() if arm.get("only", budget) == budget}
        return Definitions(
            start=content["start"],
            budget=of_budget,
            arms={name: _arm(name, arm, of_budget) for name, arm in mine.items()},
            left_out={name: arm["about"] for name, arm in content["arms"].items() if name not in mine},
            grouped_folds={name: tuple(families) for name, families in content["grouped_folds"].items()},
        )
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not as its header says: {type(error).__name__}: {error}") from error


def _budget(name: str, content: Mapping[str, Any]) -> Budget:
    stages = {stage: _stage(content[stage]) for stage in ("screen", "finalists", "trained")}
    return Budget(name=name, settings=content["settings"], grouped=content["folds"] == "grouped", **stages)


def _stage(content: Mapping[str, Any]) -> Stage:
    detectors = {method: tuple(seeds) for method, seeds in content["detectors"].items()}
    return Stage(training_seeds=tuple(content["training_seeds"]), detectors=detectors)


def _arm(name: str, content: Mapping[str, Any], budget: Budget) -> Arm:
    if name == START:
        raise InputError(f"{ARMS.name}: arm {name}: this is the name of the weights that all arms start from")
    settings = {**budget.settings, **content.get("settings", {}), **content.get(budget.name, {})}
    return Arm(name=name, about=content["about"], recipe=content["recipe"], settings=settings)
