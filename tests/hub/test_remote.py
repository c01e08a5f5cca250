"""Fetching from a Hub that works, from one that fails, and from one that is hostile."""

import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from server import Fault, HubServer
from small import contents

import tabzoo
from tabzoo.errors import WeightsError
from tabzoo.hub import remote
from tabzoo.hub.files import Digest
from tabzoo.hub.remote import NoSuchFileError, Repository, local_copy
from tabzoo.hub.table import Weights

CONTENT = bytes(range(256)) * 64
ORG = "org/name"
FILES = ["model.safetensors", "pytorch_model.bin"]


@pytest.fixture
def expected(tmp_path: Path) -> Digest:
    (tmp_path / "content").write_bytes(CONTENT)
    return Digest.of(tmp_path / "content")


@pytest.fixture
def repository(hub: HubServer) -> Repository:
    return Repository(ORG, hub.commit(ORG, {"model.safetensors": CONTENT, "pytorch_model.bin": b"\x80pickle"}))


def test_cold_then_warm(hub: HubServer, repository: Repository, expected: Digest) -> None:
    path = repository.fetch_weights(expected)
    assert path.read_bytes() == CONTENT
    asked = len(hub.requests)
    assert repository.fetch_weights(expected) == path
    assert len(hub.requests) == asked  # pinned and cached: no request at all
    assert hub.count("pytorch_model.bin") == 0


