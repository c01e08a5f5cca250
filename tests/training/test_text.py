"""Text features: from an open_clip tower, from files, and refused."""

import inspect
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from tabzoo.errors import InputError, WeightsError
from tabzoo.training import text
from tabzoo.training.prompts import PromptSet, load_prompts
from tabzoo.training.text import TextFeatures, load_text_features, obtain_text_features

CPU = torch.device("cpu")
FEW = PromptSet(
    normal=("good {c}",), abnormal=("bad {c}", "{c} with hole"), templates=("a photo of a {s}.", "the {s} again.")
)
WORDS = {"metal_nut": "metal nut", "cable": "cable"}
WHOLE = {"words": {"a": "a"}, "text_model": "m", "text_pretrained": "p", "prompts_sha256": "s"}


def obtain(words: dict[str, str] | None = None, **changes: object) -> TextFeatures:
    values: dict[str, object] = {
        "text_model": "ViT-S-16-alt",
        "text_pretrained": "untrained",
        "prompts": FEW,
        "device": CPU,
    }
    return obtain_text_features(words or WORDS, **(values | changes))  # type: ignore[arg-type]


def test_against_a_plain_reference() -> None:
    """Each sentence alone, at the tower's full length, averaged as FACTS has it."""
    torch.manual_seed(11)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tower = open_clip.create_model("ViT-S-16-alt").eval()
    tokenize = open_clip.get_tokenizer("ViT-S-16-alt")
    features = obtain()
    for row, words in enumerate(WORDS.values()):
        for state, ours in zip(FEW.sentences(words), (features.normal, features.abnormal), strict=True):
            total = torch.zeros(256)
            for sentence in state:
                with torch.no_grad():
                    total += F.normalize(tower.encode_text(tokenize([sentence]))[0], dim=0)
            torch.testing.assert_close(ours[row], F.normalize(total, dim=0), atol=2e-6, rtol=1e-5)


def test_untrained_is_seeded_and_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    first, again, other = obtain(seed=1), obtain(seed=1), obtain(seed=2)
    assert [record.name for record in caplog.records] == [
        "tabzoo.training.text"
    ] * 3  # one line each, none of open_clip
    assert "untrained" in caplog.text
    assert torch.equal(first.normal, again.normal)
    assert not torch.equal(first.normal, other.normal)


def test_file_round_trip_takes_our_classes_in_our_order(tmp_path: Path) -> None:
    features = obtain()
    features.save(tmp_path / "t.safetensors")
    assert load_text_features(tmp_path / "t.safetensors") is not None
    swapped = obtain({"cable": "cable", "metal_nut": "metal nut"}, text_pretrained=str(tmp_path / "t.safetensors"))
    assert torch.equal(swapped.normal, features.normal.flip(0))
    assert list(swapped.words) == ["cable", "metal_nut"]
    assert (swapped.text_model, swapped.text_pretrained, swapped.prompts_sha256) == (
        "ViT-S-16-alt",
        "untrained",
        FEW.digest(),
    )


@pytest.mark.parametrize(
    "metadata",
    [
        *({"tabzoo": text} for text in ("[" * 100_000, "[1]", "3", "{", "{}", "null")),
        *({"tabzoo": json.dumps(WHOLE | {key: value})} for key in WHOLE for value in (3, None, ["a"], {"a": 1})),
        {},
    ],
)
def test_a_file_with_other_metadata(tmp_path: Path, metadata: dict[str, str]) -> None:
    tensors = {name: torch.ones(1, 8) for name in ("normal", "abnormal")}
    save_file(tensors, tmp_path / "f.safetensors", metadata=metadata)
    with pytest.raises(InputError, match="--text-pretrained .*f.safetensors: its metadata"):
        load_text_features(tmp_path / "f.safetensors")


