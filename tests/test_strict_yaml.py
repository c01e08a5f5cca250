"""YAML that is odd, hostile or ambiguous: one line that says what is wrong, and no hang."""

import pytest

from tabzoo.errors import InputError
from tabzoo.strict_yaml import read_yaml
from tabzoo.training.prompts import load_prompts
from tabzoo.training.recipe import load_recipe

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))


def test_plain_yaml_is_as_ever() -> None:
    text = "a: 1\nb: [x, 2.5, true, null]\nc: {d: 2001-12-31, e: '01'}\n"
    assert (
        str(read_yaml(text))
        == "{'a': 1, 'b': ['x', 2.5, True, None], 'c': {'d': datetime.date(2001, 12, 31), 'e': '01'}}"
    )
    assert read_yaml("") is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("lr: 0.1\nepochs: 3\nlr: 0.2", "line 3: 'lr' is given twice|line 1: 'lr' is given twice"),
        ("class_names: {a: x, a: y}", "line 1: 'a' is given twice"),
        (BOMB, r"line 2: aliases \(\*name\) are not supported"),
        ("data: 2001-13-45", "month must be in 1..12"),
        ("epochs: !!int abc", "invalid literal"),
        ("data: !!timestamp abc", "."),
        ("seed: " + "9" * 5000, "Exceeds the limit"),
        ("[" * 900, "."),
        ("{" * 20_000, "nested too deeply"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("? [1]\n: 2", "unhashable"),
        ("a: \x00", "."),
        ("a: b: c", "line 1: mapping values are not allowed here"),
    ],
)
def test_what_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        read_yaml(text)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("load", [load_recipe, load_prompts])
def test_files_of_users_are_read_so(load: object, tmp_path: object) -> None:
    path = tmp_path / "mine.yaml"  # type: ignore[operator]
    path.write_text(BOMB)
    with pytest.raises(InputError, match=r"mine.yaml: not valid YAML: line 2: aliases"):
        load(str(path))  # type: ignore[operator]


def test_long_values_are_shortened_in_messages(tmp_path: object) -> None:
    path = tmp_path / "mine.yaml"  # type: ignore[operator]
    path.write_text(f"epochs: [{', '.join(['1'] * 10_000)}]")
    with pytest.raises(InputError, match="epochs: .*expected a whole number") as caught:
        load_recipe(str(path))
    assert len(str(caught.value)) < 400
