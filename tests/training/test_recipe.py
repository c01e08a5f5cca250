"""Recipes: what ships, what is refused, and the hash."""

from pathlib import Path

import pytest

from tabzoo.errors import InputError
from tabzoo.training.recipe import Recipe, list_recipes, load_recipe


def test_what_ships() -> None:
    assert list_recipes() == [
        "quickstart",
        "resnet18.ranking",
        "resnet18.tab_industrial",
        "resnet18.tab_industrial.authors",
        "resnet18.tab_mvtec",
        "resnet18.tab_mvtec.authors",
        "resnet50.tab",
        "tf_efficientnet_lite0.ranking",
        "wide_resnet50_2.tab",
    ]
    for name in list_recipes():
        load_recipe(name)


def test_the_supplement_and_the_code() -> None:
    supplement, code = load_recipe("resnet18.tab_mvtec"), load_recipe("resnet18.tab_mvtec.authors")
    assert (supplement.epochs, supplement.batch_size, supplement.lr, supplement.momentum) == (200, 512, 1e-4, 0.9)
    assert (supplement.prompts, supplement.projection, supplement.reduction) == ("tab", "none", "mean")
    assert (code.epochs, code.batch_size, code.lr, code.repeats) == (100, 64, 1e-3, 3)
    assert (code.prompts, code.projection, code.reduction) == ("authors", "residual", "sum")
    assert (supplement.text_layout, supplement.sampling, supplement.class_words) == ("rows", "uniform", "words")
    for name in ("resnet18.tab_mvtec.authors", "resnet18.tab_industrial.authors"):
        code = load_recipe(name)
        assert (code.text_layout, code.sampling, code.class_words) == ("authors", "sequential", "folder")
    for recipe in (supplement, code):
        assert recipe.learn_temperature
        assert recipe.temperature == pytest.approx(2.659, abs=1e-3)
        assert (recipe.resize, recipe.crop, recipe.backbone) == (256, 224, "resnet18.tv_in1k")


def test_yaml_round_trip(tmp_path: Path) -> None:
    recipe = Recipe(class_names={"01": "casting plate"}, lr=3e-5, cache="off", data="somewhere/private")
    (tmp_path / "r.yaml").write_text(recipe.to_yaml())
    assert "private" not in recipe.to_yaml()
    again = load_recipe(str(tmp_path / "r.yaml"))
    assert again == recipe.replace(data=None)
    assert again.digest() == recipe.digest()


def test_yaml_readings_that_surprise_people(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("lr: 1e-3\namp: off\nmean: [0, 0, 0]\n")
    recipe = load_recipe(str(tmp_path / "r.yaml"))
    assert (recipe.lr, recipe.amp, recipe.mean) == (1e-3, "off", (0, 0, 0))


def test_hash_takes_what_decides_the_result() -> None:
    recipe = Recipe()
    for same in (
        {"data": "x"},
        {"workers": 9},
        {"cache": "ram"},
        {"cache_dir": "y"},
        {"log_every": 3},
        {"save_every": 3},
    ):
        assert recipe.replace(**same).digest() == recipe.digest()
    for other in ({"seed": 1}, {"lr": 2e-4}, {"class_names": {"a": "b"}}, {"nsa_shift": False}, {"epochs": 3}):
        assert recipe.replace(**other).digest() != recipe.digest()


def test_files_are_found_beside_the_recipe_and_go_by_content(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("normal: ['n {c}']\nabnormal: ['a {c}']\ntemplates: ['{s}']\n")
    (tmp_path / "r.yaml").write_text("prompts: mine.yaml\n")
    recipe = load_recipe(str(tmp_path / "r.yaml"))
    assert recipe.prompts == str(tmp_path / "mine.yaml")
    assert "prompts: mine.yaml" in recipe.to_yaml()
    before = recipe.digest()
    (tmp_path / "copy.yaml").write_bytes((tmp_path / "mine.yaml").read_bytes())
    assert recipe.replace(prompts=str(tmp_path / "copy.yaml")).digest() == before
    (tmp_path / "mine.yaml").write_text("normal: ['m {c}']\nabnormal: ['a {c}']\ntemplates: ['{s}']\n")
    assert recipe.digest() != before


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("epoch: 3", "unknown field 'epoch'. Did you mean 'epochs'?"),
        ("zzz: 3", "Known fields: data, backbone"),
        ("lr: fast", "lr: 'fast' given, expected a number"),
        ("lr: true", "lr: True given, expected a number"),
        ("epochs: 1.5", "epochs: 1.5 given, expected a whole number"),
        ("workers: many", "workers: 'many' given, expected a whole number"),
        ("white_level: bright", "white_level: 'bright' given, expected a number"),
        ("epochs: 0", "epochs: 0 given, expected at least 1"),
        ("lr: -1", "lr: -1.0 given, expected at least 0"),
        ("lr: .nan", "lr: nan given"),
        ("mean: [1, 2]", "expected three numbers"),
        ("std: [1, 0, 1]", "std: .* expected numbers above 0"),
        ("class_names: {1: a}", "quote numbers: '01'"),
        ("schedule: cosin", "Did you mean 'cosine'?"),
        ("crop: 300", "crop: 300 given, but images are resized to 256"),
        ("val_share: 1", "val_share: 1.0 given"),
        ("white_level: 0", "white_level: 0.0 given, expected a pixel value above 0"),
        ("temperature: 0", "temperature: 0.0 given"),
        ("learn_temperature: 3", "learn_temperature: 3 given, expected true or false"),
        ("warmup_epochs: 300", "more than epochs"),
        ('cache_dir: "a\\0b"', "cache_dir: .* given, expected a string without the character NUL"),
        ("- a", "expected 'field: value' lines; got a list"),
        ("a: [", "not valid YAML"),
    ],
)
def test_bad_recipes_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(InputError, match=f"--recipe .*r.yaml: .*{reason}".replace("?", r"\?").replace("[", r"\[")):
        load_recipe(str(tmp_path / "r.yaml"))


def test_unknown_recipe() -> None:
    with pytest.raises(InputError, match="Did you mean 'quickstart'"):
        load_recipe("quickstrat")


def test_a_later_field_is_written_where_it_says_something() -> None:
    """Versions that do not know it can read all other recipes."""
    assert "white_level" not in Recipe().to_yaml()
    assert "white_level: 4095.0\n" in Recipe(white_level=4095).to_yaml()