@pytest.mark.parametrize(
    ("words", "changes", "reason"),
    [
        (
            {"metal_nut": "metal nut", "zip": "zip"},
            {},
            "no features for zip; it holds metal nut, cable. Make them again",
        ),
        (
            {"metal_nut": "hex nut"},
            {},
            'calls class metal_nut .metal nut., this run .hex nut.. Type --class-names metal_nut "metal nut"',
        ),
        (WORDS, {"prompts": load_prompts("tab")}, "made from other prompts"),
        (WORDS, {"text_model": "ViT-B-16"}, "Type --text-model ViT-S-16-alt"),
    ],
)
def test_a_file_that_does_not_fit(
    tmp_path: Path, words: dict[str, str], changes: dict[str, object], reason: str
) -> None:
    features = TextFeatures(
        normal=torch.eye(2),
        abnormal=torch.eye(2),
        words=WORDS,
        text_model="ViT-S-16-alt",
        text_pretrained="x",
        prompts_sha256=FEW.digest(),
    )
    features.save(tmp_path / "t.safetensors")
    with pytest.raises(InputError, match=reason):
        obtain(words, text_pretrained=str(tmp_path / "t.safetensors"), **changes)


def test_broken_files(tmp_path: Path, make_text_file: Callable[..., Path]) -> None:
    whole = make_text_file("a", "b").read_bytes()
    path = tmp_path / "t.safetensors"
    for content in (b"", b"not a safetensors file at all", whole[:-5], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a complete safetensors file"):
            load_text_features(path)
    with pytest.raises(InputError, match="no such file"):
        load_text_features(tmp_path / "none.safetensors")
    for tensor in (torch.full((2, 512), torch.nan), torch.ones(3, 512), torch.tensor(1.0), torch.ones(2, 512).long()):
        with pytest.raises(InputError, match="expected finite tensors"):
            load_text_features(make_text_file("a", "b", normal=tensor))


def test_unknown_names() -> None:
    with pytest.raises(InputError, match="open_clip has no such model. Did you mean 'ViT-B-16'"):
        obtain(text_model="ViT-B-61")
    with pytest.raises(InputError, match="neither a file nor weights of ViT-B-16, .* Did you mean 'laion400m_e32'"):
        obtain(text_model="ViT-B-16", text_pretrained="laion400m_e23")


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("tabzoo.hub.remote.try_to_load_from_cache", lambda *_: None)
    with pytest.raises(WeightsError, match="laion400m_e32 of ViT-B-16 can't be fetched") as caught:
        obtain(text_model="ViT-B-16", text_pretrained="laion400m_e32")
    for word in ("does not answer", "--text-pretrained FILE", "--text-pretrained CHECKPOINT"):
        assert word in str(caught.value)


def test_a_checkpoint_file_of_the_tower(tmp_path: Path) -> None:
    torch.manual_seed(21)
    tower = open_clip.create_model("ViT-S-16-alt")
    torch.save(tower.state_dict(), tmp_path / "clip.pt")
    features = obtain(text_pretrained=str(tmp_path / "clip.pt"))
    assert features.text_pretrained == "clip.pt"
    tokens = open_clip.get_tokenizer("ViT-S-16-alt")(FEW.sentences("cable")[0])
    with torch.no_grad():
        expected = F.normalize(F.normalize(tower.eval().encode_text(tokens), dim=-1).mean(dim=0), dim=0)
    torch.testing.assert_close(features.normal[1], expected, atol=2e-6, rtol=1e-5)
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    with pytest.raises(InputError, match="can't be loaded into open_clip's ViT-S-16-alt"):
        obtain(text_pretrained=str(tmp_path / "bad.pt"))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[object, ...]]:
    """An empty cache, and made-up features in place of a tower's; what each was made from."""
    monkeypatch.setenv("TABZOO_CACHE", str(tmp_path / "cache"))
    made: list[tuple[object, ...]] = []

    def encode(
        words: dict[str, str], text_model: str, tag: str, prompts: PromptSet, device: torch.device, seed: int
    ) -> TextFeatures:
        made.append((words, text_model, tag, prompts))
        generator = torch.Generator().manual_seed(len(made))
        normal, abnormal = torch.randn(2, len(words), 8, generator=generator)
        of = {"text_model": text_model, "text_pretrained": tag, "prompts_sha256": prompts.digest()}
        return TextFeatures(normal=normal, abnormal=abnormal, words=dict(words), **of)

    monkeypatch.setattr(text, "_encode_classes", encode)
    return made