def test_offline_serves_what_is_cached_and_says_what_is_not(
    hub: HubServer, repository: Repository, expected: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(WeightsError, match=r"HF_HUB_OFFLINE is set.*holds no copy(.|\n)*tabzoo download"):
            repository.fetch_weights(expected)
        assert hub.requests == []
    path = repository.fetch_weights(expected)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert repository.fetch_weights(expected) == path


def test_a_branch_is_looked_up_anew_and_served_from_the_cache_without_a_hub(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in (b"first", b"second"):
        hub.commit(ORG, {"tabzoo.json": text})
        assert Repository(ORG, "main").fetch("tabzoo.json").read_bytes() == text
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert Repository(ORG, "main").fetch("tabzoo.json").read_bytes() == b"second"


def test_a_cache_folder_of_ones_own(hub: HubServer, repository: Repository, expected: Digest, tmp_path: Path) -> None:
    own = Repository(repository.id, repository.revision, tmp_path / "own")
    assert own.fetch_weights(expected).is_relative_to(tmp_path / "own")
    assert not Path(constants.HF_HUB_CACHE).exists()


REFUSALS = {
    "repository missing": (Fault("HEAD /org", 401, "RepoNotFound"), r"has no such repository, or it is private"),
    "repository private": (Fault("HEAD /org", 404, "RepoNotFound"), r"hf auth login"),
    "wrong commit": (Fault("HEAD /org", 404, "RevisionNotFound"), r"no such revision. Check the part after the @"),
    "no weight file": (
        Fault("HEAD /org", 404, "EntryNotFound"),
        r"no such file at this revision(.|\n)*loads no pickles",
    ),
    "gated": (Fault("HEAD /org", 403, "GatedRepo"), r"is gated. Request access on http://127\S+/org/name"),
    "forbidden": (Fault("HEAD /org", 403), r"answers .*403.*Try again later"),
    # Some releases of huggingface_hub retry until the timeout.
    "server error": (Fault("HEAD /org", 500), r"answers .*500.*Try again later, or use a mirror|no answer within"),
    "too many requests": (Fault("HEAD /org", 429), r"answers .*429"),
    "no Hub": (Fault("HEAD /org", 200), r"is not a Hub \(perhaps a proxy or a login page\). Check HF_ENDPOINT"),
    "files refused": (Fault("GET /blobs", 403), r"answers .*403"),
    "files broken": (Fault("GET /blobs", 500), r"(answers|was not downloaded completely:) .*500"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_name_repository_file_cause_and_way_out(
    case: str, hub: HubServer, repository: Repository, expected: Digest
) -> None:
    fault, message = REFUSALS[case]
    hub.faults = [fault]
    with pytest.raises(WeightsError, match=message) as caught:
        repository.fetch_weights(expected)
    assert re.match(rf"{ORG}@{repository.revision}: model\.safetensors", str(caught.value))
    assert hub.count(".bin") == 0


@pytest.fixture
def silent(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The timeout is short, and faults end their silence at the end of a test."""
    monkeypatch.setattr(remote, "TIMEOUT_SECONDS", 0.3)
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize(
    ("where", "message"), [("HEAD /org", "does not answer"), ("HEAD /blobs", "its storage for large files does not")]
)
def test_silence_is_detected_by_one_request(
    where: str, message: str, hub: HubServer, repository: Repository, expected: Digest, silent: threading.Event
) -> None:
    hub.faults = [Fault(where, silence=silent)]
    with pytest.raises(WeightsError, match=rf"{message}(.|\n)*HF_ENDPOINT(.|\n)*tabzoo install NAME DIR"):
        repository.fetch_weights(expected)
    assert hub.count(where) == 1


def test_nobody_there(repository: Repository, expected: Digest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nothing listens
    with pytest.raises(WeightsError, match=r"127\.0\.0\.1:9 does not answer .*holds no copy"):
        repository.fetch_weights(expected)


def test_a_name_that_takes_forever_to_look_up(
    repository: Repository, expected: Digest, monkeypatch: pytest.MonkeyPatch, silent: threading.Event
) -> None:
    # No time-out of an HTTP library covers the look-up.
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: silent.wait())
    with pytest.raises(WeightsError, match=r"does not answer \(no answer within 0.3 s\)"):
        repository.fetch_weights(expected)


def _flip(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def test_a_bad_copy_is_removed_and_fetched_once_more(hub: HubServer, repository: Repository, expected: Digest) -> None:
    hub.faults = [Fault("GET /blobs", body=_flip, times=1)]  # in transit
    path = repository.fetch_weights(expected)
    assert path.read_bytes() == CONTENT
    assert hub.count("GET /blobs") == 2
    blob = path.resolve()
    blob.write_bytes(_flip(CONTENT))  # on the disk
    assert repository.fetch_weights(expected).read_bytes() == CONTENT
    assert hub.count("GET /blobs") == 3


def test_wrong_bytes_of_the_right_size_are_refused(hub: HubServer, repository: Repository, expected: Digest) -> None:
    hub.faults = [Fault("GET /blobs", body=_flip)]
    with pytest.raises(WeightsError, match=r"was downloaded twice with a wrong checksum .* and was removed"):
        repository.fetch_weights(expected)
    assert hub.count("GET /blobs") == 2
    assert not [
        path for path in Path(constants.HF_HUB_CACHE).rglob("*") if path.is_file() and path.stat().st_size > 1000
    ]


def test_a_file_that_is_announced_as_another_is_not_downloaded(hub: HubServer, expected: Digest) -> None:
    for content, message in (
        (_flip(CONTENT), "announces model.safetensors with the SHA-256"),
        (CONTENT * 2, "announces model.safetensors with 32,768 bytes, expected"),
    ):
        commit = hub.commit(ORG, {"model.safetensors": content})
        with pytest.raises(WeightsError, match=message):
            Repository(ORG, commit).fetch_weights(expected)
    assert hub.count("GET") == 0


@pytest.mark.parametrize("body", [b"<!DOCTYPE html>sign in", b"version https://git-lfs.github.com/spec/v1\n"])
def test_another_page_in_place_of_the_file(
    body: bytes, hub: HubServer, repository: Repository, expected: Digest
) -> None:
    hub.faults = [Fault("GET /blobs", body=lambda _: body)]
    with pytest.raises(WeightsError, match=r"model\.safetensors was not downloaded completely"):
        repository.fetch_weights(expected)


def test_an_interrupted_download_continues(hub: HubServer, repository: Repository, expected: Digest) -> None:
    hub.faults = [Fault("GET /blobs", cut=1000, times=1)]
    with suppress(WeightsError):  # older releases of huggingface_hub continue only in the next call
        repository.fetch_weights(expected)
    path = repository.fetch_weights(expected)
    assert path.read_bytes() == CONTENT


def test_many_at_once_into_one_cache(hub: HubServer, repository: Repository, expected: Digest) -> None:
    with ThreadPoolExecutor(6) as pool:
        paths = {future.result() for future in [pool.submit(repository.fetch_weights, expected) for _ in range(6)]}
    assert [path.read_bytes() for path in paths] == [CONTENT]


def test_another_commit_than_the_pinned_one_is_refused(
    hub: HubServer, repository: Repository, expected: Digest
) -> None:
    other = hub.commit(ORG, {"model.safetensors": CONTENT, "more": b""})
    hub.repositories[ORG].refs[repository.revision] = other
    with pytest.raises(WeightsError, match=f"answers with another commit, {other}"):
        repository.fetch_weights(expected)


def test_a_full_disk_is_named(
    hub: HubServer, repository: Repository, expected: Digest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28), str(tmp_path))

    monkeypatch.setattr(remote, "hf_hub_download", full)
    with pytest.raises(WeightsError, match="was not downloaded completely: .*No space left on device"):
        repository.fetch_weights(expected)


def test_a_hostile_repository(hub: HubServer, small_folder: Path) -> None:
    good = contents(small_folder)

    def changed(name: str, old: str, new: str) -> dict[str, bytes]:
        assert old.encode() in good[name]
        return {**good, name: good[name].replace(old.encode(), new.encode())}

    pickle = b"\x80\x04cos\nsystem\n"
    hostile = (
        ({}, "the repository has no such file"),  # only a pickle
        (
            changed("tabzoo.json", '"model.safetensors"', '"../../../etc/passwd"'),
            'expected "weights": {"file": "model.saf',
        ),
        (
            changed("config.json", "test_resnet", "vit_giant_patch14_224"),
            "but the architecture in config.json is vit_giant_patch14_224",
        ),
        (changed("config.json", "test_resnet", "os.system"), "has no architecture 'os.system'"),
        (
            changed("config.json", '"num_classes": 0', '"model_args": {"width": 9}'),
            "accepts no arguments for the model's code",
        ),
        (changed("config.json", '"num_classes": 0', '"num_classes": 1000000000'), "without a classifier"),
        (changed("config.json", "224,", "22400000000,"), "input_size: .* is out of range"),
        ({**good, "tabzoo.json": b"[" * 900_000}, "not JSON"),
        (
            {**good, "tabzoo.json": b" " * 2_000_000},
            "the Hub announces tabzoo.json with 2,000,000 bytes, expected at most",
        ),
        (
            {**good, "model.safetensors": _flip(good["model.safetensors"])},
            "announces model.safetensors with the SHA-256",
        ),
        ({**good, "model.safetensors": pickle}, "announces model.safetensors with 13 bytes"),
    )
    for number, (files, message) in enumerate(hostile):
        repository = f"evil/r{number}"
        commit = hub.commit(repository, {**files, "../../escaped.txt": b"x", "pytorch_model.bin": pickle})
        with pytest.raises(WeightsError, match=message) as caught:
            tabzoo.create_model(f"hf-hub:{repository}@{commit}")
        assert repository in str(caught.value).replace("--", "/")
    assert hub.count(".bin") == hub.count("escaped") == 0


def test_a_file_announced_with_100_gb_is_not_downloaded(
    hub: HubServer, small_folder: Path, publish: Callable[..., Weights]
) -> None:
    weights = publish(small_folder)
    hub.faults = [Fault("HEAD /tabzoo-tests", replaced={"X-Linked-Size": str(100 * 10**9)})]
    with pytest.raises(
        WeightsError, match=r"not downloaded: the Hub announces \S+ with 100,000,000,000 bytes, expected [\d,]+$"
    ):
        tabzoo.create_model(weights.name)
    assert hub.count("GET") == 0


def test_a_mirror(
    hub: HubServer, small_folder: Path, publish: Callable[..., Weights], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = publish(small_folder)
    with HubServer().running() as mirror:
        mirror.repositories = hub.repositories
        monkeypatch.setenv("HF_ENDPOINT", f"{mirror.endpoint}/")
        model = tabzoo.create_model(weights.name)
        assert mirror.count("GET /blobs") == 1
    assert hub.requests == []
    assert isinstance(model, torch.nn.Module)


def test_no_such_file_is_an_error_of_its_own(hub: HubServer, repository: Repository) -> None:
    with pytest.raises(NoSuchFileError):
        repository.fetch("README.md")


# --- the cached copy for a library, if the Hub does not answer


def test_a_hub_that_answers_leaves_fetching_to_the_library(hub: HubServer) -> None:
    assert local_copy("org/name", FILES) is None  # it answers 404, and any answer is enough
    assert len(hub.requests) == 1


def test_a_hub_that_is_silent_is_asked_once(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "TIMEOUT_SECONDS", 0.3)
    silence = threading.Event()
    hub.faults = [Fault("HEAD", silence=silence)]
    with pytest.raises(WeightsError, match=r"does not answer \((no answer within 0\.3 s|.*timed? ?out.*)"):
        local_copy("org/name", FILES)
    silence.set()
    assert len(hub.requests) == 1


def test_nothing_there_and_nothing_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nothing listens
    with pytest.raises(
        WeightsError, match=r"127\.0\.0\.1:9 does not answer .* no copy of org/name \(model\.safetensors or pytorch"
    ):
        local_copy("org/name", FILES)


def test_offline_mode_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        local_copy("org/name", FILES)


def test_a_cached_copy_serves_without_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    commit = "a" * 40
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / commit
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    snapshot.mkdir(parents=True)
    for file in reversed(FILES):  # at the end both exist, and the preferred one is taken
        (snapshot / file).write_bytes(b"weights")
        assert local_copy("org/name", FILES) == snapshot / file
