"""The paper's sentences."""

import dataclasses
from pathlib import Path

import pytest

from tabzoo.errors import InputError
from tabzoo.training.prompts import PromptSet, load_prompts


def test_counts_of_the_paper() -> None:
    prompts = load_prompts("tab")
    assert (len(prompts.normal), len(prompts.abnormal), len(prompts.templates)) == (8, 17, 20)
    normal, abnormal = prompts.sentences("metal nut")
    assert (len(normal), len(abnormal)) == (160, 340)
    assert len(set(normal + abnormal)) == 500
    assert 15 * len(normal + abnormal) == 7500


def test_wording_as_printed() -> None:
    normal, abnormal = load_prompts("tab").sentences("transistor")
    assert "a photo of the damaged transistor." in abnormal  # the paper's first example
    assert normal[0] == "a photo of a good transistor."
    assert "an manufacturing photo of the transistor with bumpy surfaces." in abnormal
    assert "a closed-up photo of the good condition transistor." in normal
    assert abnormal[-1] == "a photo of multiple transistor with hole."


def test_counts_of_the_authors_code() -> None:
    prompts = load_prompts("authors")
    assert (len(prompts.normal), len(prompts.abnormal), len(prompts.templates)) == (6, 6, 38)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("tab", "3baa59e6f43af022ee69edcf0b1268e29ffd660205fc9fe6ce2d11323f924f8d"),
        ("authors", "9842b3b71f4f7a0fdff07dbfd98be1d71a4052794a4306d9902972cabaaac3fb"),
    ],
)
def test_published_sets_stay_as_they_are(name: str, digest: str) -> None:
    message = "published prompt sets don't change; give it a new name or say so in CHANGELOG"
    assert load_prompts(name).digest() == digest, message


def test_every_sentence_counts_in_the_digest() -> None:
    prompts = PromptSet(normal=("a {c}", "b {c}"), abnormal=("c {c}",), templates=("{s}.",))
    changed = [
        dataclasses.replace(prompts, **{field.name: (*getattr(prompts, field.name), "{c} {s}")})  # type: ignore[arg-type]
        for field in dataclasses.fields(prompts)
    ]
    changed.append(dataclasses.replace(prompts, normal=prompts.normal[::-1]))
    assert len({made.digest() for made in (prompts, *changed)}) == 5


def test_own_set(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "normal: ['clean {c}']\nabnormal: ['dirty {c}', '{c} with a {burr}']\ntemplates: ['{s}!', 'see {s}']\n"
    )
    normal, abnormal = load_prompts(str(path)).sentences("cog")
    assert normal == ["clean cog!", "see clean cog"]
    assert abnormal == ["dirty cog!", "see dirty cog", "cog with a {burr}!", "see cog with a {burr}"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("normal: ['good {c}']", "expected exactly the lists"),
        ("normal: []\nabnormal: ['x {c}']\ntemplates: ['{s}']", "'normal' must be a list"),
        ("normal: [good]\nabnormal: ['x {c}']\ntemplates: ['{s}']", r"'good' in 'normal' has no \{c\}"),
        ("normal: ['x {c}']\nabnormal: ['x {c}']\ntemplates: ['x {c}']", r"'x {c}' in 'templates' has no \{s\}"),
        ("normal: [{a: 1}]\nabnormal: ['x {c}']\ntemplates: ['{s}']", "must be a list of at least one sentence"),
        ("- a", "got list"),
        ("a: [", "not valid YAML"),
        ("a: \x00", "not valid YAML"),
    ],
)
def test_bad_sets_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=reason):
        load_prompts(str(path))


def test_missing_set() -> None:
    with pytest.raises(InputError, match="neither a built-in set"):
        load_prompts("nowhere.yaml")