PUBLISHED: dict[str, object] = {"words": WORDS, "text_model": "ViT-B-16", "text_pretrained": "some_tag", "prompts": FEW}
OTHER: dict[str, object] = {
    "words": {"metal_nut": "metal nut", "cable": "wire"},
    "text_model": "ViT-B-32",
    "text_pretrained": "another_tag",
    "prompts": replace(FEW, templates=(*FEW.templates, "one more {s}.")),
}


def test_published_features_are_kept_across_runs(encoded: list[tuple[object, ...]]) -> None:
    first, again = obtain(**PUBLISHED), obtain(**PUBLISHED)  # type: ignore[arg-type]
    assert len(encoded) == 1
    assert torch.equal(first.normal, again.normal)
    assert torch.equal(first.abnormal, again.abnormal)
    assert (again.words, again.text_model, again.prompts_sha256) == (WORDS, "ViT-B-16", FEW.digest())


@pytest.mark.parametrize("name", OTHER)
def test_whatever_the_features_depend_on_is_in_their_key(name: str, encoded: list[tuple[object, ...]]) -> None:
    obtain(**PUBLISHED)  # type: ignore[arg-type]
    changed = obtain(**PUBLISHED | {name: OTHER[name]})  # type: ignore[arg-type]
    assert len(encoded) == 2
    assert torch.equal(changed.normal, obtain(**PUBLISHED | {name: OTHER[name]}).normal)  # type: ignore[arg-type]
    assert len(encoded) == 2


def test_the_keys_inputs_are_all_there_are() -> None:
    """A new argument has to be in the key, or here: where the tower runs, and the seed of one that is never kept."""
    assert set(inspect.signature(obtain_text_features).parameters) == {*OTHER, "device", "seed"}


def test_the_order_of_classes_is_that_of_the_rows(encoded: list[tuple[object, ...]]) -> None:
    obtain(**PUBLISHED)  # type: ignore[arg-type]
    swapped = obtain(**PUBLISHED | {"words": dict(reversed(WORDS.items()))})  # type: ignore[arg-type]
    assert list(swapped.words) == ["cable", "metal_nut"]
    assert len(encoded) == 2


def test_a_damaged_file_is_made_anew(encoded: list[tuple[object, ...]], tmp_path: Path) -> None:
    obtain(**PUBLISHED)  # type: ignore[arg-type]
    (kept,) = (tmp_path / "cache" / "text").iterdir()
    kept.write_bytes(kept.read_bytes()[:50])
    for _ in range(2):
        obtain(**PUBLISHED)  # type: ignore[arg-type]
    assert len(encoded) == 2


def test_a_cache_that_cannot_be_written_is_no_error(
    encoded: list[tuple[object, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TABZOO_CACHE", str(tmp_path / "file"))
    assert obtain(**PUBLISHED).words == WORDS  # type: ignore[arg-type]
    assert "can't be cached" in caplog.text


def test_untrained_features_and_those_of_a_file_are_not_kept(encoded: list[tuple[object, ...]], tmp_path: Path) -> None:
    (tmp_path / "clip.pt").write_bytes(b"a checkpoint, whose name says nothing of its content")
    for pretrained in ("untrained", str(tmp_path / "clip.pt")):
        for _ in range(2):
            obtain(**PUBLISHED | {"text_pretrained": pretrained})  # type: ignore[arg-type]
    assert len(encoded) == 4
    assert not (tmp_path / "cache" / "text").exists()
