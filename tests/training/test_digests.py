"""Published recipes and prompt sets don't change: their SHA-256, as model cards and records name it."""

import dataclasses
from pathlib import Path

import pytest

from tabzoo.training import recipe as recipe_module
from tabzoo.training.prompts import load_prompts
from tabzoo.training.recipe import Recipe, list_recipes, load_recipe

CHANGED = "published recipes don't change; give it a new name or say so in CHANGELOG"

RECIPES = {
    "quickstart": "564c91de73d8f24d8f6cd6ba0df68c0829616abd3261d505014d5908410d9d66",
    "resnet18.ranking": "3e5388d67ef9be465f33cf12f764e3f74d9e5cff2e5f526319fb9ece7ff52032",
    "resnet18.tab_industrial": "a6578628172ec495ca440c98c92c45e9d36ff3be92d7528d91ff16eacb8642cc",
    "resnet18.tab_industrial.authors": "257d4ce3ef86b9311146515684ff5848554a95a6c14b5f5ebe7ea0001338f100",
    "resnet18.tab_mvtec": "bc622047b7b4d8dccdc9d9081150513edb3a6e552341696dd36d75ff191c2f39",
    "resnet18.tab_mvtec.authors": "c8b23668fc4f50941ec649ad498f022ff7bc7c2d3676ee035d7ce10d6a9359de",
    "resnet50.tab": "aeea1ed049bb5093b2e67ce5b4ef93525ea53cce351236a70543ad1977f1141d",
    "tf_efficientnet_lite0.ranking": "2c0b46aecf7a921fcecec1f8f12f65965b9ad483cca72a7d2b9ab7454040dbfd",
    "wide_resnet50_2.tab": "7646adff6bce4c31addc58d4cfd9bb1af960fe0b6c0226d4c6ab9aeb98e642f0",
}
PROMPTS = {
    "authors": "9842b3b71f4f7a0fdff07dbfd98be1d71a4052794a4306d9902972cabaaac3fb",
    "tab": "3baa59e6f43af022ee69edcf0b1268e29ffd660205fc9fe6ce2d11323f924f8d",
}


def test_shipped_recipes_are_as_published() -> None:
    assert {name: load_recipe(name).digest() for name in list_recipes()} == RECIPES, CHANGED


def test_shipped_prompt_sets_are_as_published() -> None:
    folder = Path(recipe_module.__file__).with_name("prompt_sets")
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    assert {name: load_prompts(name).digest() for name in names} == PROMPTS, CHANGED


def test_every_field_that_decides_the_result_is_in_the_digest() -> None:
    """One changed value after another; fields that do not change the result are named here."""
    free = {"data", "workers", "cache", "cache_dir", "log_every", "save_every"} | set(recipe_module._UNSUPPORTED)
    special = {
        **{
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "class_names": {"01": "plate"},
            "mix_weights": {"nsa": 1.0},
        },
        **{"objective": "joint", "reduction": "sum", "projection": "linear", "synthesis": "mask", "nsa_blend": "mixed"},
        **{"nsa_mode": "fast", "nsa_background": 200.0, "cutpaste_variant": "scar", "sampling": "balanced"},
        **{"batch_norm": "frozen", "schedule": "constant", "amp": "bf16", "cache": "ram", "val_share": 0.5},
        **{"perlin_textures": "textures", "cache_dir": "somewhere", "data": "somewhere", "crop": 200, "workers": 3},
        **{"interpolation": 0.5, "white_level": 4095.0, "class_words": "folder", "text_layout": "authors"},
        **{"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    }
    for field in dataclasses.fields(Recipe):
        base = Recipe(objective="ranking", batch_norm="frozen") if field.name == "interpolation" else Recipe()
        value = getattr(base, field.name)
        if field.name in special:
            changed = special[field.name]
        elif isinstance(value, bool):
            changed = not value
        else:
            changed = f"{value}x" if isinstance(value, str) else value + 1 if isinstance(value, int) else value + 0.01
        same = base.replace(**{field.name: changed}).digest() == base.digest()
        assert same == (field.name in free), field.name


def test_a_later_field_leaves_the_digests_while_it_is_neutral(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Later(Recipe):
        new_thing: int = 0

    monkeypatch.setattr(recipe_module, "_LATER", recipe_module._LATER | {"new_thing": 0})
    for name in list_recipes():
        values = {field.name: getattr(load_recipe(name), field.name) for field in dataclasses.fields(Recipe)}
        assert Later(**values).digest() == RECIPES[name]
        assert Later(**values, new_thing=1).digest() != RECIPES[name]


def test_a_removed_field_leaves_the_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    left = [field.name for field in dataclasses.fields(Recipe) if field.name != "nsa_mode"]
    fewer = dataclasses.make_dataclass(
        "Fewer", left, namespace={"identity": Recipe.identity, "digest": Recipe.digest}, frozen=True
    )
    recipe = load_recipe("resnet18.tab_mvtec")
    without = fewer(**{name: getattr(recipe, name) for name in left})
    assert without.digest() != RECIPES["resnet18.tab_mvtec"]
    monkeypatch.setattr(recipe_module, "_GONE", {"nsa_mode": "exact"})
    assert without.digest() == RECIPES["resnet18.tab_mvtec"]
