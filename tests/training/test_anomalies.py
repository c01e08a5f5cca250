"""A recipe's anomalies: settings, textures and the names of the methods."""

import dataclasses
import logging
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tabzoo.errors import InputError
from tabzoo.synthesis import METHODS, SYNTHESES, MixSettings, SynthesisName, make_synthesis
from tabzoo.synthesis.pairs import PairMaker
from tabzoo.training.anomalies import open_textures, pair_maker, syntheses, synthesis_settings
from tabzoo.training.command import parse
from tabzoo.training.recipe import _UNSUPPORTED, Recipe, load_recipe

CLASSES = torch.tensor([0, 0, 0, 1, 1, 1, 1])
RECIPE = Recipe(resize=40, crop=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
WITHOUT_A_FIELD = {
    "nsa": {"retries"},
    "cutpaste": {"area_min", "area_max", "aspect_min", "scar_width", "scar_height", "scar_angle", "jitter", "retries"},
    "perlin": {"scales", "max_angle", "change_probability"},
    "mask": {"fill", "retries"},
}
"""Settings that no recipe can change."""


def maker(recipe: Recipe) -> PairMaker:
    class Memory:
        def batch(self, indices: Tensor) -> Tensor:
            pixels = np.random.default_rng(0).integers(0, 256, (7, recipe.resize, recipe.resize, 3), dtype=np.uint8)
            return torch.from_numpy(pixels)[indices]

    return pair_maker(Memory(), torch.arange(7), CLASSES, recipe, torch.device("cpu"))


def other_value(value: Any, kind: Any) -> Any:
    if typing.get_origin(kind) is typing.Literal:
        return next(choice for choice in typing.get_args(kind) if choice != value)
    return not value if kind is bool else value + (1 if kind is int else 0.01)


@pytest.mark.parametrize("name", METHODS)
def test_recipe_fields_and_settings_are_the_same(name: str) -> None:
    """Each setting has a recipe field of the same default and type, which sets it and no other; or it is listed above."""
    settings = MixSettings().of_methods()[name]
    kinds, recipe_kinds = typing.get_type_hints(type(settings)), typing.get_type_hints(Recipe)
    flat = [field.name for field in dataclasses.fields(Recipe) if field.name.startswith(f"{name}_")]
    tied = {field: field.removeprefix(f"{name}_") for field in flat if field not in {*_UNSUPPORTED, "perlin_textures"}}
    assert sorted([*tied.values(), *WITHOUT_A_FIELD[name]]) == sorted(kinds)
    for field, setting in tied.items():
        default = getattr(settings, setting)
        assert (getattr(Recipe(), field), recipe_kinds[field]) == (default, kinds[setting])
        other = other_value(default, kinds[setting])
        for synthesis in (name, "mix"):
            found = synthesis_settings(Recipe(synthesis=synthesis, **{field: other}))
            changed = dataclasses.replace(settings, **{setting: other})
            assert found == (changed if synthesis == name else MixSettings(**{name: changed}))


def test_names_of_syntheses_are_one_set() -> None:
    assert typing.get_args(SynthesisName) == tuple(SYNTHESES) == (*METHODS, "mix")
    assert tuple(MixSettings().of_methods()) == tuple(METHODS)


@pytest.mark.parametrize("name", SYNTHESES)
def test_a_recipes_defaults_are_those_of_the_benchmark(name: str) -> None:
    """The benchmark measures the FID of, and tests with, the same anomalies as a recipe trains with."""
    benchmark: Any = make_synthesis(name, CLASSES, RECIPE.crop)
    assert benchmark.settings == synthesis_settings(RECIPE.replace(synthesis=name))


def test_perlin_textures_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "dots").mkdir()
    Image.new("RGB", (50, 50), (250, 0, 0)).save(tmp_path / "dots" / "red.png")
    recipe = RECIPE.replace(synthesis="perlin", perlin_textures=str(tmp_path), crop=40)
    textures = open_textures(recipe)
    assert textures is not None
    assert textures.shape == (1, 3, 40, 40)
    assert textures[0, :, 20, 20].tolist() == [250, 0, 0]
    pairs = maker(recipe)
    assert pairs.textures is not None
    assert maker(RECIPE.replace(synthesis="perlin")).textures is maker(RECIPE).textures is None
    drawn = pairs.synthesis.draw(0, 0, torch.arange(7))
    assert torch.equal(drawn.source, torch.arange(7))  # no other image is read
    assert bool(pairs.raw(0, 0, torch.arange(7)).mask.flatten(1).any(dim=1).all())
    with pytest.raises(InputError, match="only --synthesis perlin uses textures"):
        maker(recipe.replace(synthesis="nsa"))


def test_names_of_a_recipes_methods() -> None:
    assert syntheses(RECIPE.replace(synthesis="perlin")) == ["perlin"]
    assert set(syntheses(RECIPE.replace(synthesis="mix"))) == set(METHODS)
    assert syntheses(RECIPE.replace(synthesis="mix", mix_weights={"nsa": 1.0, "mask": 2.0})) == ["nsa", "mask"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("nsa_mode", "fast", "nsa_mode: fast is no longer supported; exact is used."),
        ("nsa_background", 200.0, "nsa_background: 200.0 is no longer supported; patches are taken from anywhere"),
        ("nsa_background_threshold", 60.0, "nsa_background_threshold: 60.0 is no longer supported; it is ignored."),
        ("nsa_min_object", 0.7, "nsa_min_object: 0.7 is no longer supported; it is ignored."),
        ("nsa_min_overlap", 0.5, "nsa_min_overlap: 0.5 is no longer supported; it is ignored."),
    ],
)
def test_unsupported_fields_are_accepted_with_one_warning(
    field: str, value: object, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, flag = tmp_path / "r.yaml", f"--{field.replace('_', '-')}"
    caplog.set_level(logging.WARNING)
    path.write_text(f"{field}: {value}\n")
    for arguments in (["--recipe", str(path)], ["--recipe", "quickstart", flag, str(value)]):
        caplog.clear()
        recipe = parse(arguments).settings
        assert len(caplog.messages) == 1
        assert caplog.messages[0].startswith(message)
        assert getattr(recipe, field) == getattr(Recipe(), field)
    assert load_recipe(str(path)) == Recipe()
    caplog.clear()
    path.write_text(Recipe().to_yaml())  # what earlier versions wrote names all fields
    load_recipe(str(path))
    assert not caplog.messages
